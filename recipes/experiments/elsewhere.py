"""Evaluate models on corpora that they were not trained on: categories, confidence and, where rated, dimensions.

    python recipes/experiments/elsewhere.py --models lite=modeling/audio_emotion/embedded/lite \
        student=modeling/audio_emotion/embedded/student

Writes `recipes/results/default_elsewhere.json`: every clip of every corpus, scored over the emotions that model and
corpus both have, and over angry, happy, neutral (calm with it) and sad alone. Speakers that a model was trained on are
left out; a corpus of which it knows all speakers is listed as contaminated and not scored. The first model is the
default one: its rows are also under `corpora`.
"""

import json
import math
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig

import audio_emotion  # noqa: F401 - registers the Auto classes
from audio_emotion.data.affective_norms import DIMENSIONS, NORM_SETS
from audio_emotion.data.registry import corpus_info, corpus_rows
from audio_emotion.evaluation.label_matching import MATCHING_RULE, canonical_label
from audio_emotion.evaluation.metrics import pearson_correlation
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.evaluation.provenance import training_speakers
from audio_emotion.evaluation.report import control_dimensions, measure, posterior
from audio_emotion.training.arguments import parse_arguments

RECIPES = Path(__file__).parents[1]
TITLES = {
    "ravdess": "RAVDESS (English)",
    "crema-d": "CREMA-D (English)",
    "nemo": "nEMO (Polish)",
    "emospeech-commands": "Indian EmoSpeech commands (single words, telephones)",
    "emotale": "EmoTale (Danish, English)",
}
FOUR = ("angry", "happy", "neutral", "sad")
SCORES = ("uar", "accuracy", "ece", "confidence", "over_confidence")


@strict
@dataclass(kw_only=True)
class ElsewhereArguments:
    """Evaluate models on corpora that they were not trained on."""

    models: list[str] = field(metadata={"help": "`name=folder` of each model, that of the default one first."})
    corpora: list[str] = field(default_factory=lambda: list(TITLES), metadata={"help": "Names of the corpora."})
    calibrated_on: list[str] = field(
        default_factory=list, metadata={"help": "Corpora that the temperature of the first model was chosen on."}
    )
    runs: str = field(default="runs/elsewhere", metadata={"help": "Folder of the run folders."})
    results: str = field(
        default=str(RECIPES / "results" / "default_elsewhere.json"), metadata={"help": "File that is written."}
    )
    reuse: bool = field(default=False, metadata={"help": "Score predictions that are already in the run folders."})
    repeats: int = field(default=1000, metadata={"help": "Bootstrap samples of each interval."})


def main(args: ElsewhereArguments) -> dict:
    """Evaluate every model on every corpus and write the results."""
    models = dict(each.split("=", 1) for each in args.models)
    rows = {
        name: [
            evaluate_on(corpus, folder, Path(args.runs) / name / corpus, args.repeats, args.reuse)
            for corpus in args.corpora
        ]
        for name, folder in models.items()
    }
    for row in rows[next(iter(models))]:
        row["calibrated_on"] = row["name"] in args.calibrated_on
    default = [row for row in rows[next(iter(models))] if "uar" in row]
    results = {
        "source": "recipes/experiments/elsewhere.py",
        "rule": MATCHING_RULE,
        "default": next(iter(models)),
        "corpora": default,
        "models": rows,
    }
    Path(args.results).write_text(json.dumps(results, indent=2) + "\n")
    print(elsewhere_table(results))
    return results


def evaluate_on(corpus: str, model: str, run: Path, repeats: int, reuse: bool = False) -> dict[str, Any]:
    """Scores of a model on the speakers of a corpus that it was not trained on."""
    row: dict[str, Any] = {"corpus": TITLES.get(corpus, corpus), "name": corpus}
    seen = training_speakers(AutoConfig.from_pretrained(model).training_data)
    speakers = {each["speaker"] for each in corpus_rows(corpus)}
    if speakers <= seen:
        return {**row, "contaminated": True}
    if not (reuse and (run / "results.json").is_file()):
        recipe = runpy.run_path(str(RECIPES / "evaluate.py"))
        arguments = {"model": model, "corpus": corpus, "protocol": "all", "contaminated": True}
        recipe["main"](recipe["EvaluateArguments"](**arguments, output=str(run), repeats=0, plots=False))
    found = json.loads((run / "results.json").read_text())
    predictions, emotions, dimensions = load_predictions(run / "predictions.parquet")
    predictions = predictions.take(~np.isin(predictions.speakers, list(seen)))
    row |= {"left_out_speakers": len(speakers & seen), "matching": {**found["matching"], "rule": None}}
    row |= class_scores(predictions, emotions, repeats)
    row["four"] = class_scores(*only_four(predictions, emotions), repeats)
    if corpus_info(corpus).dimensions_source == "rated":
        scores = measure(predictions, [], dimensions, "rated", repeats)
        row["dimensions"] = {
            name: {metric: scores[f"{metric}_{name}"] for metric in ("pearson", "ccc")}
            | {f"{metric}_interval": scores["intervals"][f"{metric}_{name}"] for metric in ("pearson", "ccc")}
            for name in dimensions
        }
        row["posterior_norms"] = posterior_norms(predictions, emotions, dimensions)
    return row


