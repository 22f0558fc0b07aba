"""`audio-emotion compare`: differences between two folders of clips, such as recordings and synthetic speech."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Pipeline

from audio_emotion.evaluation.bootstrap import bootstrap_interval
from audio_emotion_cli import EXIT_OK, EXIT_SOME_FAILED, UsageError, printable
from audio_emotion_cli.inputs import (
    allow_any_file_name,
    find_clips,
    load_pipeline,
    predict_clips,
    progress_bar,
    report_failure,
)

REPEATS = 1000  # bootstrap samples
MIN_CLIPS = 2  # clips or pairs that an interval needs


@dataclass
class FolderPredictions:
    """Predictions for the `N` clips of a folder.

    Attributes:
        names: paths relative to the folder, without suffix.
        dimensions: `(N, A)` in 0..1.
        emotions: `(N, C)` probabilities.
        embeddings: `(N, D)`.
        failed: errors of the clips that failed, by path.
    """

    names: list[str]
    dimensions: np.ndarray
    emotions: np.ndarray
    embeddings: np.ndarray
    failed: dict[str, str] = field(default_factory=dict)


def run(args: argparse.Namespace) -> int:
    """Predict for both folders and print their differences with intervals."""
    for folder in (args.reference, args.other):
        if not Path(folder).is_dir():
            raise UsageError(f"expected a folder of clips, got {folder}.")
        _check_names(folder)
    recognizer = load_pipeline(args.model, args.revision, args.device)
    reference, other = (predict_folder(recognizer, folder, args.batch_size) for folder in (args.reference, args.other))
    for folder, each in ((args.reference, reference), (args.other, other)):
        if len(each.names) < MIN_CLIPS:
            raise UsageError(
                f"expected at least {MIN_CLIPS} clips without an error in {folder}, got {len(each.names)}."
            )
    config = recognizer.model.config
    result = compare_folders(reference, other, list(config.dimensions), list(config.emotions))
    result = {"reference": args.reference, "other": args.other, **result}
    result["failed"] = {**reference.failed, **other.failed}
    allow_any_file_name()
    print(json.dumps(result) if args.format == "json" else printable(_table(result), keep="\n"))
    return EXIT_SOME_FAILED if result["failed"] else EXIT_OK


def _check_names(folder: str) -> None:
    """Refuse clips that differ in their suffix alone: with which of them the other folder's is compared is unknown."""
    first: dict[str, str] = {}
    for path in find_clips([folder]):
        other = first.setdefault(str(Path(path).with_suffix("")), path)
        if other != path:
            raise UsageError(
                f"expected one clip of each name in {folder}, got {other} and {path}. Clips are paired by their names "
                "without suffix: keep one of the two."
            )


def predict_folder(recognizer: Pipeline, folder: str, batch_size: int) -> FolderPredictions:
    """Predict for every clip of a folder; takes 0.6 kB of memory per clip."""
    names, dimensions, emotions, embeddings, failed = [], [], [], [], {}
    labels = list(recognizer.model.config.emotions)
    for path, prediction in progress_bar(
        predict_clips(recognizer, find_clips([folder]), batch_size, return_embedding=True)
    ):
        if "error" in prediction:
            failed[path] = prediction["error"]
            report_failure(path, prediction["error"])
            continue
        names.append(Path(path).relative_to(folder).with_suffix("").as_posix())
        dimensions.append(np.array(list(prediction.get("dimensions", {}).values()), dtype=np.float32))
        scores = {each["label"]: each["score"] for each in prediction.get("emotions", [])}
        emotions.append(np.array([scores[label] for label in labels], dtype=np.float32))
        embeddings.append(np.array(prediction["embedding"], dtype=np.float32))
    if not names:
        return FolderPredictions([], np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0)), failed)
    return FolderPredictions(names, np.stack(dimensions), np.stack(emotions), np.stack(embeddings), failed)


