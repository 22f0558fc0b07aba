"""Terms of distillation from several teachers, against their formulas."""

from __future__ import annotations

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize

from audio_emotion.losses import concordance
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.distillation import (
    clip_weights,
    contrastive_loss,
    distillation_terms,
    fitted_exponents,
    log_probabilities,
    product_loss,
    product_of_teachers,
    separate_teacher_heads,
)

EMOTIONS = ["neutral", "happy", "sad"]
DISTIL = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "distill.py"))


def outputs(count: int = 6, emotions: list[str] = EMOTIONS, seed: int = 0, **fields) -> TeacherOutputs:
    random = torch.Generator().manual_seed(seed)
    return TeacherOutputs(
        **{
            "ids": [f"clip-{number}" for number in range(count)],
            "logits": 2 * torch.randn(count, len(emotions), generator=random),
            "dimensions": torch.rand(count, 3, generator=random),
            "embedding": torch.randn(count, 4, generator=random),
            "teacher": torch.arange(count) % 2,
            "emotions": emotions,
            "training_data": [],
            **fields,
        }
    )


def student(count: int = 6) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(9)
    return {
        "logits": torch.randn(count, 3, generator=random),
        "dimensions": torch.rand(count, 3, generator=random),
        "projected": torch.randn(count, 2, 4, generator=random),
    }


def terms(teacher: TeacherOutputs, weight: torch.Tensor, **others) -> dict[str, torch.Tensor]:
    return distillation_terms(
        **student(), teacher=teacher, weight=weight, dimension_weights=[0.5, 0.3, 0.2], temperature=2.0, **others
    )


def test_the_terms_are_weighted_means_over_the_clips_of_which_the_teacher_speaks():
    said, ours = outputs(), student()
    weight = torch.tensor([1.5, 0.0, 0.5, 1.0, 0.0, 1.0])

    computed = terms(said, weight)

    divergence = distance = 0.0
    for clip in range(6):
        target, answer = (each[clip].div(2).softmax(0) for each in (said.logits, ours["logits"]))
        divergence += weight[clip] * 4 * (target * (target / answer).log()).sum() / 4  # T^2 = 4; four clips count
        here = ours["projected"][clip, clip % 2]  # in the space of the teacher who spoke
        distance += weight[clip] * (here - said.embedding[clip]).square().mean() / 4
    torch.testing.assert_close(computed["emotions"], divergence)
    torch.testing.assert_close(computed["embedding"], distance)
    spoken = weight > 0
    agreement = concordance(ours["dimensions"][spoken], said.dimensions[spoken], torch.ones(4, 3))
    torch.testing.assert_close(computed["dimensions"], 1 - (torch.tensor([0.5, 0.3, 0.2]) * agreement).sum())


def test_what_a_teacher_says_of_masked_clips_changes_no_term():
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    said = outputs()
    other = outputs(seed=5)
    mixed = {
        name: torch.where((weight > 0).view(-1, *[1] * (tensor.dim() - 1)), tensor, other.tensors()[name])
        for name, tensor in said.tensors().items()
    }

    for contrastive in (False, True):
        one = terms(said, weight, contrastive=contrastive)
        two = terms(replace(said, **mixed), weight, contrastive=contrastive)
        for name, value in one.items():
            torch.testing.assert_close(two[name], value)
        assert set(one) == {"emotions", "dimensions", "contrastive" if contrastive else "embedding"}


def test_a_teacher_without_dimensions_or_embedding_gives_no_such_term():
    said = outputs(dimensions=torch.zeros(6, 0))
    ours = {**student(), "projected": None}
    computed = distillation_terms(
        **ours, teacher=said, weight=torch.ones(6), dimension_weights=[1.0] * 3, temperature=1.0
    )

    assert set(computed) == {"emotions"}


def test_the_contrastive_term_is_the_cross_entropy_of_finding_the_clip_among_those_of_its_space():
    random = torch.Generator().manual_seed(1)
    ours, theirs = torch.randn(6, 4, generator=random), torch.randn(6, 4, generator=random)
    number = torch.tensor([0, 0, 0, 1, 1, 1])

    computed = contrastive_loss(ours, theirs, number, torch.ones(6), temperature=0.2)

    expected = 0.0
    for space in (slice(0, 3), slice(3, 6)):
        cosines = normalize(ours[space], dim=-1) @ normalize(theirs[space], dim=-1).T / 0.2
        expected += 3 * (cross_entropy(cosines, torch.arange(3)) + cross_entropy(cosines.T, torch.arange(3))) / 2 / 6
    torch.testing.assert_close(computed, expected)
    aligned = contrastive_loss(100 * theirs, theirs, number, torch.ones(6), temperature=0.01)
    assert aligned < 0.01 < computed


