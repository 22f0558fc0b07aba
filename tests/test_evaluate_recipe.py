"""recipes/evaluate.py: plots, groups, external models, comparisons; two processes give the scores of one."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.data.dataset import ClipReader
from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.evaluation.label_matching import MatchedClassifier
from audio_emotion.evaluation.predictions import load_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.hub.checkpoint import write_checkpoint

RECIPES = Path(__file__).parents[1] / "recipes"
SYNTHETIC = list(corpus_info("synthetic").emotions)
DIMENSIONS = ["activation", "valence", "dominance"]


def student(folder: Path, seed: int, **config) -> str:
    """A checkpoint with random weights."""
    torch.manual_seed(seed)
    sizes = {"num_mel_bins": 20, "convolution_size": 8, "hidden_size": 12, "embedding_size": 10}
    model = StudentEmotionForAudioClassification(StudentEmotionConfig(emotions=SYNTHETIC, **sizes, **config))
    write_checkpoint(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def evaluate():
    recipe = runpy.run_path(str(RECIPES / "evaluate.py"))
    quick = {"corpus_count": 50, "repeats": 20, "plots": False}
    return lambda **arguments: recipe["main"](recipe["EvaluateArguments"](**{**quick, **arguments}))


def test_an_evaluation_writes_scores_per_group_predictions_and_plots(evaluate, tmp_path):
    one, other = (student(tmp_path / f"model-{seed}", seed) for seed in range(2))
    evaluate(model=other, output=str(tmp_path / "other"))
    results = evaluate(model=one, output=str(tmp_path / "one"), against=[str(tmp_path / "other")], plots=True)

    written = json.loads((tmp_path / "one" / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    groups = written["test"]["groups"]
    assert set(groups) == {"speaker", "length"}  # the synthetic voices have no gender
    for kind in groups:
        assert sum(scores["clips"] for scores in groups[kind].values()) == written["test"]["clips"] == 10

    # The scores can be computed again from the predictions.
    predictions, emotions, dimensions = load_predictions(tmp_path / "one" / "predictions.parquet")
    again = measure(predictions, emotions, dimensions, corpus_info("synthetic").dimensions_source)
    for name in (name for name, value in again.items() if isinstance(value, float)):
        assert written["test"][name] == pytest.approx(again[name], abs=1e-6), name
    assert ((predictions.durations > 0.25) & (predictions.durations < 20)).all()

    found = written["against"][str(tmp_path / "other")]
    assert set(found) == {"uar", "macro_f1", "ccc_activation", "ccc_valence", "ccc_dominance"}
    theirs = json.loads((tmp_path / "other" / "results.json").read_text())["test"]
    difference = written["test"]["ccc_valence"] - theirs["ccc_valence"]
    assert found["ccc_valence"]["difference"] == pytest.approx(difference, abs=1e-6)
    plots = {path.name for path in (tmp_path / "one" / "plots").iterdir()}
    assert plots == {"confusion.png", "reliability.png", "scatter.png", "speakers.png", "comparison.png"}
    assert all((tmp_path / "one" / "plots" / name).read_bytes()[:4] == b"\x89PNG" for name in plots)


def test_a_corruption_changes_the_clips_that_are_evaluated(evaluate, tmp_path):
    model = student(tmp_path / "model", 0, level="relative")
    clean = evaluate(model=model, output=str(tmp_path / "clean"))
    against = [str(tmp_path / "clean")]
    quiet, noise = (
        evaluate(model=model, output=str(tmp_path / name), corruption=name, against=against)
        for name in ("quiet", "noise")
    )

    assert [each["corruption"] for each in (clean, quiet, noise)] == ["", "quiet", "noise"]
    costs = [each["against"][against[0]]["ccc_valence"]["difference"] for each in (quiet, noise)]
    assert costs[1] == pytest.approx(noise["test"]["ccc_valence"] - clean["test"]["ccc_valence"], abs=1e-6)
    assert abs(costs[0]) < 1e-3 < abs(costs[1])  # the outputs of this student do not depend on the level
    with pytest.raises(ValueError, match=r"telephone.*got 'underwater'"):
        evaluate(model=model, output=str(tmp_path / "other"), corruption="underwater")


def test_an_external_model_is_scored_by_its_own_logits(evaluate, make_external_model, tmp_path):
    shuffled = list(reversed(SYNTHETIC))
    folder = make_external_model(tmp_path / "external", [name.upper() for name in shuffled])
    results = evaluate(model=folder, output=str(tmp_path / "run"), batch_size=4)

    predictions, emotions, dimensions = load_predictions(tmp_path / "run" / "predictions.parquet")
    assert (emotions, dimensions) == (SYNTHETIC, [])
    assert not any(name.startswith("ccc") for name in results["test"])
    model = Wav2Vec2ForSequenceClassification.from_pretrained(folder).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    table = corpus_table("synthetic", count=50)
    reader = ClipReader(table)
    for place, name in enumerate(predictions.ids):
        waveform = reader.row(table["id"].index(name))["waveform"]
        with torch.no_grad():
            scores = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits[0]
        expected = [float(scores[shuffled.index(emotion)]) for emotion in SYNTHETIC]
        np.testing.assert_allclose(predictions.logits[place], expected, atol=1e-5)


def test_classes_without_a_match_raise_unless_a_label_map_is_given(evaluate, make_external_model, tmp_path):
    folder = make_external_model(tmp_path / "external", ["joyous", *SYNTHETIC[1:], "boredom"])
    with pytest.raises(ValueError, match=rf"joyous.*boredom.*{SYNTHETIC[0]}"):
        evaluate(model=folder, output=str(tmp_path / "run"))

    (tmp_path / "map.yaml").write_text(f"joyous: {SYNTHETIC[0]}\nboredom: null\n")
    results = evaluate(model=folder, output=str(tmp_path / "run"), label_map=str(tmp_path / "map.yaml"))
    assert results["left_out"] == []
    assert results["matching"]["scored"] == SYNTHETIC
    assert results["matching"]["classes_left_out"] == ["boredom"]
    assert 0 <= results["test"]["uar"] <= 1


def test_a_model_is_scored_on_every_clip_over_the_emotions_that_it_and_the_corpus_have(
    evaluate, make_external_model, tmp_path
):
    folder = make_external_model(tmp_path / "external", ["boredom", *SYNTHETIC[1:]])
    results = evaluate(model=folder, output=str(tmp_path / "run"), protocol="all")

    assert results["test"]["clips"] == 50
    assert results["matching"]["emotions_left_out"] == results["left_out"] == SYNTHETIC[:1]
    assert set(results["test"]["recall"]) == set(SYNTHETIC[1:])
    assert results["test"]["over_confidence"] == pytest.approx(
        results["test"]["confidence"] - results["test"]["accuracy"]
    )


def test_an_external_checkpoint_without_its_head_raises(make_external_model, tmp_path):
    folder = make_external_model(tmp_path / "external", SYNTHETIC)
    Wav2Vec2ForSequenceClassification.from_pretrained(folder).wav2vec2.save_pretrained(folder)
    config = json.loads((Path(folder) / "config.json").read_text())
    config["architectures"] = ["Wav2Vec2ForSequenceClassification"]
    (Path(folder) / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match=r"classifier\.weight"):
        MatchedClassifier(folder, SYNTHETIC, DIMENSIONS)


def test_an_external_regression_is_matched_by_the_names_of_its_outputs(make_external_model, tmp_path):
    folder = make_external_model(tmp_path / "external", ["arousal", "dominance", "valence"])
    model = MatchedClassifier(folder, SYNTHETIC, DIMENSIONS).eval()
    waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        output = model(waveform, torch.ones(2, 16000))
    assert model.emotions == []
    assert output.logits.shape == (2, 0)
    raw = model._external(waveform, torch.ones(2, 16000)).logits
    torch.testing.assert_close(output.dimensions, raw[:, [0, 2, 1]])


def test_padding_does_not_change_the_outputs_of_an_external_model(make_external_model, tmp_path):
    model = MatchedClassifier(make_external_model(tmp_path / "external", SYNTHETIC), SYNTHETIC, DIMENSIONS).eval()
    clip = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([clip, torch.zeros(1, 8000)], dim=1)
    mask = torch.tensor([[1] * 16000 + [0] * 8000])

    with torch.no_grad():
        torch.testing.assert_close(model(padded, mask).logits, model(clip, torch.ones(1, 16000)).logits)


def test_a_test_speaker_in_the_training_data_raises_or_marks_the_results(evaluate, tmp_path):
    training_data = [
        {
            "corpus": "other",
            "speakers": ["other/1"],
            "teachers": [{"corpus": "synthetic", "speakers": ["synthetic/09"]}],
        }
    ]
    folder = student(tmp_path / "model", 0, training_data=training_data)

    with pytest.raises(ValueError, match="synthetic/09"):
        evaluate(model=folder, output=str(tmp_path / "run"))
    marked = evaluate(model=folder, output=str(tmp_path / "run"), contaminated=True)
    assert marked["contaminated_by"] == ["synthetic/09"]
    with pytest.raises(ValueError, match="holds another run"):
        evaluate(model=folder, output=str(tmp_path / "run"), split="train")
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == marked
    again = evaluate(model=folder, output=str(tmp_path / "run"), split="train", restart=True)
    assert again["contaminated_by"] == []


@pytest.mark.slow
def test_two_launched_processes_give_the_numbers_of_one_with_an_uneven_last_batch(tmp_path):
    model = student(tmp_path / "model", 0)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29531"]
    scores = []
    for launch, name in ((two, "a"), ([sys.executable], "b")):
        flags = [
            "--model",
            model,
            "--corpus_count",
            "69",
            "--batch_size",
            "6",
            "--repeats",
            "0",
            "--output",
            str(tmp_path / name),
        ]
        ran = subprocess.run(
            [*launch, str(RECIPES / "evaluate.py"), *flags],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"{2 if name == 'a' else 1} process(es)" in ran.stdout
        scores.append(json.loads((tmp_path / name / "results.json").read_text())["test"])

    assert scores[0]["clips"] == scores[1]["clips"]
    assert scores[0]["clips"] % 6 % 2 == 1  # the last batch is uneven, and so are its parts
    for name in (name for name, value in scores[1].items() if isinstance(value, float)):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-6), name
