"""Facial expression classifiers as teachers: Hugging Face checkpoints, ONNX and LiteRT files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.special import softmax
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from audio_emotion.checkpoint_loading import loading_options
from audio_emotion.evaluation.label_matching import canonical_labels, load_complete
from audio_emotion.teachers.load import MODEL_FILES, TeacherDescription, get_revision, public_source, read_description
from audio_emotion.teachers.outputs import Clip, TeacherInfo, TeacherPrediction, logits_from_probabilities

FACES_PER_BATCH = 32
PILLOW_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}

# From faces `(N, CROP_PIXELS, CROP_PIXELS, 3)` to probabilities `(N, C)` and embeddings `(N, D)`, or None without.
Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class FaceTeacher:
    """Predicts from the speaker's face.

    The source is the Hub id or folder of an image classifier, or a YAML file that describes it or an ONNX or LiteRT
    file: see docs/pseudo_labels.md.
    """

    def __init__(self, name: str, source: str, device: torch.device | str = "cpu") -> None:
        description = read_description(source)
        model, classes = description.model, description.classes
        self.classify: Classify
        config = None
        if model.endswith(MODEL_FILES):
            if classes is None:
                raise ValueError(
                    f"{source}: expected the names of its classes, got none. Describe the file in a YAML file with "
                    "`model` and `classes` (docs/pseudo_labels.md)."
                )
            self.classify = FileClassifier(description)
        else:
            self.classify = ImageClassifier(model, device)
            config = self.classify.config
            classes = classes or [config.id2label[index] for index in range(config.num_labels)]
        training_data = description.training_data
        self.info = TeacherInfo(
            name=name,
            kind="face",
            source=public_source(model),
            revision=get_revision(model, config),
            classes=canonical_labels(classes, source),
            training_data=[{"model": public_source(model)}] if training_data is None else training_data,
            license=description.license,
        )

    def predict(self, clip: Clip) -> TeacherPrediction:
        """Output for one clip: the class probabilities averaged over the frames of the speaker's face."""
        if clip.face is None:
            return TeacherPrediction(reason=clip.no_face_reason)
        crops = clip.face.crops
        outputs = [
            self.classify(crops[start : start + FACES_PER_BATCH]) for start in range(0, len(crops), FACES_PER_BATCH)
        ]
        probabilities = np.concatenate([each for each, _ in outputs])  # (F, C)
        if probabilities.shape[1] != len(self.info.classes):
            raise ValueError(
                f"{self.info.source}: expected {len(self.info.classes)} classes, {self.info.classes}, got "
                f"{probabilities.shape[1]} outputs. Name all of them, in their order."
            )
        embeddings = [each for _, each in outputs if each is not None]
        return TeacherPrediction(
            logits=logits_from_probabilities(probabilities.mean(axis=0)),
            embedding=np.concatenate(embeddings).mean(axis=0) if embeddings else None,
            frame_times=clip.face.times,
            frame_logits=logits_from_probabilities(probabilities),
        )


class ImageClassifier:
    """A Hugging Face checkpoint; safetensors only."""

    def __init__(self, source: str, device: torch.device | str) -> None:
        options = loading_options(source)
        model = load_complete(AutoModelForImageClassification, source, use_safetensors=True, **options)
        self.model = model.to(device).eval()
        self.config = AutoConfig.from_pretrained(source, **options)
        self.processor = AutoImageProcessor.from_pretrained(source, **options)

    @torch.no_grad()
    def __call__(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities `(N, C)` of faces, and the mean of the last hidden layer, `(N, D)`."""
        pixels = self.processor(images=list(faces), return_tensors="pt").to(self.model.device)
        output = self.model(**pixels, output_hidden_states=True)
        hidden = output.hidden_states[-1].float()  # (N, P, D) of a transformer, (N, D, H, W) of a CNN
        embedding = hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)  # (N, D)
        return softmax(output.logits.float().cpu().numpy(), axis=-1), embedding.cpu().numpy()


class FileClassifier:
    """An ONNX or LiteRT file; the size and layout of its input are read from the file, the rest is described."""

    def __init__(self, description: TeacherDescription) -> None:
        self.description = description
        load = _load_onnx if description.model.endswith(".onnx") else _load_litert
        self.input_shape, self.run = load(description.model)
        sizes = self.input_shape[1:]
        if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(
                f"{description.model}: expected an input of one image, (1, H, W, 3) or (1, 3, H, W), got "
                f"{list(self.input_shape)}. Export the model with a fixed size."
            )

    def __call__(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities `(N, C)` of faces, one at a time: the batch size of a file is often fixed to 1."""
        scores = np.stack([self.run(self._preprocess(face)).reshape(-1) for face in faces]).astype(np.float32)
        if self.description.outputs == "logits":
            return softmax(scores, axis=-1), None
        return scores / scores.sum(-1, keepdims=True), None

    def _preprocess(self, face: np.ndarray) -> np.ndarray:
        """Input `(1, ...)` of the model from a face `(H, W, 3)`."""
        channels_first = self.input_shape[1] in (1, 3)
        channels = self.input_shape[1] if channels_first else self.input_shape[3]
        height, width = self.input_shape[2:4] if channels_first else self.input_shape[1:3]
        image = Image.fromarray(face).convert(PILLOW_MODES[self.description.color])
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
        pixels = np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels  # (H, W, channels)
        pixels = pixels[..., ::-1] if self.description.color == "bgr" else pixels
        pixels = (pixels - self.description.mean) / self.description.std
        return np.ascontiguousarray((pixels.transpose(2, 0, 1) if channels_first else pixels)[None], np.float32)


def _load_onnx(file: str) -> tuple[Sequence[Any], Callable[[np.ndarray], np.ndarray]]:
    """Input shape of a file, and a function that runs it."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(f"Running {file} needs onnxruntime: `pip install 'audio-emotion[onnx]'`.") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # cores are shared by processes, not threads
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    return tensor.shape, lambda pixels: session.run(None, {tensor.name: pixels})[0]


def _load_litert(file: str) -> tuple[Sequence[Any], Callable[[np.ndarray], np.ndarray]]:
    """Input shape of a file, and a function that runs it."""
    try:
        runtime = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise ImportError(f"Running {file} needs LiteRT: `pip install 'audio-emotion[video]'`.") from error
    interpreter = runtime.Interpreter(model_path=file, num_threads=1)
    interpreter.allocate_tensors()
    (tensor,), output = interpreter.get_input_details(), interpreter.get_output_details()[0]
    if tensor["dtype"] is not np.float32:
        raise ValueError(f"{file}: expected an input of float32, got {tensor['dtype'].__name__}. Convert the model.")

    def run(pixels: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(tensor["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return tensor["shape"].tolist(), run