def compare_folders(
    reference: FolderPredictions, other: FolderPredictions, dimensions: list[str], emotions: list[str]
) -> dict[str, Any]:
    """Differences, other minus reference, with 95 % bootstrap intervals over clips.

    Clips of the same name are compared in pairs, if there are at least two; the others are counted and left out.
    Without pairs, the means of the folders are compared.

    Returns:
        `paired`, `pairs`, `unpaired`; `dimensions`, for each its `difference` and `interval`; then for pairs
        `category_agreement`, the fraction of pairs with the same most probable emotion, and `embedding_cosine`, the
        mean cosine of a pair's embeddings, each as `{"value", "interval"}`; for whole folders `category_overlap`, the
        overlap of the mean distributions (1 minus their total variation distance), and
        `embedding_cosine` of the mean embeddings, as `{"value"}`.
    """
    place = {name: index for index, name in enumerate(other.names)}
    pairs = [(index, place[name]) for index, name in enumerate(reference.names) if name in place]
    paired = len(pairs) >= MIN_CLIPS
    unpaired = len(reference.names) + len(other.names) - 2 * len(pairs) if paired else 0
    result: dict[str, Any] = {"paired": paired, "pairs": len(pairs) if paired else 0, "unpaired": unpaired}
    result["clips"] = {"reference": len(reference.names), "other": len(other.names)}
    ends: Any
    if paired:
        rows = np.array(pairs)
        first, second = reference.dimensions[rows[:, 0]], other.dimensions[rows[:, 1]]  # (P, 3), (P, 3)
        differences = (second - first).astype(np.float64)  # (P, 3)
        values = differences.mean(0)
        ends = bootstrap_interval(lambda sample: sample.mean(0), differences, repeats=REPEATS) if dimensions else ()
    else:
        first, second = reference.dimensions, other.dimensions  # (N, 3), (M, 3)
        values = second.mean(0) - first.mean(0)
        ends = _interval_of_two_means(first, second) if dimensions else ()
    result["dimensions"] = {
        name: {
            "reference": float(first[:, column].mean()),
            "other": float(second[:, column].mean()),
            "reference_std": float(first[:, column].std(ddof=1)),
            "other_std": float(second[:, column].std(ddof=1)),
            "difference": float(values[column]),
            "interval": [float(ends[0][column]), float(ends[1][column])],
        }
        for column, name in enumerate(dimensions)
    }
    if paired:
        a, b = reference.embeddings[rows[:, 0]], other.embeddings[rows[:, 1]]  # (P, D), (P, D)
        result["embedding_cosine"] = _mean_with_interval(_cosine(a, b))
        if emotions:
            same = reference.emotions[rows[:, 0]].argmax(1) == other.emotions[rows[:, 1]].argmax(1)  # (P,)
            result["category_agreement"] = _mean_with_interval(same.astype(np.float64))
    else:
        means = (reference.embeddings.mean(0, keepdims=True), other.embeddings.mean(0, keepdims=True))  # (1, D)
        result["embedding_cosine"] = {"value": float(_cosine(*means)[0])}
        if emotions:
            overlap = np.minimum(reference.emotions.mean(0), other.emotions.mean(0)).sum()
            result["category_overlap"] = {"value": float(overlap)}
    if emotions:
        result["emotions"] = {
            folder: dict(zip(emotions, each.emotions.mean(0).astype(float).tolist(), strict=True))
            for folder, each in (("reference", reference), ("other", other))
        }
    return result


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between rows of `(N, D)`, `(N,)`."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _mean_with_interval(values: np.ndarray) -> dict[str, Any]:
    """Mean of `(P,)` and its interval over pairs."""
    low, high = bootstrap_interval(lambda sample: float(sample.mean()), values.astype(np.float64), repeats=REPEATS)
    return {"value": float(values.mean()), "interval": [float(low), float(high)]}


def _interval_of_two_means(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of `second.mean(0) - first.mean(0)`, both resampled independently."""
    random = np.random.default_rng(0)

    def means(values: np.ndarray) -> np.ndarray:
        samples = (random.integers(len(values), size=len(values)) for _ in range(REPEATS))
        return np.stack([values[each].mean(0, dtype=np.float64) for each in samples])  # (R, 3)

    differences = means(second) - means(first)  # (R, 3)
    return np.quantile(differences, 0.025, axis=0), np.quantile(differences, 0.975, axis=0)


def _table(result: dict[str, Any]) -> str:
    """The comparison as text."""
    clips = result["clips"]
    lines = [f"reference   {result['reference']}: {clips['reference']} clips"]
    lines += [f"other       {result['other']}: {clips['other']} clips"]
    if result["paired"]:
        lines += [
            f"{result['pairs']} pairs of the same name; {result['unpaired']} clips without a counterpart left out",
            "",
        ]
    else:
        lines += ["no pairs of the same name: means of the folders compared", ""]
    if result["dimensions"]:
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
        "category_overlap": "emotion overlap",
        "embedding_cosine": "embedding cosine",
    }
    for key, name in names.items():
        if key in result:
            each = result[key]
            interval = f"   {each['interval'][0]:.3f} to {each['interval'][1]:.3f}" if "interval" in each else ""
            lines += [f"{name:<20}{each['value']:>32.3f}{interval}"]
    return "\n".join(lines)
