"""Copy a trained model into the package, the `lite` model as its default or a distilled student, and render its card.

python recipes/experiments/embed.py
python recipes/experiments/embed.py --run runs/leave_one_out/small-all-seed-0

The temperature of a model's emotions is the one with the least cross-entropy over predictions of models of the same
recipe for speakers and corpora that they were not trained on, each set counted once (`--calibration`); docs/results.md
has the commands.
"""

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from elsewhere import TITLES
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, PreTrainedModel

import audio_emotion
from audio_emotion.data.training_set import combine_licenses, without_repetitions
from audio_emotion.evaluation.bootstrap import aggregate
from audio_emotion.evaluation.metrics import expected_calibration_error
from audio_emotion.evaluation.predictions import Predictions, load_predictions, pool_folds
from audio_emotion.evaluation.report import posterior
from audio_emotion.hub.card import render_card
from audio_emotion.hub.card_facts import encoder_facts, model_kind
from audio_emotion.hub.card_sections import markdown_table, results_table, training_data_rows
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.onnx_export import export_onnx

EMBEDDED = Path(audio_emotion.__file__).parent / "embedded"
RESULTS = Path(__file__).parents[1] / "results"
CARRIED_ONLY = ("auto_map", "custom_pipelines")  # the package itself is the code
TEMPERATURES_FILE = {"lite": "default_temperature.json", "student": "student_temperature.json"}
CALIBRATION = {  # patterns of predictions for held-out speakers, and for corpora that were left out
    "lite": [
        "recipes/results/crema_d/lite-fold-*-seed-0.parquet",
        "runs/lite_ravdess/predictions.parquet",
        "runs/lite_nemo/predictions.parquet",
    ],
    "student": [
        "runs/leave_one_out/ravdess/small-without-ravdess-seed-0/predictions.parquet",
        "runs/leave_one_out/nemo/small-without-nemo-seed-0/predictions.parquet",
    ],
}
RECIPE_OF_STUDENT = (
    "python recipes/experiments/leave_one_out.py --only small --seeds 0\n"
    "python recipes/experiments/embed.py --run runs/leave_one_out/small-all-seed-0"
)
TEMPERATURES = np.geomspace(0.5, 5.0, 231)  # steps of one percent


