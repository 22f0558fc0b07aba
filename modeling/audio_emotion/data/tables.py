"""Tables of clips: every row of a CSV, TSV, JSON Lines or parquet file, or an error that names file, line and remedy.

Separator, quotes and encoding are found out where the content leaves one possibility only.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_emotion.data.shards import parquet_features, read_labels

SEPARATORS = (",", ";", "\t")
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SEPARATOR_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}

Rows = Iterator[tuple[str, dict[str, Any]]]  # place in the file, such as "line 3", and values by column


def read_table(file: str) -> tuple[list[str], Rows]:
    """Columns and rows of a table without audio; the fields of CSV and TSV files are texts.

    Args:
        file: path that ends in `.parquet`, `.jsonl`, `.tsv`, or in anything else for a CSV file.

    Raises:
        ValueError: for text that is not UTF-8 or UTF-16, for a row with more or fewer fields than the header, for
            quotes that can be read in two ways, and for lines that are not JSON objects.
    """
    if file.endswith(".parquet"):
        return list(parquet_features(file)), ((f"row {n}", row) for n, row in enumerate(read_labels(file), start=1))
    text = _read_text(file)
    return _json_lines(file, text) if file.endswith(".jsonl") else _separated_lines(file, text)


def _read_text(file: str) -> str:
    content = Path(file).read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        if encoding != "utf-16" and (zero := content.find(b"\0")) >= 0:  # UTF-16 without a byte order mark
            raise UnicodeDecodeError(encoding, content, zero, zero + 1, "null")
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: expected text in UTF-8, got the byte 0x{content[error.start]:02x} of another "
            "encoding. Save the table as UTF-8 (in Excel as `CSV UTF-8`), or convert it: `iconv -f cp1252 -t utf-8`."
        ) from error


def _json_lines(file: str, text: str) -> tuple[list[str], Rows]:
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{file}, line {number}: expected a JSON object, got {error}. Correct the line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}: expected a JSON object, got {line.strip()[:40]}. Correct it.")
        rows[f"line {number}"] = row
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    return columns, ((place, dict.fromkeys(columns) | row) for place, row in rows.items())


def _separated_lines(file: str, text: str) -> tuple[list[str], Rows]:
    lines = list(io.StringIO(text, newline=""))
    header = [line for line in lines if line.strip()][:1]
    default = "\t" if file.endswith(".tsv") else ","
    # of equal ones, the first: that of the suffix
    separator = max((default, *SEPARATORS), key=lambda each: len(next(csv.reader(header, delimiter=each), [])))
    fault = _find_fault(file, lines, separator, quoted=True)
    if fault and _find_fault(file, lines, separator, quoted=False):  # quotes may be characters like any other
        raise ValueError(
            f"{file}, {fault}. Fill the row up, and put fields that contain one of the {SEPARATOR_NAMES[separator]} "
            "in double quotes."
        )
    rows = _rows(lines, separator, quoted=not fault)
    columns = [name.strip() for name in next(rows, (1, 1, []))[2]]
    return columns, ((f"line {line}", dict(zip(columns, fields, strict=True))) for line, _, fields in rows)


def _find_fault(file: str, lines: list[str], separator: str, quoted: bool) -> str:
    """What is wrong with the first row that cannot be read; empty if there is none.

    Raises:
        ValueError: for quotes that join several lines into one row, each of which is a complete row too.
    """
    last, header = 0, None
    try:
        for line, last, fields in _rows(lines, separator, quoted):
            header = header or fields
            if len(fields) != len(header):
                return f"line {line}: expected {len(header)} fields, as in the header, got {len(fields)}"
            if last > line and all(each.count(separator) + 1 == len(header) for each in lines[line - 1 : last]):
                raise ValueError(
                    f"{file}, line {line}: expected one row per line, got a double quote that is closed in line "
                    f"{last}, which makes {last - line + 1} rows one. Remove it, or double it within a quoted field."
                )
    except csv.Error as error:
        return f"line {last + 1}: expected double quotes around whole fields, got {error}"
    return ""


def _rows(lines: list[str], separator: str, quoted: bool) -> Iterator[tuple[int, int, list[str]]]:
    """First line, last line and fields of every row that is not empty."""
    reader = csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    line = 1
    for fields in reader:
        if any(field.strip() for field in fields):
            yield line, reader.line_num, fields
        line = reader.line_num + 1