def test_a_clip_that_a_batch_holds_twice_is_no_wrong_answer():
    random = torch.Generator().manual_seed(1)
    ours, theirs = torch.randn(4, 4, generator=random), torch.randn(4, 4, generator=random)
    ours[3], theirs[3] = ours[0], theirs[0]
    number = torch.zeros(4, dtype=torch.long)

    # The first clip's part alone, with its double among the others and without.
    twice = 4 * contrastive_loss(ours, theirs, number, torch.tensor([1.0, 1e-9, 1e-9, 1e-9]))
    once = 3 * contrastive_loss(ours, theirs, number, torch.tensor([1.0, 1e-9, 1e-9, 0.0]))

    torch.testing.assert_close(twice, once)


def test_the_product_of_teachers_multiplies_their_shares_by_the_names_of_the_classes():
    speech = outputs(seed=1)
    face = outputs(seed=2, emotions=["Sadness", "joy", "neutral", "contempt"])

    product = product_of_teachers([speech, face], EMOTIONS, temperature=2.0)

    heard, seen = (each.logits.div(2).softmax(-1) for each in (speech, face))
    expected = heard * seen[:, [2, 1, 0]]
    torch.testing.assert_close(product, expected / expected.sum(-1, keepdim=True))
    ours = student()["logits"]
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0])
    divergence = (product[:4] * (product[:4] / ours[:4].div(2).softmax(-1)).log()).sum(-1).mean()
    torch.testing.assert_close(product_loss(ours, product, weight, 2.0), 4 * divergence)


def test_a_silent_teacher_leaves_a_clip_to_the_other_and_an_unknown_emotion_is_neither_for_nor_against():
    speech = outputs(seed=1)
    silent = outputs(seed=2, mask=torch.tensor([1.0, 0, 1, 1, 1, 1]))
    product = product_of_teachers([speech, silent], EMOTIONS, temperature=1.0)
    torch.testing.assert_close(product[1], speech.logits[1].softmax(-1))
    assert (product[0] - speech.logits[0].softmax(-1)).abs().max() > 0.01

    two = outputs(seed=3, emotions=["happy", "sad"])
    shares = two.logits.softmax(-1)
    middle = shares.prod(-1, keepdim=True).sqrt()  # geometric mean, for `neutral`
    expected = torch.cat([middle, shares], dim=-1)
    torch.testing.assert_close(log_probabilities(two, EMOTIONS).exp(), expected / expected.sum(-1, keepdim=True))
    with pytest.raises(ValueError, match="Expected classes of the teacher 'teacher'"):
        log_probabilities(outputs(emotions=["a", "b", "c"]), EMOTIONS)


def test_a_class_that_the_corpus_has_by_its_own_name_speaks_of_no_synonym_of_it():
    said = outputs(emotions=["joy", "happy", "sad"])

    torch.testing.assert_close(
        log_probabilities(said, ["sad", "happy", "joy"]), said.logits.log_softmax(-1)[:, [2, 1, 0]]
    )


def test_fitted_exponents_find_how_far_each_teacher_is_to_be_believed():
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(6000, 3, generator=random)  # logits of the right posterior
    labels = truth.softmax(-1).multinomial(1, generator=random).squeeze(1)
    labels[5000:] = -100
    facts = {
        "dimensions": torch.zeros(6000, 0),
        "embedding": torch.zeros(6000, 0),
        "teacher": torch.zeros(6000).long(),
    }
    ids = [str(number) for number in range(6000)]
    too_sure = outputs(ids=ids, logits=4 * truth, **facts)
    ignorant = outputs(ids=ids, logits=torch.randn(6000, 3, generator=random), **facts)

    exponents = fitted_exponents([too_sure, ignorant], EMOTIONS, labels)

    assert exponents == pytest.approx([0.25, 0.0], abs=0.03)
    assert fitted_exponents([too_sure, ignorant], EMOTIONS, torch.full((6000,), -100)) == [1.0, 1.0]


def test_clips_weigh_by_confidence_agreement_and_mask_one_on_average():
    mask = torch.tensor([1.0, 1, 0, 1, 1, 1])
    said = {"speech": outputs(seed=1), "face": outputs(seed=2, mask=mask)}

    equal = clip_weights(said, EMOTIONS)
    assert torch.equal(equal["speech"], torch.ones(6))
    assert torch.equal(equal["face"], mask)

    sure = clip_weights(said, EMOTIONS, confidence="entropy")["face"]
    shares = said["face"].logits.softmax(-1)
    expected = mask * (1 + (shares * shares.log()).sum(-1) / math.log(3))
    torch.testing.assert_close(sure, expected / expected[mask > 0].mean())

    agreed = clip_weights(said, EMOTIONS, agreement=True)
    overlap = (said["speech"].logits.softmax(-1) * shares).sqrt().sum(-1)
    torch.testing.assert_close(agreed["face"] / agreed["face"][0], mask * overlap / overlap[0])
    # Of the third clip the face says nothing: there is nobody to disagree with.
    torch.testing.assert_close(agreed["speech"][2] / agreed["speech"][0], 1 / overlap[0])

    given = {"face": replace(said["face"], confidence=torch.arange(6.0), agreement=torch.ones(6))}
    weights = clip_weights(given, EMOTIONS, confidence="given", agreement=True)["face"]
    torch.testing.assert_close(weights, torch.arange(6.0) * mask / 2.6)
    with pytest.raises(ValueError, match="confidence probability"):
        clip_weights(said, EMOTIONS, confidence="given")
    with pytest.raises(ValueError, match="'often'"):
        clip_weights(said, EMOTIONS, confidence="often")


