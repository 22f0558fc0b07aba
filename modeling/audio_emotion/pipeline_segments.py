"""Windows of a clip and segments of its speakers."""

# SPDX-License-Identifier: Apache-2.0

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from .audio_io import SHORTEST, AudioClip

SLACK = 0.05  # seconds by which a segment may exceed its clip: diarization systems count in frames
DECIMALS = 6  # of a segment's duration: 1.35 - 1.1 is less than 0.25 in floating point
SEGMENT_KEYS = {"start", "end", "speaker", "channel"}
MATCH = "match"  # in a prediction, until it is checked: the key and the name of a clip that has segments


@dataclass(frozen=True)
class Span:
    """A window or a speaker segment of a clip.

    Args:
        start: in seconds.
        end: in seconds.
        flags: of this part, see [`AudioClip`]; of a segment also `"overlap"` (another speaker speaks at the same time)
            and `"truncated"` (it exceeds the clip).
        samples: the first sample of the model's input, and the one after the last.
        speaker: of a segment.
        error: why there is no prediction, or None.
        channel: of a segment, counted from 1; None for the mean of all.
        waveform (`numpy.ndarray` of shape `(S,)`, *optional*): model's input, of a segment of one channel.
    """

    start: float
    end: float
    flags: tuple[str, ...]
    samples: tuple[int, int]
    speaker: str | None = None
    error: str | None = None
    channel: int | None = None
    waveform: np.ndarray | None = None


def windows_of(clip: AudioClip, window: float, hop: float | None) -> tuple[Span, ...]:
    """The windows of a clip, see [`window_bounds`]."""
    rate = clip.sampling_rate
    spans = []
    for first, stop in window_bounds(len(clip.waveform), window, hop, rate):
        start, end = first / rate, min(stop / rate, clip.duration)
        spans.append(Span(start, end, clip.flags_between(start, end), (first, stop)))
    return tuple(spans)


def window_bounds(samples: int, window: float, hop: float | None, rate: int) -> list[tuple[int, int]]:
    """First sample of each window, and the one after its last.

    The last window ends with the clip and may be shorter than the others, but not shorter than a clip may be: a
    shorter remainder is left out. A clip shorter than a window is one window.

    Args:
        samples: number of samples in the clip.
        window: length of a window, in seconds.
        hop: from the start of one window to that of the next, in seconds; as long as a window if None.
        rate: samples per second.
    """
    length, step = round(window * rate), max(round((hop or window) * rate), 1)
    bounds = [(0, min(length, samples))]
    for start in range(step, samples, step):
        if bounds[-1][1] == samples or samples - start < SHORTEST * rate:
            break
        bounds.append((start, min(start + length, samples)))
    return bounds


@dataclass(frozen=True)
class Segment:
    """One speaker, speaking from `start` to `end`, in seconds, in one channel (counted from 1) or in all."""

    start: float
    end: float
    speaker: str
    channel: int | None = None


