"""What teachers said, as a student is taught it: in the names of its corpus, under their terms, in one space each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.mixture import combine_licenses
from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.teachers.load import load_teacher_outputs, standardized
from audio_emotion.teachers.outputs import Clip, TeacherFacts, TeacherOutputs, TeacherPrediction
from audio_emotion.teachers.pseudo_labels import row_of, to_teacher_outputs, write_shard, write_teachers


@pytest.fixture(scope="module")
def stream() -> ClipStream:
    return ClipStream(corpus_table("synthetic", count=8))


def outputs(ids: list[str], width: int = 3, **fields) -> TeacherOutputs:
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


def hear(folder: Path, stream: ClipStream, dimensions: list[str]) -> TeacherOutputs:
    emotions = list(corpus_info("synthetic").emotions)
    (said,) = load_teacher_outputs([f"speech={folder}"], Accelerator(), stream, emotions, dimensions).values()
    return said


def test_dimensions_are_taught_by_their_names_and_not_by_their_places(stream, tmp_path):
    said = outputs(stream.table["id"], 2, dimension_names=["activation", "valence"])
    said.save(tmp_path)

    swapped = hear(tmp_path, stream, ["valence", "dominance", "activation"])

    assert swapped.dimension_names == ["valence", "dominance", "activation"]
    assert torch.equal(swapped.dimensions[:, [2, 0]], said.dimensions)
    assert swapped.dimensions[:, 1].isnan().all()
    assert hear(tmp_path, stream, ["tension"]).dimensions.shape == (8, 0)
    assert hear(tmp_path, stream, []).dimensions.shape == (8, 0)


def test_a_teacher_of_three_dimensions_teaches_a_corpus_that_has_two_of_them(stream, tmp_path):
    said = outputs(stream.table["id"])
    said.save(tmp_path)

    assert torch.equal(hear(tmp_path, stream, ["dominance", "activation"]).dimensions, said.dimensions[:, [2, 0]])


def test_a_checkpoint_that_is_asked_now_answers_in_its_own_names_and_terms(stream, tiny_student, tmp_path):
    tiny_student.config.license = "CC0-1.0"
    write_checkpoint(tiny_student, tmp_path / "checkpoints" / "last")

    said = hear(tmp_path, stream, ["valence", "activation"])

    batch = next(stream.clips([3]))
    answer = tiny_student.eval()(torch.as_tensor(batch["waveform"])[None])
    torch.testing.assert_close(said.dimensions[3], answer.dimensions[0, [1, 0]].detach(), atol=1e-5, rtol=0)
    assert said.emotions == list(tiny_student.config.emotions)
    assert said.license == "CC0-1.0"


def test_outputs_of_before_names_were_kept_are_read_as_they_were_written(stream, tmp_path):
    said = outputs(stream.table["id"])
    index = {"ids": said.ids, "emotions": said.emotions, "training_data": [], "name": "teacher"}
    (tmp_path / "teacher_outputs.json").write_text(json.dumps(index))
    save_file(said.tensors(), tmp_path / "teacher_outputs.safetensors")

    loaded = TeacherOutputs.load(tmp_path)

    assert (loaded.dimension_names, loaded.license) == (["activation", "valence", "dominance"], "")
    assert torch.equal(hear(tmp_path, stream, ["activation", "valence", "dominance"]).dimensions, said.dimensions)


def test_old_outputs_of_another_width_count_as_they_stand_or_are_refused(stream):
    said = outputs(stream.table["id"], 2)

    assert torch.equal(said.in_dimensions(["pleasure", "tension"]).dimensions, said.dimensions)
    with pytest.raises(ValueError, match="2 without names"):
        said.in_dimensions(["pleasure"])


def test_names_and_terms_of_pseudo_labels_are_those_of_their_teacher(stream, tmp_path):
    facts = TeacherFacts(
        "speech", "speech", "a/b", "1", ["happy", "sad"], ["valence", "activation"], license="CC-BY-NC-4.0"
    )
    (tmp_path / "data").mkdir()
    write_teachers(tmp_path, [facts])
    rows = [
        row_of(
            Clip(row["id"], row["waveform"]),
            None,
            [TeacherPrediction(torch.tensor([1.0, 0]).numpy(), torch.rand(2).numpy())],
            [facts],
        )
        for row in stream.clips()
    ]
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", rows, [facts])

    said = to_teacher_outputs(tmp_path, "speech")

    assert (said.dimension_names, said.license) == (["valence", "activation"], "CC-BY-NC-4.0")
    taught = hear(tmp_path, stream, ["activation", "valence"])
    assert taught.dimensions.tolist() == [row["speech"]["dimensions"][::-1] for row in rows]


def test_a_teacher_who_speaks_of_one_clip_alone_says_nothing_by_its_embedding():
    embedding = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    teacher, everywhere = torch.tensor([0, 0, 0, 0, 1]), torch.ones(5, dtype=torch.bool)

    computed = standardized(embedding, teacher, everywhere)

    assert computed[4].tolist() == [0, 0, 0]
    expected = (embedding[:4] - embedding[:4].mean(0)) / embedding[:4].var(0).sqrt()
    torch.testing.assert_close(computed[:4], expected)


def test_clips_that_are_not_trained_on_move_no_embedding(stream, tmp_path):
    ids = [*stream.table["id"], "synthetic/elsewhere"]
    said = outputs(ids)
    said.embedding[-1] = 1000.0
    said.save(tmp_path)

    taught = hear(tmp_path, stream, []).embedding

    torch.testing.assert_close(taught.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(taught.std(0), torch.ones(4))


def test_joined_outputs_keep_names_and_terms(stream):
    said = outputs(stream.table["id"], 2, dimension_names=["valence", "tension"], license="CC0-1.0")
    other = replace(said, ids=[f"{name}-b" for name in said.ids])

    joined = TeacherOutputs.joined([said, other])

    assert (joined.dimension_names, joined.license) == (["valence", "tension"], "CC0-1.0")


@pytest.mark.parametrize(
    ("licenses", "whole"),
    [
        (["CC0-1.0", "", None, "CC0-1.0"], "CC0-1.0"),
        (["A AND B", "C AND B", "A"], "A AND B AND C"),
        (["MIT OR A", "B"], "(MIT OR A) AND B"),
        (["MIT OR A"], "MIT OR A"),
        ([None, ""], ""),
    ],
)
def test_terms_of_several_works_hold_together_each_once(licenses, whole):
    assert combine_licenses(licenses) == whole
