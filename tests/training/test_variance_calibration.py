"""Variances are scaled to the errors on validation speakers, and recipes train ones that know where noise is."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForAudioClassification

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.evaluation.metrics import interval_coverage, pearson_correlation
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.layers import EmotionHeads, EmotionOutput
from audio_emotion.losses import supervised_terms
from audio_emotion.pretrained_emotion import LOG_VARIANCE
from audio_emotion.training.experiment import ExperimentData
from audio_emotion.training.variance_calibration import calibrate_variance, write_calibrated

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ["activation", "valence", "dominance"]


def student(**fields) -> StudentEmotionForAudioClassification:
    torch.manual_seed(0)
    sizes = {"num_mel_bins": 20, "convolution_size": 8, "hidden_size": 12, "embedding_size": 10}
    config = StudentEmotionConfig(emotions=["happy", "sad"], **{"predict_variance": True, **sizes, **fields})
    return StudentEmotionForAudioClassification(config).eval()


def predictions(factors, clips: int = 500) -> Predictions:
    """Errors whose standard deviation is the predicted one times a factor; the last dimension has few ratings."""
    random = np.random.default_rng(0)
    deviations = random.uniform(0.05, 0.2, (clips, 3))
    means = random.random((clips, 3))
    rated = means + np.array(factors) * deviations * random.normal(size=(clips, 3))
    rated[20:, 2] = np.nan
    empty = np.zeros((clips, 0))
    found = Predictions([f"{clip}" for clip in range(clips)], np.array(["a"] * clips), empty, means, empty,
                        np.full(clips, -100), rated)  # fmt: skip
    found.variances = deviations**2
    return found


def test_each_variance_is_multiplied_by_the_mean_square_of_the_standardized_errors():
    model, found = student(), predictions([3.0, 0.5, 1.0])
    waveform = torch.randn(2, 8000)
    before = model(waveform)

    scales = calibrate_variance(model, found)

    expected = [
        np.sqrt(np.nanmean((found.dimensions - found.dimension_labels)[:, each] ** 2 / found.variances[:, each]))
        for each in range(3)
    ]
    assert [scales[name] for name in NAMES] == pytest.approx(expected)
    assert (scales["activation"], scales["valence"]) == pytest.approx((3.0, 0.5), rel=0.1)
    after = model(waveform)
    torch.testing.assert_close(
        after.log_variance - before.log_variance, 2 * torch.tensor(expected).log().float().expand(2, 3)
    )
    torch.testing.assert_close(after.dimensions, before.dimensions)


def test_a_dimension_without_ratings_and_a_model_without_variance_are_left_as_they_are():
    model, found = student(), predictions([2.0, 2.0, 2.0])
    found.dimension_labels[:, 1] = np.nan
    before = model.heads.log_variance.bias.detach().clone()
    assert set(calibrate_variance(model, found)) == {"activation", "dominance"}
    assert model.heads.log_variance.bias[1] == before[1]
    found.variances = None
    assert calibrate_variance(student(predict_variance=False), found) == {}


def test_a_checkpoint_of_a_training_is_calibrated_and_the_training_continues_with_its_own_variances():
    model, found, written = student(), predictions([3.0, 3.0, 3.0]), []
    before = model.heads.log_variance.bias.detach().clone()
    write_calibrated(model, found, lambda: written.append(model.heads.log_variance.bias.detach().clone()))
    assert torch.equal(model.heads.log_variance.bias, before)
    assert (written[0] - before).tolist() == pytest.approx([2 * np.log(3)] * 3, abs=0.4)
    write_calibrated(model, None, lambda: written.append(model.heads.log_variance.bias.detach().clone()))
    assert torch.equal(written[1], before)


def test_the_variance_changes_nothing_but_its_own_head():
    model = student(dropout=0.0)
    output = model(torch.randn(4, 8000, generator=torch.Generator().manual_seed(0)))
    terms = supervised_terms(output, None, torch.rand(4, 3), [1.0, 1.0, 1.0])
    terms["variance"].backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"heads.log_variance.weight", "heads.log_variance.bias"}


def test_a_model_with_variances_starts_from_the_same_weights_as_one_without():
    with_, without = student().state_dict(), student(predict_variance=False).state_dict()
    assert set(with_) - set(without) == {"heads.log_variance.weight", "heads.log_variance.bias"}
    assert all(torch.equal(with_[name], tensor) for name, tensor in without.items())
    assert with_["heads.log_variance.weight"].abs().max() > 0


def noise_of(activation: Any) -> Any:
    """Known standard deviation of the noise: excited clips are rated with less agreement."""
    return 0.02 + 0.25 * activation


@pytest.fixture
def noisy_ratings(monkeypatch):
    """The synthetic corpus with noise on its ratings of valence that depends on activation; returns it by clip."""
    make, noise = ExperimentData.__init__, {}

    def with_noise(self, *args, **others):
        make(self, *args, **others)
        random = np.random.default_rng(0)

        def rated(row):
            noise[row["id"]] = noise_of(row["activation"])
            return {"valence": float(row["valence"] + noise[row["id"]] * random.normal())}

        options = {"load_from_cache_file": False, "keep_in_memory": True}
        self.table = self.table.map(rated, **options)
        by_id = dict(zip(self.table["id"], self.table["valence"], strict=True))
        self.held_out = {
            split: rows.map(lambda row: {"valence": by_id[row["id"]]}, **options)
            for split, rows in self.held_out.items()
        }

    monkeypatch.setattr(ExperimentData, "__init__", with_noise)
    return noise


def run(recipe: str, folder: Path, **arguments) -> dict:
    """Results of a recipe on the synthetic corpus, with a small model that predicts variances."""
    namespace = runpy.run_path(str(RECIPES / f"{recipe}.py"))
    own = {
        "train_teacher": {"hidden_size": 16, "convolution_size": 16},
        "distill": {"size": "nano", "teacher": "", "validate_every": 1},
    }
    cls = namespace[{"train_teacher": "TeacherArguments", "distill": "DistillArguments"}[recipe]]
    arguments |= {"cache": str(folder / "cache"), "predict_variance": True, **own[recipe]}
    return namespace["main"](cls(output=str(folder / "run"), **arguments))


def test_a_new_head_starts_at_the_usual_error_and_a_loaded_one_is_as_it_was(tmp_path):
    """A training of some hundred steps would not reach it from a standard deviation of 1."""
    model = student()
    assert model.heads.log_variance.bias.exp().sqrt().tolist() == pytest.approx([0.15] * 3)
    with torch.no_grad():
        model.heads.log_variance.bias.fill_(-1.0)
    model.save_pretrained(tmp_path)
    again = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert again.heads.log_variance.bias.tolist() == [-1.0] * 3


@pytest.mark.parametrize("recipe", ["train_teacher", "distill"])
def test_a_recipe_writes_a_model_with_calibrated_variances(recipe, tmp_path):
    results = run(recipe, tmp_path, corpus_count=40, epochs=2)

    found, _, _ = load_predictions(tmp_path / "run" / "predictions.parquet")
    coverage = interval_coverage(found.dimensions[:, 1], found.variances[:, 1], found.dimension_labels[:, 1], 0.9)
    assert results["test"]["coverage_90_valence"] == coverage
    assert set(results["variance_scale"]) == set(NAMES)
    last, best = (
        AutoModelForAudioClassification.from_pretrained(tmp_path / "run" / "checkpoints" / each).heads.log_variance
        for each in ("last", "best")
    )
    for head in (last, best):  # untrained, almost: the bias is that of a new head and the factor
        factors = 2 * np.log([results["variance_scale"][name] for name in NAMES])
        assert (head.bias - LOG_VARIANCE).tolist() == pytest.approx(factors, abs=0.2 if head is last else 1.0)


def test_without_validation_speakers_variances_are_not_calibrated_which_is_printed(tmp_path, capsys):
    results = run("train_teacher", tmp_path, corpus_count=40, epochs=1, train_on_validation=True)
    assert results["variance_scale"] == {}
    assert "not calibrated" in capsys.readouterr().out


def test_the_loss_teaches_where_ratings_are_noisy():
    """Heads alone, on embeddings of which one number is the activation that decides about the noise of valence."""
    torch.manual_seed(0)
    heads = EmotionHeads(student(dropout=0.0, embedding_size=8).config)
    embedding = torch.randn(4000, 8)
    clean = (embedding[:, :3] / 6 + 0.5).clamp(0, 1)
    deviation = noise_of(clean[:, 0])
    rated = clean.clone()
    rated[:, 1] += deviation * torch.randn(4000)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.03)
    train, test = slice(0, 2000), slice(2000, 4000)
    for _ in range(400):
        output = EmotionOutput(**heads(embedding[train]), embedding=embedding[train])
        terms = supervised_terms(output, None, rated[train], [1.0, 1.0, 1.0])
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()

    with torch.no_grad():
        output = heads(embedding[test])
    predicted = output["log_variance"][:, 1].exp().sqrt()
    assert pearson_correlation(predicted, deviation[test]) > 0.9
    for part in (deviation[test] < 0.12, deviation[test] > 0.18):  # each, not only on average
        inside = interval_coverage(
            *(each[part] for each in (output["dimensions"][:, 1], predicted**2, rated[test, 1])), 0.9
        )
        assert inside == pytest.approx(0.9, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["train_teacher", "distill"])
def test_a_recipe_learns_where_ratings_are_noisy(recipe, noisy_ratings, tmp_path):
    results = run(recipe, tmp_path, corpus_count=600, epochs=30, learning_rate=5e-3)

    found, _, _ = load_predictions(tmp_path / "run" / "predictions.parquet")
    known = np.array([noisy_ratings[name] for name in found.ids])
    assert pearson_correlation(np.sqrt(found.variances[:, 1]), known) > 0.6
    assert results["test"]["coverage_90_valence"] == pytest.approx(0.9, abs=0.08)
