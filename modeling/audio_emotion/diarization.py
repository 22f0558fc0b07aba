"""Read speaker segments from RTTM files, for the pipeline's `segments` parameter."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Other line types of RTTM (NIST, Rich Transcription 2009 evaluation plan, appendix A); they hold no segments.
OTHER_TYPES = {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU"}
OTHER_TYPES |= {"CB", "A/P", "SPKR-INFO", "SPKR_INFO"}


def read_rttm(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Read the speaker segments of an RTTM file.

    A line is `SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>`, where the last two fields may be
    absent; `%20` in the recording is a blank.

    Args:
        path: of the file.

    Returns:
        For each recording, its segments `{"start", "end", "speaker"}`, times in seconds, in the order of the file.
        Where the recording has segments in a channel above 1, each has its `"channel"`, counted from 1; systems that
        mix the channels write 1 as well.

    Raises:
        ValueError: where the file cannot be read or has no segments, or naming the line that is wrong.
    """
    try:
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():  # reading it may never end
            raise OSError("it is a pipe or a device; save its content to a file")
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not text, or a null byte in the path
        raise ValueError(f"{path}: expected an RTTM file, got {type(error).__name__}: {error}.") from error
    segments: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in OTHER_TYPES:
            continue
        where = f"{path}, line {number}"
        if not _is_segment(fields):
            raise ValueError(
                f"{where}: expected `SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>`, got "
                f"{line[:80]!r}. Write `%20` for a blank in the recording's name, and `_` in the speaker's."
            )
        try:
            start, duration = float(fields[3]), float(fields[4])
        except ValueError as error:
            raise ValueError(f"{where}: expected start and duration in seconds, got {fields[3:5]}.") from error
        if not 0 <= start < start + duration < math.inf:
            raise ValueError(f"{where}: expected a start of at least 0 s and a positive duration, got {fields[3:5]}.")
        segment = {"start": start, "end": start + duration, "speaker": fields[7], "channel": int(fields[2])}
        segments.setdefault(unicodedata.normalize("NFC", unquote(fields[1])), []).append(segment)
    if not segments:
        raise ValueError(f"{path}: expected an RTTM file with speaker segments, got none.")
    for recording, rows in segments.items():
        channels = sorted({row["channel"] for row in rows})
        if len(channels) > 1 and channels[0] == 0:
            raise ValueError(f"{path}: expected channels from 1 on in {recording!r}, got {channels}.")
        if channels[-1] <= 1:
            for row in rows:
                del row["channel"]
    return segments


def _is_segment(fields: list[str]) -> bool:
    """Whether the fields of a line are those of a segment, and none has moved because of a blank in a name."""
    if fields[0] != "SPEAKER" or not 8 <= len(fields) <= 10 or not fields[2].isdecimal() or fields[7] == "<NA>":
        return False
    return not any(map(_is_number, fields[5:7])) and all(each == "<NA>" or _is_number(each) for each in fields[8:])


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
