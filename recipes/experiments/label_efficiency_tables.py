"""Arms of an experiment on few labels side by side: means over seeds, paired differences, a table of them.

An arm at a share of the labels is one point; its runs differ in the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audio_emotion.data.label_subset import percent
from audio_emotion.evaluation.bootstrap import aggregate, compare
from audio_emotion.evaluation.predictions import Predictions

Point = tuple[str, float]  # arm, share of the labels
TITLES = {  # of arms, in the order of the tables
    "scratch": "student, labels alone",
    "speech": "student of the speech teacher",
    "face": "student of the face teacher",
    "both": "student of both teachers",
    "both-shuffled": "student of both, faces shuffled",
    "scratch-convolutional": "convolutional student, labels alone",
    "both-convolutional": "convolutional student of both",
    "random-probe": "regression on an untrained student",
    "speech-teacher": "speech teacher",
    "face-teacher": "face teacher",
    "both-teachers": "both teachers",
}
COMPARED = [  # arm, other arm, both at the same fraction
    *((arm, "scratch") for arm in ("speech", "face", "both", "both-shuffled", "random-probe")),
    *((arm, "speech") for arm in ("both", "both-shuffled")),
    ("both", "both-shuffled"),
    ("both-convolutional", "both"),
    ("both-convolutional", "scratch-convolutional"),
]
TEACHERS = ("speech-teacher", "face-teacher", "both-teachers")


def points_of(
    rows: Mapping[Point, Sequence[dict[str, Any]]], predictions: Mapping[Point, Sequence[Predictions]], repeats: int
) -> list[dict[str, Any]]:
    """Mean UAR of every point with its 95 % interval, as `aggregate` draws it, and the lowest and highest seed.

    Args:
        rows: of each point, one a seed, with `uar` and `labels`, how many the list holds.
        predictions: of each point, one a seed.
        repeats: bootstrap samples.
    """
    points = []
    for (arm, fraction), runs in sorted(rows.items()):
        mean, interval = aggregate(predictions[arm, fraction], "uar", [], repeats)
        seeds = [row["uar"] for row in runs]
        point = {"arm": arm, "fraction": fraction, "labels": runs[0]["labels"], "uar": mean, "interval": [*interval]}
        points.append(point | {"lowest_seed": min(seeds), "highest_seed": max(seeds)})
    return points


def pairs_of(fractions: Sequence[float]) -> list[tuple[Point, Point]]:
    """Which points are compared: arms at the same fraction, and what few labels give with all labels alone."""
    pairs = [((one, fraction), (other, fraction)) for one, other in COMPARED for fraction in fractions]
    return pairs + [((arm, fraction), ("scratch", 1.0)) for arm in ("both", "speech") for fraction in fractions]


def comparisons_of(
    pairs: Iterable[tuple[Point, Point]], predictions: Mapping[Point, Sequence[Predictions]], repeats: int
) -> list[dict[str, Any]]:
    """Paired differences in UAR of those pairs of points that are both there, each pair once.

    Args:
        pairs: first and second point.
        predictions: of each point, one a seed.
        repeats: of bootstrap and permutation.
    """
    comparisons = []
    for (one, its), (other, others) in dict.fromkeys(pairs):
        if (one, its) in predictions and (other, others) in predictions and (one, its) != (other, others):
            found = compare(predictions[one, its], predictions[other, others], "uar", [], repeats)
            names = {"first_arm": one, "first_fraction": its, "second_arm": other, "second_fraction": others}
            comparisons.append(names | found.as_dict())
    return comparisons


def narrowed(results: Mapping[str, Any], arms: Sequence[str], fractions: Sequence[float]) -> dict[str, Any]:
    """The results of some arms at some shares of the labels alone."""

    def kept(each: Mapping[str, Any], prefix: str = "") -> bool:
        return each[f"{prefix}arm"] in arms and each[f"{prefix}fraction"] in fractions

    points = [point for point in results["points"] if kept(point)]
    pairs = [each for each in results["comparisons"] if kept(each, "first_") and kept(each, "second_")]
    return {**results, "points": points, "comparisons": pairs}


def title(arm: str) -> str:
    """How an arm is called in tables and pictures."""
    return TITLES.get(arm, arm)


def table(results: Mapping[str, Any]) -> str:
    """Markdown: an arm a line, a fraction a column; then the paired differences.

    Args:
        results: with `points` and `comparisons` as above, `intervals_over` (speakers or clips), `test_clips`, `seeds`
            and how many `classes`.
    """
    drawn = results["intervals_over"]
    points = {(point["arm"], point["fraction"]): point for point in results["points"]}
    labels = {fraction: point["labels"] for (_, fraction), point in points.items()}
    fractions = sorted(labels)
    lines = [
        f"UAR on {results['test_clips']} test clips, mean of {len(results['seeds'])} seed(s) (95 % interval over "
        f"{drawn}); chance is {1 / results['classes']:.3f}.",
        "",
        "| arm | " + " | ".join(f"{percent(each)} % ({labels[each]} labels)" for each in fractions) + " |",
        "|---|" + "---|" * len(fractions),
    ]
    for arm in dict.fromkeys([*TITLES, *sorted({arm for arm, _ in points})]):
        cells = [points.get((arm, fraction)) for fraction in fractions]
        if any(cells):
            said = [
                "" if cell is None else "{:.3f} ({:.2f} to {:.2f})".format(cell["uar"], *cell["interval"])
                for cell in cells
            ]
            lines.append(f"| {title(arm)} | " + " | ".join(said) + " |")
    lines += [
        "",
        f"| first | second | difference in UAR, paired (95 % interval over {drawn}) | p |",
        "|---|---|---|---|",
    ]
    for each in results["comparisons"]:
        first, second = (
            f"{title(each[f'{which}_arm'])}, {percent(each[f'{which}_fraction'])} %" for which in ("first", "second")
        )
        difference = "{:+.3f} ({:+.3f} to {:+.3f})".format(each["difference"], *each["interval"])
        p_value = f"{each['p_value']:.3f} ({each['units']} {each['unit']})"
        lines.append(f"| {first} | {second} | {difference} | {p_value} |")
    return "\n".join(lines) + "\n"
