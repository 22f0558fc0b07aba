"""Pretraining of a student on the states of an encoder, and the student that starts from it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification, StudentEmotionModel
from audio_emotion.data.registry import apply_protocol, corpus_table
from audio_emotion.evaluation.provenance import training_speakers
from audio_emotion.layer_fusion import LayerStatistics
from audio_emotion.training.state_regression import StateRegression

RECIPES = Path(__file__).parents[1] / "recipes"
COUNT = 60  # clips


def run(name: str, output: Path, **arguments) -> dict:
    """Run a recipe on synthetic clips; the cache is beside the run folder."""
    namespace = runpy.run_path(str(RECIPES / f"{name}.py"))
    cls = namespace[{"pretrain_student": "PretrainArguments", "distill": "DistillArguments"}[name]]
    shared = {"corpus_count": COUNT, "size": "nano", "frames_per_step": 4, "cache": str(output.parent / "cache")}
    return namespace["main"](cls(output=str(output), **{**shared, **arguments}))


@pytest.fixture(scope="module")
def pretrained(tiny_encoders, tmp_path_factory) -> Path:
    """The run folder of a pretrained `nano` student."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    arguments = {"augment": 0.9, "augment_versions": 2, "learning_rate": 1e-2, "batch_size": 16, "dropout": 0.0}
    run("pretrain_student", folder, encoder=tiny_encoders[0], layers=[0, 1], epochs=40, **arguments)
    return folder


def small_student(**fields) -> StudentEmotionModel:
    return StudentEmotionModel(StudentEmotionConfig.of_size("nano", dropout=0.0, **fields)).eval()


def test_errors_are_the_mean_squares_of_standardized_states_over_the_true_steps():
    torch.manual_seed(0)
    statistics = LayerStatistics(2, 3)
    statistics.set_statistics(torch.randn(2, 3), torch.rand(2, 3) + 0.5)
    model = StateRegression(small_student(), statistics)
    frames, states = torch.randn(1, 23, 40), torch.randn(1, 2, 4, 3)  # 5 steps of the student, 4 of the encoder

    errors, steps = model(frames, torch.tensor([23]), states, torch.tensor([3]))

    predicted, _ = model.predict(frames, torch.tensor([23]))
    assert predicted.shape == (1, 5, 2, 3)
    expected = 0.0
    for step in range(3):
        target = (states[0, :, step] - statistics.mean) / statistics.deviation
        expected += (predicted[0, step] - target).square().mean().item()
    assert errors[0].item() == pytest.approx(expected, rel=1e-5)
    assert steps.tolist() == [3]


def test_padding_changes_no_error():
    torch.manual_seed(0)
    model = StateRegression(small_student(), LayerStatistics(1, 3))
    frames, states = torch.randn(2, 40, 40), torch.randn(2, 1, 10, 3)
    frames[0, 20:], states[0, :, 5:] = 0, 100.0

    together, _ = model(frames, torch.tensor([20, 40]), states, torch.tensor([5, 10]))
    alone, _ = model(frames[:1, :20], torch.tensor([20]), states[:1, :, :5], torch.tensor([5]))

    torch.testing.assert_close(together[:1], alone)


def test_pretraining_trains_the_recurrence_and_neither_pooling_nor_embedding():
    student = small_student()
    model = StateRegression(student, LayerStatistics(1, 3))

    errors, _ = model(torch.randn(2, 40, 40), torch.tensor([40, 40]), torch.randn(2, 1, 10, 3), torch.tensor([10, 10]))
    errors.sum().backward()

    with_gradient = {name for name, each in student.named_parameters() if each.grad is not None}
    assert with_gradient == {name for name, _ in student.named_parameters() if name.startswith("trunk.recurrence")}


def test_a_pretrained_student_explains_variance_on_speakers_that_it_was_not_trained_on(pretrained):
    results = json.loads((pretrained / "results.json").read_text())
    losses = [json.loads(line)["loss_states"] for line in (pretrained / "metrics.jsonl").read_text().splitlines()]

    assert 0.05 < results["test"]["explained_variance"] < 1  # 0: the mean state
    assert losses[-1] < losses[0]
    student = AutoModel.from_pretrained(pretrained / "checkpoints" / "last")
    assert training_speakers(student.config.training_data) == set(results["train_speakers"])


