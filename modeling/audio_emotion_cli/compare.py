"""`audio-emotion compare`: how two folders of clips differ, such as recordings and synthetic speech."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Pipeline

from audio_emotion.evaluation.metrics import bootstrap_interval
from audio_emotion_cli import FINE, SOME_FAILED, UsageError
from audio_emotion_cli.inputs import clips_of, judged, load_pipeline, name_failure, progress, show_any_name

REPEATS = 1000  # bootstrap samples
FEWEST = 2  # pairs or clips that an interval can be drawn from


@dataclass
class FolderPredictions:
    """What a model says of `N` clips of a folder.

    Attributes:
        names: paths below the folder, without suffix.
        dimensions: `(N, 3)` in 0..1.
        emotions: `(N, C)` probabilities.
        embeddings: `(N, D)`.
        failed: clips that could not be judged, with their errors.
    """

    names: list[str]
    dimensions: np.ndarray
    emotions: np.ndarray
    embeddings: np.ndarray
    failed: dict[str, str] = field(default_factory=dict)


def run(args: argparse.Namespace) -> int:
    """MatchedClassifier both folders, compare them, and say how sure the differences are."""
    for folder in (args.reference, args.other):
        if not Path(folder).is_dir():
            raise UsageError(f"expected a folder of clips, got {folder}.")
    judge = load_pipeline(args.model, args.revision, args.device)
    reference, other = (predict_folder(judge, folder, args.batch_size) for folder in (args.reference, args.other))
    for folder, each in ((args.reference, reference), (args.other, other)):
        if len(each.names) < FEWEST:
            raise UsageError(
                f"expected at least {FEWEST} clips that can be judged in {folder}, got {len(each.names)}."
            )
    config = judge.model.config
    result = compared(reference, other, list(config.dimensions), list(config.emotions))
    result = {"reference": args.reference, "other": args.other, **result}
    result["failed"] = {**reference.failed, **other.failed}
    show_any_name()
    print(json.dumps(result) if args.format == "json" else _table(result))
    return SOME_FAILED if result["failed"] else FINE


def predict_folder(judge: Pipeline, folder: str, batch_size: int) -> FolderPredictions:
    """MatchedClassifier every clip of a folder; 0.6 kB of memory for each."""
    names, dimensions, emotions, embeddings, failed = [], [], [], [], {}
    labels = list(judge.model.config.emotions)
    for path, answer in progress(judged(judge, clips_of([folder]), batch_size, return_embedding=True)):
        if "error" in answer:
            failed[path] = answer["error"]
            name_failure(path, answer["error"])
            continue
        names.append(Path(path).relative_to(folder).with_suffix("").as_posix())
        dimensions.append(np.array(list(answer["dimensions"].values()), dtype=np.float32))
        scores = {each["label"]: each["score"] for each in answer.get("emotions", [])}
        emotions.append(np.array([scores[label] for label in labels], dtype=np.float32))
        embeddings.append(np.array(answer["embedding"], dtype=np.float32))
    if not names:
        return FolderPredictions([], np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0)), failed)
    return FolderPredictions(names, np.stack(dimensions), np.stack(emotions), np.stack(embeddings), failed)


def compared(
    reference: FolderPredictions, other: FolderPredictions, dimensions: list[str], emotions: list[str]
) -> dict[str, Any]:
    """Differences, other minus reference, with 95 % bootstrap intervals over clips.

    Clips of the same name are compared one by one, if there are at least two such pairs; the rest is left out and
    counted. Without pairs, the folders are compared as a whole.

    Returns:
        `paired`, `pairs`, `unpaired`; `dimensions`, for each its `difference` and `interval`; then for pairs
        `category_agreement`, the share of pairs with the same most probable emotion, and `embedding_cosine`, the mean
        cosine of a pair's embeddings, each as `{"value", "interval"}`; for whole folders `category_overlap`, the
        probability mass that both mean distributions share (1 less their total variation distance), and
        `embedding_cosine` of the mean embeddings, as `{"value"}`.
    """
    place = {name: index for index, name in enumerate(other.names)}
    pairs = [(index, place[name]) for index, name in enumerate(reference.names) if name in place]
    paired = len(pairs) >= FEWEST
    left_out = len(reference.names) + len(other.names) - 2 * len(pairs) if paired else 0
    result: dict[str, Any] = {"paired": paired, "pairs": len(pairs) if paired else 0, "unpaired": left_out}
    result["clips"] = {"reference": len(reference.names), "other": len(other.names)}
    if paired:
        rows = np.array(pairs)
        first, second = reference.dimensions[rows[:, 0]], other.dimensions[rows[:, 1]]  # (P, 3), (P, 3)
        differences = (second - first).astype(np.float64)  # (P, 3)
        values = differences.mean(0)
        ends = bootstrap_interval(lambda drawn: drawn.mean(0), differences, repeats=REPEATS)
    else:
        first, second = reference.dimensions, other.dimensions  # (N, 3), (M, 3)
        values = second.mean(0) - first.mean(0)
        ends = _interval_of_two_means(first, second)
    result["dimensions"] = {
        name: {
            "reference": float(first[:, column].mean()),
            "other": float(second[:, column].mean()),
            "reference_deviation": float(first[:, column].std(ddof=1)),
            "other_deviation": float(second[:, column].std(ddof=1)),
            "difference": float(values[column]),
            "interval": [float(ends[0][column]), float(ends[1][column])],  # type: ignore[index]
        }
        for column, name in enumerate(dimensions)
    }
    if paired:
        a, b = reference.embeddings[rows[:, 0]], other.embeddings[rows[:, 1]]  # (P, D), (P, D)
        result["embedding_cosine"] = _share(_cosine(a, b))
        if emotions:
            same = reference.emotions[rows[:, 0]].argmax(1) == other.emotions[rows[:, 1]].argmax(1)  # (P,)
            result["category_agreement"] = _share(same.astype(np.float64))
    else:
        means = (reference.embeddings.mean(0, keepdims=True), other.embeddings.mean(0, keepdims=True))  # (1, D)
        result["embedding_cosine"] = {"value": float(_cosine(*means)[0])}
        if emotions:
            overlap = np.minimum(reference.emotions.mean(0), other.emotions.mean(0)).sum()
            result["category_overlap"] = {"value": float(overlap)}
    if emotions:
        result["emotions"] = {
            side: dict(zip(emotions, each.emotions.mean(0).astype(float).tolist(), strict=True))
            for side, each in (("reference", reference), ("other", other))
        }
    return result


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between rows of `(N, D)`, `(N,)`."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _share(values: np.ndarray) -> dict[str, Any]:
    """Mean of `(P,)` and its interval over pairs."""
    low, high = bootstrap_interval(lambda drawn: float(drawn.mean()), values.astype(np.float64), repeats=REPEATS)
    return {"value": float(values.mean()), "interval": [float(low), float(high)]}


def _interval_of_two_means(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of `second.mean(0) - first.mean(0)`, each side drawn on its own."""
    random = np.random.default_rng(0)

    def means(values: np.ndarray) -> np.ndarray:
        drawn = (random.integers(len(values), size=len(values)) for _ in range(REPEATS))
        return np.stack([values[each].mean(0, dtype=np.float64) for each in drawn])  # (R, 3)

    differences = means(second) - means(first)  # (R, 3)
    return np.quantile(differences, 0.025, axis=0), np.quantile(differences, 0.975, axis=0)


