"""Answers as lines of a file, in JSON, CSV, RTTM or a table, and back from a file that a killed run has left."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

DIGITS = 6  # of what is written: float32 has about seven


@dataclass(frozen=True)
class Row:
    """One clip or one window of it, as it stands in a file.

    Attributes:
        clip: its name.
        failed: whether it has an error in place of an answer.
        spans: `{"dimensions", "emotions"}` as far as the format keeps them, one of each window.
        start: offset of the row in the file, in bytes.
        stop: offset after it.
    """

    clip: str
    failed: bool
    spans: list[dict[str, Any]]
    start: int
    stop: int


class RowWriter:
    """One format: writes answers and reads its own rows.

    Args:
        kind: `"json"`, `"csv"`, `"rttm"` or `"table"`.
        dimensions: names that the model gives.
        emotions: its categories.
        windowed: whether answers hold windows, each of which has a row of its own (but in JSON).
    """

    def __init__(self, kind: str, dimensions: list[str], emotions: list[str], windowed: bool) -> None:
        self.kind = kind
        self.dimensions = dimensions
        self.emotions = emotions
        self.several_rows = windowed and kind != "json"
        self.columns = ["input", "start", "end", "flags", *dimensions, "emotion", "score", *emotions, "error"]

    def header(self) -> str:
        """What stands above the first row."""
        if self.kind == "csv":
            return _csv_line(self.columns)
        if self.kind == "table":
            names = "".join(f"{name:>11}" for name in self.dimensions)
            return f"{'seconds':>15}{names}  {'emotion':<12}{'score':>6}  {'flags':<10}  clip\n"
        return ""

    def lines(self, clip: str, answer: dict[str, Any]) -> str:
        """The rows of one clip."""
        return getattr(self, f"_{self.kind}")(clip, answer)

    def _json(self, clip: str, answer: dict[str, Any]) -> str:
        kept = {"error": answer["error"]} if "error" in answer else rounded(answer)
        return json.dumps({"input": clip, **kept}) + "\n"

    def _csv(self, clip: str, answer: dict[str, Any]) -> str:
        if "error" in answer:
            blank = [""] * (len(self.columns) - 2)
            return _csv_line([clip, *blank, answer["error"]])
        lines = []
        for span in rounded(spans_of(answer)):
            dimensions = [span.get("dimensions", {}).get(name, "") for name in self.dimensions]
            scores = {each["label"]: each["score"] for each in span.get("emotions", [])}
            first = next(iter(scores.items()), ("", ""))
            flags = " ".join(span.get("flags", answer["flags"]))
            cells = [clip, span["start"], span["end"], flags, *dimensions, *first]
            lines.append(_csv_line([*cells, *(scores.get(label, "") for label in self.emotions), ""]))
        return "".join(lines)

    def _rttm(self, clip: str, answer: dict[str, Any]) -> str:
        # Fields of RTTM are parted by blanks, so a blank in a name is written as in a URL. `;;` opens a comment.
        file = re.sub(r"[\s%]", lambda found: quote(found[0]), clip)
        if "error" in answer:
            return f";; {file} {' '.join(answer['error'].encode(errors='backslashreplace').decode().split())}\n"
        lines = []
        for span in spans_of(answer):
            first = span["emotions"][0]
            label, length = first["label"].replace(" ", "_"), span["end"] - span["start"]
            lines.append(
                f"SPEAKER {file} 1 {span['start']:.3f} {length:.3f} <NA> <NA> {label} {first['score']:.4f} <NA>\n"
            )
        return "".join(lines)

    def _table(self, clip: str, answer: dict[str, Any]) -> str:
        width, name = 15 + 11 * len(self.dimensions), name_of_one_line(clip)
        if "error" in answer:
            return f"{'error':>{width}}  {answer['error']}\n"
        lines = []
        for span in spans_of(answer):
            first = next(iter(span.get("emotions", [])), {"label": "", "score": float("nan")})
            values = "".join(f"{value:>11.2f}" for value in span.get("dimensions", {}).values())
            seconds = f"{span['start']:.2f} to {span['end']:.2f}"
            flags = ",".join(span.get("flags", answer["flags"]))
            lines.append(f"{seconds:>15}{values}  {first['label']:<12}{first['score']:>6.2f}  {flags:<10}  {name}\n")
        return "".join(lines)

    def read(self, file: BinaryIO) -> Iterator[Row]:
        """Complete rows of a file, in its order; a torn last one is left out."""
        for start, line in _complete_lines(file, quoted=self.kind == "csv"):
            stop = start + len(line)
            text = line.decode(errors="surrogateescape")
            if self.kind == "json":
                row = json.loads(text)
                spans = [] if "error" in row else spans_of(row)
                yield Row(row["input"], "error" in row, spans, start, stop)
            elif self.kind == "csv":
                (cells,) = csv.reader(io.StringIO(text, newline=""))
                if start == 0 and cells == self.columns:
                    continue
                row = dict(zip(self.columns, cells, strict=True))
                yield Row(row["input"], bool(row["error"]), self._spans_of_cells(row), start, stop)
            else:
                file_name = unquote(text.split(" ")[1], errors="surrogateescape")
                yield Row(file_name, text.startswith(";;"), [], start, stop)

    def _spans_of_cells(self, row: dict[str, str]) -> list[dict[str, Any]]:
        """The answer of a CSV row, as far as a picture needs it."""
        if row["error"]:
            return []
        dimensions = {name: float(row[name]) for name in self.dimensions if row[name]}
        emotions = [{"label": label, "score": float(row[label])} for label in self.emotions if row[label]]
        return [{"dimensions": dimensions, "emotions": emotions}]


def spans_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The windows of an answer, or the whole clip as one."""
    if "windows" in answer:
        return answer["windows"]
    return [{"start": 0.0, "end": answer["duration"], **answer}]


