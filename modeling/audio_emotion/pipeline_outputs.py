"""Parameters, windows, speaker segments and output formatting of the pipeline."""

# SPDX-License-Identifier: Apache-2.0

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from .audio_io import SHORTEST, AudioClip

SHORTEST_HOP = 0.01  # seconds; shorter hops would take days for an hour of speech
SLACK = 0.05  # seconds by which a segment may exceed its clip: diarization systems count in frames
DECIMALS = 6  # of a segment's duration: 1.35 - 1.1 is less than 0.25 in floating point
SEGMENT_KEYS = {"start", "end", "speaker", "channel"}
MATCH = "match"  # in a prediction, until it is checked: the key and the name of a clip that has segments
PARAMETERS = {
    "on_error",
    "window",
    "hop",
    "segments",
    "return_frames",
    "max_duration",
    "top_k",
    "scale",
    "return_embedding",
    "return_uncertainty",
    "channels",
    "abstain",
}


def validate_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Check the pipeline's parameters; numpy numbers become Python's, and `segments` a [`SpeakerSegments`].

    Raises:
        TypeError: on an unknown parameter.
        ValueError: on an invalid value.
    """
    if unknown := set(given) - PARAMETERS:
        raise TypeError(f"Unknown parameters {sorted(unknown)}. The pipeline has {sorted(PARAMETERS)}.")
    checked = dict(given)
    if (on_error := given.get("on_error", "raise")) not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
    if (top_k := given.get("top_k")) is not None:
        checked["top_k"] = positive_integer("top_k", top_k, "emotions")
    if (scale := given.get("scale")) is not None:
        if not _is_scale(scale):
            raise ValueError(f"`scale` must be two numbers, the lower one first, as in (1, 7), got {scale!r}.")
        checked["scale"] = (float(scale[0]), float(scale[1]))
    for name, least in (("window", SHORTEST), ("hop", SHORTEST_HOP), ("max_duration", SHORTEST)):
        if (seconds := given.get(name)) is not None:
            if not (_is_number(seconds) and seconds >= least):
                raise ValueError(f"`{name}` must be at least {least} seconds, got {seconds!r}.")
            checked[name] = float(seconds)
    if (channels := given.get("channels", "mix")) not in ("mix", "split"):
        if isinstance(channels, str):
            raise ValueError(f'`channels` must be "mix", "split" or a number counted from 1, got {channels!r}.')
        checked["channels"] = positive_integer("channels", channels, "channels, counted from 1")
    if (abstain := given.get("abstain")) is not None:
        if not (_is_number(abstain) and 0 <= abstain <= 1):
            raise ValueError(f"`abstain` must be a probability from 0 to 1, got {abstain!r}.")
        checked["abstain"] = float(abstain)
    if (segments := given.get("segments")) is not None:
        checked["segments"] = SpeakerSegments.parse(segments)
    return checked


def positive_integer(name: str, value: Any, unit: str) -> int:
    """A parameter that is a count.

    Raises:
        ValueError: where it is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of {unit}, at least 1, got {value!r}.")
    return int(value)


def _is_scale(value: Any) -> bool:
    is_row = isinstance(value, np.ndarray) and value.ndim == 1
    if not (is_row or isinstance(value, Sequence)) or len(value) != 2:
        return False
    return all(map(_is_number, value)) and bool(value[0] < value[1])


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


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


