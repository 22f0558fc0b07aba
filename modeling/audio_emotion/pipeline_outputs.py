"""Who speaks when: turns from an RTTM file or a list, those of one clip, and what is said of turns and speakers."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch

from .audio_io import SHORTEST, AudioClip

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
                "A list of `segments` belongs to one clip, got several clips. Pass them one by one, or pass an RTTM "
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


@dataclass(frozen=True)
class HeardWindow:
    """A window from `start` to `end`, in seconds, with the flags of this part of its clip."""

    start: float
    end: float
    flags: tuple[str, ...]


def heard_windows(clip: AudioClip, window: float, hop: float | None) -> tuple[HeardWindow, ...]:
    """The windows of a clip, see [`window_bounds`], none of which ends after it."""
    rate = clip.sampling_rate
    edges = [
        (first / rate, min(stop / rate, clip.duration))
        for first, stop in window_bounds(len(clip.waveform), window, hop, rate)
    ]
    return tuple(HeardWindow(start, end, clip.flags_between(start, end)) for start, end in edges)


def window_bounds(samples: int, window: float, hop: float | None, rate: int) -> list[tuple[int, int]]:
    """First sample of each window, and the one after its last.

    The last window ends with the clip and may be shorter, but never shorter than a clip may be: what is left over then
    stays unheard. A clip shorter than a window is one window.

    Args:
        samples: in the clip.
        window: its length, in seconds.
        hop: from one start to the next, in seconds; as long as a window if None.
        rate: samples per second.
    """
    length, step = round(window * rate), max(round((hop or window) * rate), 1)
    bounds = [(0, min(length, samples))]
    for start in range(step, samples, step):
        if bounds[-1][1] == samples or samples - start < SHORTEST * rate:
            break
        bounds.append((start, min(start + length, samples)))
    return bounds


def turn_bounds(turns: Sequence[HeardTurn], samples: int, rate: int) -> list[tuple[int, int]]:
    """First sample of each turn that can be judged, and the one after its last, in a clip of so many samples."""
    judged = [heard.turn for heard in turns if heard.error is None]
    return [(round(turn.start * rate), min(round(turn.end * rate), samples)) for turn in judged]


SHORTEST_HOP = 0.01  # seconds; below, an hour of speech would take days
PARAMETERS = {
    "on_error",
    "window",
    "hop",
    "segments",
    "return_frames",
    "top_k",
    "scale",
    "return_embedding",
    "return_uncertainty",
}


def validate_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, numbers of numpy as those of Python and `segments` read.

    Raises:
        TypeError: on an unknown one.
        ValueError: on one that makes no sense.
    """
    if unknown := set(given) - PARAMETERS:
        raise TypeError(f"Unknown parameters {sorted(unknown)}. The pipeline knows {sorted(PARAMETERS)}.")
    checked = dict(given)
    if (on_error := given.get("on_error", "raise")) not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
    if (top_k := given.get("top_k")) is not None:
        checked["top_k"] = positive_integer("top_k", top_k, "emotions")
    if (scale := given.get("scale")) is not None:
        if not _is_scale(scale):
            raise ValueError(f"`scale` must be two numbers, the lower one first, as in (1, 7), got {scale!r}.")
        checked["scale"] = (float(scale[0]), float(scale[1]))
    for name, least in (("window", SHORTEST), ("hop", SHORTEST_HOP)):
        if (seconds := given.get(name)) is not None:
            if not (_is_number(seconds) and seconds >= least):
                raise ValueError(f"`{name}` must be at least {least} seconds, got {seconds!r}.")
            checked[name] = float(seconds)
    if (segments := given.get("segments")) is not None and not isinstance(segments, SpeakerTurns):
        checked["segments"] = SpeakerTurns.read(segments)
    return checked


def positive_integer(name: str, value: Any, what: str) -> int:
    """A parameter that counts something.

    Raises:
        ValueError: where it is no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of {what}, at least 1, got {value!r}.")
    return int(value)


def _is_scale(value: Any) -> bool:
    is_row = isinstance(value, np.ndarray) and value.ndim == 1
    if not (is_row or isinstance(value, Sequence)) or len(value) != 2:
        return False
    return all(map(_is_number, value)) and bool(value[0] < value[1])


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


@dataclass(frozen=True)
class OutputFormatter:
    """How answers are worded.

    Attributes:
        dimensions: names of the `A` rated columns.
        emotions: names of the `C` classes, in logit order.
        scale: ends of the dimensions' scale.
        uncertainty: whether the dimensions' standard deviations are told, in units of the scale.
        embedding: whether the embedding is told.
    """

    dimensions: Sequence[str]
    emotions: Sequence[str]
    scale: tuple[float, float] = (0.0, 1.0)
    uncertainty: bool = False
    embedding: bool = False

    def rows(self, answer: Mapping[str, Any], kind: str, count: int, top_k: int | None) -> list[dict[str, Any]]:
        """What the model says of a clip, as one row, or of so many of its pieces.

        Args:
            answer: outputs of one clip: `dimensions`, `log_variance` `(1, A)`, `logits` `(1, C)` and `embedding`
                `(1, D)`, as far as the model has them; those of its pieces `(1, N, ...)`, with their kind before it.
            kind: `"window"`, `"turn"` or `"frame"`; empty for the clip itself.
            count: of the pieces, at most `N`; 1 for the clip.
            top_k: how many emotions to name; all if None.
        """
        rows: list[dict[str, Any]] = [{} for _ in range(count)]
        low, high = self.scale
        told: dict[str, tuple[str, Callable[[torch.Tensor], list[Any]]]] = {
            "dimensions": ("dimensions", lambda values: self.named_values(low + (high - low) * values)),
            "emotions": ("logits", lambda values: self.named_scores(values, top_k)),
        }
        if self.uncertainty:
            told["uncertainty"] = (
                "log_variance",
                lambda values: self.named_values((high - low) * (0.5 * values).exp()),
            )
        if self.embedding:
            told["embedding"] = ("embedding", lambda values: values.tolist())
        for key, (name, in_words) in told.items():
            if (values := answer.get(f"{kind}_{name}" if kind else name)) is not None:
                values = values[0, :count] if kind else values  # (N, A), (N, C) or (N, D)
                for row, each in zip(rows, in_words(values.float()), strict=True):
                    row[key] = each
        return rows

    def named_values(self, values: torch.Tensor) -> list[dict[str, float]]:
        """Rows of `(N, A)` to a dict each."""
        return [dict(zip(self.dimensions, row, strict=True)) for row in values.tolist()]

    def named_scores(self, logits: torch.Tensor, top_k: int | None) -> list[list[dict[str, Any]]]:
        """Rows of `(N, C)` to a list each of labels and probabilities, the most probable first."""
        scores, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)  # (N, C), (N, C)
        return [
            [{"label": self.emotions[i], "score": score} for i, score in zip(numbers, row, strict=True)]
            for numbers, row in zip(order[:, :top_k].tolist(), scores[:, :top_k].tolist(), strict=True)
        ]
