"""Prediction without torch: onnxruntime, numpy, soundfile and soxr, with the inputs and outputs of the pipeline.

Where torch is installed, `import audio_emotion` imports it. With the environment variable `AUDIO_EMOTION_RUNTIME=1`,
the package is imported as where torch is absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .audio_decoding import MAX_DURATION
from .audio_io import AudioClip, read_audio
from .audio_sources import public_name
from .live_emotion import LiveEmotion, Outputs, SlidingWindow
from .pipeline_outputs import OutputFormatter
from .pipeline_parameters import validate_parameters
from .pipeline_segments import MATCH, Span, SpeakerSegments, segments_within, windows_of

FORMAT = "audio-emotion 1"
FACTS = ("emotions", "dimensions", "sampling_rate", "predict_variance", "frames_per_step", "license")
OFFLINE, STREAMING = "model.onnx", "model_streaming.onnx"  # in the folder `onnx`, where transformers.js looks
OUTPUTS = ("logits", "dimensions", "log_variance", "embedding", "distance")
UNSUPPORTED = ("return_frames",)  # parameters of the pipeline that a graph cannot serve


class EmotionRuntime:
    """The pipeline's predictions from an exported graph.

    Args:
        model: a folder with `onnx/model.onnx` or `model.onnx`, or that file; by default the model in this package.
        threads: of one prediction; several processes with several threads each are slower than with one.
        **parameters: defaults of those of a call.

    Examples:
        >>> from audio_emotion.runtime import EmotionRuntime
        >>> emotion = EmotionRuntime()
        >>> emotion("clip.wav", top_k=1)

    Raises:
        FileNotFoundError: where there is no graph.
        ValueError: for a graph that was not exported by this package.
    """

    def __init__(self, model: str | Path | None = None, threads: int = 1, **parameters: Any):
        self.path = find_graph(model)
        self.threads = threads
        self._session = open_session(self.path, threads)
        self._streaming_session: Any = None
        facts = self._session.get_modelmeta().custom_metadata_map
        if json.loads(facts.get("format", '""')) != FORMAT:
            raise ValueError(
                f"Expected a graph with the format {FORMAT!r} in its metadata, got {facts.get('format')!r} in "
                f"{self.path}. Export the model with `audio-emotion export`."
            )
        self.facts: dict[str, Any] = {name: json.loads(facts[name]) for name in FACTS}  # other tools add their own
        self.dimensions: list[str] = self.facts["dimensions"]
        self.emotions: list[str] = self.facts["emotions"]
        self.sampling_rate: int = self.facts["sampling_rate"]
        self._names = [each.name for each in self._session.get_outputs()]
        self._defaults = self._checked(parameters)

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        """Predict the emotion in one or more clips.

        Args:
            inputs: a clip as the pipeline takes it, or a list or iterator of clips.
            **parameters: those of the pipeline, but `return_frames` and `batch_size`.

        Returns:
            a dict for one clip, a list for a list, and an iterator for an iterator.

        Raises:
            ValueError: for a clip that cannot be processed, unless `on_error="skip"`; for an invalid parameter.
            TypeError: for an unknown parameter.
        """
        given = {**self._defaults, **self._checked(parameters)}
        several = isinstance(inputs, list) or (isinstance(inputs, Iterator) and not hasattr(inputs, "read"))
        segments = given.get("segments")
        if segments is not None:
            given["segments"] = segments = segments.for_clips(several)
        if not several:
            found = self._predict(inputs, given)
            found.pop(MATCH, None)
            return found
        predictions: Iterable[dict[str, Any]] = (self._predict(each, given) for each in inputs)
        predictions = segments.check_matched(predictions) if segments else _without_match(predictions)
        return list(predictions) if isinstance(inputs, list) else predictions

    def stream(
        self, sampling_rate: int = 16000, window: float = 4.0, hop: float = 0.5, **parameters: Any
    ) -> LiveEmotion:
        """Start a stream of sound, see [`LiveEmotion`].

        Args:
            sampling_rate: of the samples, in hertz.
            window: seconds that a model without a graph for streams predicts at a time.
            hop: seconds between its predictions.
            **parameters: `top_k`, `scale`, `return_embedding`, `return_uncertainty`.
        """
        given = {**self._defaults, **self._checked(parameters)}
        streaming = self.path.with_name(STREAMING)
        engine: Any = SlidingWindow(self.run, self.sampling_rate, window, hop)
        if streaming.is_file():
            if self._streaming_session is None:  # loaded once: it holds no state, and costs more than seconds of sound
                self._streaming_session = open_session(streaming, self.threads)
            engine = _StreamingGraph(self._streaming_session, self)
        return LiveEmotion(engine, self._formatter(given), sampling_rate, self.sampling_rate, given.get("top_k"))

    def check_parameters(self, **parameters: Any) -> None:
        """Raise the error of a call with these parameters, if they are invalid."""
        if parameters.get("hop") is not None and parameters.get("window") is None:
            raise ValueError(f"`hop` ({parameters['hop']!r}) needs `window`, the length of a window in seconds.")
        self._checked(parameters)

    def run(self, waveform: np.ndarray) -> Outputs:
        """Outputs `(1, ...)` for one clip `(S,)` at the model's sampling rate."""
        return self._run_batch([waveform])

    def _run_batch(self, waveforms: list[np.ndarray]) -> Outputs:
        """Outputs `(B, ...)` for clips of any length; padding changes nothing."""
        longest = max(
            max(map(len, waveforms)), self.facts["frames_per_step"] * 320 + 400
        )  # more than one step of any model
        values = np.zeros((len(waveforms), longest), np.float32)
        mask = np.zeros(values.shape, np.int64)
        for row, waveform in enumerate(waveforms):
            values[row, : len(waveform)] = waveform
            mask[row, : len(waveform)] = 1
        found = self._session.run(None, {"input_values": values, "attention_mask": mask})
        return dict(zip(self._names, found, strict=True))

    def _checked(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if wrong := [name for name in UNSUPPORTED if parameters.get(name)]:
            raise ValueError(f"A graph has no {', '.join(wrong)}: use the pipeline.")
        checked = validate_parameters({name: each for name, each in parameters.items() if name not in UNSUPPORTED})
        if checked.get("return_uncertainty") and not self.facts["predict_variance"]:
            raise ValueError("`return_uncertainty` needs a model that predicts its variance; leave it out.")
        return checked

    def _formatter(self, given: Mapping[str, Any]) -> OutputFormatter:
        return OutputFormatter(
            self.dimensions,
            self.emotions,
            given.get("scale") or (0.0, 1.0),
            bool(given.get("return_uncertainty")),
            bool(given.get("return_embedding")),
            given.get("abstain"),
        )

    def _predict(self, source: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The prediction for one clip, or its error."""
        window, hop, segments = given.get("window"), given.get("hop"), given.get("segments")
        if hop is not None and window is None:
            raise ValueError(f"`hop` ({hop!r}) needs `window`, the length of a window in seconds.")
        try:
            longest, channels = given.get("max_duration", MAX_DURATION), given.get("channels", "mix")
            clip = read_audio(source, self.sampling_rate, longest)
            key, spans = None, None
            if channels == "split":
                spans = segments_within(SpeakerSegments.of_channels(clip, longest), clip, longest)
            elif channels != "mix":
                clip = clip.channel(channels, longest)
            if segments is not None:
                key, own = segments.of_clip(clip.name)
                spans = segments_within(own, clip, given.get("max_duration", MAX_DURATION))
        except ValueError as error:
            if given.get("on_error", "raise") == "raise":
                raise
            name = public_name(source) if isinstance(source, (str, Path)) else str(error).partition(": expected ")[0]
            return {"error": str(error), "input": name}
        outputs = self.run(clip.waveform)
        windows = None if window is None else windows_of(clip, window, hop)
        for kind, parts in (("window", windows), ("segment", spans)):
            outputs |= self._parts(kind, clip, parts or ())
        if not all(np.isfinite(each).all() for each in outputs.values()):
            reason = f"{clip.name}: expected finite numbers from the model, got NaN or infinite ones."
            if given.get("on_error", "raise") == "raise":
                raise ValueError(reason)
            return {"error": reason, "input": clip.name}
        split = given.get("channels") == "split"
        found = self._formatter(given).prediction(
            outputs,
            clip.duration,
            clip.flags,
            windows,
            None if split else spans,
            given.get("top_k"),
            spans if split else None,
        )
        is_matched = isinstance(segments, SpeakerSegments) and segments.several
        return found | ({MATCH: (key, clip.name)} if is_matched else {})

    def _parts(self, kind: str, clip: AudioClip, spans: Iterable[Span]) -> Outputs:
        """Outputs of windows or segments, `(1, N, ...)`, one by one: memory does not depend on their number."""
        valid = [each for each in spans if each.error is None]
        if not valid:
            return {}
        rows = [
            self.run(clip.waveform[slice(*each.samples)] if each.waveform is None else each.waveform) for each in valid
        ]
        return {f"{kind}_{name}": np.stack([row[name][0] for row in rows])[None] for name in rows[0]}


class _StreamingGraph:
    """The engine of a graph with states: see [`audio_emotion.live_emotion.Engine`]."""

    def __init__(self, session: Any, runtime: EmotionRuntime):
        self._session, self._runtime = session, runtime
        inputs = {each.name: each.shape for each in session.get_inputs()}
        self._state = {
            name: np.zeros([1, *shape[1:]], np.float32) for name, shape in inputs.items() if name != "samples"
        }
        self._names = [each.name for each in session.get_outputs()]
        self._step = runtime.facts["frames_per_step"] * 160
        self._context = self._state["context"].shape[1]
        self._waiting = np.zeros(0, np.float32)
        self._fed = 0
        self._outputs: Outputs | None = None

    def feed(self, samples: np.ndarray) -> Outputs | None:
        """Run the steps that the samples complete."""
        before, self._fed = self._fed, self._fed + len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        if before < self._context <= self._fed:
            self._state["context"] = self._waiting[None, : self._context]
            self._waiting = self._waiting[self._context :]
        ready = len(self._waiting) // self._step * self._step if self._fed >= self._context else 0
        if ready:
            values = {"samples": self._waiting[None, :ready], **self._state}
            found = dict(zip(self._names, self._session.run(None, values), strict=True))
            self._waiting = self._waiting[ready:]
            self._state = {
                name.removeprefix("next_"): each for name, each in found.items() if name.startswith("next_")
            }
            self._outputs = {name: each[:, -1] for name, each in found.items() if name in OUTPUTS}
        return self._outputs

    def result(self) -> Outputs | None:
        """The outputs of the last step, or for less than a step those of the short clip."""
        if self._outputs is None and self._fed:
            head = self._state["context"][0] if self._fed >= self._context else np.zeros(0, np.float32)
            return self._runtime.run(np.concatenate([head, self._waiting]))
        return self._outputs


def find_graph(model: str | Path | None) -> Path:
    """The file of the graph for whole clips.

    Raises:
        FileNotFoundError: naming the folder, and the remedy.
    """
    folder = Path(__file__).parent / "embedded" / "lite" if model is None else Path(model)
    for path in (folder, folder / "onnx" / OFFLINE, folder / OFFLINE):
        if path.suffix == ".onnx" and path.is_file():
            return path
    raise FileNotFoundError(
        f"Expected `onnx/{OFFLINE}` in {folder}, got no such file. Write it with `audio-emotion export {folder}`, or "
        "download a checkpoint that has it: `hf download OWNER/NAME --local-dir FOLDER`."
    )


def open_session(path: Path, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _without_match(predictions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in predictions:
        each.pop(MATCH, None)
        yield each
