"""Teacher outputs for distillation: dimensions matched by name, licenses kept, embeddings standardized."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.data.training_set import combine_licenses
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.teachers.load import load_teacher_outputs, standardize_embedding
from audio_emotion.teachers.outputs import Clip, TeacherInfo, TeacherOutputs, TeacherPrediction
from audio_emotion.teachers.pseudo_labels import build_row, read_teacher_outputs, write_shard, write_teachers


@pytest.fixture(scope="module")
def stream() -> ClipStream:
    return ClipStream(corpus_table("synthetic", count=8))


def make_outputs(ids: list[str], width: int = 3, **fields) -> TeacherOutputs:
    random = torch.Generator().manual_seed(0)
    return TeacherOutputs(
        **{
            "ids": list(ids),
            "logits": torch.randn(len(ids), 2, generator=random),
            "dimensions": torch.rand(len(ids), width, generator=random),
            "embedding": torch.randn(len(ids), 4, generator=random),
            "teacher": torch.zeros(len(ids), dtype=torch.long),
            "emotions": ["happy", "sad"],
            "training_data": [],
            **fields,
        }
    )


def load(folder: Path, stream: ClipStream, dimensions: list[str]) -> TeacherOutputs:
    emotions = list(corpus_info("synthetic").emotions)
    return load_teacher_outputs([f"speech={folder}"], Accelerator(), stream, emotions, dimensions)["speech"]


def test_dimensions_are_matched_by_name(stream, tmp_path):
    outputs = make_outputs(stream.table["id"], 2, dimension_names=["activation", "valence"])
    outputs.save(tmp_path)

    swapped = load(tmp_path, stream, ["valence", "dominance", "activation"])

    assert swapped.dimension_names == ["valence", "dominance", "activation"]
    assert torch.equal(swapped.dimensions[:, [2, 0]], outputs.dimensions)
    assert swapped.dimensions[:, 1].isnan().all()
    assert load(tmp_path, stream, ["tension"]).dimensions.shape == (8, 0)
    assert load(tmp_path, stream, []).dimensions.shape == (8, 0)


def test_a_corpus_with_fewer_dimensions_gets_only_its_own(stream, tmp_path):
    outputs = make_outputs(stream.table["id"])
    outputs.save(tmp_path)

    assert torch.equal(load(tmp_path, stream, ["dominance", "activation"]).dimensions, outputs.dimensions[:, [2, 0]])


def test_outputs_of_a_checkpoint_have_its_class_names_and_license(stream, tiny_student, tmp_path):
    tiny_student.config.license = "CC0-1.0"
    write_checkpoint(tiny_student, tmp_path / "checkpoints" / "last")

    outputs = load(tmp_path, stream, ["valence", "activation"])

    batch = next(stream.clips([3]))
    output = tiny_student.eval()(torch.as_tensor(batch["waveform"])[None])
    torch.testing.assert_close(outputs.dimensions[3], output.dimensions[0, [1, 0]].detach(), atol=1e-5, rtol=0)
    assert outputs.emotions == list(tiny_student.config.emotions)
    assert outputs.license == "CC0-1.0"


def test_three_saved_dimensions_without_names_are_the_standard_ones(stream, tmp_path):
    outputs = make_outputs(stream.table["id"])
    index = {"ids": outputs.ids, "emotions": outputs.emotions, "training_data": [], "name": "teacher"}
    (tmp_path / "teacher_outputs.json").write_text(json.dumps(index))
    save_file(outputs.tensors(), tmp_path / "teacher_outputs.safetensors")

    loaded = TeacherOutputs.load(tmp_path)

    assert (loaded.dimension_names, loaded.license) == (["activation", "valence", "dominance"], "")
    assert torch.equal(load(tmp_path, stream, ["activation", "valence", "dominance"]).dimensions, outputs.dimensions)


def test_dimensions_without_names_match_by_position_or_are_refused(stream):
    outputs = make_outputs(stream.table["id"], 2)

    assert torch.equal(outputs.with_dimensions(["pleasure", "tension"]).dimensions, outputs.dimensions)
    with pytest.raises(ValueError, match="2 without names"):
        outputs.with_dimensions(["pleasure"])


def test_pseudo_labels_keep_the_dimension_names_and_license_of_the_teacher(stream, tmp_path):
    info = TeacherInfo(
        "speech", "speech", "a/b", "1", ["happy", "sad"], ["valence", "activation"], license="CC-BY-NC-4.0"
    )
    (tmp_path / "data").mkdir()
    write_teachers(tmp_path, [info])
    rows = [
        build_row(
            Clip(row["id"], row["waveform"]),
            None,
            [TeacherPrediction(torch.tensor([1.0, 0]).numpy(), torch.rand(2).numpy())],
            [info],
        )
        for row in stream.clips()
    ]
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", rows, [info])

    outputs = read_teacher_outputs(tmp_path, "speech")

    assert (outputs.dimension_names, outputs.license) == (["valence", "activation"], "CC-BY-NC-4.0")
    loaded = load(tmp_path, stream, ["activation", "valence"])
    assert loaded.dimensions.tolist() == [row["speech"]["dimensions"][::-1] for row in rows]


def test_the_embedding_of_a_teacher_with_a_single_clip_is_zero():
    embedding = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    teacher, has_output = torch.tensor([0, 0, 0, 0, 1]), torch.ones(5, dtype=torch.bool)

    computed = standardize_embedding(embedding, teacher, has_output)

    assert computed[4].tolist() == [0, 0, 0]
    expected = (embedding[:4] - embedding[:4].mean(0)) / embedding[:4].var(0).sqrt()
    torch.testing.assert_close(computed[:4], expected)


def test_embeddings_are_standardized_over_training_clips_only(stream, tmp_path):
    ids = [*stream.table["id"], "synthetic/not-in-training"]
    outputs = make_outputs(ids)
    outputs.embedding[-1] = 1000.0
    outputs.save(tmp_path)

    loaded = load(tmp_path, stream, []).embedding

    torch.testing.assert_close(loaded.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.std(0), torch.ones(4))


def test_concatenated_outputs_keep_dimension_names_and_license(stream):
    outputs = make_outputs(stream.table["id"], 2, dimension_names=["valence", "tension"], license="CC0-1.0")
    other = replace(outputs, ids=[f"{name}-b" for name in outputs.ids])

    both = TeacherOutputs.concatenate([outputs, other])

    assert (both.dimension_names, both.license) == (["valence", "tension"], "CC0-1.0")


@pytest.mark.parametrize(
    ("licenses", "combined"),
    [
        (["CC0-1.0", "", None, "CC0-1.0"], "CC0-1.0"),
        (["A AND B", "C AND B", "A"], "A AND B AND C"),
        (["MIT OR A", "B"], "(MIT OR A) AND B"),
        (["MIT OR A"], "MIT OR A"),
        ([None, ""], ""),
    ],
)
def test_licenses_are_combined_without_duplicates(licenses, combined):
    assert combine_licenses(licenses) == combined
