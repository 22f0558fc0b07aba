"""The "audio-emotion" pipeline: any audio in; named values, their scale, and flags out, in plain Python."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save

from .audio_io import read_audio
from .layers import HOP, WINDOW
from .pipeline_outputs import (
    OutputFormatter,
    SpeakerTurns,
    heard_turns,
    heard_windows,
    positive_integer,
    segments_of,
    speakers_of,
    turn_bounds,
    validate_parameters,
    window_bounds,
)


class AnswerStream:
    """An iterator over answers, as long as its clips.

    A loop goes on where the last one, or `next`, has stopped. After the end, a new loop judges the clips once more:
    those of a data set are still there, those of an iterator are gone.

    Args:
        judge: begins to judge, and gives the answers.
        clips: what is judged.
    """

    def __init__(self, judge: Callable[[], Iterable[dict[str, Any]]], clips: Any):
        self._judge = judge
        self._clips = clips
        self._answers = iter(judge())
        self._ended = False

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._ended:
            self._answers, self._ended = iter(self._judge()), False
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self._answers)
        except StopIteration:
            self._ended = True
            raise


PIECES_AT_ONCE = 16  # windows or turns of one clip that go through the model together
MODELS = ("fused-emotion", "student-emotion")
GRID = 50.0  # frames per second of a teacher
PIECE_OUTPUTS = ("embedding", "dimensions", "logits", "log_variance")  # of a window or a turn


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
        if self.model.base_model is self.model:
            raise ValueError(
                f"Expected a model with its heads, got {type(self.model).__name__}, which only embeds. Load it with "
                "AutoModelForAudioClassification."
            )
        if self.feature_extractor.sampling_rate != (rate := self.model.config.sampling_rate):
            raise ValueError(
                f"Expected a feature extractor for the model's {rate} Hz, got one for "
                f"{self.feature_extractor.sampling_rate} Hz: the model would hear another pitch. Mend "
                "`preprocessor_config.json`."
            )
        self.model.eval()  # a model fresh from its constructor would answer with dropout

    def __call__(self, inputs: Any, **kwargs):
        """MatchedClassifier one clip, or many.

        Args:
            inputs: one clip (a path, a URL, bytes, a binary file, `{"array", "sampling_rate"}`, a row of `datasets`),
                a list of clips, or an iterator or dataset of clips.
            top_k (`int`, *optional*): how many emotions to name; all by default.
            scale (`tuple[float, float]`, *optional*): ends of the dimensions' scale, `(0, 1)` by default; `(1, 7)` is
                that of MSP-Podcast.
            return_embedding (`bool`, *optional*): adds `"embedding"`, a list of `D` numbers, to the clip and to
                each window and segment.
            return_uncertainty (`bool`, *optional*): adds to the same `"uncertainty"`, the standard deviation of each
                dimension, in units of the scale.
            return_frames (`bool`, *optional*): adds `"frames"`, what the model says when it has heard the clip up to
                `end` seconds (a teacher has heard all of it: its frames say where, not when).
            window (`float`, *optional*): adds `"windows"`, pieces of so many seconds judged each on its own, with
                flags of its own.
            hop (`float`, *optional*): seconds from one window's start to the next; as long as a window by default.
            segments (`str` or `list[dict]`, *optional*): who speaks when, as the path of an RTTM file or as
                `{"start", "end", "speaker"}` in seconds. Adds `"segments"`, each turn judged on its own with flags of
                its own, or with `"error"` where it cannot be judged, and `"speakers"`, each speaker's mean over the
                seconds of his turns. For several clips, the second field of RTTM names each; one that it does not name
                has no segments.
            on_error (`str`, *optional*): what to do with a clip that cannot be judged: `"raise"` (the default), or
                `"skip"`, which answers `{"error": why, "input": its name}`.
            batch_size (`int`, *optional*): clips that go through the model together; 1 by default.
            **kwargs: these.

        Returns:
            a `dict` for one clip, a list of them for a list or tuple, an iterator for anything else.

        Raises:
            ValueError: on a clip that cannot be judged, naming it; on a parameter that makes no sense; on RTTM that
                cannot be read, naming the line, or that names none of several clips.
            TypeError: on an unknown parameter.
        """
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if (size := kwargs.get("batch_size")) is not None:
            kwargs["batch_size"] = positive_integer("batch_size", size, "clips")
        stream = _is_stream(inputs)
        several = stream or isinstance(inputs, (list, Dataset))
        turns = None if kwargs.get("segments") is None else SpeakerTurns.read(kwargs["segments"], several)
        base, parameters = super().__call__, {**kwargs, "segments": turns} if turns else kwargs
        if not several:
            return base(inputs, **parameters)

        def judge() -> Iterable[dict[str, Any]]:
            # A generator is what the base class knows as a stream.
            answers = base((clip for clip in inputs) if stream else inputs, **parameters)
            return turns.checked(answers) if turns else answers

        return list(judge()) if isinstance(inputs, list) else AnswerStream(judge, inputs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and front end as transformers does, and always the pipeline's code beside them.

        The base class forgets it where the pipeline itself was loaded from a checkpoint.

        Args:
            save_directory: where to; made if missing.
            **kwargs: passed on.
        """
        super().save_pretrained(save_directory, **kwargs)
        custom_object_save(self, save_directory)

    def _sanitize_parameters(self, **parameters) -> tuple[dict, dict, dict]:
        """Check what was given, and hand each step its own."""
        parameters = validate_parameters(parameters)
        if parameters.get("return_uncertainty") and not self.model.config.predict_variance:
            raise ValueError(
                "`return_uncertainty` needs a model that predicts its own variance; this one was trained with "
                "`predict_variance=False`. Leave the parameter out, or use another model."
            )

        def given(*names: str) -> dict:
            return {name: parameters[name] for name in names if name in parameters}

        return (
            given("on_error", "segments", "window", "hop"),
            given("window", "hop", "return_frames"),
            given(
                *("window", "return_frames", "top_k", "scale", "return_embedding", "return_uncertainty", "on_error"),
            ),
        )

    def preprocess(
        self,
        inputs: Any,
        on_error: str = "raise",
        segments: SpeakerTurns | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> dict[str, Any]:
        """One clip to `input_values (1, S)` and `attention_mask (1, S)`, with what is known of it."""
        rate = self.feature_extractor.sampling_rate
        try:
            clip = read_audio(inputs, rate)
            turns = None if segments is None else heard_turns(segments.of_clip(clip.name), clip)
        except ValueError as error:
            if on_error == "raise":
                raise
            name = str(inputs) if isinstance(inputs, (str, Path)) else str(error).partition(": expected ")[0]
            # Every item of a batch needs the same keys: silence stands in for the clip.
            silence = torch.zeros(1, rate)
            return {
                "input_values": silence,
                "attention_mask": torch.ones_like(silence, dtype=torch.long),
                **{"duration": 0.0, "flags": (), "error": str(error), "name": name, "turns": (), "windows": ()},
            }
        windows = () if window is None else heard_windows(clip, window, hop)
        batch = self.feature_extractor(clip.waveform, sampling_rate=rate, return_tensors="pt")
        return {
            "input_values": batch["input_values"],
            "attention_mask": batch["attention_mask"],
            **{"duration": clip.duration, "flags": clip.flags, "error": None, "name": clip.name, "turns": turns},
            "windows": windows,
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
        return {
            **answer,
            **{name: inputs[name] for name in ("duration", "flags", "error", "name", "turns", "windows")},
        }

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
        names = [name for name in PIECE_OUTPUTS if outputs and name in outputs[0]]
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
        on_error: str = "raise",
    ) -> dict[str, Any]:
        """Tensors of one clip, batch first, to plain Python."""
        if answer["error"] is not None:
            return {"error": answer["error"], "input": answer["name"]}
        numbers = [value for name, value in answer.items() if name.endswith(PIECE_OUTPUTS)]
        if not all(value.isfinite().all() for value in numbers):
            error = (
                f"{answer['name']}: expected finite numbers from the model, got NaN or infinite ones. Its weights are "
                "broken, or its precision cannot hold this clip: try float32."
            )
            if on_error == "raise":
                raise ValueError(error)
            return {"error": error, "input": answer["name"]}
        config = self.model.config
        words = OutputFormatter(
            config.dimensions, config.emotions, scale or (0.0, 1.0), return_uncertainty, return_embedding
        )
        (whole,) = words.rows(answer, "", 1, top_k)
        result: dict[str, Any] = {}
        if "dimensions" in whole:
            result |= {"dimensions": whole.pop("dimensions"), "scale": list(words.scale)}
        if "emotions" in whole:
            result["emotions"] = whole.pop("emotions")
        result |= {"duration": float(answer["duration"]), "flags": list(answer["flags"]), **whole}
        if window is not None:
            said = words.rows(answer, "window", len(answer["windows"]), top_k)
            result["windows"] = [
                {"start": heard.start, "end": heard.end, **each, "flags": list(heard.flags)}
                for heard, each in zip(answer["windows"], said, strict=True)
            ]
        if return_frames:
            ends = self._heard_until(int(answer["frame_mask"][0].sum()), result["duration"])
            said = words.rows(answer, "frame", len(ends), top_k)
            spans = zip([0.0, *ends[:-1]], ends, said, strict=True)
            result["frames"] = [{"start": start, "end": end, **each} for start, end, each in spans]
        if (turns := answer["turns"]) is not None:
            judged = words.rows(answer, "turn", sum(heard.error is None for heard in turns), top_k=None)
            segments = segments_of(turns, judged)
            speakers = speakers_of(segments)
            for entry in [*segments, *speakers]:
                if "emotions" in entry:
                    entry["emotions"] = entry["emotions"][:top_k]
            result |= {"segments": segments, "speakers": speakers}
        return result

    def _heard_until(self, count: int, duration: float) -> list[float]:
        """Seconds of the clip that have gone into each of `count` frames."""
        config = self.model.config
        if config.model_type == "student-emotion":
            last = [config.frames_per_step * (t + 1 + config.look_ahead) - 1 for t in range(count)]  # log-mel frames
            ends = [(HOP * frame + WINDOW) / config.sampling_rate for frame in last]
        else:
            ends = [(t + 1) * config.frames_per_step / GRID for t in range(count)]
        return [min(end, duration) for end in ends]


def _is_stream(inputs: Any) -> bool:
    """Whether it gives clips one by one: a data set of `datasets`, a column of one, or an iterator but no file."""
    if type(inputs).__module__.partition(".")[0] == "datasets":  # which need not be installed
        return isinstance(inputs, Iterable) and not isinstance(inputs, Mapping)  # a row is a mapping
    return isinstance(inputs, Iterator) and not callable(getattr(inputs, "read", None))