def main(args: argparse.Namespace) -> None:
    """Calibrate and write weights, configuration and feature extractor; render the card."""
    model = AutoModelForAudioClassification.from_pretrained(Path(args.run) / "checkpoints" / "last")
    is_lite = model.config.model_type == "fused-emotion"
    name = "lite" if is_lite else "student"
    calibration = fit_temperature(args.calibration or CALIBRATION[name])
    (RESULTS / TEMPERATURES_FILE[name]).write_text(json.dumps(calibration, indent=2) + "\n")
    with torch.no_grad():
        for parameter in model.heads.emotions.parameters():
            parameter /= calibration["temperature"]
    for entry in model.config.training_data:
        entry["teachers"] = without_repetitions(entry["teachers"])
    if is_lite:
        model.config.license = combine_licenses([model.config.license, "MIT"])  # Whisper's
    folder = EMBEDDED / name
    with tempfile.TemporaryDirectory() as written:
        write_checkpoint(model, written, half_precision=is_lite)
        copy_checkpoint(Path(written), folder)
    model = AutoModelForAudioClassification.from_pretrained(folder)
    AutoFeatureExtractor.from_pretrained(folder)
    export_onnx(model.float(), folder / "onnx")
    card = render_lite_card(model, *load_fold_predictions(args.scored)) if is_lite else render_student_card(model)
    (folder / "README.md").write_text(card)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.2f} MB")


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy a checkpoint without its code."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "model.safetensors", folder / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        facts = json.loads((source / name).read_text())
        kept = {key: value for key, value in facts.items() if key not in CARRIED_ONLY}
        (folder / name).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def fit_temperature(patterns: list[str]) -> dict[str, Any]:
    """The temperature with the least cross-entropy, averaged over sets of predictions, and what it does to each.

    Args:
        patterns: of the files of each set, such as the folds of one corpus.

    Returns:
        `temperature`; and for each set, with temperature 1 and with this one, the expected calibration error and the
        mean confidence, beside the accuracy.
    """
    sets, corpus_of = {}, {}
    for pattern in patterns:
        predictions, _ = load_fold_predictions(pattern)
        known = [each.take(each.labels >= 0) for each in predictions]
        logits, labels = (np.concatenate([getattr(each, name) for each in known]) for name in ("logits", "labels"))
        sets[pattern] = logits, labels
        corpus_of[pattern] = known[0].ids[0].partition("/")[0]
    losses = [
        np.mean(
            [-np.log(posterior(logits / t)[np.arange(len(labels)), labels]).mean() for logits, labels in sets.values()]
        )
        for t in TEMPERATURES
    ]
    temperature = float(TEMPERATURES[int(np.argmin(losses))].round(2))
    scores = []
    for pattern, (logits, labels) in sets.items():
        each: dict[str, Any] = {"set": corpus_of[pattern], "predictions": pattern, "clips": len(labels)}
        each["accuracy"] = float((logits.argmax(-1) == labels).mean())
        for name, t in (("before", 1.0), ("after", temperature)):
            probabilities = posterior(logits / t)
            each[f"confidence_{name}"] = float(probabilities.max(-1).mean())
            each[f"ece_{name}"] = float(expected_calibration_error(probabilities, labels))
        scores.append(each)
    return {"temperature": temperature, "sets": scores}


