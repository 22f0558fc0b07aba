"""Distillation terms, clip weights and product of teachers, against their formulas."""

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
    DISTILLATION_TERMS,
    DistillationLoss,
    TermInputs,
    contrastive_loss,
    distillation_terms,
    separate_teacher_heads,
    softened_divergence,
)
from audio_emotion.training.teacher_ensemble import (
    clip_weights,
    fit_exponents,
    log_probabilities,
    product_of_teachers,
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


def terms(teacher: TeacherOutputs, weight: torch.Tensor, contrastive: bool = False) -> dict[str, torch.Tensor]:
    inputs = TermInputs(
        **student(), teacher=teacher, weight=weight, dimension_weights=[0.5, 0.3, 0.2], temperature=2.0
    )
    return distillation_terms(inputs, contrastive)


def test_terms_are_weighted_means_over_the_clips_with_a_teacher_output():
    teacher, inputs = outputs(), student()
    weight = torch.tensor([1.5, 0.0, 0.5, 1.0, 0.0, 1.0])

    computed = terms(teacher, weight)

    divergence = distance = 0.0
    for clip in range(6):
        target, predicted = (each[clip].div(2).softmax(0) for each in (teacher.logits, inputs["logits"]))
        divergence += weight[clip] * 4 * (target * (target / predicted).log()).sum() / 4  # T^2 = 4; four clips count
        projected = inputs["projected"][clip, clip % 2]  # in the space of the clip's teacher
        distance += weight[clip] * (projected - teacher.embedding[clip]).square().mean() / 4
    torch.testing.assert_close(computed["emotions"], divergence)
    torch.testing.assert_close(computed["embedding"], distance)
    agreement = concordance(inputs["dimensions"], teacher.dimensions, weight[:, None].expand(6, 3))
    torch.testing.assert_close(computed["dimensions"], 1 - (torch.tensor([0.5, 0.3, 0.2]) * agreement).sum())


def test_a_clip_of_twice_the_weight_counts_twice_in_every_term():
    weight = torch.tensor([2.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    computed = terms(outputs(), weight)

    repeated = torch.tensor([0, 0, 0, 0, 2, 3, 4, 4, 5, 5])
    once = torch.ones(len(repeated))
    inputs = {name: tensor[repeated] for name, tensor in student().items()}
    teacher = outputs().select([f"clip-{row}" for row in repeated.tolist()])
    expected = distillation_terms(
        TermInputs(**inputs, teacher=teacher, weight=once, dimension_weights=[0.5, 0.3, 0.2], temperature=2.0)
    )

    assert set(computed) == {"emotions", "embedding", "dimensions"}
    for name, value in computed.items():
        torch.testing.assert_close(value, expected[name], msg=name)
    doubtful = terms(outputs(), weight / 100)["dimensions"]  # a batch of clips that the teacher is unsure of
    torch.testing.assert_close(doubtful, expected["dimensions"])


def test_outputs_for_masked_clips_change_no_term():
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    teacher = outputs()
    other = outputs(seed=5)
    mixed = {
        name: torch.where((weight > 0).view(-1, *[1] * (tensor.dim() - 1)), tensor, other.tensors()[name])
        for name, tensor in teacher.tensors().items()
    }

    for contrastive in (False, True):
        one = terms(teacher, weight, contrastive)
        two = terms(replace(teacher, **mixed), weight, contrastive)
        for name, value in one.items():
            torch.testing.assert_close(two[name], value)
        assert set(one) == {"emotions", "dimensions", "contrastive" if contrastive else "embedding"}


def test_a_teacher_without_dimensions_or_embedding_has_no_such_term():
    teacher = outputs(dimensions=torch.zeros(6, 0))
    inputs = TermInputs(**{**student(), "projected": None}, teacher=teacher, weight=torch.ones(6),
                        dimension_weights=[1.0] * 3, temperature=1.0)  # fmt: skip

    assert set(distillation_terms(inputs)) == {"emotions"}


def test_the_contrastive_term_is_the_cross_entropy_of_the_clip_among_those_of_its_space():
    random = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(6, 4, generator=random), torch.randn(6, 4, generator=random)
    number = torch.tensor([0, 0, 0, 1, 1, 1])

    computed = contrastive_loss(student, teacher, number, torch.ones(6), temperature=0.2)

    expected = 0.0
    for space in (slice(0, 3), slice(3, 6)):
        cosines = normalize(student[space], dim=-1) @ normalize(teacher[space], dim=-1).T / 0.2
        expected += 3 * (cross_entropy(cosines, torch.arange(3)) + cross_entropy(cosines.T, torch.arange(3))) / 2 / 6
    torch.testing.assert_close(computed, expected)
    aligned = contrastive_loss(100 * teacher, teacher, number, torch.ones(6), temperature=0.01)
    assert aligned < 0.01 < computed


def test_a_clip_that_is_twice_in_a_batch_is_not_its_own_negative():
    random = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(4, 4, generator=random), torch.randn(4, 4, generator=random)
    student[3], teacher[3] = student[0], teacher[0]
    number = torch.zeros(4, dtype=torch.long)

    # The first clip's part of the loss, with its copy among the others and without.
    twice = 4 * contrastive_loss(student, teacher, number, torch.tensor([1.0, 1e-9, 1e-9, 1e-9]))
    once = 3 * contrastive_loss(student, teacher, number, torch.tensor([1.0, 1e-9, 1e-9, 0.0]))

    torch.testing.assert_close(twice, once)


def test_the_product_of_teachers_multiplies_probabilities_of_classes_matched_by_name():
    speech = outputs(seed=1)
    face = outputs(seed=2, emotions=["Sadness", "joy", "neutral", "contempt"])

    product = product_of_teachers([speech, face], EMOTIONS, temperature=2.0)

    of_speech, of_face = (each.logits.div(2).softmax(-1) for each in (speech, face))
    expected = of_speech * of_face[:, [2, 1, 0]]
    torch.testing.assert_close(product, expected / expected.sum(-1, keepdim=True))
    logits = student()["logits"]
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0])
    divergence = (product[:4] * (product[:4] / logits[:4].div(2).softmax(-1)).log()).sum(-1).mean()
    torch.testing.assert_close(softened_divergence(logits, product, weight, 2.0), 4 * divergence)


def test_the_product_ignores_teachers_without_output_and_is_neutral_for_unknown_emotions():
    speech = outputs(seed=1)
    partial = outputs(seed=2, mask=torch.tensor([1.0, 0, 1, 1, 1, 1]))
    product = product_of_teachers([speech, partial], EMOTIONS, temperature=1.0)
    torch.testing.assert_close(product[1], speech.logits[1].softmax(-1))
    assert (product[0] - speech.logits[0].softmax(-1)).abs().max() > 0.01

    two = outputs(seed=3, emotions=["happy", "sad"])
    probabilities = two.logits.softmax(-1)
    mean = probabilities.prod(-1, keepdim=True).sqrt()  # geometric mean, for `neutral`
    expected = torch.cat([mean, probabilities], dim=-1)
    torch.testing.assert_close(log_probabilities(two, EMOTIONS).exp(), expected / expected.sum(-1, keepdim=True))
    with pytest.raises(ValueError, match="Expected classes of the teacher 'teacher'"):
        log_probabilities(outputs(emotions=["a", "b", "c"]), EMOTIONS)


def test_a_class_with_the_name_of_an_emotion_does_not_match_its_synonym():
    teacher = outputs(emotions=["joy", "happy", "sad"])

    torch.testing.assert_close(
        log_probabilities(teacher, ["sad", "happy", "joy"]), teacher.logits.log_softmax(-1)[:, [2, 1, 0]]
    )


def test_fitted_exponents_correct_overconfidence_and_ignore_a_teacher_at_chance():
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(6000, 3, generator=random)  # logits of the true posterior
    labels = truth.softmax(-1).multinomial(1, generator=random).squeeze(1)
    labels[5000:] = -100
    facts = {
        "dimensions": torch.zeros(6000, 0),
        "embedding": torch.zeros(6000, 0),
        "teacher": torch.zeros(6000).long(),
    }
    ids = [str(number) for number in range(6000)]
    overconfident = outputs(ids=ids, logits=4 * truth, **facts)
    at_chance = outputs(ids=ids, logits=torch.randn(6000, 3, generator=random), **facts)

    exponents = fit_exponents([overconfident, at_chance], EMOTIONS, labels)

    assert exponents == pytest.approx([0.25, 0.0], abs=0.03)
    assert fit_exponents([overconfident, at_chance], EMOTIONS, torch.full((6000,), -100)) == [1.0, 1.0]


def test_clip_weights_follow_confidence_agreement_and_mask_and_are_one_on_average():
    mask = torch.tensor([1.0, 1, 0, 1, 1, 1])
    teachers = {"speech": outputs(seed=1), "face": outputs(seed=2, mask=mask)}

    equal = clip_weights(teachers, EMOTIONS)
    assert torch.equal(equal["speech"], torch.ones(6))
    assert torch.equal(equal["face"], mask)

    confident = clip_weights(teachers, EMOTIONS, confidence="entropy")["face"]
    probabilities = teachers["face"].logits.softmax(-1)
    expected = mask * (1 + (probabilities * probabilities.log()).sum(-1) / math.log(3))
    torch.testing.assert_close(confident, expected / expected[mask > 0].mean())

    agreed = clip_weights(teachers, EMOTIONS, agreement=True)
    overlap = (teachers["speech"].logits.softmax(-1) * probabilities).sqrt().sum(-1)
    torch.testing.assert_close(agreed["face"] / agreed["face"][0], mask * overlap / overlap[0])
    # The face teacher has no output for the third clip: the agreement of the speech teacher is 1.
    torch.testing.assert_close(agreed["speech"][2] / agreed["speech"][0], 1 / overlap[0])

    given = {"face": replace(teachers["face"], confidence=torch.arange(6.0), agreement=torch.ones(6))}
    weights = clip_weights(given, EMOTIONS, confidence="given", agreement=True)["face"]
    torch.testing.assert_close(weights, torch.arange(6.0) * mask / 2.6)
    with pytest.raises(ValueError, match="confidence probability"):
        clip_weights(teachers, EMOTIONS, confidence="given")
    with pytest.raises(ValueError, match="'often'"):
        clip_weights(teachers, EMOTIONS, confidence="often")


def test_saved_outputs_load_with_and_without_the_optional_fields(tmp_path):
    plain, full = outputs(), outputs(name="face", confidence=torch.rand(6), mask=torch.tensor([1.0, 1, 0, 1, 1, 1]))
    for number, saved in enumerate((plain, full)):
        saved.save(tmp_path / str(number))
        again = TeacherOutputs.load(tmp_path / str(number))
        assert (again.ids, again.emotions, again.name) == (saved.ids, saved.emotions, saved.name)
        assert set(again.tensors()) == set(saved.tensors())
        assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in saved.tensors().items())

    joined = TeacherOutputs.concatenate([plain, full])
    assert torch.equal(joined.mask, torch.cat([torch.ones(6), full.mask]))
    assert joined.teacher.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    assert joined.agreement is None


