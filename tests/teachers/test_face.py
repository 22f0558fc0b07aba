"""Outputs of face teachers equal those of their models, averaged over frames, with canonical class names."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.special import softmax
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil, ViTModel

from audio_emotion.teachers.face import FaceTeacher
from audio_emotion.teachers.faces import CROP_PIXELS, HaarDetector, SpeakingFace, find_speaking_face
from audio_emotion.teachers.outputs import Clip
from audio_emotion.teachers.video import Video

NAMES = ["Happiness", "Fear", "neutral"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny random image classifier in the format of the Hub."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, id2label=dict(enumerate(NAMES)), initializer_range=0.5)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clip_with_face(count: int = 3, seed: int = 0) -> Clip:
    crops = np.random.default_rng(seed).integers(0, 256, (count, CROP_PIXELS, CROP_PIXELS, 3), np.uint8)
    times = np.arange(count, dtype=np.float32) / 4
    return Clip("c/1", np.zeros(16000, np.float32), SpeakingFace(times, crops, 1.0, 1))


def write_onnx(path: Path, shape: list, reduce_axes: list[int], bias: list[float]) -> None:
    """Write a model whose outputs are the means of the input's channels plus a bias."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)
    scores = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, len(bias)])
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [2], reduce_axes)
    added = helper.make_tensor("bias", onnx.TensorProto.FLOAT, [len(bias)], bias)
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "bias"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "means", [image], [scores], [axes, added])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def write_description(folder: Path, **values) -> str:
    (folder / "teacher.yaml").write_text(yaml.safe_dump({"model": "face.onnx", "classes": NAMES, **values}))
    return str(folder / "teacher.yaml")


def test_the_output_of_a_checkpoint_is_the_mean_probability_over_frames(checkpoint):
    teacher, clip = FaceTeacher("face", str(checkpoint)), clip_with_face()
    model = ViTForImageClassification.from_pretrained(checkpoint).eval()
    pixels = ViTImageProcessorPil.from_pretrained(checkpoint)(images=list(clip.face.crops), return_tensors="pt")
    with torch.no_grad():
        output = model(**pixels, output_hidden_states=True)

    prediction = teacher.predict(clip)

    assert teacher.info.classes == ["happy", "fearful", "neutral"]
    expected = output.logits.softmax(-1)  # (3, 3)
    assert softmax(prediction.logits) == pytest.approx(expected.mean(0).numpy(), abs=1e-5)
    assert softmax(prediction.frame_logits, axis=-1) == pytest.approx(expected.numpy(), abs=1e-5)
    assert prediction.embedding == pytest.approx(output.hidden_states[-1].mean((0, 1)).numpy(), abs=1e-5)
    assert prediction.frame_times.tolist() == [0, 0.25, 0.5]
    assert expected.std(0).max() > 1e-3  # the frames differ


def test_a_clip_without_face_has_no_output_but_a_reason(checkpoint):
    teacher = FaceTeacher("face", str(checkpoint))

    prediction = teacher.predict(Clip("c/2", np.zeros(16000, np.float32), None, "no face"))

    assert (prediction.logits, prediction.reason) == (None, "no face")
    assert teacher.predict(clip_with_face()).reason is None


def test_the_revision_is_the_digest_of_the_weights(checkpoint, tmp_path):
    before = FaceTeacher("face", str(checkpoint)).info.revision
    model = ViTForImageClassification.from_pretrained(checkpoint)
    model.classifier.bias.data[0] += 1
    model.save_pretrained(tmp_path / "other")
    ViTImageProcessorPil.from_pretrained(checkpoint).save_pretrained(tmp_path / "other")

    assert re.fullmatch(r"sha256:[0-9a-f]{16}", before)
    assert FaceTeacher("face", str(checkpoint)).info.revision == before
    assert FaceTeacher("face", str(tmp_path / "other")).info.revision != before


def test_a_checkpoint_without_classifier_is_refused_by_the_names_of_the_weights(checkpoint, tmp_path):
    ViTModel.from_pretrained(checkpoint).save_pretrained(tmp_path)

    with pytest.raises(ValueError, match=r"classifier\.weight"):
        FaceTeacher("face", str(tmp_path))


def test_class_names_are_required_and_can_come_from_a_description(checkpoint, tmp_path):
    model = ViTForImageClassification.from_pretrained(checkpoint)
    model.config.id2label = {place: f"LABEL_{place}" for place in range(3)}
    model.save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil.from_pretrained(checkpoint).save_pretrained(tmp_path / "vit")

    with pytest.raises(ValueError, match="classes"):
        FaceTeacher("face", str(tmp_path / "vit"))
    file = write_description(tmp_path, model=str(tmp_path / "vit"), classes=["sadness", "joy", "Anger"])
    assert FaceTeacher("face", file).info.classes == ["sad", "happy", "angry"]


def test_duplicate_class_names_are_refused(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, 8, 8], [2, 3], [0.0, 0, 0])

    with pytest.raises(ValueError, match="differ"):
        FaceTeacher("face", write_description(tmp_path, classes=["happy", "Happy", "sad"]))


