"""The "audio-emotion" pipeline: any audio in; named values, their scale, and flags out, in plain Python."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import Pipeline

from .audio_input import SHORTEST, read_audio
from .log_mel import HOP, WINDOW

WINDOWS_AT_ONCE = 16  # windows of one clip that go through the model together
GRID = 50.0  # frames per second of a teacher
PARAMETERS = {
    "on_error",
    "window",
    "hop",
    "return_frames",
    "top_k",
    "scale",
    "return_embedding",
    "return_uncertainty",
}


class AudioEmotionPipeline(Pipeline):
    """Judges the emotion in speech.

    Every clip is decoded, averaged to one channel and resampled; see [`read_audio`] for what may be given. Clips in a
    batch get the same numbers as alone.

    Example:
        >>> from transformers import pipeline
        >>> import audio_emotion
        >>> judge = pipeline("audio-emotion", model="a folder or a Hub id")
        >>> judge("clip.wav")
        {"dimensions": {"activation": 0.71, "valence": 0.24, "dominance": 0.68}, "scale": [0.0, 1.0],
         "emotions": [{"label": "angry", "score": 0.62}, ...], "duration": 3.4, "flags": []}
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.eval()  # a model fresh from its constructor would answer with dropout

    def __call__(self, inputs: Any, **kwargs):
        """Judge one clip, or many.

        Args:
            inputs: one clip (a path, a URL, bytes, a binary file, `{"array", "sampling_rate"}`, a row of `datasets`),
                a list of clips, or an iterator or dataset of clips.
            top_k (`int`, *optional*): how many emotions to name; all by default.
            scale (`tuple[float, float]`, *optional*): ends of the dimensions' scale, `(0, 1)` by default; `(1, 7)` is
                that of MSP-Podcast.
            return_embedding (`bool`, *optional*): adds `"embedding"`, a list of `D` numbers.
            return_uncertainty (`bool`, *optional*): adds `"uncertainty"`, the standard deviation of each dimension, in
                units of the scale.
            return_frames (`bool`, *optional*): adds `"frames"`, what the model says when it has heard the clip up to
                `end` seconds (a teacher has heard all of it: its frames say where, not when).
            window (`float`, *optional*): adds `"windows"`, pieces of so many seconds judged each on its own.
            hop (`float`, *optional*): seconds from one window's start to the next; as long as a window by default.
            on_error (`str`, *optional*): what to do with a clip that cannot be judged: `"raise"` (the default), or
                `"skip"`, which answers `{"error": why, "input": its name}`.
            batch_size (`int`, *optional*): clips that go through the model together; 1 by default.
            **kwargs: these.

        Returns:
            a `dict` for one clip, a list of them for a list, an iterator for anything else.

        Raises:
            ValueError: on a clip that cannot be judged, naming it; on a parameter that makes no sense.
            TypeError: on an unknown parameter.
        """
        if isinstance(inputs, list) and not inputs:
            return []
        from_datasets = type(inputs).__module__.partition(".")[0] == "datasets" and hasattr(inputs, "column_names")
        if from_datasets or (isinstance(inputs, Iterator) and not hasattr(inputs, "read")):
            inputs = (clip for clip in inputs)  # what the base class knows as a stream
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **parameters) -> tuple[dict, dict, dict]:
        """Check what was given, and hand each step its own."""
        if unknown := set(parameters) - PARAMETERS:
            raise TypeError(f"Unknown parameters {sorted(unknown)}. The pipeline knows {sorted(PARAMETERS)}.")
        if (on_error := parameters.get("on_error", "raise")) not in ("raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
        if (top_k := parameters.get("top_k")) is not None and (
            isinstance(top_k, bool) or int(top_k) != top_k or top_k < 1
        ):
            raise ValueError(f"`top_k` must be a whole number of emotions, at least 1, got {top_k!r}.")
        if (scale := parameters.get("scale")) is not None and not (len(scale) == 2 and scale[0] < scale[1]):
            raise ValueError(f"`scale` must be two numbers, the lower one first, as in (1, 7), got {scale!r}.")
        if (window := parameters.get("window")) is not None and window < SHORTEST:
            raise ValueError(f"`window` must be at least {SHORTEST} seconds, got {window!r}.")
        if (hop := parameters.get("hop")) is not None and hop <= 0:
            raise ValueError(f"`hop` must be a positive number of seconds, got {hop!r}.")
        if parameters.get("return_uncertainty") and not self.model.config.predict_variance:
            raise ValueError(
                "`return_uncertainty` needs a model that predicts its own variance; this one was trained with "
                "`predict_variance=False`. Leave the parameter out, or use another model."
            )

        def given(*names: str) -> dict:
            return {name: parameters[name] for name in names if name in parameters}

        return (
            given("on_error"),
            given("window", "hop", "return_frames"),
            given("window", "hop", "return_frames", "top_k", "scale", "return_embedding", "return_uncertainty"),
        )

    def preprocess(self, inputs: Any, on_error: str = "raise") -> dict[str, Any]:
        """One clip to `input_values (1, S)` and `attention_mask (1, S)`, with what is known of it."""
        rate = self.feature_extractor.sampling_rate
        try:
            clip = read_audio(inputs, rate)
        except ValueError as error:
            if on_error == "raise":
                raise
            name = inputs if isinstance(inputs, str) else str(error).partition(": ")[0]
            # Every item of a batch needs the same keys: silence stands in for the clip.
            silence = torch.zeros(1, rate)
            return {
                "input_values": silence,
                "attention_mask": torch.ones_like(silence, dtype=torch.long),
                **{"duration": 0.0, "flags": (), "error": str(error), "name": name},
            }
        batch = self.feature_extractor(clip.waveform, sampling_rate=rate, return_tensors="pt")
        return {
            "input_values": batch["input_values"],
            "attention_mask": batch["attention_mask"],
            **{"duration": clip.duration, "flags": clip.flags, "error": None, "name": clip.name},
        }

    def _forward(
        self,
        inputs: dict[str, Any],
        window: float | None = None,
        hop: float | None = None,
        return_frames: bool = False,
    ) -> dict[str, Any]:
        """Run the model on a batch; tensors keep the batch first, so that the base class can take it apart."""
        if hop is not None and window is None:
            raise ValueError(f"`hop` ({hop!r}) needs `window`, the length of a window in seconds.")
        waveform, mask = inputs["input_values"], inputs["attention_mask"]  # (B, S), (B, S)
        options = {"output_frames": True} if return_frames else {}
        output = self.model(waveform, mask, **options)
        answer = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
        answer["samples"] = samples = mask.sum(-1)  # (B,)
        if window is not None:
            per_clip = [self._judge_windows(clip[:n], window, hop) for clip, n in zip(waveform, samples, strict=True)]
            count = max(len(windows["embedding"]) for windows in per_clip)
            for name in per_clip[0]:
                padded = [nn.functional.pad(each[name], (0, 0, 0, count - len(each[name]))) for each in per_clip]
                answer[f"window_{name}"] = torch.stack(padded)  # (B, W, ...)
        return {**answer, **{name: inputs[name] for name in ("duration", "flags", "error", "name")}}

    def _judge_windows(self, waveform: torch.Tensor, window: float, hop: float | None) -> dict[str, torch.Tensor]:
        """What the model says of each window of one clip `(S,)`: tensors `(W, ...)`."""
        bounds = window_bounds(len(waveform), window, hop, self.feature_extractor.sampling_rate)
        longest = max(stop - start for start, stop in bounds)
        outputs = []
        for first in range(0, len(bounds), WINDOWS_AT_ONCE):
            chosen = bounds[first : first + WINDOWS_AT_ONCE]
            pieces = waveform.new_zeros(len(chosen), longest)  # (W, S)
            mask = torch.zeros_like(pieces, dtype=torch.long)  # (W, S)
            for row, (start, stop) in enumerate(chosen):
                pieces[row, : stop - start] = waveform[start:stop]
                mask[row, : stop - start] = 1
            outputs.append(self.model(pieces, mask))
        names = [name for name in ("embedding", "dimensions", "logits") if name in outputs[0]]
        return {name: torch.cat([output[name] for output in outputs]) for name in names}

    def postprocess(
        self,
        answer: dict[str, Any],
        top_k: int | None = None,
        scale: tuple[float, float] | None = None,
        return_embedding: bool = False,
        return_uncertainty: bool = False,
        return_frames: bool = False,
        window: float | None = None,
        hop: float | None = None,
    ) -> dict[str, Any]:
        """Tensors of one clip, batch first, to plain Python."""
        if answer["error"] is not None:
            return {"error": answer["error"], "input": answer["name"]}
        low, high = (float(end) for end in scale or (0.0, 1.0))
        result: dict[str, Any] = {}
        dimensions, logits = answer.get("dimensions"), answer.get("logits")
        if dimensions is not None:
            result |= {"dimensions": self._named_values(dimensions, low, high)[0], "scale": [low, high]}
        if logits is not None:
            result["emotions"] = self._named_scores(logits, top_k)[0]
        result |= {"duration": float(answer["duration"]), "flags": list(answer["flags"])}
        if return_uncertainty:
            deviation = (0.5 * answer["log_variance"].float()).exp()  # (1, 3)
            result["uncertainty"] = self._named_values(deviation, 0.0, high - low)[0]
        if return_embedding:
            result["embedding"] = answer["embedding"][0].float().tolist()

        def spans(kind: str, edges: list[tuple[float, float]]) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = [{"start": start, "end": end} for start, end in edges]
            for name in ("dimensions", "logits"):
                if (part := answer.get(f"{kind}_{name}")) is None:
                    continue
                values = part[0, : len(rows)]  # (N, 3) or (N, C)
                named = (
                    self._named_values(values, low, high)
                    if name == "dimensions"
                    else self._named_scores(values, top_k)
                )
                for row, each in zip(rows, named, strict=True):
                    row["dimensions" if name == "dimensions" else "emotions"] = each
            return rows

        if window is not None:
            rate = self.feature_extractor.sampling_rate
            bounds = window_bounds(int(answer["samples"][0]), window, hop, rate)
            result["windows"] = spans("window", [(start / rate, stop / rate) for start, stop in bounds])
        if return_frames:
            ends = self._heard_until(int(answer["frame_mask"][0].sum()), result["duration"])
            result["frames"] = spans("frame", list(zip([0.0, *ends[:-1]], ends, strict=True)))
        return result

    def _named_values(self, values: torch.Tensor, low: float, high: float) -> list[dict[str, float]]:
        """Rows of `(N, 3)` in 0..1 to a dict each, on the scale from `low` to `high`."""
        rows = (low + (high - low) * values.float()).tolist()
        return [dict(zip(self.model.config.dimensions, row, strict=True)) for row in rows]

    def _named_scores(self, logits: torch.Tensor, top_k: int | None) -> list[list[dict[str, Any]]]:
        """Rows of `(N, C)` to a list each of labels and probabilities, the most probable first."""
        scores, order = logits.float().softmax(-1).sort(dim=-1, descending=True, stable=True)  # (N, C), (N, C)
        labels = self.model.config.emotions
        return [
            [{"label": labels[i], "score": score} for i, score in zip(numbers, row, strict=True)]
            for numbers, row in zip(order[:, :top_k].tolist(), scores[:, :top_k].tolist(), strict=True)
        ]

    def _heard_until(self, count: int, duration: float) -> list[float]:
        """Seconds of the clip that have gone into each of `count` frames."""
        config = self.model.config
        if config.model_type == "student-emotion":
            last = [config.frames_per_step * (t + 1 + config.look_ahead) - 1 for t in range(count)]  # log-mel frames
            ends = [(HOP * frame + WINDOW) / config.sampling_rate for frame in last]
        else:
            ends = [(t + 1) / GRID for t in range(count)]
        return [min(end, duration) for end in ends]


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