def test_outputs_of_clips_are_without_versions_whatever_the_clips_are_called():
    ids = ["take#1", "other", "take#1#1", "other#1", "take#1#2", "other#2"]
    teacher = outputs(ids=ids, augmentation={"noise_probability": 0.3}, versions=3)

    clips = teacher.of_clips()

    assert (clips.ids, clips.versions, clips.augmentation) == (["take#1", "other"], 1, {})
    assert torch.equal(clips.logits, teacher.logits[:2])
    assert outputs().of_clips().ids == outputs().ids


def test_aligned_outputs_mask_clips_without_a_row_and_refuse_other_corpora():
    teacher = outputs(name="face")

    aligned = teacher.align(["clip-4", "unseen", "clip-0"])

    assert aligned.ids == ["clip-4", "unseen", "clip-0"]
    assert aligned.has_output.tolist() == [True, False, True]
    assert torch.equal(aligned.logits[[0, 2]], teacher.logits[[4, 0]])
    with pytest.raises(ValueError, match=r"'face' for some of 1 clips"):
        teacher.align(["other-corpus/1"])
    with pytest.raises(ValueError, match="unseen"):
        teacher.select(["unseen"])


def test_a_teacher_has_a_separate_head_unless_it_is_alone_and_has_the_classes_of_the_corpus():
    same, different = outputs(), outputs(emotions=["a", "b", "c"])

    assert separate_teacher_heads("", {"one": same}, EMOTIONS) == []
    assert separate_teacher_heads("", {"one": different}, EMOTIONS) == ["one"]
    assert separate_teacher_heads("", {"one": same, "two": different}, EMOTIONS) == ["one", "two"]
    assert separate_teacher_heads("separate", {"one": same}, EMOTIONS) == ["one"]
    assert separate_teacher_heads("shared", {"one": same, "two": same}, EMOTIONS) == []
    with pytest.raises(ValueError, match="two"):
        separate_teacher_heads("shared", {"one": same, "two": different}, EMOTIONS)