def card_facts(model: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """Facts of a card, without scores."""
    return {
        "model_id": "embedded",
        "license": model.config.license,
        "emotions": list(model.config.emotions),
        "dimensions": list(model.config.dimensions),
        "dimensions_source": model.config.dimensions_source,
        "parameters": model.num_parameters(),
        "megabytes": (folder / "model.safetensors").stat().st_size / 1e6,
        "training_data": training_data_rows(model.config.training_data),
    }


def calibration_note(file: str, remark: str = "") -> str:
    """The temperature of the emotions with a remark, and a table of what it does."""
    calibration = json.loads((RESULTS / file).read_text())
    header = ["Clips", "Accuracy", "Mean confidence", "Without temperature"]
    names = ("accuracy", "confidence_after", "confidence_before")
    rows = [[each["set"], *(f"{each[name]:.2f}" for name in names)] for each in calibration["sets"]]
    return (
        f" The logits of the emotions are divided by a temperature of {calibration['temperature']:.2f}, chosen on the "
        "corpora below, with models of the same recipe that were not trained on these speakers, so that recordings "
        f"unlike the training corpora are not scored too confidently.{remark}\n\n" + markdown_table(header, rows)
    )


def render_lite_card(model: PreTrainedModel, seeds: list[Predictions], dimensions: list[str]) -> str:
    """The card of the default model, with its scores on other corpora and its calibration."""
    facts = card_facts(model, EMBEDDED / "lite")
    scores: dict[str, Any] = {"intervals": {}}
    for name in ("uar", "accuracy", "macro_f1", *(f"ccc_{dimension}" for dimension in dimensions)):
        scores[name], scores["intervals"][name] = aggregate(seeds, name, dimensions)
    facts["results_table"] = results_table(scores, dimensions)
    elsewhere = json.loads((RESULTS / "default_elsewhere.json").read_text())["corpora"]
    rows = [[each["corpus"], f"{each['uar']:.3f}", f"{1 / each['classes']:.3f}"] for each in elsewhere]
    facts["results_table"] += "\n\nOn corpora that it was not trained on:\n\n"
    facts["results_table"] += markdown_table(["Corpus", "Unweighted average recall", "Chance"], rows)
    facts["results_note"] = (
        "These weights were trained on all actors of the corpus and cannot be evaluated on them. The "
        f"scores are those of models trained by the same recipe on folds: {len(seeds[0].ids):,} clips of "
        f"{len(set(seeds[0].speakers))} actors, each predicted by a model that was not trained on the actor; mean "
        f"over {len(seeds)} seed(s). Intervals: bootstrap over speakers."
    ) + calibration_note(
        TEMPERATURES_FILE["lite"],
        " No single temperature fits all: within its own corpus the model is more often right than its confidence.",
    )
    return render_card(
        model_kind(model.config),
        facts
        | {
            "model_name": "audio-emotion lite",
            "is_default_model": True,
            "license_note": "ODbL-1.0, the terms of its training corpus CREMA-D, and MIT, those of Whisper: "
            "commercial use is allowed, with attribution as in the file `LICENSE`; published derivatives of the "
            "weights under the same licenses.",
            "streams": [each | {"source": f"openai/{each['name']}"} for each in encoder_facts(model.config)],
            "recipe_command": "accelerate launch recipes/train_teacher.py --config recipes/configs/lite_crema_d.yaml",
        },
    )


def render_student_card(model: PreTrainedModel) -> str:
    """The card of the embedded student, with the scores of students that were not trained on the corpus."""
    left_out = json.loads((RESULTS / "leave_one_out.json").read_text())["models"]["small"]["trained_on"]
    scores = {corpus: score for by_corpus in left_out.values() for corpus, score in by_corpus.items()}
    rows = [
        [
            TITLES[corpus],
            f"{score['uar']:.3f}",
            "{:.2f} to {:.2f}".format(*score["interval"]),
            f"{score['chance']:.3f}",
        ]
        for corpus, score in ((name, scores[name]) for name in TITLES if name in scores)
    ]
    header = ["Corpus that it was not trained on", "Unweighted average recall", "95 % interval", "Chance"]
    return render_card(
        "student",
        card_facts(model, EMBEDDED / "student")
        | {
            "model_name": "audio-emotion small student",
            "constant": "audio_emotion.STUDENT",
            "license_note": f"{model.config.license}, the terms of its training corpora: non-commercial use only, "
            "with attribution as in the file `LICENSE`; derivatives under the same licenses.",
            "recipe_command": RECIPE_OF_STUDENT,
            "results_table": markdown_table(header, rows),
            "results_note": "Over angry, happy, neutral (calm with it) and sad. Each corpus but EmoTale is in the "
            "training data of these weights, and its score is that of a student trained by the same recipe on the "
            "other corpora; the score on EmoTale is that of these weights. One seed; intervals: bootstrap over "
            "speakers." + calibration_note(TEMPERATURES_FILE["student"]),
        },
    )


def load_fold_predictions(pattern: str) -> tuple[list[Predictions], list[str]]:
    """Predictions with the folds of each seed pooled, and their dimensions.

    Raises:
        FileNotFoundError: if no file matches the pattern.
    """
    paths = sorted(Path().glob(pattern))
    if not paths:
        raise FileNotFoundError(
            f"Expected predictions of recipes/experiments/run_set.py, got no file {pattern}. Run the set first."
        )
    by_seed = defaultdict(list)
    for path in paths:
        predictions, _, dimensions = load_predictions(path)
        by_seed[path.stem.rpartition("-")[2]].append(predictions)
    return [pool_folds(folds) for folds in by_seed.values()], dimensions


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/lite_crema_d", help="run folder of the model trained on all speakers")
    parser.add_argument(
        "--scored",
        default="recipes/results/crema_d/lite-fold-*-seed-*.parquet",
        help="predictions of `lite` models that were trained on folds",
    )
    parser.add_argument(
        "--calibration",
        nargs="+",
        help="predictions of held-out speakers, and on left-out corpora: one pattern of files each",
    )
    main(parser.parse_args())
