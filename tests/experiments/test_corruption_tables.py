"""The table of corruptions: scores on corrupted clips beside those on clips as recorded."""

import json

import numpy as np
import pytest
from set_tables import corruption_table

from audio_emotion.evaluation.predictions import Predictions, pool_folds, save_predictions
from audio_emotion.evaluation.report import measure

EMOTIONS, DIMENSIONS = ["calm", "angry"], ["activation", "valence", "dominance"]


def make_predictions(fold: int, right: int) -> Predictions:
    """Four speakers with six clips each, of which the first `right` are predicted correctly."""
    random = np.random.default_rng(fold)
    labels = np.tile([0, 1], 12)
    predicted = np.where(np.arange(24) % 6 < right, labels, 1 - labels)
    rated = random.uniform(size=(24, 3))
    return Predictions(
        ids=[f"c/{fold}-{number}" for number in range(24)],
        speakers=np.array([f"c/{fold}-{number // 6}" for number in range(24)]),
        logits=np.eye(2)[predicted] * 4,
        dimensions=rated + 0.1 * right * random.normal(size=(24, 3)),
        embedding=np.zeros((24, 1)),
        labels=labels,
        dimension_labels=rated,
        durations=np.ones(24),
    )


@pytest.fixture
def folder(tmp_path):
    for place, right in (("", 5), ("telephone", 2)):
        (tmp_path / place).mkdir(exist_ok=True)
        for fold in (1, 2):
            file = tmp_path / place / f"default-fold-{fold}-seed-0"
            save_predictions(make_predictions(fold, right), file.with_suffix(".parquet"), EMOTIONS, DIMENSIONS)
            file.with_suffix(".json").write_text(json.dumps({"parameters": 1, "test": {}}))
    return tmp_path


def test_a_row_has_the_score_and_its_difference_from_clean_clips(folder):
    run = {"title": "the default", "recipe": "distill", "arguments": {}, "corruptions": ["telephone", "noise"]}
    lines = corruption_table(folder, {"folds": [1, 2], "runs": {"default": run, "other": {}}}, 200).splitlines()

    clean, changed = (
        measure(pool_folds([make_predictions(fold, right) for fold in (1, 2)]), EMOTIONS, DIMENSIONS, None, 0)
        for right in (5, 2)
    )
    assert lines[0] == "| model | clips | folds, seeds | UAR | CCC activation | CCC valence | CCC dominance |"
    assert lines[2].startswith(f"| the default | as recorded | 2, 1, *hint* | {clean['uar']:.3f} | ")
    difference = changed["uar"] - clean["uar"]
    # every speaker loses as much, so that the difference is the same in every resample
    interval = f"({difference:+.2f} to {difference:+.2f})"
    assert lines[3].startswith(f"| | telephone | 2, 1, *hint* | {changed['uar']:.3f}: {difference:+.3f} {interval} | ")
    assert f"| {changed['ccc_valence']:.3f}: {changed['ccc_valence'] - clean['ccc_valence']:+.3f} (" in lines[3]
    assert lines[4] == ""  # no results with noise