def test_a_student_of_two_teachers_with_different_classes_is_saved_without_their_heads(tmp_path):
    ids = [f"synthetic/0/{number:06d}" for number in range(40)]
    speech = outputs(40, ["happy", "angry", "sad", "calm"], ids=ids)
    views = {name: tensor[2:] for name, tensor in outputs(40, seed=2).tensors().items()}
    views["dimensions"] = torch.full((38, 3), torch.nan)
    face = outputs(emotions=["Joy", "anger", "neutral"], ids=ids[2:], name="face", **views)
    speech.save(tmp_path / "speech")
    face.save(tmp_path / "face" / "teacher_outputs")
    arguments = DISTIL["DistillArguments"](
        output=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"),
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

    with pytest.raises(ValueError, match=r"`--contrastive`, got \['fase'\]"):
        DISTIL["main"](replace(arguments, contrastive=["fase"], output=str(tmp_path / "misspelled")))
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


def test_a_term_that_is_registered_outside_the_package_trains_the_student(monkeypatch, tmp_path):
    def largest_logit(inputs: TermInputs) -> torch.Tensor:
        return (inputs.weight * inputs.logits.amax(-1)).mean()

    speech = outputs(40, ["happy", "angry", "sad"], ids=[f"synthetic/0/{number:06d}" for number in range(40)])
    speech.save(tmp_path / "speech")
    options = {"teacher": str(tmp_path / "speech"), "corpus_count": 40, "batch_size": 64, "epochs": 1, "size": "nano"}
    options |= {"trunk": "convolutional", "cache": str(tmp_path / "cache")}
    DISTIL["main"](DISTIL["DistillArguments"](output=str(tmp_path / "without"), **options))

    monkeypatch.setitem(DISTILLATION_TERMS, "largest_logit", largest_logit)
    DISTIL["main"](DISTIL["DistillArguments"](output=str(tmp_path / "with"), **options))

    without, with_term = (json.loads((tmp_path / run / "metrics.jsonl").read_text()) for run in ("without", "with"))
    assert set(with_term) - set(without) == {"loss_teacher_largest_logit"}
    weights = [load_file(tmp_path / run / "checkpoints" / "last" / "model.safetensors") for run in ("without", "with")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])  # one step of training


