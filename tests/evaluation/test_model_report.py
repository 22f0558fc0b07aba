"""A report of several models on several corpora: page, figures, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.data.registry import corpus_info
from audio_emotion.evaluation.model_report import ModelReport, name_of, public, sample_rows, write_report
from audio_emotion.evaluation.pooled_regression import PooledFeatures, cross_fitted
from audio_emotion.evaluation.predictions import Predictions, save_predictions
from audio_emotion.evaluation.report_warnings import interval_warnings
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion_cli import EXIT_OK, EXIT_USAGE, main

EMOTIONS = list(corpus_info("synthetic").emotions)
QUICK = {"clips": 24, "robustness_clips": 4, "repeats": 10}


def student(folder, seed: int = 0, **config) -> str:
    """A checkpoint with random weights."""
    torch.manual_seed(seed)
    sizes = {"num_mel_bins": 20, "convolution_size": 8, "hidden_size": 12, "embedding_size": 10}
    model = StudentEmotionForAudioClassification(StudentEmotionConfig(**{"emotions": EMOTIONS, **sizes, **config}))
    write_checkpoint(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of two models with random weights on the synthetic corpus."""
    folder = tmp_path_factory.mktemp("report")
    one, other = (student(folder / f"model-{seed}", seed) for seed in range(2))
    results = ModelReport(one, [other], **QUICK).evaluate(["synthetic"])
    return results, write_report(results, folder / "page")


class Page(HTMLParser):
    """Text of a page, and the resources that it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.resources = "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Note scripts, and what is loaded from elsewhere."""
        found = dict(attributes)
        if tag in ("script", "link", "img", "iframe") or found.get("src"):
            self.resources.append((tag, found))

    def handle_data(self, data):
        """Collect the text."""
        self.text += data


def test_the_page_shows_the_figures_of_the_file_and_loads_nothing(report):
    results, path = report
    written = json.loads((path.parent / "report.json").read_text())
    assert written == json.loads(json.dumps(results))
    page = Page(path.read_text(encoding="utf-8"))
    assert page.resources == []
    (corpus,) = written["corpora"]
    assert list(corpus["models"]) == ["model-0", "model-1"]
    for scores in corpus["models"].values():
        assert f"{scores['uar']:.3f}" in page.text
    assert f"{corpus['paired']['model-1']['uar']['p_value']:.3f}" in page.text
    assert "near chance" in page.text  # random weights
    assert re.search(r"cost", page.text, re.IGNORECASE)
    assert set(corpus["robustness"]) >= {"codec", "noise", "control"}


def test_the_page_states_that_a_model_has_no_intervals_and_warns_of_wrong_ones_on_top(report, tmp_path):
    results, path = report
    assert "predicts no variance" not in path.read_text()  # whose dimensions are not rated on this corpus
    scores = results["corpora"][0]["models"]["model-0"]
    entry = {**results["corpora"][0], "models": {"model-0": {**scores, "dimensions": ["valence"]}}}
    for name in ("ccc_valence", "pearson_valence", "mae_valence"):
        entry["models"]["model-0"].setdefault(name, 0.1)
    without = write_report({**results, "corpora": [entry]}, tmp_path / "without").read_text()
    assert "model-0 predicts no variance" in without

    inside = {level: {"fraction": float(level) / 2, "interval": [0.1, 0.5]} for level in ("0.9", "0.5")}
    entry["models"]["model-0"]["coverage"] = {
        "valence": {"clips": 9, "standard_deviation": 0.1, "scale": 2.5, "inside": inside}
    }
    found = interval_warnings("toy", entry["models"]["model-0"]["coverage"])
    page = Page(write_report({**results, "warnings": found, "corpora": [entry]}, tmp_path / "with").read_text())
    assert "predicts no variance" not in page.text
    assert "45.0 %" in page.text
    assert page.text.index("90% intervals of valence contain 45%") < page.text.index("UAR is the mean")


def test_a_report_measures_the_intervals_of_rated_dimensions(tmp_path, monkeypatch):
    info = replace(corpus_info("synthetic"), dimensions_source="rated")
    monkeypatch.setattr("audio_emotion.evaluation.model_report.corpus_info", lambda _: info)
    model = student(tmp_path / "model", predict_variance=True)
    results = ModelReport(model, **{**QUICK, "robustness_clips": 0}).evaluate(["synthetic"])

    found = results["corpora"][0]["models"]["model"]["coverage"]
    assert set(found) == {"activation", "valence", "dominance"}
    assert all(each["clips"] == QUICK["clips"] and each["standard_deviation"] > 0 for each in found.values())
    assert any("intervals of" in each and "too narrow" in each for each in results["warnings"])  # random weights


def test_both_models_are_evaluated_on_the_same_sample(report):
    results, _ = report
    (corpus,) = results["corpora"]
    assert corpus["clips"] == QUICK["clips"]
    assert corpus["of_clips"] > corpus["clips"]
    assert {scores["clips"] for scores in corpus["models"].values()} == {QUICK["clips"]}


def test_a_sample_depends_on_its_seed_alone():
    class Table(dict):
        def __len__(self):
            return 100

        def select(self, places):
            return list(places)

    table = Table(id=[f"toy/{place}" for place in range(100)])
    assert sample_rows(table, 10, 0) == sample_rows(table, 10, 0) != sample_rows(table, 10, 1)
    assert sample_rows(table, 0, 0) is table
    assert len(set(sample_rows(table, 10, 0))) == 10


