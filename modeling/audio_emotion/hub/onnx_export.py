"""Export of models to ONNX: a graph for whole clips, and for students one for streams, both from the waveform on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audio_emotion.log_mel import CONTEXT, HOP
from audio_emotion.modeling_student_emotion import StudentEmotionForAudioClassification
from audio_emotion.pretrained_emotion import EmotionForAudioClassification
from audio_emotion.runtime import FORMAT, OFFLINE, OUTPUTS, STREAMING, open_session

OPSET = 17  # onnxruntime-web runs all of its operators
TOLERANCE = 1e-4  # of probabilities, dimensions and embedding, relative to PyTorch
QUANTIZED = "model_quantized.onnx"  # 8-bit weights; the name that transformers.js expects
HALF = 4096  # smallest number of values of a weight that is stored in half precision


class OfflineGraph(nn.Module):
    """A model as a function of samples and mask, returning those of `OUTPUTS` that it has."""

    def __init__(self, model: EmotionForAudioClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Predict clips `(B, S)`."""
        output = self.model(input_values, attention_mask)
        return tuple(output[name] for name in OUTPUTS if name in output)


class StreamingGraph(nn.Module):
    """A student's `streaming_step` as a function of tensors."""

    def __init__(self, model: StudentEmotionForAudioClassification, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, samples: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Outputs `(B, T, ...)` and the new state."""
        outputs, following = self.model.streaming_step(samples, dict(zip(self.names, state, strict=True)))
        return *(outputs[name] for name in OUTPUTS if name in outputs), *(following[name] for name in self.names)


def export_onnx(model: EmotionForAudioClassification, folder: str | Path, quantize: bool = False) -> list[Path]:
    """Write the graphs of a model, and compare them with PyTorch.

    Args:
        model: with its heads, in float32.
        folder: created if missing; usually `onnx` in the folder of a checkpoint.
        quantize: also write [`QUANTIZED`], with 8-bit matrices of the graph for whole clips.

    Returns:
        the files.

    Raises:
        ImportError: where the extra `onnx` is missing.
        ValueError: if a graph and PyTorch differ by more than `TOLERANCE`.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{error}. Exporting needs the extra: pip install "audio-emotion[onnx]"') from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    training, model = model.training, model.eval()
    files = [_export_offline(model, folder / OFFLINE)]
    if quantize:
        files.append(_quantize(files[0], folder / QUANTIZED))
    if isinstance(model, StudentEmotionForAudioClassification) and not _why_not_streaming(model):
        files.append(_export_streaming(model, folder / STREAMING))
    for file in files:
        graph = onnx.load(file)
        _store_in_half_precision(graph)
        for key, value in describe(model).items():
            graph.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(graph)
        onnx.save(graph, file)
    check_offline(model, files[0])
    if files[-1].name == STREAMING:
        check_streaming(model, files[-1])
    model.train(training)
    return files


def can_export(model: EmotionForAudioClassification) -> bool:
    """Whether graphs can be written here: for students, and for teachers on Whisper and log-mel frames."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return False
    streams = getattr(model.config, "streams", ())
    return all(each["kind"] == "log-mel" or each["config"]["model_type"] == "whisper" for each in streams)


def describe(model: EmotionForAudioClassification) -> dict[str, str]:
    """What a runtime needs beside the graph, as its metadata."""
    config = model.config
    facts: dict[str, Any] = {
        "format": FORMAT,
        "model_type": config.model_type,
        "emotions": list(config.emotions),
        "dimensions": list(config.dimensions),
        "sampling_rate": config.sampling_rate,
        "license": config.license,
        "predict_variance": bool(config.predict_variance),
        "frames_per_step": config.frames_per_step,
        "look_ahead": config.look_ahead,
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def _why_not_streaming(model: StudentEmotionForAudioClassification) -> str:
    """Why a student has no streaming graph; empty if it has one."""
    if model.config.bidirectional or not hasattr(model.base_model.trunk.recurrence, "step"):
        return "its trunk is not a forward one"
    return "it has a look-ahead" if model.config.look_ahead and model.config.convolution_size else ""


def _export_offline(model: EmotionForAudioClassification, path: Path) -> Path:
    clips = 0.1 * torch.randn(2, 3 * 16_000, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(clips, dtype=torch.long)
    mask[1, 2 * 16_000 :] = 0
    output = model(clips, mask)
    names = [name for name in OUTPUTS if name in output]
    axes = {name: {0: "batch", 1: "samples"} for name in ("input_values", "attention_mask")}
    axes |= {name: {0: "batch"} for name in names}
    _export(OfflineGraph(model), (clips, mask), path, ["input_values", "attention_mask"], names, axes)
    return path


def _export_streaming(model: StudentEmotionForAudioClassification, path: Path) -> Path:
    state = model.base_model.initial_state(2)
    names = list(state)
    samples = 0.1 * torch.randn(2, 4 * model.config.frames_per_step * HOP)
    outputs = [name for name in OUTPUTS if name in model.streaming_step(samples, state)[0]]
    following = [f"next_{name}" for name in names]
    axes = {"samples": {0: "batch", 1: "samples"}} | {name: {0: "batch"} for name in [*names, *following]}
    axes |= {name: {0: "batch", 1: "steps"} for name in outputs}
    graph = StreamingGraph(model, names)
    _export(graph, (samples, *state.values()), path, ["samples", *names], [*outputs, *following], axes)
    return path


@torch.no_grad()
def _export(graph: nn.Module, inputs: tuple, path: Path, names: list[str], outputs: list[str], axes: dict) -> None:
    """Trace a graph. The exporter that traces nothing fixes the length of a recurrent layer (torch 2.11)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            inputs,
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _quantize(source: Path, path: Path) -> Path:
    """8-bit weights of matrix products, one scale per column; activations are quantized while running."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = ["MatMul", "Gemm"]
    quantize_dynamic(source, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=kinds)
    return path


def _store_in_half_precision(graph: Any) -> None:
    """Store large weights that half precision represents exactly so, with a cast that a session computes once."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in list(graph.graph.initializer):
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < HALF:
            continue
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half, values):
            continue
        stored = numpy_helper.from_array(half, f"{weight.name}_half")
        casts.append(helper.make_node("Cast", [stored.name], [weight.name], to=TensorProto.FLOAT))
        graph.graph.initializer.remove(weight)
        graph.graph.initializer.append(stored)
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)


