"""The "audio-emotion" pipeline: any audio in; named values, their scale, and flags out, in plain Python."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterator, Sequence
from types import GeneratorType
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Pipeline

from .audio_input import SHORTEST, read_audio
from .log_mel import HOP, WINDOW
from .speaker_turns import HeardTurn, SpeakerTurns, heard_turns, segments_of, speakers_of

PIECES_AT_ONCE = 16  # windows or turns of one clip that go through the model together
SHORTEST_HOP = 0.01  # seconds; below, an hour of speech would take days
MODELS = ("fused-emotion", "student-emotion")
GRID = 50.0  # frames per second of a teacher
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
        if self.model.config.model_type not in MODELS:
            raise ValueError(
                f"Expected a model of type {' or '.join(MODELS)}, got {self.model.config.model_type!r}, which has no "
                "heads for emotion: its answers would be random."
            )
        if self.feature_extractor.sampling_rate != (rate := self.model.config.sampling_rate):
            raise ValueError(
                f"Expected a feature extractor for the model's {rate} Hz, got one for "
                f"{self.feature_extractor.sampling_rate} Hz: the model would hear another pitch. Mend "
                "`preprocessor_config.json`."
            )
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
            segments (`str` or `list[dict]`, *optional*): who speaks when, as the path of an RTTM file or as
                `{"start", "end", "speaker"}` in seconds. Adds `"segments"`, each turn judged on its own with flags of
                its own, or with `"error"` where it cannot be judged, and `"speakers"`, each speaker's mean over the
                seconds of his turns. For several clips, the second field of RTTM must name each.
            on_error (`str`, *optional*): what to do with a clip that cannot be judged: `"raise"` (the default), or
                `"skip"`, which answers `{"error": why, "input": its name}`.
            batch_size (`int`, *optional*): clips that go through the model together; 1 by default.
            **kwargs: these.

        Returns:
            a `dict` for one clip, a list of them for a list or tuple, an iterator for anything else.

        Raises:
            ValueError: on a clip that cannot be judged, naming it; on a parameter that makes no sense; on RTTM that
                cannot be read, naming the line.
            TypeError: on an unknown parameter.
        """
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if (size := kwargs.get("batch_size")) is not None and not (_is_whole(size) and size >= 1):
            raise ValueError(f"`batch_size` must be a whole number of clips, at least 1, got {size!r}.")
        from_datasets = type(inputs).__module__.partition(".")[0] == "datasets" and hasattr(inputs, "column_names")
        if from_datasets or (isinstance(inputs, Iterator) and not hasattr(inputs, "read")):
            inputs = (clip for clip in inputs)  # what the base class knows as a stream
        if kwargs.get("segments") is not None:
            several = isinstance(inputs, (list, GeneratorType, Dataset))
            kwargs["segments"] = SpeakerTurns.read(kwargs["segments"], several)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **parameters) -> tuple[dict, dict, dict]:
        """Check what was given, and hand each step its own."""
        if unknown := set(parameters) - PARAMETERS:
            raise TypeError(f"Unknown parameters {sorted(unknown)}. The pipeline knows {sorted(PARAMETERS)}.")
        if (on_error := parameters.get("on_error", "raise")) not in ("raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
        if (top_k := parameters.get("top_k")) is not None and not (_is_whole(top_k) and top_k >= 1):
            raise ValueError(f"`top_k` must be a whole number of emotions, at least 1, got {top_k!r}.")
        if (scale := parameters.get("scale")) is not None and not (
            isinstance(scale, Sequence) and len(scale) == 2 and all(map(_is_number, scale)) and scale[0] < scale[1]
        ):
            raise ValueError(f"`scale` must be two numbers, the lower one first, as in (1, 7), got {scale!r}.")
        if (window := parameters.get("window")) is not None and not (_is_number(window) and window >= SHORTEST):
            raise ValueError(f"`window` must be at least {SHORTEST} seconds, got {window!r}.")
        if (hop := parameters.get("hop")) is not None and not (_is_number(hop) and hop >= SHORTEST_HOP):
            raise ValueError(f"`hop` must be at least {SHORTEST_HOP} seconds, got {hop!r}.")
        if (segments := parameters.get("segments")) is not None and not isinstance(segments, SpeakerTurns):
            parameters["segments"] = SpeakerTurns.read(segments)
        if parameters.get("return_uncertainty") and not self.model.config.predict_variance:
            raise ValueError(
                "`return_uncertainty` needs a model that predicts its own variance; this one was trained with "
                "`predict_variance=False`. Leave the parameter out, or use another model."
            )

        def given(*names: str) -> dict:
            return {name: parameters[name] for name in names if name in parameters}

        return (
            given("on_error", "segments"),
            given("window", "hop", "return_frames"),
            given(
                *("window", "hop", "return_frames", "top_k", "scale", "return_embedding", "return_uncertainty"),
                "on_error",
            ),
        )

    def preprocess(self, inputs: Any, on_error: str = "raise", segments: SpeakerTurns | None = None) -> dict[str, Any]:
        """One clip to `input_values (1, S)` and `attention_mask (1, S)`, with what is known of it."""
        rate = self.feature_extractor.sampling_rate
        try:
            clip = read_audio(inputs, rate)
            turns = None if segments is None else heard_turns(segments.of_clip(clip.name), clip)
        except ValueError as error:
            if on_error == "raise":
                raise
            name = inputs if isinstance(inputs, str) else str(error).partition(": ")[0]
            # Every item of a batch needs the same keys: silence stands in for the clip.
            silence = torch.zeros(1, rate)
            return {
                "input_values": silence,
                "attention_mask": torch.ones_like(silence, dtype=torch.long),
                **{"duration": 0.0, "flags": (), "error": str(error), "name": name, "turns": ()},
            }
        batch = self.feature_extractor(clip.waveform, sampling_rate=rate, return_tensors="pt")
        return {
            "input_values": batch["input_values"],
            "attention_mask": batch["attention_mask"],
            **{"duration": clip.duration, "flags": clip.flags, "error": None, "name": clip.name, "turns": turns},
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
        rate = self.feature_extractor.sampling_rate
        clips = [clip[:n] for clip, n in zip(waveform, samples, strict=True)]
        if window is not None:
            bounds = [window_bounds(len(clip), window, hop, rate) for clip in clips]
            answer |= self._judge_pieces("window", clips, bounds)
        # One clip alone comes as it is, several in a list.
        turns = inputs["turns"] if isinstance(inputs["turns"], list) else [inputs["turns"]]
        bounds = [turn_bounds(each or (), len(clip), rate) for each, clip in zip(turns, clips, strict=True)]
        if any(bounds):
            answer |= self._judge_pieces("turn", clips, bounds)
        return {**answer, **{name: inputs[name] for name in ("duration", "flags", "error", "name", "turns")}}

    def _judge_pieces(
        self, kind: str, clips: list[torch.Tensor], bounds: list[list[tuple[int, int]]]
    ) -> dict[str, torch.Tensor]:
        """What the model says of pieces of each clip `(S,)`: tensors `(B, N, ...)`, zero after its last."""
        per_clip = [self._judge_pieces_of_one(*each) for each in zip(clips, bounds, strict=True)]
        most = max(map(len, bounds))
        answer = {}
        for name, like in max(per_clip, key=len).items():
            rows = [pieces.get(name, like[:0]) for pieces in per_clip]
            padded = [nn.functional.pad(each, (0, 0, 0, most - len(each))) for each in rows]
            answer[f"{kind}_{name}"] = torch.stack(padded)  # (B, N, ...)
        return answer

    def _judge_pieces_of_one(self, waveform: torch.Tensor, bounds: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """What the model says of each piece of one clip `(S,)`: tensors `(N, ...)`; none where there is no piece."""
        outputs = []
        for first in range(0, len(bounds), PIECES_AT_ONCE):
            chosen = bounds[first : first + PIECES_AT_ONCE]
            longest = max(stop - start for start, stop in chosen)
            pieces = waveform.new_zeros(len(chosen), longest)  # (N, S)
            mask = torch.zeros_like(pieces, dtype=torch.long)  # (N, S)
            for row, (start, stop) in enumerate(chosen):
                pieces[row, : stop - start] = waveform[start:stop]
                mask[row, : stop - start] = 1
            outputs.append(self.model(pieces, mask))
        names = [name for name in ("embedding", "dimensions", "logits") if outputs and name in outputs[0]]
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
        on_error: str = "raise",
    ) -> dict[str, Any]:
        """Tensors of one clip, batch first, to plain Python."""
        if answer["error"] is not None:
            return {"error": answer["error"], "input": answer["name"]}
        numbers = [value for name, value in answer.items() if name.endswith(("dimensions", "logits", "embedding"))]
        if not all(value.isfinite().all() for value in numbers):
            error = (
                f"{answer['name']}: expected finite numbers from the model, got NaN or infinite ones. Its weights are "
                "broken, or its precision cannot hold this clip: try float32."
            )
            if on_error == "raise":
                raise ValueError(error)
            return {"error": error, "input": answer["name"]}
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

        def spans(kind: str, edges: Sequence[tuple[float, float]], top_k: int | None = top_k) -> list[dict[str, Any]]:
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

        rate = self.feature_extractor.sampling_rate
        if window is not None:
            bounds = window_bounds(int(answer["samples"][0]), window, hop, rate)
            result["windows"] = spans("window", [(start / rate, stop / rate) for start, stop in bounds])
        if return_frames:
            ends = self._heard_until(int(answer["frame_mask"][0].sum()), result["duration"])
            result["frames"] = spans("frame", list(zip([0.0, *ends[:-1]], ends, strict=True)))
        if (turns := answer["turns"]) is not None:
            edges = [(heard.turn.start, heard.turn.end) for heard in turns if heard.error is None]
            judged = spans("turn", edges, top_k=None)
            segments = segments_of(turns, judged)
            speakers = speakers_of(segments)
            for entry in [*segments, *speakers]:
                if "emotions" in entry:
                    entry["emotions"] = entry["emotions"][:top_k]
            result |= {"segments": segments, "speakers": speakers}
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
            ends = [(t + 1) * config.frames_per_step / GRID for t in range(count)]
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


def turn_bounds(turns: Sequence[HeardTurn], samples: int, rate: int) -> list[tuple[int, int]]:
    """First sample of each turn that can be judged, and the one after its last, in a clip of so many samples."""
    judged = [heard.turn for heard in turns if heard.error is None]
    return [(round(turn.start * rate), min(round(turn.end * rate), samples)) for turn in judged]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
