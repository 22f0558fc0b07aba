"""recipes/evaluate.py: pictures, groups, foreign models, comparisons; two processes as one."""

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
    quick = {"corpus_count": 50, "repeats": 20, "pictures": False}
    return lambda **arguments: recipe["main"](recipe["EvaluateArguments"](**{**quick, **arguments}))


def test_an_evaluation_leaves_numbers_by_group_predictions_and_pictures(evaluate, tmp_path):
    one, other = (student(tmp_path / f"model-{seed}", seed) for seed in range(2))
    evaluate(model=other, output=str(tmp_path / "other"))
    results = evaluate(model=one, output=str(tmp_path / "one"), against=[str(tmp_path / "other")], pictures=True)

    written = json.loads((tmp_path / "one" / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    groups = written["test"]["groups"]
    assert set(groups) == {"speaker", "length"}  # the synthetic voices have no gender
    for kind in groups:
        assert sum(scores["clips"] for scores in groups[kind].values()) == written["test"]["clips"] == 10

    # Everything can be remade from the predictions.
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
    pictures = {path.name for path in (tmp_path / "one" / "pictures").iterdir()}
    assert pictures == {"confusion.png", "reliability.png", "scatter.png", "speakers.png", "comparison.png"}
    assert all((tmp_path / "one" / "pictures" / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)


def test_a_condition_is_an_evaluation_of_changed_clips(evaluate, tmp_path):
    model = student(tmp_path / "model", 0, level="relative")
    clean = evaluate(model=model, output=str(tmp_path / "clean"))
    against = [str(tmp_path / "clean")]
    quiet, noise = (
        evaluate(model=model, output=str(tmp_path / name), condition=name, against=against)
        for name in ("quiet", "noise")
    )

    assert [each["condition"] for each in (clean, quiet, noise)] == ["", "quiet", "noise"]
    costs = [each["against"][against[0]]["ccc_valence"]["difference"] for each in (quiet, noise)]
    assert costs[1] == pytest.approx(noise["test"]["ccc_valence"] - clean["test"]["ccc_valence"], abs=1e-6)
    assert abs(costs[0]) < 1e-3 < abs(costs[1])  # no gain changes an answer of this student
    with pytest.raises(ValueError, match=r"telephone.*got 'underwater'"):
        evaluate(model=model, output=str(tmp_path / "other"), condition="underwater")


def test_a_foreign_model_gets_the_score_of_its_own_argmax(evaluate, make_foreign_model, tmp_path):
    shuffled = list(reversed(SYNTHETIC))
    folder = make_foreign_model(tmp_path / "theirs", [name.upper() for name in shuffled])
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


def test_foreign_names_without_a_partner_stop_and_a_label_map_helps(evaluate, make_foreign_model, tmp_path):
    folder = make_foreign_model(tmp_path / "theirs", ["joyous", *SYNTHETIC[1:], "boredom"])
    with pytest.raises(ValueError, match=rf"joyous.*boredom.*{SYNTHETIC[0]}"):
        evaluate(model=folder, output=str(tmp_path / "run"))

    (tmp_path / "map.yaml").write_text(f"joyous: {SYNTHETIC[0]}\nboredom: null\n")
    results = evaluate(model=folder, output=str(tmp_path / "run"), label_map=str(tmp_path / "map.yaml"))
    assert results["left_out"] == []
    assert 0 <= results["test"]["uar"] <= 1


def test_a_foreign_checkpoint_without_its_head_is_refused(make_foreign_model, tmp_path):
    folder = make_foreign_model(tmp_path / "theirs", SYNTHETIC)
    Wav2Vec2ForSequenceClassification.from_pretrained(folder).wav2vec2.save_pretrained(folder)
    config = json.loads((Path(folder) / "config.json").read_text())
    config["architectures"] = ["Wav2Vec2ForSequenceClassification"]
    (Path(folder) / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match=r"classifier\.weight"):
        MatchedClassifier(folder, SYNTHETIC, DIMENSIONS)


def test_a_foreign_regression_is_read_by_the_names_of_its_outputs(make_foreign_model, tmp_path):
    folder = make_foreign_model(tmp_path / "theirs", ["arousal", "dominance", "valence"])
    judge = MatchedClassifier(folder, SYNTHETIC, DIMENSIONS).eval()
    waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        said = judge(waveform, torch.ones(2, 16000))
    assert judge.emotions == []
    assert said.logits.shape == (2, 0)
    raw = judge._foreign(waveform, torch.ones(2, 16000)).logits
    torch.testing.assert_close(said.dimensions, raw[:, [0, 2, 1]])


def test_a_foreign_model_is_judged_clip_by_clip_so_padding_changes_nothing(make_foreign_model, tmp_path):
    judge = MatchedClassifier(make_foreign_model(tmp_path / "theirs", SYNTHETIC), SYNTHETIC, DIMENSIONS).eval()
    clip = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([clip, torch.zeros(1, 8000)], dim=1)
    mask = torch.tensor([[1] * 16000 + [0] * 8000])

    with torch.no_grad():
        torch.testing.assert_close(judge(padded, mask).logits, judge(clip, torch.ones(1, 16000)).logits)


def test_heard_speakers_and_public_models_that_heard_the_corpus_are_refused(evaluate, tmp_path):
    heard = [
        {
            "corpus": "other",
            "speakers": ["other/1"],
            "teachers": [{"corpus": "synthetic", "speakers": ["synthetic/09"]}],
        }
    ]
    folder = student(tmp_path / "model", 0, training_data=heard)

    with pytest.raises(ValueError, match="synthetic/09"):
        evaluate(model=folder, output=str(tmp_path / "run"))
    marked = evaluate(model=folder, output=str(tmp_path / "run"), contaminated=True)
    assert marked["contaminated_by"] == ["synthetic/09"]
    assert evaluate(model=folder, output=str(tmp_path / "run"), side="train")["contaminated_by"] == []


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
    assert scores[0]["clips"] % 6 % 2 == 1  # the last batch is uneven, and so are the shares of it
    for name in (name for name, value in scores[1].items() if isinstance(value, float)):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-6), name