def _table(result: dict[str, Any]) -> str:
    """The comparison in lines, for reading."""
    clips = result["clips"]
    lines = [f"reference   {result['reference']}: {clips['reference']} clips"]
    lines += [f"other       {result['other']}: {clips['other']} clips"]
    if result["paired"]:
        lines += [
            f"{result['pairs']} pairs of the same name; {result['unpaired']} clips without a matching_label left out",
            "",
        ]
    else:
        lines += ["no pairs of the same name: compared as two whole folders", ""]
    lines += [f"{'':<20}{'reference':>11}{'other':>9}{'difference':>12}   95 % interval over clips"]
    for name, each in result["dimensions"].items():
        low, high = each["interval"]
        sure = "" if low <= 0 <= high else "  differs"
        lines += [
            f"{name:<20}{each['reference']:>11.3f}{each['other']:>9.3f}{each['difference']:>+12.3f}"
            f"   {low:+.3f} to {high:+.3f}{sure}"
        ]
    names = {
        "category_agreement": "same emotion",
        "category_overlap": "emotions shared",
        "embedding_cosine": "embedding cosine",
    }
    for key, name in names.items():
        if key in result:
            each = result[key]
            interval = f"   {each['interval'][0]:.3f} to {each['interval'][1]:.3f}" if "interval" in each else ""
            lines += [f"{name:<20}{each['value']:>32.3f}{interval}"]
    return "\n".join(lines)