def format_segments(spans: Sequence[Span], predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per segment, with the prediction of each that has no error; these are given in order."""
    remaining = iter(predictions)
    return [
        {
            **{"start": span.start, "end": span.end, "speaker": span.speaker},
            **({} if span.channel is None else {"channel": span.channel}),
            **({"error": span.error} if span.error else {**next(remaining), "flags": list(span.flags)}),
        }
        for span in spans
    ]


def average_by_speaker(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per speaker, the mean over segments weighted by duration, in the order of first appearance."""
    speakers = []
    for name in dict.fromkeys(segment["speaker"] for segment in segments):
        own = [segment for segment in segments if segment["speaker"] == name and "error" not in segment]
        if not own:
            speakers.append({"speaker": name, "error": "every segment of this speaker has an error"})
            continue
        seconds = sum(segment["end"] - segment["start"] for segment in own)
        speakers.append({"speaker": name, "seconds": seconds, "turns": len(own), **mean_over_time(own)})
    return speakers


def mean_over_time(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean of dimensions and of all emotions' probabilities over parts of a clip, weighted by duration.

    Args:
        parts: at least one, each with `start` and `end` in seconds, and the outputs that the model has.
    """
    seconds = [part["end"] - part["start"] for part in parts]
    weights = [each / sum(seconds) for each in seconds]
    found: dict[str, Any] = {}
    if "dimensions" in parts[0]:
        found["dimensions"] = {
            name: sum(weight * part["dimensions"][name] for weight, part in zip(weights, parts, strict=True))
            for name in parts[0]["dimensions"]
        }
    if "emotions" in parts[0]:
        scores = dict.fromkeys((each["label"] for each in parts[0]["emotions"]), 0.0)
        for weight, part in zip(weights, parts, strict=True):
            for each in part["emotions"]:
                scores[each["label"]] += weight * each["score"]
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        found["emotions"] = [{"label": label, "score": score} for label, score in ranked]
    return found


def as_array(values: Any) -> np.ndarray:
    """A tensor or an array in float32, on the CPU."""
    return np.asarray(values.float().numpy(force=True) if hasattr(values, "float") else values, dtype=np.float32)


@dataclass(frozen=True)
class OutputFormatter:
    """Converts output tensors or arrays to plain Python.

    Attributes:
        dimensions: names of the `A` dimensions.
        emotions: names of the `C` classes, in logit order.
        scale: lower and upper end of the dimensions' scale.
        return_uncertainty: whether to add the dimensions' standard deviations, in units of the scale.
        return_embedding: whether to add the embedding.
        abstain: probability of the most probable emotion below which `"abstained"` is among the flags.
    """

    dimensions: Sequence[str]
    emotions: Sequence[str]
    scale: tuple[float, float] = (0.0, 1.0)
    return_uncertainty: bool = False
    return_embedding: bool = False
    abstain: float | None = None

    def rows(self, outputs: Mapping[str, Any], kind: str, count: int, top_k: int | None) -> list[dict[str, Any]]:
        """The predictions of a clip, as one row, or of its parts, as one row each.

        Args:
            outputs: of one clip: `dimensions`, `log_variance` `(1, A)`, `logits` `(1, C)`, `embedding` `(1, D)` and
                `distance` `(1,)`, as far as the model has them; those of its parts `(1, N, ...)`, prefixed with their
                kind.
            kind: `"window"`, `"segment"` or `"frame"`; empty for the clip itself.
            count: number of parts, at most `N`; 1 for the clip.
            top_k: number of emotions; all if None.
        """
        low, high = self.scale
        formats: dict[str, tuple[str, Callable[[np.ndarray], list[Any]]]] = {
            "dimensions": ("dimensions", lambda values: self._name_dimensions(low + (high - low) * values)),
            "emotions": ("logits", lambda values: self._rank_emotions(values, top_k)),
        }
        if self.return_uncertainty:
            formats["uncertainty"] = (
                "log_variance",
                lambda values: self._name_dimensions((high - low) * np.exp(0.5 * values)),
            )
        if self.return_embedding:
            formats["embedding"] = ("embedding", lambda values: values.tolist())
        rows: list[dict[str, Any]] = [{} for _ in range(count)]
        for key, (name, convert) in formats.items():
            if (values := outputs.get(f"{kind}_{name}" if kind else name)) is not None:
                values = values[0, :count] if kind else values  # (N, A), (N, C) or (N, D)
                for row, value in zip(rows, convert(as_array(values)), strict=True):
                    row[key] = value
        return rows

    def flags(self, outputs: Mapping[str, Any], kind: str, count: int) -> list[list[str]]:
        """The flags of a clip or of its parts that follow from the outputs; see `rows` for the arguments.

        `"unlike_training"` for a recording unlike the training clips (`distance` above 1), and `"abstained"`.
        """
        found: list[list[str]] = [[] for _ in range(count)]
        prefix = f"{kind}_" if kind else ""
        distance, logits = (outputs.get(f"{prefix}{name}") for name in ("distance", "logits"))
        if distance is not None:
            values = as_array(distance)[0, :count] if kind else as_array(distance)  # (N,)
            for flags, value in zip(found, values.tolist(), strict=True):
                flags += ["unlike_training"] * (value > 1)
        if logits is not None and self.abstain is not None:
            values = as_array(logits)[0, :count] if kind else as_array(logits)  # (N, C)
            for flags, ranked in zip(found, self._rank_emotions(values, 1), strict=True):
                flags += ["abstained"] * (ranked[0]["score"] < self.abstain)
        return found

    def _name_dimensions(self, values: np.ndarray) -> list[dict[str, float]]:
        """Rows of `(N, A)` to a dict each."""
        return [dict(zip(self.dimensions, row, strict=True)) for row in values.tolist()]

    def _rank_emotions(self, logits: np.ndarray, top_k: int | None) -> list[list[dict[str, Any]]]:
        """Rows of `(N, C)` to a list each of labels and probabilities, the most probable first."""
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        order = np.argsort(-scores, axis=-1, kind="stable")  # (N, C)
        scores = np.take_along_axis(scores, order, axis=-1)
        return [
            [{"label": self.emotions[i], "score": score} for i, score in zip(numbers, row, strict=True)]
            for numbers, row in zip(order[:, :top_k].tolist(), scores[:, :top_k].tolist(), strict=True)
        ]

    def prediction(
        self,
        outputs: Mapping[str, Any],
        duration: float,
        flags: Sequence[str],
        windows: Sequence[Span] | None = None,
        segments: Sequence[Span] | None = None,
        top_k: int | None = None,
        channels: Sequence[Span] | None = None,
    ) -> dict[str, Any]:
        """The prediction of a clip in the form of the pipeline's output.

        Args:
            outputs: see `rows`.
            duration: of the clip, in seconds.
            flags: of the clip.
            windows: of the clip, if requested.
            segments: of the clip, if requested.
            top_k: number of emotions; all if None.
            channels: of the clip in place of segments, if requested.
        """
        (clip,) = self.rows(outputs, "", 1, top_k)
        result: dict[str, Any] = {}
        if "dimensions" in clip:
            result |= {"dimensions": clip.pop("dimensions"), "scale": list(self.scale)}
        if "emotions" in clip:
            result["emotions"] = clip.pop("emotions")
        result |= {"duration": float(duration), "flags": [*flags, *self.flags(outputs, "", 1)[0]], **clip}
        if windows is not None:
            rows = self.rows(outputs, "window", len(windows), top_k)
            more = self.flags(outputs, "window", len(windows))
            result["windows"] = [
                {"start": each.start, "end": each.end, **row, "flags": [*each.flags, *flags]}
                for each, row, flags in zip(windows, rows, more, strict=True)
            ]
        if segments is not None:
            formatted = self._segments(outputs, segments, top_k=None)
            speakers = average_by_speaker(formatted)  # over all emotions
            for entry in [*formatted, *speakers]:
                if "emotions" in entry:
                    entry["emotions"] = entry["emotions"][:top_k]
            result |= {"segments": formatted, "speakers": speakers}
        if channels is not None:
            names = ("start", "end", "speaker")
            formatted = self._segments(outputs, channels, top_k)
            result["channels"] = [{k: v for k, v in each.items() if k not in names} for each in formatted]
        return result

    def _segments(self, outputs: Mapping[str, Any], spans: Sequence[Span], top_k: int | None) -> list[dict[str, Any]]:
        """One entry per segment, with the flags that follow from the outputs."""
        count = sum(span.error is None for span in spans)
        flagged = iter(self.flags(outputs, "segment", count))
        spans = [each if each.error else replace(each, flags=(*each.flags, *next(flagged))) for each in spans]
        return format_segments(spans, self.rows(outputs, "segment", count, top_k))
