"""Read speaker segments from RTTM files, for the pipeline's `segments` parameter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Other line types of RTTM (NIST, Rich Transcription 2009 evaluation plan, appendix A); they hold no segments.
OTHER_TYPES = {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU"}
OTHER_TYPES |= {"CB", "A/P", "SPKR-INFO", "SPKR_INFO"}


def read_rttm(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Read the speaker segments of an RTTM file.

    A line is `SPEAKER recording channel start duration <NA> <NA> speaker ...`; `%20` in the recording is a blank.

    Args:
        path: of the file.

    Returns:
        For each recording, its segments `{"start", "end", "speaker"}`, times in seconds, in the order of the file.

    Raises:
        ValueError: where the file cannot be read or has no segments, or naming the line that is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not text, or a null byte in the path
        raise ValueError(f"{path}: expected an RTTM file, got {type(error).__name__}: {error}.") from error
    segments: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in OTHER_TYPES:
            continue
        where = f"{path}, line {number}"
        if fields[0] != "SPEAKER" or len(fields) < 8:
            raise ValueError(
                f"{where}: expected `SPEAKER recording channel start duration <NA> <NA> speaker`, got {line[:80]!r}."
            )
        try:
            start, duration = float(fields[3]), float(fields[4])
        except ValueError as error:
            raise ValueError(f"{where}: expected start and duration in seconds, got {fields[3:5]}.") from error
        if not (0 <= start < math.inf and 0 < duration < math.inf):
            raise ValueError(f"{where}: expected a start of at least 0 s and a positive duration, got {fields[3:5]}.")
        segment = {"start": start, "end": start + duration, "speaker": fields[7]}
        segments.setdefault(unquote(fields[1]), []).append(segment)
    if not segments:
        raise ValueError(f"{path}: expected an RTTM file with speaker segments, got none.")
    return segments
