"""Rows of the output formats JSON, CSV, RTTM and table: written, and read again to continue a file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from audio_emotion_cli import printable

DIGITS = 6  # of written numbers: float32 has about seven


@dataclass(frozen=True)
class Row:
    """The row of a clip, or of one of its windows, in a file.

    Attributes:
        clip: name of the clip.
        failed: whether the row holds an error instead of a prediction.
        spans: `{"dimensions", "emotions"}` of each window, as far as the format holds them.
        start: offset of the row in the file, in bytes.
        stop: offset of its end.
    """

    clip: str
    failed: bool
    spans: list[dict[str, Any]]
    start: int
    stop: int


class RowWriter:
    """Writes predictions in one format, and reads its own rows.

    Args:
        kind: `"json"`, `"csv"`, `"rttm"` or `"table"`.
        dimensions: names of the model's dimensions.
        emotions: names of its categories.
        windowed: whether predictions have windows; in all formats but JSON each has its own row.
    """

    def __init__(self, kind: str, dimensions: list[str], emotions: list[str], windowed: bool) -> None:
        self.kind = kind
        self.dimensions = dimensions
        self.emotions = emotions
        self.several_rows = windowed and kind != "json"
        self.columns = ["input", "start", "end", "flags", *dimensions, "emotion", "score", *emotions, "error"]

    def header(self) -> str:
        """The lines before the first row."""
        if self.kind == "csv":
            return _csv_line(self.columns)
        if self.kind == "table":
            names = "".join(f"{name:>11}" for name in self.dimensions)
            return f"{'seconds':>15}{names}  {'emotion':<12}{'score':>6}  {'flags':<10}  clip\n"
        return ""

    def lines(self, clip: str, prediction: dict[str, Any]) -> str:
        """The rows of a clip."""
        return getattr(self, f"_{self.kind}")(clip, prediction)

    def _json(self, clip: str, prediction: dict[str, Any]) -> str:
        kept = {"error": prediction["error"]} if "error" in prediction else rounded(prediction)
        return json.dumps({"input": clip, **kept}) + "\n"

    def _csv(self, clip: str, prediction: dict[str, Any]) -> str:
        if "error" in prediction:
            blank = [""] * (len(self.columns) - 2)
            return _csv_line([clip, *blank, prediction["error"]])
        lines = []
        for span in rounded(prediction_spans(prediction)):
            dimensions = [span.get("dimensions", {}).get(name, "") for name in self.dimensions]
            scores = {each["label"]: each["score"] for each in span.get("emotions", [])}
            first = next(iter(scores.items()), ("", ""))
            flags = " ".join(span.get("flags", prediction["flags"]))
            cells = [clip, span["start"], span["end"], flags, *dimensions, *first]
            lines.append(_csv_line([*cells, *(scores.get(label, "") for label in self.emotions), ""]))
        return "".join(lines)

    def _rttm(self, clip: str, prediction: dict[str, Any]) -> str:
        # Spaces separate the fields of RTTM: they are percent-encoded, as are control characters. `;;` is a comment.
        file = re.sub(r"[\s%\x00-\x1f\x7f-\x9f]", lambda found: quote(found[0]), clip)
        if "error" in prediction:
            return f";; {file} {printable(' '.join(prediction['error'].split()))}\n"
        lines = []
        for span in prediction_spans(prediction):
            first = span["emotions"][0]
            label, length = printable(first["label"]).replace(" ", "_"), span["end"] - span["start"]
            lines.append(
                f"SPEAKER {file} 1 {span['start']:.3f} {length:.3f} <NA> <NA> {label} {first['score']:.4f} <NA>\n"
            )
        return "".join(lines)

    def _table(self, clip: str, prediction: dict[str, Any]) -> str:
        width, name = 15 + 11 * len(self.dimensions), printable(clip)
        if "error" in prediction:
            return f"{'error':>{width}}  {printable(prediction['error'])}\n"
        lines = []
        for span in prediction_spans(prediction):
            first = next(iter(span.get("emotions", [])), {"label": "", "score": float("nan")})
            values = "".join(f"{value:>11.2f}" for value in span.get("dimensions", {}).values())
            seconds = f"{span['start']:.2f} to {span['end']:.2f}"
            flags = ",".join(span.get("flags", prediction["flags"]))
            label = printable(first["label"])
            lines.append(f"{seconds:>15}{values}  {label:<12}{first['score']:>6.2f}  {flags:<10}  {name}\n")
        return "".join(lines)

    def read(self, file: BinaryIO) -> Iterator[Row]:
        """Yield the complete rows of a file in order; an incomplete last one is left out."""
        for start, line in _complete_lines(file, quoted=self.kind == "csv"):
            stop = start + len(line)
            text = line.decode(errors="surrogateescape")
            if self.kind == "json":
                row = json.loads(text)
                spans = [] if "error" in row else prediction_spans(row)
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
        """The dimensions and emotions of a CSV row."""
        if row["error"]:
            return []
        dimensions = {name: float(row[name]) for name in self.dimensions if row[name]}
        emotions = [{"label": label, "score": float(row[label])} for label in self.emotions if row[label]]
        return [{"dimensions": dimensions, "emotions": emotions}]


def prediction_spans(prediction: dict[str, Any]) -> list[dict[str, Any]]:
    """The windows of a prediction, or the whole clip as one."""
    if "windows" in prediction:
        return prediction["windows"]
    return [{"start": 0.0, "end": prediction["duration"], **prediction}]


def rounded(value: Any) -> Any:
    """The same nested value with rounded floats."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def continue_file(
    path: Path, writer: RowWriter, clips: Iterator[str], on_row: Callable[[Row], None]
) -> tuple[Iterator[str], int]:
    """Compare the rows of an interrupted run with its clips, and cut off an incomplete end.

    Rows are in the order of the clips, so memory does not grow with their number.

    Args:
        path: of the file.
        writer: of its format.
        clips: all clips, in the order of the interrupted run.
        on_row: called with every row that is kept.

    Returns:
        The clips that are left, and the number of clips that are done.

    Raises:
        ValueError: if a row and its clip differ, or there are more rows than clips.
    """
    done, stop = 0, 0
    pending: list[Row] = []
    first: Iterator[str] = iter(())

    def check(rows: list[Row]) -> None:
        nonlocal done
        expected = next(clips, None)
        if rows[0].clip != expected:
            raise ValueError(
                f"{path}: expected the row of {expected!r} after {done} clips, got that of {rows[0].clip!r}. The "
                "input files have changed since it was started: remove it, or use another --output."
            )
        done += 1

    with path.open("rb") as file:
        for _, group in (
            groupby(writer.read(file), key=lambda row: row.clip)
            if writer.several_rows
            else ((row.clip, [row]) for row in writer.read(file))
        ):
            if pending:
                check(pending)
                for row in pending:
                    on_row(row)
            pending = list(group)
            stop = pending[0].start if writer.several_rows else pending[-1].stop
    if pending:
        check(pending)
        if writer.several_rows:  # the last clip may lack windows: predict it again
            done -= 1
            first = iter([pending[0].clip])
        else:
            on_row(pending[0])
    os.truncate(path, stop)
    return chain(first, clips), done


def _complete_lines(file: BinaryIO, quoted: bool) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of each complete line; in CSV, a line break inside quotes does not end it."""
    start, line = 0, b""
    for part in file:
        line += part
        if line.endswith(b"\n") and not (quoted and line.count(b'"') % 2):
            yield start, line
            start, line = start + len(line), b""


def _csv_line(cells: Iterable[Any]) -> str:
    """One line of RFC 4180 that ends in a line feed."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