@torch.no_grad()
def check_offline(model: EmotionForAudioClassification, path: Path, tolerance: float = TOLERANCE) -> float:
    """Largest difference between a graph and PyTorch on clips of several lengths, in a batch and alone.

    Raises:
        ValueError: above the tolerance.
    """
    session = open_session(path)
    names = [each.name for each in session.get_outputs()]
    largest = 0.0
    # Lengths in and between whole frames of 10 ms.
    for seed, seconds in enumerate(([0.3], [2.0, 1.2, 0.31], [0.3007], [2.0059, 1.2033], [33.0021])):
        clips = [_voice(round(16_000 * each), 10 * seed + place) for place, each in enumerate(seconds)]
        batch = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(each, dtype=torch.long) for each in clips], True)
        found = session.run(None, {"input_values": batch.numpy(), "attention_mask": mask.numpy()})
        output = model(batch, mask)
        largest = max(largest, _difference(dict(zip(names, map(torch.from_numpy, found), strict=True)), output))
    _require_equal(path, largest, tolerance)
    return largest


@torch.no_grad()
def check_streaming(model: StudentEmotionForAudioClassification, path: Path, tolerance: float = TOLERANCE) -> float:
    """Largest difference between a streaming graph, fed in two parts, and PyTorch on the whole.

    Raises:
        ValueError: above the tolerance.
    """
    session = open_session(path)
    names = [each.name for each in session.get_outputs()]
    step = model.config.frames_per_step * HOP
    clip = _voice(CONTEXT + 25 * step, 1)[None]
    state = {name: each.numpy() for name, each in model.base_model.initial_state(1).items()}
    state["context"] = clip[:, :CONTEXT].numpy()
    found: dict[str, Tensor] = {}
    for part in clip[:, CONTEXT:].split([7 * step, 18 * step], dim=1):
        outputs = dict(zip(names, session.run(None, {"samples": part.numpy(), **state}), strict=True))
        state = {name.removeprefix("next_"): each for name, each in outputs.items() if name.startswith("next_")}
        found = {name: torch.from_numpy(each)[:, -1] for name, each in outputs.items() if name in OUTPUTS}
    largest = _difference(found, model(clip))
    _require_equal(path, largest, tolerance)
    return largest


def _difference(found: dict[str, Tensor], expected: Any) -> float:
    """Largest difference of probabilities, dimensions and embeddings."""
    differences = []
    for name, each in found.items():
        if name == "logits":
            differences.append((each.softmax(-1) - expected[name].softmax(-1)).abs().max())
        else:
            differences.append((each - expected[name]).abs().max())
    return float(max(differences))


def _require_equal(path: Path, largest: float, tolerance: float) -> None:
    if not largest <= tolerance:
        raise ValueError(
            f"Expected a graph that equals PyTorch to {tolerance:g}, got a difference of {largest:.2g} in {path}. Do "
            "not publish it; report it with the versions of torch and onnxruntime."
        )


def _voice(samples: int, seed: int) -> Tensor:
    """Noise whose level changes, `(S,)`."""
    random = torch.Generator().manual_seed(seed)
    level = 0.02 + 0.2 * torch.rand(samples // 800 + 1, generator=random).repeat_interleave(800)[:samples]
    return level * torch.randn(samples, generator=random)
