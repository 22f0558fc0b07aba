"""Who speaks when: turns from an RTTM file or a list, those of one clip, and what is said of turns and speakers."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .audio_input import SHORTEST, AudioClip

SLACK = 0.05  # seconds that a turn may reach beyond the clip: diarisers count in frames
DECIMALS = 6  # of a turn's seconds: 1.35 - 1.1 is less than 0.25 in floating point

# What else an RTTM file may hold, by its first field (NIST, Rich Transcription 2009 evaluation plan, appendix A).
NO_TURNS = {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU"}
NO_TURNS |= {"CB", "A/P", "SPKR-INFO", "SPKR_INFO"}


@dataclass(frozen=True)
class Turn:
    """One speaker, speaking from `start` to `end`, in seconds."""

    start: float
    end: float
    speaker: str


@dataclass(frozen=True)
class HeardTurn:
    """A turn as far as it lies in its clip.

    Args:
        turn: with its end cut to that of the clip.
        flags: those of a clip, `"overlap"` (somebody else speaks, too), `"truncated"` (it goes on after the clip).
        error: why it has no answer, or None.
    """

    turn: Turn
    flags: tuple[str, ...]
    error: str | None


class SpeakerTurns:
    """Turns by the file that they belong to; None is whatever clip comes.

    Args:
        turns: lists of turns, by file.
        source: how messages call it.
        several: whether they are for several clips, of which some may have none: diarisers write no line for a clip in
            which nobody speaks.
    """

    def __init__(self, turns: dict[str | None, list[Turn]], source: str, several: bool = False):
        self.turns = turns
        self.source = source
        self.several = several

    @classmethod
    def read(cls, given: Any, several_clips: bool = False) -> "SpeakerTurns":
        """Check what a user gave.

        Args:
            given: the path of an RTTM file, or a list of `{"start", "end", "speaker"}` in seconds.
            several_clips: whether it is for more than one clip. If so, the file field of RTTM tells them apart.

        Raises:
            ValueError: naming the line or the turn that is wrong.
        """
        if isinstance(given, (str, Path)):
            return cls(_turns_of_rttm(Path(given)), str(given)).for_clips(several_clips)
        if isinstance(given, (list, tuple)):
            turns = [_turn_of(each, number) for number, each in enumerate(given)]
            return cls({None: turns}, "`segments`").for_clips(several_clips)
        raise ValueError(
            f'`segments` must be the path of an RTTM file or a list of {{"start", "end", "speaker"}}, got '
            f"{type(given).__name__}."
        )

    def for_clips(self, several: bool) -> "SpeakerTurns":
        """These turns for one clip, which needs no name if they are all of one file, or for several."""
        if several and None in self.turns:
            raise ValueError(
                "A list of `segments` belongs to one clip, got several clips. Judge them one by one, or pass an RTTM "
                "file that names each clip in its second field."
            )
        if not several and len(self.turns) == 1:
            return SpeakerTurns({None: next(iter(self.turns.values()))}, self.source)
        return SpeakerTurns(self.turns, self.source, several)

    def of_clip(self, name: str) -> list[Turn]:
        """Turns of one clip, in the order given.

        Args:
            name: its path or id; the file field of RTTM may be this, the same without folders, or the latter without
                suffix.

        Raises:
            ValueError: where one clip alone has none, naming the files that there are.
        """
        path = Path(name)
        for key in (None, name, path.name, path.stem):
            if key in self.turns:
                return self.turns[key]
        if self.several:
            return []
        raise ValueError(
            f"{name}: expected turns of {path.stem!r} in {self.source}, got those of {self._files()}. Name the clip "
            "in the second field of RTTM, or judge it alone with a list."
        )

    def checked(self, answers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass on the answers to several clips, and make sure at their end that the turns are of these clips.

        Raises:
            ValueError: where clips were judged and none of them has turns, naming the files that have.
        """
        judged, found = 0, False
        for answer in answers:
            judged += "error" not in answer
            found |= bool(answer.get("segments"))
            yield answer
        if judged and not found:
            raise ValueError(
                f"{self.source}: expected turns of at least one of {judged} clips, got those of {self._files()}. Name "
                "each clip in the second field of RTTM."
            )

    def _files(self) -> str:
        """Some of the files that there are turns of."""
        return ", ".join(sorted(map(str, self.turns))[:5])


