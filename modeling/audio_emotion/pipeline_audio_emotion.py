"""The "audio-emotion" pipeline: audio in; dimensions, emotions and flags out, in plain Python."""

# SPDX-License-Identifier: Apache-2.0

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save

from .audio_decoding import MAX_DURATION
from .audio_io import read_audio
from .audio_sources import public_name
from .live_emotion import LiveEmotion, SlidingWindow
from .log_mel import HOP, WINDOW
from .pipeline_inputs import PredictionIterator, as_clip, as_clips, is_stream_of_clips
from .pipeline_outputs import OutputFormatter, as_array
from .pipeline_parameters import validate_parameters
from .pipeline_segments import MATCH, Span, SpeakerSegments, positive_integer, segments_within, windows_of
from .speaker_adaptation import PRIOR_CLIPS, adapted_model

MODELS = ("fused-emotion", "student-emotion")
TEACHER_FRAME_RATE = 50.0  # hertz
PARTS_BATCH_SIZE = 16  # windows or segments of one clip in one forward pass
PART_OUTPUTS = ("embedding", "dimensions", "logits", "log_variance", "distance")  # of a window or a segment
CLIP_FACTS = ("duration", "flags", "error", "name", "segments", "windows", MATCH)  # from `preprocess` to `postprocess`