@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_the_input_of_an_onnx_file_is_preprocessed_as_described(layout, color, tmp_path):
    first = layout == "channels first"
    write_onnx(
        tmp_path / "face.onnx", [1, 3, 8, 8] if first else [1, 8, 8, 3], [2, 3] if first else [1, 2], [0.0, 0, 0]
    )
    colors = np.full((1, CROP_PIXELS, CROP_PIXELS, 3), (255, 102, 0), np.uint8)  # 1.0, 0.4, 0.0
    clip = Clip("c/1", np.zeros(16000, np.float32), SpeakingFace(np.zeros(1, np.float32), colors, 1.0, 1))

    prediction = FaceTeacher("face", write_description(tmp_path, color=color, mean=0.5, std=0.25)).predict(clip)

    scores = np.array([2.0, -0.4, -2.0])
    expected = softmax(scores if color == "rgb" else scores[::-1])
    assert softmax(prediction.logits) == pytest.approx(expected, abs=1e-4)
    assert prediction.embedding is None


def test_probabilities_of_a_model_with_gray_input_are_used_without_softmax(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 1, 8, 8], [2, 3], [0.1, 0.2, 0.3])
    gray = np.full((1, CROP_PIXELS, CROP_PIXELS, 3), 51, np.uint8)  # 0.2, added to all outputs
    clip = Clip("c/1", np.zeros(16000, np.float32), SpeakingFace(np.zeros(1, np.float32), gray, 1.0, 1))

    prediction = FaceTeacher("face", write_description(tmp_path, color="gray", outputs="probabilities")).predict(clip)

    assert np.exp(prediction.logits) == pytest.approx(np.array([0.3, 0.4, 0.5]) / 1.2, abs=1e-4)


def test_the_number_of_class_names_must_match_the_outputs(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, 8, 8], [2, 3], [0.0, 0, 0])
    teacher = FaceTeacher("face", write_description(tmp_path, classes=["happy", "sad"]))

    with pytest.raises(ValueError, match=r"2 classes.*3 outputs"):
        teacher.predict(clip_with_face())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "rgb"}, "colour"),
        ({"color": "blue"}, "blue"),
        ({"outputs": "scores"}, "scores"),
        ({"std": 0}, "std"),
        ({"classes": "happy"}, "classes"),
        ({"model": None}, "model"),
    ],
)
def test_an_invalid_description_is_refused_by_its_key(values, message, tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, 8, 8], [2, 3], [0.0, 0, 0])

    with pytest.raises(ValueError, match=message):
        FaceTeacher("face", write_description(tmp_path, **values))


def test_a_model_file_without_description_or_fixed_input_size_is_refused(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, "height", "width"], [2, 3], [0.0, 0, 0])

    with pytest.raises(ValueError, match=r"docs/pseudo_labels\.md"):
        FaceTeacher("face", str(tmp_path / "face.onnx"))
    with pytest.raises(ValueError, match="one image"):
        FaceTeacher("face", write_description(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"other\.onnx"):
        FaceTeacher("face", write_description(tmp_path, model="other.onnx"))


@pytest.mark.parametrize(("suffix", "module"), [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert.interpreter")])
def test_without_the_runtime_the_error_names_the_package_to_install(suffix, module, tmp_path, monkeypatch):
    (tmp_path / f"face.{suffix}").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError, match="pip install 'audio-emotion"):
        FaceTeacher("face", write_description(tmp_path, model=f"face.{suffix}"))


REAL = {  # package: model file, classes, and mean and std of the package's own preprocessing
    "fer": ("data/emotion_model_quantized.tflite", "angry disgust fear happy sad surprise neutral", 0.5, 0.5),
    "facex": ("assets/model_optimized.tflite", "anger disgust fear happy neutral sadness surprised", 0.0, 1.0),
}


@pytest.mark.parametrize("package", REAL)
def test_a_published_face_model_recognizes_a_smile(package, tmp_path):
    for needed in ("cv2", "ai_edge_litert"):
        pytest.importorskip(needed, reason="needs the extra `video`")
    spec = importlib.util.find_spec(package)
    video = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "faces" / "single_face.mp4"
    if spec is None or not video.is_file():
        pytest.skip(f"needs `pip install --no-deps {package}` and $AUDIO_EMOTION_DATA/faces")
    file, classes, mean, std = REAL[package]
    values = {"model": str(Path(spec.origin).parent / file), "classes": classes.split(), "outputs": "probabilities"}
    teacher = FaceTeacher("face", write_description(tmp_path, **values, color="gray", mean=mean, std=std))
    audio = np.zeros(int(2.42 * 16000), np.float32)

    face = find_speaking_face(Video(str(video)), audio, HaarDetector())
    prediction = teacher.predict(Clip("c/1", audio, face))

    assert teacher.info.classes[int(prediction.logits.argmax())] == "happy"
    assert len(prediction.frame_times) == len(prediction.frame_logits) == 10
