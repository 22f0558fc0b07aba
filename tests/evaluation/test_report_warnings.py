"""Deliberate errors in labels, models and corpora are visible at the top of a report."""

from __future__ import annotations

import numpy as np
import pytest
from test_report_statistics import EMOTIONS, predictions

from audio_emotion.evaluation import report_statistics, report_warnings

DIMENSIONS = ["activation", "valence", "dominance"]


def warnings(found, *, digests=None, contaminated_by=(), tests=None) -> str:
    """All warnings about one model on one corpus."""
    scores = report_statistics.correctness(found, EMOTIONS, DIMENSIONS, "rated", 50)
    scores["contaminated_by"] = list(contaminated_by)
    lines = report_warnings.corpus_warnings("toy", scores, EMOTIONS, DIMENSIONS)
    if found.variances is not None:
        lines += report_warnings.interval_warnings("toy", report_statistics.coverage(found, DIMENSIONS, 50))
    lines += report_warnings.range_warnings("toy", found, DIMENSIONS)
    lines += report_warnings.calibration_warnings("toy", report_statistics.calibration(found, 0))
    lines += report_warnings.clip_warnings("toy", found, digests or found.ids)
    lines += report_warnings.robustness_warnings("toy", tests or {})
    return "\n".join(lines)


def calibrated(**arguments):
    """Predictions without any fault."""
    return predictions(**{"skill": 1.8, **arguments})


def shuffled_labels():
    found = calibrated()
    found.labels = np.random.default_rng(3).permutation(found.labels)
    return {"found": found}, "near chance"


def one_answer():
    found = calibrated()
    found.logits[:, 2] += 40
    return {"found": found}, "one answer, neutral, for 100%"


def knows_the_test_set():
    return {"found": calibrated(skill=40.0)}, "probably been trained on these clips"


def is_marked_as_contaminated():
    return {"found": calibrated(), "contaminated_by": ["toy/1"]}, "no evidence"


def permuted_dimensions():
    found = calibrated()
    found.dimensions = found.dimensions[:, [1, 0, 2]]
    return {"found": found}, "in another order: valence in place of activation"


def inverted_dimension():
    found = calibrated()
    found.dimensions[:, 1] = 1 - found.dimensions[:, 1]
    return {"found": found}, "predicted valence falls where rated valence rises"


def another_scale():
    found = calibrated()
    found.dimensions = 1 + 6 * found.dimensions
    return {"found": found}, "outside 0..1"


def compressed_scale():
    found = calibrated()
    found.dimensions = 0.7 + 0.1 * found.dimensions
    return {"found": found}, "its scale differs from the ratings"


def constant_dimension():
    found = calibrated()
    found.dimensions[:, 0] = 0.5
    return {"found": found}, "predicted activation is the same for every clip"


def exchanged_classes():
    found = calibrated(skill=3.0)
    found.logits = found.logits[:, [3, 1, 2, 0]]
    return {"found": found}, "angry and sad are mostly predicted for each other"


def over_confident():
    found = calibrated(skill=1.0)
    found.logits = 5 * found.logits
    return {"found": found}, "over-confident by"


def with_variances(factor: float):
    """Variances of the real errors, times a factor."""
    found = calibrated()
    found.variances = factor * np.tile(np.square(found.dimensions - found.dimension_labels).mean(0), (400, 1))
    return found


def variance_too_small():
    return {
        "found": with_variances(0.1)
    }, "of the ratings, they are too narrow; the errors are 3.2 times the predicted"


def variance_too_large():
    return {"found": with_variances(10)}, "of the ratings, they are too wide; the errors are 0.3 times the predicted"


def repeated_clips():
    found = calibrated()
    return {"found": found, "digests": [*found.ids[:300], *found.ids[:100]]}, "100 of 400 clips are copies"


def a_speaker_for_every_clip():
    return {"found": calibrated(speakers=400)}, "a speaker of its own"


def unknown_speakers():
    found = calibrated()
    found.speakers = np.array([""] * 400)
    return {"found": found}, "no speakers are known"


def ignores_the_audio():
    silence = report_statistics.robustness(calibrated(), calibrated(), 50)
    return {"found": calibrated(), "tests": {"control": {"silence in its place": silence}}}, "silence gets the same"


FAULTS = (
    shuffled_labels,
    one_answer,
    knows_the_test_set,
    is_marked_as_contaminated,
    permuted_dimensions,
    inverted_dimension,
    another_scale,
    compressed_scale,
    constant_dimension,
    exchanged_classes,
    over_confident,
    variance_too_small,
    variance_too_large,
    repeated_clips,
    a_speaker_for_every_clip,
    unknown_speakers,
    ignores_the_audio,
)


def test_a_sound_evaluation_has_no_warning():
    assert warnings(calibrated()) == ""
    assert warnings(with_variances(1.0)) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_deliberate_error_is_reported(fault):
    arguments, message = fault()
    assert message in warnings(**arguments)
