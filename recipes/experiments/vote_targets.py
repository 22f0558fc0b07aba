"""Raters' votes against the intended emotion as training target: the runs `lite` and `lite_votes` on CREMA-D.

    python recipes/experiments/vote_targets.py

Both are scored against the intended emotion, the raters' majority and the distribution of their votes. Their outputs
differ first of all in how often they name each emotion: actors intend six emotions equally often, raters who are given
the voice alone vote mostly for neutral. `exchanged` are the same models with the frequencies of the other target: each
probability is multiplied by the frequency of its emotion in the other target and divided by that in its own (Saerens
et al. 2002, https://doi.org/10.1162/089976602753284446), both of the training clips of the fold.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audio_emotion.data.corpora import crema_d
from audio_emotion.data.corpora.corpus_info import majority
from audio_emotion.evaluation.bootstrap import bootstrap_interval
from audio_emotion.evaluation.metrics import accuracy, expected_calibration_error, unweighted_average_recall
from audio_emotion.evaluation.predictions import Predictions, load_predictions, pool_folds
from audio_emotion.evaluation.report import posterior
from audio_emotion.evaluation.report_statistics import agreement, brier_score, jensen_shannon
from audio_emotion.hub.card_sections import markdown_table
from audio_emotion.training.arguments import argument_group, option, parse_arguments

RESULTS = Path(__file__).parents[1] / "results"
FOLD_FILE = re.compile(r"-fold-(\d+)-seed-(\d+)$")
RUNS = {"intended": "lite", "votes": "lite_votes"}  # by target
SMALLEST = 1e-6  # probability in the cross-entropy
TITLES = {
    "accuracy_intended": "accuracy, intended emotion",
    "uar_intended": "UAR, intended emotion",
    "ece_intended": "calibration error (ECE), intended emotion",
    "brier_intended": "Brier score, intended emotion",
    "accuracy_majority": "accuracy, raters' majority",
    "uar_majority": "UAR, raters' majority",
    "ece_majority": "calibration error (ECE), raters' majority",
    "brier_majority": "Brier score, raters' majority",
    "cross_entropy": "cross-entropy with the votes, nats",
    "divergence": "Jensen-Shannon divergence from the votes, bits",
    "agreement": "probability that a rater agrees",
    "excess_confidence": "confidence minus that probability",
}


@argument_group()
class VoteTargetArguments:
    """Compare raters' votes and the intended emotion as targets."""

    results: str = option(str(RESULTS / "crema_d"), "Folder of the predictions of the set `crema_d.yaml`.")
    output: str = option(str(RESULTS / "crema_d_votes.json"), "File for the scores.")
    repeats: int = option(1000, "Bootstrap samples over speakers.")


