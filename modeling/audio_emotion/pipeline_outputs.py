"""Output of the pipeline in plain Python."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .pipeline_segments import Span


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