def posterior_norms(predictions: Predictions, emotions: list[str], dimensions: list[str]) -> dict[str, dict]:
    """Correlation of the ratings with each set of norms, averaged under the category posterior: a control."""
    found: dict[str, dict] = {}
    for source in NORM_SETS:
        norms = control_dimensions(predictions.logits, emotions, source)
        rated = {name: predictions.dimension_labels[:, column] for column, name in enumerate(dimensions)}
        pairs = {name: (norms[:, DIMENSIONS.index(name)], target) for name, target in rated.items()}
        found[source] = {name: float(pearson_correlation(*pair)) for name, pair in pairs.items()}
    return found


def class_scores(predictions: Predictions, emotions: list[str], repeats: int) -> dict[str, Any]:
    """UAR, its interval and chance, accuracy of all clips and of the half with the higher confidence, calibration."""
    predictions = predictions.take(predictions.labels >= 0)
    scores = measure(predictions, emotions, [], None, repeats)
    confidence = posterior(predictions.logits).max(-1)
    correct = predictions.logits.argmax(-1) == predictions.labels
    surest = np.argsort(-confidence, kind="stable")[: len(correct) // 2]
    return {
        **{name: scores[name] for name in SCORES},
        "interval": scores["intervals"].get("uar", [math.nan, math.nan]),
        "classes": len(emotions),
        "chance": 1 / len(emotions),
        "recall": scores["recall"],
        "surest_half_accuracy": float(correct[surest].mean()),
        "clips": scores["clips"],
        "speakers": len(scores["speakers"]),
    }


def only_four(predictions: Predictions, emotions: list[str]) -> tuple[Predictions, list[str]]:
    """The predictions with the classes of `FOUR` alone, probabilities of calm added to those of neutral."""
    names = [canonical_label(name).replace("calm", "neutral") for name in emotions]
    kept = [name for name in FOUR if name in names]
    columns = [np.logaddexp.reduce(predictions.logits[:, [n == name for n in names]], axis=1) for name in kept]
    number = np.array([kept.index(name) if name in kept else -100 for name in [*names, "unlabeled"]])
    labels = number[np.where(predictions.labels >= 0, predictions.labels, len(names))]
    four = predictions.take(np.arange(len(labels)))
    four.logits, four.labels = np.stack(columns, axis=1), labels
    return four, kept


def elsewhere_table(results: dict[str, Any]) -> str:
    """Every model on every corpus over the four emotions, and against listeners' ratings, in Markdown."""
    header = ["tested on", "model", "UAR", "chance", "calibration error", "confidence minus accuracy", "surest half"]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    rated = ["| rated by listeners | model | r activation | r valence | r dominance |", "| --- " * 5 + "|"]
    for rows in zip(*results["models"].values(), strict=True):  # of one corpus
        for name, row in zip(results["models"], rows, strict=True):
            if row.get("contaminated"):
                lines.append(f"| {row['corpus']} | {name} | trained on it |" + " |" * 4)
                continue
            four = row["four"]
            mark = " (temperature chosen on it)" if row.get("calibrated_on") else ""
            values = [cell(four["uar"], four["interval"]), f"{four['chance']:.2f}", f"{four['ece']:.2f}"]
            values += [f"{four['over_confidence']:+.2f}", f"{four['surest_half_accuracy'] - four['accuracy']:+.2f}"]
            lines.append(f"| {row['corpus']}{mark} | {name} | " + " | ".join(values) + " |")
            if "dimensions" in row:
                values = [cell(each["pearson"], each["pearson_interval"]) for each in row["dimensions"].values()]
                rated.append(f"| {row['corpus']} | {name} | " + " | ".join(values) + " |")
    return "\n".join([*lines, "", *rated])


def cell(value: float, interval: list[float]) -> str:
    """A value and its interval."""
    return f"{value:.3f} ({interval[0]:.2f} to {interval[1]:.2f})"


if __name__ == "__main__":
    main(parse_arguments(ElsewhereArguments))