def scores(probabilities: np.ndarray, intended: np.ndarray, named: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Every score of `TITLES`, in their order.

    Args:
        probabilities: `(N, C)`.
        intended: `(N,)` class numbers.
        named: `(N,)` class numbers of the raters' majority, -100 for a tie.
        votes: `(N, C)` fractions of the votes.
    """
    chosen, confidence = probabilities.argmax(-1), probabilities.max(-1)
    values = []
    for labels in (intended, named):
        known = labels >= 0
        values += [
            accuracy(chosen[known], labels[known]),
            unweighted_average_recall(chosen[known], labels[known]),
            expected_calibration_error(probabilities[known], labels[known]),
            brier_score(probabilities[known], labels[known]),
        ]
    agreeing = votes[np.arange(len(votes)), chosen]
    values.append(-(votes * np.log(np.maximum(probabilities, SMALLEST))).sum(-1).mean())
    values.append(jensen_shannon(probabilities, votes).mean())
    return np.array([*values, agreeing.mean(), (confidence - agreeing).mean()])


def with_frequencies(logits: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Logits `(N, C)` of a model as if the emotions had occurred with other frequencies, `(C,)` each."""
    adjusted: np.ndarray = logits + np.log(other) - np.log(own)
    return adjusted


def load_seeds(folder: Path, name: str) -> dict[int, dict[int, Predictions]]:
    """Predictions of a run by seed and fold, of the seeds that have all folds that any seed has."""
    found: dict[int, dict[int, Predictions]] = {}
    for path in folder.glob(f"{name}-fold-*-seed-*.parquet"):
        match = FOLD_FILE.search(path.stem)
        if match is not None and path.stem == f"{name}{match[0]}":
            found.setdefault(int(match[2]), {})[int(match[1])] = load_predictions(path)[0]
    folds = max(map(len, found.values()), default=0)
    return {seed: dict(sorted(found[seed].items())) for seed in sorted(found) if len(found[seed]) == folds}


def compare_targets(
    runs: Mapping[str, Mapping[int, Mapping[int, Predictions]]],
    counts: Mapping[str, Mapping[str, float]],
    repeats: int,
) -> dict[str, Any]:
    """Scores of both targets, and their differences, with intervals over speakers.

    Args:
        runs: by target, `intended` and `votes`, seed and fold.
        counts: number of votes for each emotion by clip name; see `crema_d.rater_votes`.
        repeats: bootstrap samples.
    """
    emotions = list(crema_d.INFO.emotions)
    seeds = sorted(set(runs["intended"]) & set(runs["votes"]))
    first = pool_folds(list(runs["intended"][seeds[0]].values()))
    numbers = np.array([[counts[name.rpartition("/")[2]][each] for each in emotions] for name in first.ids])
    votes = numbers / numbers.sum(1, keepdims=True)  # (N, C)
    most = [majority(row, emotions) for row in votes.tolist()]
    named = np.array([-100 if each is None else emotions.index(each) for each in most])
    models: dict[str, list[np.ndarray]] = {}  # `(N, C)` of each seed
    for target in RUNS:
        for seed in seeds:
            folds = runs[target][seed]
            pooled = pool_folds(list(folds.values()))
            if pooled.ids != first.ids or not np.array_equal(pooled.labels, first.labels):
                raise ValueError(
                    f"Expected the same clips and intended emotions of both targets, got others: {target}."
                )
            models.setdefault(target, []).append(posterior(pooled.logits))
            exchanged = []
            for fold in folds.values():
                training = ~np.isin(first.ids, fold.ids)
                of_votes, even = votes[training].mean(0), np.full(len(emotions), 1 / len(emotions))
                own, other = (even, of_votes) if target == "intended" else (of_votes, even)
                exchanged.append(fold.take(np.arange(len(fold.ids))))
                exchanged[-1].logits = with_frequencies(fold.logits, own, other)
            models.setdefault(f"{target}, exchanged", []).append(posterior(pool_folds(exchanged).logits))
    names = list(models)

    def all_scores(intended: np.ndarray, named: np.ndarray, votes: np.ndarray, *each: np.ndarray) -> np.ndarray:
        """(models, and votes minus intended with own frequencies, scores)."""
        found = np.array([scores(probabilities, intended, named, votes) for probabilities in each])
        means = found.reshape(len(names), len(seeds), -1).mean(1)
        return np.concatenate([means, [means[names.index("votes")] - means[names.index("intended")]]])

    arrays = [first.labels, named, votes, *(each for name in names for each in models[name])]
    values = all_scores(*arrays)
    low, high = bootstrap_interval(all_scores, *arrays, groups=first.clusters(), repeats=repeats)
    raters = agreement(first, numbers, repeats=2)
    return {
        "clips": len(first.ids),
        "clips_with_majority": int((named >= 0).sum()),
        "speakers": len({*first.speakers.tolist()}),
        "folds": len(runs["votes"][seeds[0]]),
        "seeds": seeds,
        "frequencies_of_votes": dict(zip(emotions, votes.mean(0).tolist(), strict=True)),
        "raters_a_clip": raters["raters_a_clip"],
        "agreement_of_raters": raters["raters"],
        "agreement_with_intended": raters["label"],
        "divergence_of_a_rater": raters["divergence_of_a_rater"],
        "scores": {
            name: {
                score: [float(each[row, column]) for each in (values, low, high)]  # value, both ends of the interval
                for column, score in enumerate(TITLES)
            }
            for row, name in enumerate([*names, "difference"])
        },
    }


def vote_target_table(results: Mapping[str, Any]) -> str:
    """Scores by target, and the paired difference, in Markdown."""
    found = results["scores"]
    rows = []
    for score, title in TITLES.items():
        difference, low, high = found["difference"][score]
        rows.append(
            [
                title,
                *(f"{found[each][score][0]:.3f}" for each in RUNS),
                f"{difference:+.3f} ({low:+.3f} to {high:+.3f})",
                *(f"{found[f'{each}, exchanged'][score][0]:.3f}" for each in RUNS),
            ]
        )
    columns = [
        "CREMA-D, unseen actors",
        "target: intended",
        "target: votes",
        "difference",
        "intended, with the votes' frequencies",
        "votes, with even frequencies",
    ]
    seeds = len(results["seeds"])
    return (
        f"{markdown_table(columns, rows)}\n\n"
        f"{results['clips']:,} clips of {results['speakers']} actors in {results['folds']} folds, mean of {seeds} "
        f"seed{'s' * (seeds > 1)}; {results['clips_with_majority']:,} clips have one most frequent vote. Differences "
        "are votes minus intended, paired, with 95 % bootstrap intervals over speakers. Two raters of a clip agree "
        f"with a probability of {results['agreement_of_raters']:.3f}, a rater and the intended emotion of "
        f"{results['agreement_with_intended']:.3f}; one rater's vote diverges from that of the others by "
        f"{results['divergence_of_a_rater']:.3f} bits."
    )


def main(args: VoteTargetArguments) -> None:
    """Write the scores, and print their table."""
    runs = {target: load_seeds(Path(args.results), name) for target, name in RUNS.items()}
    found = compare_targets(runs, crema_d.rater_votes(), args.repeats)
    results = {"source": "recipes/experiments/vote_targets.py", "repeats": args.repeats, **found}
    Path(args.output).write_text(json.dumps(results, indent=1) + "\n")
    print(vote_target_table(results))


if __name__ == "__main__":
    main(parse_arguments(VoteTargetArguments))