def test_a_model_that_was_trained_on_the_corpus_is_refused_or_marked(tmp_path):
    seen = [{"corpus": "synthetic", "speakers": None}]
    model = student(tmp_path / "model", training_data=seen)
    with pytest.raises(ValueError, match="not trained on"):
        ModelReport(model, **QUICK).evaluate(["synthetic"])
    results = ModelReport(model, contaminated=True, **{**QUICK, "robustness_clips": 0}).evaluate(["synthetic"])
    assert any("no evidence" in each for each in results["warnings"])
    page = write_report(results, tmp_path / "page").read_text()
    assert 'class="contaminated"' in page
    assert "No corpus of this report is new" in page


def test_labels_without_a_common_name_are_refused(tmp_path):
    model = student(tmp_path / "model", emotions=["surprised", "contempt"])
    with pytest.raises(ValueError, match="at least two emotions"):
        ModelReport(model, **QUICK).evaluate(["synthetic"])


def fold(path, speakers: list[str], first: int):
    """Predictions of a test fold of the synthetic corpus."""
    rows = 20
    random = np.random.default_rng(first)
    found = Predictions(
        ids=[f"synthetic/{first + place:05d}" for place in range(rows)],
        speakers=np.array([speakers[place % len(speakers)] for place in range(rows)]),
        logits=random.normal(size=(rows, len(EMOTIONS))),
        dimensions=np.zeros((rows, 0)),
        embedding=np.zeros((rows, 0)),
        labels=random.integers(len(EMOTIONS), size=rows),
        dimension_labels=np.zeros((rows, 0)),
    )
    save_predictions(found, path, EMOTIONS, [])


def test_folds_with_a_common_speaker_are_refused(tmp_path):
    model = student(tmp_path / "model")
    fold(tmp_path / "fold-1.parquet", ["synthetic/a", "synthetic/b"], 0)
    fold(tmp_path / "fold-2.parquet", ["synthetic/b", "synthetic/c"], 100)
    with pytest.raises(ValueError, match="every speaker in one test fold"):
        ModelReport(model, **QUICK).evaluate([f"synthetic={tmp_path}/fold-*.parquet"])


def test_the_command_writes_the_report_and_states_itself(tmp_path, capsys):
    model = student(tmp_path / "model")
    words = ["evaluate", model, "--on", "synthetic", "--clips", "12", "--robustness-clips", "0", "--repeats", "10"]
    assert main([*words, "--report", str(tmp_path / "page")]) == EXIT_OK
    assert str(tmp_path / "page" / "index.html") in capsys.readouterr().out
    command = json.loads((tmp_path / "page" / "report.json").read_text())["command"]
    assert command.startswith("audio-emotion evaluate ")
    assert "--clips 12" in command
    assert str(tmp_path) not in command

    assert main(["evaluate", model, "--on", "no-corpus", "--report", str(tmp_path / "none")]) == EXIT_USAGE
    assert not (tmp_path / "none").exists()


def test_the_baseline_pools_all_layers_and_is_tested_on_other_speakers(tiny_encoders):
    features = PooledFeatures(tiny_encoders[0])
    clips = torch.randn(2, 8_000)
    mask = torch.ones(2, 8_000, dtype=torch.long)
    mask[1, 6_000:] = 0
    pooled = features(clips * mask, mask).embedding
    alone = features(clips[1:, :6_000], mask[1:, :6_000]).embedding
    torch.testing.assert_close(pooled[1:], alone, atol=1e-4, rtol=1e-4)

    # Features that identify the speaker, whose clips all have one label: a regression on other speakers knows nothing.
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10) % 2, 6)
    speakers = np.repeat([f"toy/{each}" for each in range(10)], 6)
    embedding = np.repeat(np.eye(10), 6, axis=0) + random.normal(0, 0.01, (60, 10))
    toy = Predictions([f"toy/{i:02d}" for i in range(60)], speakers, np.zeros((60, 2)), np.zeros((60, 0)), embedding,
                      labels, np.zeros((60, 0)))  # fmt: skip
    found = cross_fitted(toy, ["angry", "neutral"])
    assert (found.logits.argmax(1) == labels).mean() < 0.75
    toy.embedding = labels[:, None] + random.normal(0, 0.01, (60, 3))
    assert (cross_fitted(toy, ["angry", "neutral"]).logits.argmax(1) == labels).all()


def test_a_checkpoint_of_a_run_is_named_after_the_run():
    assert name_of("runs/student/checkpoints/last") == name_of("runs/student/checkpoints/best/") == "student"
    assert name_of("somebody/mouse") == "mouse"
    assert name_of("mine=runs/student/checkpoints/last") == "mine"
    assert name_of("predictions/theirs.csv") == "theirs"


def test_a_report_shows_no_folder_above_the_run(tmp_path):
    checkpoint = tmp_path / "student" / "checkpoints" / "last"
    checkpoint.mkdir(parents=True)

    assert public(str(checkpoint)) == "student/checkpoints/last"
    assert public(str(checkpoint.parent)) == "student/checkpoints"
    assert public("somebody/mouse") == "somebody/mouse"
