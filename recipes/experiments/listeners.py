"""Agreement of single listeners of EmoTale with the mean of the others, beside which a model's scores are read.

python recipes/experiments/listeners.py
"""

import csv
import json
from pathlib import Path

import numpy as np

from audio_emotion.data.corpora.corpus_info import find_corpus_root, rating_to_unit
from audio_emotion.data.corpora.emotale import LISTENERS
from audio_emotion.evaluation.metrics import concordance_correlation, pearson_correlation

RESULTS = Path(__file__).parents[1] / "results" / "emotale_listeners.json"
COLUMNS = {"activation": "A", "valence": "V", "dominance": "D"}


def agreement(ratings: np.ndarray) -> dict[str, float]:
    """CCC and Pearson's coefficient of one listener with the mean of the others, `(N, L)`, the mean over listeners."""
    found: dict[str, list[float]] = {"ccc": [], "pearson": []}
    for listener in range(ratings.shape[1]):
        others = np.delete(ratings, listener, axis=1).mean(1)
        found["ccc"].append(float(concordance_correlation(ratings[:, listener], others)))
        found["pearson"].append(float(pearson_correlation(ratings[:, listener], others)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Write the agreement in each dimension."""
    with (find_corpus_root("emotale") / "annotations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        name: agreement(
            np.array([[rating_to_unit(float(row[f"{each}_{letter}"]), 1, 5) for each in LISTENERS] for row in rows])
        )
        for name, letter in COLUMNS.items()
    }
    results = {"source": "recipes/experiments/listeners.py", "clips": len(rows), "listeners": len(LISTENERS), **found}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