def test_a_pretraining_that_was_killed_and_resumed_has_the_same_weights(tiny_encoders, monkeypatch, tmp_path):
    arguments = {"encoder": tiny_encoders[0], "layers": [0, 1], "epochs": 2, "batch_size": 8, "dropout": 0.3}
    arguments |= {"augment": 0.5, "save_every": 3}
    run("pretrain_student", tmp_path / "not_killed", **arguments)
    step, count = torch.optim.lr_scheduler.OneCycleLR.step, iter(range(100))

    def killed_at_the_eighth(self, *args):
        if next(count) == 8:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.lr_scheduler.OneCycleLR, "step", killed_at_the_eighth)
        with pytest.raises(KeyboardInterrupt):
            run("pretrain_student", tmp_path / "killed", **arguments)
    assert not (tmp_path / "killed" / "checkpoints" / "last").exists()
    run("pretrain_student", tmp_path / "killed", **arguments)

    one, two = (load_file(tmp_path / name / "checkpoints/last/model.safetensors") for name in ("not_killed", "killed"))
    assert one.keys() == two.keys()
    assert {name for name in one if not torch.equal(one[name], two[name])} == set()


def test_distillation_starts_from_front_end_and_trunk_of_the_initial_model(pretrained, tmp_path):
    initial = AutoModel.from_pretrained(pretrained / "checkpoints" / "last")
    namespace = runpy.run_path(str(RECIPES / "distill.py"))
    start: dict = {}

    class Spy(namespace["StudentWithProjections"]):
        def __init__(self, student, spaces):
            super().__init__(student, spaces)
            start.update({name: each.clone() for name, each in student.base_model.state_dict().items()})

    namespace["main"].__globals__["StudentWithProjections"] = Spy
    arguments = {"corpus_count": COUNT, "size": "nano", "level": "relative", "pooling": "statistics", "teacher": ""}
    arguments |= {"initial_model": str(pretrained), "cache": str(tmp_path / "cache"), "epochs": 1}
    namespace["main"](namespace["DistillArguments"](output=str(tmp_path / "run"), **arguments))

    assert start.keys() == initial.state_dict().keys()
    assert all(torch.equal(start[name], each) for name, each in initial.state_dict().items())
    student = StudentEmotionForAudioClassification.from_pretrained(tmp_path / "run" / "checkpoints" / "last")
    assert torch.equal(student.student.log_mel.mean, initial.log_mel.mean)
    assert not torch.equal(student.student.trunk.embedding.weight, initial.trunk.embedding.weight)


def test_speakers_of_the_pretraining_contaminate_the_test(pretrained, tmp_path):
    checkpoint = tmp_path / "initial"
    student = AutoModel.from_pretrained(pretrained / "checkpoints" / "last")
    _, speakers = apply_protocol("synthetic", corpus_table("synthetic", count=COUNT), "")
    tested = speakers.test[0]
    student.config.training_data = [{"corpus": "synthetic", "speakers": [tested], "teachers": []}]
    student.config.license = "CC-BY-4.0"
    student.save_pretrained(checkpoint)

    arguments = {"level": "relative", "pooling": "statistics", "teacher": "", "epochs": 1}
    results = run("distill", tmp_path / "run", initial_model=str(checkpoint), **arguments)

    assert results["contaminated_by"] == [tested]
    config = json.loads((tmp_path / "run" / "checkpoints" / "last" / "config.json").read_text())
    assert config["license"] == "Apache-2.0 AND CC-BY-4.0"


def test_another_architecture_than_that_of_the_initial_model_is_an_error_that_names_it(pretrained, tmp_path):
    with pytest.raises(ValueError, match="level 'absolute' instead of 'relative', pooling 'attentive' instead of"):
        run("distill", tmp_path / "run", initial_model=str(pretrained), teacher="", epochs=1)