def rounded(value: Any) -> Any:
    """The same nested value with floats as they are written."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def continue_file(path: Path, writer: RowWriter, clips: Iterator[str], each: Any) -> tuple[Iterator[str], int]:
    """Go through what a run has written beside the clips it was to judge, and cut off what it left unfinished.

    Rows follow the order of the clips, so nothing has to be kept but the place; every row is compared with its clip,
    because a folder may have changed meanwhile.

    Args:
        path: of the file.
        writer: of its format.
        clips: all of them, in the order of the first run.
        each: called with every row that stays.

    Returns:
        the clips that are left, and how many are done.

    Raises:
        ValueError: where a row and a clip differ, or rows are left when the clips have ended.
    """
    done, stop = 0, 0
    held: list[Row] = []
    first: Iterator[str] = iter(())

    def check(rows: list[Row]) -> None:
        nonlocal done
        expected = next(clips, None)
        if rows[0].clip != expected:
            raise ValueError(
                f"{path}: expected the row of {expected!r} after {done} clips, got that of {rows[0].clip!r}. The "
                "files have changed since it was begun: remove it, or name another --output."
            )
        done += 1

    with path.open("rb") as file:
        for _, group in (
            groupby(writer.read(file), key=lambda row: row.clip)
            if writer.several_rows
            else ((row.clip, [row]) for row in writer.read(file))
        ):
            if held:
                check(held)
                for row in held:
                    each(row)
            held = list(group)
            stop = held[0].start if writer.several_rows else held[-1].stop
    if held:
        check(held)
        if writer.several_rows:  # the last clip may lack windows: once more
            done -= 1
            first = iter([held[0].clip])
        else:
            each(held[0])
    os.truncate(path, stop)
    return chain(first, clips), done


def _complete_lines(file: BinaryIO, quoted: bool) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each line that ends; in CSV a line break inside quotes belongs to the line."""
    start, line = 0, b""
    for part in file:
        line += part
        if line.endswith(b"\n") and not (quoted and line.count(b'"') % 2):
            yield start, line
            start, line = start + len(line), b""


def _csv_line(cells: Iterable[Any]) -> str:
    """One line of RFC 4180, ended by a single line feed."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def name_of_one_line(name: str) -> str:
    """A name as a person may read it in a table."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", name.encode(errors="backslashreplace").decode())