def test_outputs_come_back_from_disk_with_and_without_the_optional_fields(tmp_path):
    plain, full = outputs(), outputs(name="face", confidence=torch.rand(6), mask=torch.tensor([1.0, 1, 0, 1, 1, 1]))
    for number, said in enumerate((plain, full)):
        said.save(tmp_path / str(number))
        again = TeacherOutputs.load(tmp_path / str(number))
        assert (again.ids, again.emotions, again.name) == (said.ids, said.emotions, said.name)
        assert set(again.tensors()) == set(said.tensors())
        assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in said.tensors().items())

    joined = TeacherOutputs.joined([plain, full])
    assert torch.equal(joined.mask, torch.cat([torch.ones(6), full.mask]))
    assert joined.teacher.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    assert joined.agreement is None


def test_clips_of_which_a_teacher_has_no_row_are_masked_and_a_stranger_is_refused():
    said = outputs(name="face")

    covering = said.covering(["clip-4", "unseen", "clip-0"])

    assert covering.ids == ["clip-4", "unseen", "clip-0"]
    assert covering.spoken.tolist() == [True, False, True]
    assert torch.equal(covering.logits[[0, 2]], said.logits[[4, 0]])
    with pytest.raises(ValueError, match=r"'face' for some of 1 clips"):
        said.covering(["other-corpus/1"])
    with pytest.raises(ValueError, match="unseen"):
        said.of(["unseen"])


def test_a_teacher_has_a_head_of_its_own_unless_it_is_alone_and_speaks_the_corpus_classes():
    ours, foreign = outputs(), outputs(emotions=["a", "b", "c"])

    assert separate_teacher_heads("", {"one": ours}, EMOTIONS) == []
    assert separate_teacher_heads("", {"one": foreign}, EMOTIONS) == ["one"]
    assert separate_teacher_heads("", {"one": ours, "two": foreign}, EMOTIONS) == ["one", "two"]
    assert separate_teacher_heads("own", {"one": ours}, EMOTIONS) == ["one"]
    assert separate_teacher_heads("shared", {"one": ours, "two": ours}, EMOTIONS) == []
    with pytest.raises(ValueError, match="two"):
        separate_teacher_heads("shared", {"one": ours, "two": foreign}, EMOTIONS)


def test_a_student_learns_from_two_teachers_of_different_classes_and_keeps_no_head_of_theirs(tmp_path):
    ids = [f"synthetic/0/{number:06d}" for number in range(40)]
    speech = outputs(40, ["happy", "angry", "sad", "calm"], ids=ids)
    views = {name: tensor[2:] for name, tensor in outputs(40, seed=2).tensors().items()}
    views["dimensions"] = torch.full((38, 3), torch.nan)
    face = outputs(emotions=["Joy", "anger", "neutral"], ids=ids[2:], name="face", **views)
    speech.save(tmp_path / "speech")
    face.save(tmp_path / "face" / "teacher_outputs")
    arguments = DISTIL["DistillArguments"](
        output=str(tmp_path / "run"),
        teacher=[f"voice={tmp_path / 'speech'}", str(tmp_path / "face")],
        corpus_count=40,
        epochs=2,
        size="nano",
        trunk="convolutional",
        contrastive=["face"],
        product_weight=0.5,
        confidence="entropy",
        agreement=True,
        labeled_weight=3.0,
    )

    results = DISTIL["main"](arguments)

    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    logged = {part.split('"')[0] for part in lines.split('"loss_')[1:]}
    assert logged == {
        *("dimensions", "emotions", "product", "face_emotions", "face_contrastive"),
        *("voice_emotions", "voice_embedding", "voice_dimensions"),
    }
    assert not any(
        isinstance(value, float) and math.isnan(value) for value in json.loads(lines.split("\n")[1]).values()
    )
    assert results["teachers"] == {"voice": 1.0, "face": 1.0}
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        assert json.loads((checkpoint / "config.json").read_text())["teacher_emotions"] is None
        assert not [name for name in load_file(checkpoint / "model.safetensors") if "teacher" in name]
    assert results["parameters"] < 75_000