@pytest.mark.parametrize(
    ("changes", "emotions", "dimensions"),
    [
        ({}, [], []),
        ({"teacher_heads": "separate"}, EMOTIONS, []),
        ({"teacher_emotions_weight": 0.0}, EMOTIONS, []),
        ({"teacher_dimensions_weight": 0.0}, [], ["activation", "valence", "dominance"]),
        ({"teacher_heads": "separate", "product_weight": 1.0}, [], []),
    ],
)
def test_heads_that_no_teacher_trains_need_labels(changes, emotions, dimensions):
    args = DISTIL["DistillArguments"](**changes)
    loss = DistillationLoss.from_arguments({"teacher": outputs()}, EMOTIONS, torch.zeros(6).long(), args)

    assert loss.without_teacher(EMOTIONS, ["activation", "valence", "dominance"]) == (emotions, dimensions)


def test_a_dimension_that_no_teacher_outputs_needs_ratings():
    teacher = outputs()
    teacher.dimensions[:, 1] = math.nan
    arguments = {"first": teacher}, EMOTIONS, torch.zeros(6).long(), DISTIL["DistillArguments"]()

    assert DistillationLoss.from_arguments(*arguments).without_teacher(EMOTIONS, ["a", "b", "c"]) == ([], ["b"])
    none = DistillationLoss.from_arguments({}, EMOTIONS, torch.zeros(6).long(), DISTIL["DistillArguments"]())
    assert none.without_teacher(EMOTIONS, ["a"]) == (EMOTIONS, ["a"])