class SpeakerSegments:
    """The value of the parameter `segments`: speaker segments by clip.

    Args:
        by_clip: segments by the name of their clip; under None, those of any clip.
        several: whether there are several clips; then a clip may have no segments, as diarization systems write no
            line for a clip without speech.
    """

    def __init__(self, by_clip: dict[str | None, list[Segment]], several: bool = False):
        self.by_clip = by_clip
        self.several = several

    @classmethod
    def parse(cls, given: Any) -> "SpeakerSegments":
        """Check what a user passed.

        Args:
            given: a list of `{"start", "end", "speaker"}`, with or without `"channel"`, or `(start, end, speaker)`, in
                seconds, or a mapping from the name of a clip to such a list.

        Raises:
            ValueError: naming the segment that is wrong.
        """
        if isinstance(given, SpeakerSegments):
            return given
        given = _from_diarization(given)
        if isinstance(given, (str, Path)):
            raise ValueError(
                f"Expected `segments` as a list of segments or a mapping from clip names to such lists, got the path "
                f"{str(given)!r}. Read an RTTM file first: `from audio_emotion.diarization import read_rttm`, then "
                f"`segments=read_rttm({str(given)!r})`."
            )
        if isinstance(given, Mapping) and given and all(isinstance(each, (list, tuple)) for each in given.values()):
            by_clip: dict[str | None, list[Segment]] = {}
            for name, each in given.items():
                key = _normalize_name(str(name))
                if key in by_clip:
                    raise ValueError(f"`segments` has two entries for {key!r}, whose accents are encoded differently.")
                by_clip[key] = _parse_list(each, f"segments[{name!r}]")
            return cls(by_clip)
        if isinstance(given, (list, tuple)):
            return cls({None: _parse_list(given, "segments")})
        raise ValueError(
            '`segments` must be a list of {"start", "end", "speaker"} or a mapping from the name of each clip to such '
            f"a list, got {given!r:.200}."
        )

    @classmethod
    def of_channels(cls, clip: AudioClip, max_duration: float) -> list[Segment]:
        """A segment for each channel of a clip, as long as the clip."""
        count = clip.count_channels(max_duration)
        return [Segment(0.0, clip.duration, str(number), number) for number in range(1, count + 1)]

    def for_clips(self, several: bool) -> "SpeakerSegments":
        """These segments for one clip, or for several.

        Raises:
            ValueError: on a list for several clips.
        """
        if several and None in self.by_clip:
            raise ValueError(
                "A list of `segments` belongs to one clip, got several clips. Pass a mapping from the name of each "
                "clip to its list, or the clips one by one."
            )
        if not several and len(self.by_clip) == 1:  # one clip needs no name
            return SpeakerSegments({None: next(iter(self.by_clip.values()))})
        return SpeakerSegments(self.by_clip, several)

    def of_clip(self, name: str) -> tuple[str | None, list[Segment]]:
        """The key of one clip in the mapping, or None, and its segments in the given order.

        Args:
            name: of the clip, its path or id; in the mapping it may be without suffix, and without folders.

        Raises:
            ValueError: where the only clip has none, naming the clips that have.
        """
        path = Path(_normalize_name(name))
        ends = [Path(*path.parts[first:]) for first in range(len(path.parts))]  # from the whole path to the file name
        for key in (
            None,
            _normalize_name(name),
            *(str(each) for end in ends for each in (end, end.parent / end.stem)),
        ):
            if key in self.by_clip:
                return key, self.by_clip[key]
        if self.several:
            return None, []
        raise ValueError(
            f"{name}: expected segments of {path.stem!r}, got those of {self._clips()}. Use the clip's name as the "
            "key in `segments`, or pass a list."
        )

    def check_matched(self, predictions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass on the predictions of several clips, and check that each list of segments is that of one clip.

        Args:
            predictions: with `MATCH`, the key in the mapping and the name of the clip, which is removed.

        Raises:
            ValueError: where two clips have the same segments; at the end, where no clip has any.
        """
        count, matched = 0, dict[str, str]()
        for prediction in predictions:
            count += "error" not in prediction
            key, name = prediction.pop(MATCH, (None, None))
            if key is not None and matched.setdefault(key, name) != name:
                raise ValueError(
                    f"Expected that the segments of {key!r} are those of one clip, got {matched[key]!r} and {name!r}. "
                    f"Use names with their folder, such as {'/'.join(Path(name).parts[-2:])!r}, as keys in `segments`."
                )
            yield prediction
        if count and not matched:
            raise ValueError(
                f"Expected segments of at least one of {count} clips, got those of {self._clips()}. Use the clips' "
                "names as keys in `segments`."
            )

    def _clips(self) -> str:
        """Some of the clips that there are segments of."""
        return ", ".join(sorted(map(str, self.by_clip))[:5])


def _normalize_name(name: str) -> str:
    """A name with its accents composed; macOS writes names of files with decomposed ones."""
    return unicodedata.normalize("NFC", name)


def _from_diarization(given: Any) -> Any:
    """The segments of an object that a diarization system returns; anything else unchanged.

    Known are pyannote's `Annotation` and its output that has one, whisperX's result, `{"segments": [...]}`, whose
    segments without a speaker are left out, and NeMo's list of lines, `"start end speaker"`.
    """
    annotation = getattr(given, "speaker_diarization", given)
    if callable(getattr(annotation, "itertracks", None)):
        tracks = annotation.itertracks(yield_label=True)
        return [{"start": turn.start, "end": turn.end, "speaker": str(label)} for turn, _, label in tracks]
    if isinstance(given, Mapping) and isinstance(given.get("segments"), (list, tuple)) and "word_segments" in given:
        return [
            {"start": each["start"], "end": each["end"], "speaker": each["speaker"]}
            for each in given["segments"]
            if each.get("speaker")
        ]
    if isinstance(given, (list, tuple)) and given and all(isinstance(each, str) for each in given):
        lines = [each.split() for each in given]
        if all(len(each) == 3 for each in lines):
            return [tuple(each) for each in lines]
    return given


def _parse_list(given: Sequence[Any], name: str) -> list[Segment]:
    """Check a list of segments."""
    segments = []
    for number, each in enumerate(given):
        expected = f'`{name}[{number}]` must be {{"start": seconds, "end": seconds, "speaker": name}}'
        channel = None
        if isinstance(each, Mapping):
            if unknown := sorted(map(str, set(each) - SEGMENT_KEYS)):
                raise ValueError(f"{expected}, got the unknown keys {unknown}. Leave them out.")
            if (channel := each.get("channel")) is not None:
                channel = positive_integer(f"{name}[{number}]['channel']", channel, "channels, counted from 1")
        try:
            start, end, speaker = (each["start"], each["end"], each["speaker"]) if isinstance(each, Mapping) else each
            segment = Segment(float(start), float(end), str(speaker), channel)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{expected}, got {each!r:.200}.") from error
        if not 0 <= segment.start < segment.end < math.inf:
            raise ValueError(f"{expected}, with 0 <= start < end, got {each!r:.200}.")
        segments.append(segment)
    return segments


def segments_within(segments: list[Segment], clip: AudioClip, max_duration: float) -> tuple[Span, ...]:
    """Cut segments at the end of their clip, and find their flags and errors; `max_duration` is that of the clip."""
    overlapped = iter(_are_overlapped([each for each in segments if each.start < clip.duration]))
    channels = {number: _channel_of(clip, number, max_duration) for number in {each.channel for each in segments}}
    return tuple(
        _span_within(each, clip.duration, channels[each.channel], each.start < clip.duration and next(overlapped))
        for each in segments
    )


def _channel_of(clip: AudioClip, number: int | None, max_duration: float) -> AudioClip | str:
    """A channel of the clip, or the error where it has none of this number; the clip itself for None."""
    try:
        return clip if number is None else clip.channel(number, max_duration)
    except ValueError as error:
        return str(error)


def _span_within(segment: Segment, duration: float, clip: AudioClip | str, is_overlapped: bool) -> Span:
    """A segment of a clip of `duration` seconds; `clip` is its channel, or why there is none."""
    start, end, error = segment.start, min(segment.end, duration), None
    if start >= duration:
        end, error = segment.end, f"expected a segment inside the clip of {duration:g} s, got one from {start:g} s on"
    elif isinstance(clip, str):
        error = clip
    elif (length := round(end - start, DECIMALS)) < SHORTEST:
        error = f"expected at least {SHORTEST} s of speech, got {length:g} s"
    if error is not None or isinstance(clip, str):
        return Span(start, end, (), (0, 0), segment.speaker, error, segment.channel)
    found = {"overlap": is_overlapped, "truncated": segment.end > duration + SLACK}
    flags = (*clip.flags_between(start, end), *(flag for flag, is_set in found.items() if is_set))
    rate = clip.sampling_rate
    samples = (round(start * rate), min(round(end * rate), len(clip.waveform)))
    waveform = None if segment.channel is None else clip.waveform[slice(*samples)]
    return Span(start, end, flags, samples, segment.speaker, None, segment.channel, waveform)


def _are_overlapped(segments: list[Segment]) -> list[bool]:
    """Whether another speaker speaks during each segment, in the same channel."""
    found = [False] * len(segments)
    current: list[int] = []  # segments that have not ended yet
    for number in sorted(range(len(segments)), key=lambda index: segments[index].start):
        current = [other for other in current if segments[other].end > segments[number].start]
        for other in current:
            one, another = segments[other], segments[number]
            if one.speaker != another.speaker and one.channel == another.channel:
                found[number] = found[other] = True
        current.append(number)
    return found


def positive_integer(name: str, value: Any, unit: str) -> int:
    """A parameter that is a count.

    Raises:
        ValueError: where it is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of {unit}, at least 1, got {value!r}.")
    return int(value)