def heard_turns(turns: list[Turn], clip: AudioClip) -> tuple[HeardTurn, ...]:
    """Cut turns to their clip and say what is odd about each."""
    cut = [Turn(turn.start, min(turn.end, clip.duration), turn.speaker) for turn in turns]
    inside = [turn for turn in cut if turn.start < clip.duration]
    overlapped = iter(_overlapped(inside))
    heard = []
    for given, turn in zip(turns, cut, strict=True):
        if turn.start >= clip.duration:
            error = f"expected a turn inside the clip of {clip.duration:g} s, got one from {turn.start:g} s on"
            heard.append(HeardTurn(given, (), error))
            continue
        more = {"overlap": next(overlapped), "truncated": given.end > clip.duration + SLACK}
        if (length := round(turn.end - turn.start, DECIMALS)) < SHORTEST:
            heard.append(HeardTurn(turn, (), f"expected at least {SHORTEST} s of speech, got {length:g} s"))
        else:
            flags = *clip.flags_between(turn.start, turn.end), *(flag for flag, holds in more.items() if holds)
            heard.append(HeardTurn(turn, flags, None))
    return tuple(heard)


def segments_of(turns: tuple[HeardTurn, ...], judged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry for each turn, from what a model says of those that can be judged, in their order."""
    said = iter(judged)
    return [
        {
            **{"start": heard.turn.start, "end": heard.turn.end, "speaker": heard.turn.speaker},
            **({**next(said), "flags": list(heard.flags)} if heard.error is None else {"error": heard.error}),
        }
        for heard in turns
    ]


def speakers_of(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each speaker's mean over the seconds of his turns, in the order in which they first speak."""
    speakers = []
    for name in dict.fromkeys(segment["speaker"] for segment in segments):
        turns = [segment for segment in segments if segment["speaker"] == name]
        judged = [segment for segment in turns if "error" not in segment]
        if not judged:
            speakers.append({"speaker": name, "error": "none of the speaker's turns can be judged"})
            continue
        seconds = [segment["end"] - segment["start"] for segment in judged]
        shares = [each / sum(seconds) for each in seconds]
        entry: dict[str, Any] = {"speaker": name, "seconds": sum(seconds), "turns": len(judged)}
        if "dimensions" in judged[0]:
            entry["dimensions"] = {
                dimension: sum(s * each["dimensions"][dimension] for s, each in zip(shares, judged, strict=True))
                for dimension in judged[0]["dimensions"]
            }
        if "emotions" in judged[0]:
            scores = dict.fromkeys((each["label"] for each in judged[0]["emotions"]), 0.0)
            for share, segment in zip(shares, judged, strict=True):
                for each in segment["emotions"]:
                    scores[each["label"]] += share * each["score"]
            ranked = sorted(scores.items(), key=lambda item: -item[1])
            entry["emotions"] = [{"label": label, "score": score} for label, score in ranked]
        speakers.append(entry)
    return speakers


def _overlapped(turns: list[Turn]) -> list[bool]:
    """Whether somebody else speaks during each turn."""
    found = [False] * len(turns)
    speaking: list[int] = []
    for number in sorted(range(len(turns)), key=lambda index: turns[index].start):
        speaking = [other for other in speaking if turns[other].end > turns[number].start]
        for other in speaking:
            if turns[other].speaker != turns[number].speaker:
                found[number] = found[other] = True
        speaking.append(number)
    return found


def _turns_of_rttm(path: Path) -> dict[str | None, list[Turn]]:
    """Lines `SPEAKER file channel start length <NA> <NA> speaker ...` of a file, by their file field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: no text, or a null byte in the path
        raise ValueError(f"{path}: expected an RTTM file, got {type(error).__name__}: {error}.") from error
    turns: dict[str | None, list[Turn]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in NO_TURNS:
            continue
        where = f"{path}, line {number}"
        if fields[0] != "SPEAKER" or len(fields) < 8:
            raise ValueError(
                f"{where}: expected `SPEAKER file channel start length <NA> <NA> speaker`, got {line[:80]!r}."
            )
        try:
            start, length = float(fields[3]), float(fields[4])
        except ValueError as error:
            raise ValueError(f"{where}: expected start and length in seconds, got {fields[3:5]}.") from error
        if not (0 <= start < math.inf and 0 < length < math.inf):
            raise ValueError(f"{where}: expected a start of at least 0 s and a positive length, got {fields[3:5]}.")
        turns.setdefault(unquote(fields[1]), []).append(Turn(start, start + length, fields[7]))
    if not turns:
        raise ValueError(f"{path}: expected an RTTM file with turns of speakers, got none.")
    return turns


def _turn_of(given: Any, number: int) -> Turn:
    """One turn of a list."""
    expected = f'`segments[{number}]` must be {{"start": seconds, "end": seconds, "speaker": name}}'
    if not isinstance(given, Mapping) or not {"start", "end", "speaker"} <= set(given):
        raise ValueError(f"{expected}, got {given!r:.200}.")
    try:
        start, end = float(given["start"]), float(given["end"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}, got {given!r:.200}.") from error
    if not 0 <= start < end < math.inf:
        raise ValueError(f"{expected}, with 0 <= start < end, got {given!r:.200}.")
    return Turn(start, end, str(given["speaker"]))
