"""Any classifier of facial expressions as a teacher: Hugging Face checkpoints, ONNX and LiteRT files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from audio_emotion.evaluation.label_matching import canonical_labels
from audio_emotion.teachers.load import FILES, describe, public_name, revision_of
from audio_emotion.teachers.outputs import Clip, TeacherFacts, TeacherPrediction, pooled, softmax

AT_ONCE = 32  # faces
PILLOW_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}

# From faces `(N, CROP, CROP, 3)` to probabilities `(N, C)` and embeddings `(N, D)`, None from a file that has none.
Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class FaceTeacher:
    """Sees the speaker's face.

    Args:
        name: of its column.
        source: Hub id or folder of an image classifier; or a YAML file that describes one, or an ONNX or LiteRT file:
            see docs/pseudo_labels.md.
        device: where a Hugging Face model computes.

    Attributes:
        facts: who it is.

    Raises:
        ValueError: for missing weights, classes without names, or a description that is wrong.
        ImportError: where the runtime of a file is missing.
    """

    def __init__(self, name: str, source: str, device: torch.device | str = "cpu") -> None:
        told = describe(source)
        model = told["model"]
        self.classify: Classify
        config = None
        if model.endswith(FILES):
            if "classes" not in told:
                raise ValueError(
                    f"{source}: expected the names of its classes, got none. Describe the file in a YAML file with "
                    "`model` and `classes` (docs/pseudo_labels.md)."
                )
            classes = told["classes"]
            self.classify = FileClassifier(told)
        else:
            network = ImageClassifier(model, device)
            config = network.config
            classes = told.get("classes") or [config.id2label[place] for place in range(config.num_labels)]
            self.classify = network
        self.facts = TeacherFacts(
            name=name,
            kind="face",
            source=public_name(model),
            revision=revision_of(model, config),
            classes=canonical_labels(classes, source),
            training_data=told.get("training_data", [{"model": public_name(model)}]),
            license=told.get("license", "LicenseRef-unknown"),
        )

    def label(self, clips: Sequence[Clip]) -> list[TeacherPrediction]:
        """See each clip's face in all of its pictures, and take the mean of the probabilities."""
        return [
            TeacherPrediction(reason=clip.no_face) if clip.face is None else self._see(clip.face) for clip in clips
        ]

    def _see(self, face: Any) -> TeacherPrediction:
        parts = [self.classify(face.crops[begin : begin + AT_ONCE]) for begin in range(0, len(face.crops), AT_ONCE)]
        probabilities = np.concatenate([part for part, _ in parts])  # (F, C)
        if probabilities.shape[1] != len(self.facts.classes):
            raise ValueError(
                f"{self.facts.source}: expected {len(self.facts.classes)} classes, {self.facts.classes}, got "
                f"{probabilities.shape[1]} outputs. Name all of them, in their order."
            )
        embeddings = [each for _, each in parts if each is not None]
        return TeacherPrediction(
            logits=pooled(probabilities),
            embedding=np.concatenate(embeddings).mean(axis=0) if embeddings else None,
            frame_times=face.times,
            frame_logits=np.log(np.maximum(probabilities, 1e-4)),
        )


class ImageClassifier:
    """A Hugging Face checkpoint.

    Args:
        source: Hub id or folder; safetensors only.
        device: where it computes.
    """

    def __init__(self, source: str, device: torch.device | str) -> None:
        self.model, info = AutoModelForImageClassification.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True
        )
        if absent := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
            raise ValueError(
                f"Expected all weights of {type(self.model).__name__} in {source!r}, got none for {absent}. Its "
                "answers would be random: choose a checkpoint that is fine-tuned on facial expressions."
            )
        self.model = self.model.to(device).eval()
        self.config = AutoConfig.from_pretrained(source)
        self.processor = AutoImageProcessor.from_pretrained(source)

    @torch.no_grad()
    def __call__(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities `(N, C)` of faces, and the mean of the last hidden layer, `(N, D)`."""
        pixels = self.processor(images=list(faces), return_tensors="pt").to(self.model.device)
        output = self.model(**pixels, output_hidden_states=True)
        hidden = output.hidden_states[
            -1
        ].float()  # (N, P, D) of a transformer, (N, D, H, W) of a convolutional network
        embedding = hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)  # (N, D)
        return softmax(output.logits.float().cpu().numpy()), embedding.cpu().numpy()


class FileClassifier:
    """An ONNX or LiteRT file; how it wants its faces is read from it, and from its description.

    Args:
        told: as `describe` gives it.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.color = told.get("color", "rgb")
        self.mean, self.std = float(told.get("mean", 0.0)), float(told.get("std", 1.0))
        self.gives_logits = told.get("outputs", "logits") == "logits"
        self.shape, self.run = (_onnx if told["model"].endswith(".onnx") else _litert)(told["model"])

    def __call__(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities `(N, C)` of faces, one at a time: a file's batch is often fixed to 1."""
        scores = np.stack([self.run(self._prepared(face)).reshape(-1) for face in faces]).astype(np.float32)
        return softmax(scores) if self.gives_logits else scores / scores.sum(-1, keepdims=True), None

    def _prepared(self, face: np.ndarray) -> np.ndarray:
        channels_first = self.shape[1] in (1, 3)
        height, width = self.shape[2:4] if channels_first else self.shape[1:3]
        channels = self.shape[1] if channels_first else self.shape[3]
        picture = (
            Image.fromarray(face).convert(PILLOW_MODES[self.color]).resize((width, height), Image.Resampling.BILINEAR)
        )
        pixels = np.asarray(picture, np.float32) / 255
        pixels = np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels  # (H, W, channels)
        pixels = (pixels[..., ::-1] if self.color == "bgr" else pixels) - self.mean
        pixels = pixels / self.std
        return np.ascontiguousarray((pixels.transpose(2, 0, 1) if channels_first else pixels)[None], np.float32)


def _onnx(file: str) -> tuple[list[int], Callable[[np.ndarray], np.ndarray]]:
    """Shape of a file's input, and what runs it."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(f"Running {file} needs onnxruntime: `pip install 'audio-emotion[onnx]'`.") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # processes share the cores, not threads
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    _check_shape(file, given.shape)
    return list(given.shape), lambda pixels: session.run(None, {given.name: pixels})[0]


def _litert(file: str) -> tuple[list[int], Callable[[np.ndarray], np.ndarray]]:
    """Shape of a file's input, and what runs it."""
    try:
        runtime = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise ImportError(f"Running {file} needs LiteRT: `pip install 'audio-emotion[video]'`.") from error
    interpreter = runtime.Interpreter(model_path=file, num_threads=1)
    interpreter.allocate_tensors()
    (given,), answer = interpreter.get_input_details(), interpreter.get_output_details()[0]
    _check_shape(file, list(given["shape"]))
    if given["dtype"] is not np.float32:
        raise ValueError(f"{file}: expected an input of float32, got {given['dtype'].__name__}. Convert it so.")

    def run(pixels: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(answer["index"])

    return [int(size) for size in given["shape"]], run


def _check_shape(file: str, shape: Sequence[Any]) -> None:
    sizes = list(shape)[1:]
    if len(sizes) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ValueError(f"{file}: expected an input of one picture, (1, H, W, 3) or (1, 3, H, W), got {list(shape)}.")