class AudioEmotionPipeline(Pipeline):
    """Pipeline for emotion in speech: dimensions (activation, valence, dominance) and emotion categories.

    Clips are decoded, averaged to one channel and resampled; see [`read_audio`] for the inputs. Batching does not
    change the outputs.

    Examples:
        >>> import audio_emotion
        >>> from transformers import pipeline
        >>> emotion = pipeline("audio-emotion", model="a folder or a Hub id")
        >>> emotion("clip.wav")
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
                "heads for emotion: its outputs would be random."
            )
        if self.model.base_model is self.model:
            raise ValueError(
                f"Expected a model with its heads, got {type(self.model).__name__}, which only embeds. Load it with "
                "AutoModelForAudioClassification."
            )
        if self.feature_extractor.sampling_rate != (rate := self.model.config.sampling_rate):
            raise ValueError(
                f"Expected a feature extractor for the model's {rate} Hz, got one for "
                f"{self.feature_extractor.sampling_rate} Hz. Correct `preprocessor_config.json`."
            )
        self.model.eval()  # a model from its constructor is in training mode, with dropout

    def __call__(self, inputs: Any, **kwargs):
        """Predict the emotion in one or more clips.

        Args:
            inputs (`str`, `PathLike`, `bytes`, file object, `dict`, `tuple`, or a list, iterator or dataset of these):
                A clip is a path, an http(s) or file URL, the content of an audio file, a binary file object,
                `{"array", "sampling_rate"}`, `(rate, array)`, `(array, rate)` or a row of `datasets`.
            top_k (`int`, *optional*):
                Number of emotions to return; all by default.
            scale (`tuple[float, float]`, *optional*, defaults to `(0, 1)`):
                Lower and upper end of the dimensions' scale; `(1, 7)` is that of MSP-Podcast.
            return_embedding (`bool`, *optional*, defaults to `False`):
                Whether to add `"embedding"`, a list of `D` numbers, to the clip and to each window and segment.
            return_uncertainty (`bool`, *optional*, defaults to `False`):
                Whether to add `"uncertainty"`, the standard deviation of each dimension in units of the scale, to the
                clip and to each window and segment. Needs a model with `predict_variance`.
            return_frames (`bool`, *optional*, defaults to `False`):
                Whether to add `"frames"`, the prediction at each frame. A student's frame is the prediction for the
                clip cut at `end` seconds; a teacher's frames are computed from the whole clip.
            window (`float`, *optional*):
                Length of a window in seconds. Adds `"windows"`, each predicted as a clip of its own, with its flags.
            hop (`float`, *optional*):
                Seconds from the start of one window to that of the next; as long as a window by default.
            segments (`list` or `dict[str, list]`, *optional*):
                Speaker segments `{"start", "end", "speaker"}` or `(start, end, speaker)`, in seconds, of one clip, or
                a dict from the name of each clip (its path or id, with or without folders and suffix) to its list, as
                `audio_emotion.diarization.read_rttm` returns it. A segment with `"channel"`, counted from 1, is
                predicted from that channel, others from the mean of all. Adds `"segments"`, each predicted as a clip
                of its own, with its flags, or with `"error"`, and `"speakers"`, each speaker's mean weighted by
                duration. Of several clips, one without an entry has no segments.
            channels (`str` or `int`, *optional*, defaults to `"mix"`):
                `"mix"` predicts for the mean of the channels, a number (from 1) for that channel, and `"split"` for
                the mean and for each channel by itself: it adds `"channels"`, as for two speakers of a call.
            abstain (`float`, *optional*):
                Probability, 0 to 1, below which the most probable emotion is no answer: the clip, window or segment
                then has the flag `"abstained"`.
            max_duration (`float`, *optional*, defaults to 14400):
                Longest clip in seconds; a longer one is invalid, and is not decoded if its header states its duration.
            on_error (`str`, *optional*, defaults to `"raise"`):
                `"raise"`, or `"skip"` to return `{"error": reason, "input": name}` for an invalid clip.
            batch_size (`int`, *optional*, defaults to 1):
                Number of clips in one forward pass.
            **kwargs: the parameters above.

        Returns:
            A `dict` for one clip, a list of dicts for a list or tuple, an iterator of dicts for anything else.

        Raises:
            ValueError: on a clip that cannot be processed, naming it; on an invalid parameter; on segments of none of
                several clips.
            TypeError: on an unknown parameter.
        """
        inputs = as_clips(inputs, self.feature_extractor.sampling_rate)
        if isinstance(inputs, list) and not inputs:
            return []
        if (size := kwargs.get("batch_size")) is not None:
            kwargs["batch_size"] = positive_integer("batch_size", size, "clips")
        is_stream = is_stream_of_clips(inputs)
        several = is_stream or isinstance(inputs, (list, Dataset))
        segments = kwargs.get("segments", self._preprocess_params.get("segments"))
        if segments is not None:
            if kwargs.get("channels") == "split":
                raise ValueError('Expected `segments` or `channels="split"`, got both: give the segments a channel.')
            segments = kwargs["segments"] = SpeakerSegments.parse(segments).for_clips(several)
        run = super().__call__
        if not several:
            return run(inputs, **kwargs)

        def predict() -> Iterable[dict[str, Any]]:
            # The base class recognizes a generator as a stream.
            predictions = run((clip for clip in inputs) if is_stream else inputs, **kwargs)
            return segments.check_matched(predictions) if segments else predictions

        return list(predict()) if isinstance(inputs, list) else PredictionIterator(predict, inputs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the model, the feature extractor and the pipeline's code.

        The base class leaves out the code where the pipeline itself was loaded from a checkpoint.

        Args:
            save_directory: created if missing.
            **kwargs: passed on.
        """
        super().save_pretrained(save_directory, **kwargs)
        custom_object_save(self, save_directory)

    def adapt(self, clips: Any, prior: float = PRIOR_CLIPS) -> "AudioEmotionPipeline":
        """A pipeline for one speaker and microphone, from a few unlabeled clips of them; this one is not changed.

        The features are standardized with the statistics of these clips, see [`adapted_model`]. Take clips of several
        emotions: those of a single one would make it the speaker's normal state.

        Args:
            clips: one or more, as for a call; five to ten are enough.
            prior: number of clips that the statistics of the training set count for.

        Raises:
            ValueError: without clips, on a clip that cannot be processed, or for a negative prior.
        """
        clips = as_clips(clips, self.feature_extractor.sampling_rate)
        several = is_stream_of_clips(clips) or isinstance(clips, (list, Dataset))
        read = [self.preprocess(clip) for clip in (clips if several else [clips])]
        inputs = [{name: each[name].to(self.device) for name in ("input_values", "attention_mask")} for each in read]
        adapted = copy.copy(self)
        adapted.model = adapted_model(self.model, inputs, prior)
        return adapted

    def stream(
        self, sampling_rate: int = 16000, window: float = 4.0, hop: float = 0.5, **parameters: Any
    ) -> LiveEmotion:
        """Start a stream of sound, which is fed in parts of any length, see [`LiveEmotion`].

        A student predicts for all samples so far, with a state of fixed size. Another model predicts the last `window`
        seconds every `hop` seconds.

        Args:
            sampling_rate: of the samples, in hertz.
            window: seconds, for a model that is no student.
            hop: seconds, for a model that is no student.
            **parameters: `top_k`, `scale`, `return_embedding`, `return_uncertainty`.
        """
        given = validate_parameters({**self._postprocess_params, **parameters})
        formatter = OutputFormatter(
            self.model.config.dimensions,
            self.model.config.emotions,
            given.get("scale") or (0.0, 1.0),
            given.get("return_uncertainty", False),
            given.get("return_embedding", False),
            given.get("abstain"),
        )
        rate = self.model.config.sampling_rate
        engine: Any = SlidingWindow(self._predict_now, rate, window, hop)
        if hasattr(self.model, "stream") and not self.model.config.bidirectional:
            engine = _StudentStream(self.model.stream())
        return LiveEmotion(engine, formatter, sampling_rate, rate, given.get("top_k"))

    @torch.no_grad()
    def _predict_now(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs `(1, ...)` for samples `(S,)`."""
        waveform = torch.from_numpy(samples)[None].to(self.device)
        output = self.model(waveform, torch.ones_like(waveform, dtype=torch.long))
        return {name: as_array(output[name]) for name in PART_OUTPUTS if name in output}

    def check_parameters(self, **parameters: Any) -> None:
        """Raise the error of a call with these parameters, if they are invalid."""
        self._sanitize_parameters(**parameters)

    def _sanitize_parameters(self, **parameters) -> tuple[dict, dict, dict]:
        """Check the parameters and divide them among the three steps."""
        parameters = validate_parameters(parameters)
        if parameters.get("return_uncertainty") and not self.model.config.predict_variance:
            raise ValueError(
                "`return_uncertainty` needs a model that predicts its variance; this one was trained with "
                "`predict_variance=False`. Leave it out, or train a model with `--predict_variance true`."
            )

        def given(*names: str) -> dict:
            return {name: parameters[name] for name in names if name in parameters}

        return (
            given("on_error", "segments", "window", "hop", "max_duration", "channels"),
            given("return_frames"),
            given(
                *("window", "return_frames", "top_k", "scale", "return_embedding", "return_uncertainty", "on_error"),
                "channels",
                "abstain",
            ),
        )

    def preprocess(
        self,
        inputs: Any,
        on_error: str = "raise",
        segments: SpeakerSegments | None = None,
        window: float | None = None,
        hop: float | None = None,
        max_duration: float = MAX_DURATION,
        channels: str | int = "mix",
    ) -> dict[str, Any]:
        """Read one clip: `input_values (1, S)`, `attention_mask (1, S)`, and `CLIP_FACTS`."""
        if hop is not None and window is None:
            raise ValueError(f"`hop` ({hop!r}) needs `window`, the length of a window in seconds.")
        rate = self.feature_extractor.sampling_rate
        inputs = as_clip(inputs)
        try:
            clip = read_audio(inputs, rate, max_duration)
            key, spans = None, None
            if channels == "split":
                spans = segments_within(SpeakerSegments.of_channels(clip, max_duration), clip, max_duration)
            elif not isinstance(channels, str):
                clip = clip.channel(channels, max_duration)
            if segments is not None:
                key, own = segments.of_clip(clip.name)
                spans = segments_within(own, clip, max_duration)
        except ValueError as error:
            if on_error == "raise":
                raise
            name = public_name(inputs) if isinstance(inputs, (str, Path)) else str(error).partition(": expected ")[0]
            # Every item of a batch needs the same keys, so a skipped clip is replaced by silence.
            silence = torch.zeros(1, rate)
            return {
                "input_values": silence,
                "attention_mask": torch.ones_like(silence, dtype=torch.long),
                **{"duration": 0.0, "flags": (), "error": str(error), "name": name, "segments": (), "windows": ()},
                MATCH: None,
            }
        batch = self.feature_extractor(clip.waveform, sampling_rate=rate, return_tensors="pt")
        return {
            "input_values": batch["input_values"],
            "attention_mask": batch["attention_mask"],
            **{"duration": clip.duration, "flags": clip.flags, "error": None, "name": clip.name, "segments": spans},
            "windows": () if window is None else windows_of(clip, window, hop),
            MATCH: (key, clip.name) if segments is not None and segments.several else None,
        }

    def _forward(self, inputs: dict[str, Any], return_frames: bool = False) -> dict[str, Any]:
        """Run the model on a batch and on the parts of its clips; every tensor has the batch first."""
        waveform, mask = inputs["input_values"], inputs["attention_mask"]  # (B, S), (B, S)
        options = {"output_frames": True} if return_frames else {}
        output = self.model(waveform, mask, **options)
        outputs = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
        clips = [clip[:length] for clip, length in zip(waveform, mask.sum(-1), strict=True)]
        for kind, name in (("window", "windows"), ("segment", "segments")):
            # The base class passes the value of a single clip, or a list of those of several.
            per_clip = inputs[name] if isinstance(inputs[name], list) else [inputs[name]]
            parts = [
                [_samples_of(span, clip) for span in spans or () if span.error is None]
                for clip, spans in zip(clips, per_clip, strict=True)
            ]
            if any(parts):
                outputs |= self._predict_parts(kind, parts)
        return outputs | {name: inputs[name] for name in CLIP_FACTS}

    def _predict_parts(self, kind: str, parts: list[list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Predict the parts `(S,)` of each clip: tensors `(B, N, ...)`, padded with 0 after each clip's last part."""
        per_clip = [self._predict_parts_of_one(each) for each in parts]
        most = max(map(len, parts))
        outputs = {}
        for name, like in max(per_clip, key=len).items():
            rows = [each.get(name, like[:0]) for each in per_clip]
            padded = [nn.functional.pad(each, (0, 0) * (each.ndim - 1) + (0, most - len(each))) for each in rows]
            outputs[f"{kind}_{name}"] = torch.stack(padded)  # (B, N, ...)
        return outputs

    def _predict_parts_of_one(self, parts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Predict the parts `(S,)` of one clip: tensors `(N, ...)`; empty where there are no parts."""
        outputs = []
        for first in range(0, len(parts), PARTS_BATCH_SIZE):
            chosen = parts[first : first + PARTS_BATCH_SIZE]
            waveforms = nn.utils.rnn.pad_sequence(chosen, batch_first=True)  # (N, S)
            mask = nn.utils.rnn.pad_sequence([torch.ones_like(part, dtype=torch.long) for part in chosen], True)
            outputs.append(self.model(waveforms, mask))
        names = [name for name in PART_OUTPUTS if outputs and name in outputs[0]]
        return {name: torch.cat([output[name] for output in outputs]) for name in names}

    def postprocess(
        self,
        outputs: dict[str, Any],
        top_k: int | None = None,
        scale: tuple[float, float] | None = None,
        return_embedding: bool = False,
        return_uncertainty: bool = False,
        return_frames: bool = False,
        window: float | None = None,
        on_error: str = "raise",
        channels: str | int = "mix",
        abstain: float | None = None,
    ) -> dict[str, Any]:
        """Convert the tensors of one clip, batch first, to plain Python."""
        if outputs["error"] is not None:
            return {"error": outputs["error"], "input": outputs["name"]}
        numbers = [value for name, value in outputs.items() if name.endswith(PART_OUTPUTS)]
        if not all(value.isfinite().all() for value in numbers):
            error = (
                f"{outputs['name']}: expected finite numbers from the model, got NaN or infinite ones. Its weights "
                "are broken, or its precision cannot represent this clip: try float32."
            )
            if on_error == "raise":
                raise ValueError(error)
            return {"error": error, "input": outputs["name"]}
        config = self.model.config
        formatter = OutputFormatter(
            config.dimensions, config.emotions, scale or (0.0, 1.0), return_uncertainty, return_embedding, abstain
        )
        windows = None if window is None else outputs["windows"]
        spans, split = outputs["segments"], channels == "split"
        result = formatter.prediction(
            outputs,
            outputs["duration"],
            outputs["flags"],
            windows,
            None if split else spans,
            top_k,
            spans if split else None,
        )
        if return_frames:
            ends = self._frame_ends(int(outputs["frame_mask"][0].sum()), result["duration"])
            rows = formatter.rows(outputs, "frame", len(ends), top_k)
            frames = zip([0.0, *ends[:-1]], ends, rows, strict=True)
            result["frames"] = [{"start": start, "end": end, **row} for start, end, row in frames]
        return result if outputs[MATCH] is None else result | {MATCH: outputs[MATCH]}

    def _frame_ends(self, count: int, duration: float) -> list[float]:
        """End in seconds of each of `count` frames: where the last sample is that the frame depends on."""
        config = self.model.config
        if config.model_type == "student-emotion":
            last = [config.frames_per_step * (t + 1 + config.look_ahead) - 1 for t in range(count)]  # log-mel frames
            ends = [(HOP * frame + WINDOW) / config.sampling_rate for frame in last]
        else:
            ends = [(t + 1) * config.frames_per_step / TEACHER_FRAME_RATE for t in range(count)]
        return [min(end, duration) for end in ends]


class _StudentStream:
    """The engine of a student: see [`LiveEmotion`]."""

    def __init__(self, stream: Any):
        self._stream = stream

    def feed(self, samples: np.ndarray) -> dict[str, np.ndarray] | None:
        output = self._stream.feed(torch.from_numpy(samples))
        return None if output is None else {name: as_array(each) for name, each in output.items()}

    def result(self) -> dict[str, np.ndarray] | None:
        if not self._stream.fed[0]:
            return None
        return {name: as_array(each) for name, each in self._stream.result().items()}


def _samples_of(span: Span, clip: torch.Tensor) -> torch.Tensor:
    """The model's input for a part of a clip `(S,)`, or of one of its channels."""
    return clip[slice(*span.samples)] if span.waveform is None else torch.from_numpy(span.waveform).to(clip)
