"""Copy a distilled student into the package as its default model, and render its card.

python recipes/experiments/embed.py --run runs/embedded

The scores on the card are those of the run `default` of recipes/configs/mitra2022/ravdess.yaml over five folds.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from set_tables import fold_rows
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, PreTrainedModel

import audio_emotion
from audio_emotion.evaluation.bootstrap import aggregate
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.hub.card import render_card
from audio_emotion.hub.card_sections import results_table, training_data_rows

PACKAGE = Path(audio_emotion.__file__).parent
FOLDER = PACKAGE / "embedded" / "student"
RECIPES = Path(__file__).parents[1]
CARRIED_ONLY = ("auto_map", "custom_pipelines")  # the package itself is the code


def main(args: argparse.Namespace) -> None:
    """Copy weights, configuration and feature extractor; render the card."""
    source = Path(args.run) / "checkpoints" / "last"
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "preprocessor_config.json"):
        shutil.copyfile(source / name, FOLDER / name)
    for name in ("config.json", "preprocessor_config.json"):
        facts = json.loads((source / name).read_text())
        kept = {key: value for key, value in facts.items() if key not in CARRIED_ONLY}
        (FOLDER / name).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    model = AutoModelForAudioClassification.from_pretrained(FOLDER)
    AutoFeatureExtractor.from_pretrained(FOLDER)
    run_set = yaml.safe_load((RECIPES / "configs" / "mitra2022" / "ravdess.yaml").read_text())
    scored = fold_rows(RECIPES / "results" / "folds", run_set)["default"]
    (FOLDER / "README.md").write_text(render_student_card(model, scored.seeds(set(scored.runs)), scored.dimensions))
    print(f"{FOLDER}: {sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6:.2f} MB")


def render_student_card(model: PreTrainedModel, seeds: list[Predictions], dimensions: list[str]) -> str:
    """The card of the default model, with the scores of students that were trained on folds by the same recipe."""
    scores: dict[str, Any] = {"intervals": {}}
    for name in ("uar", "accuracy", "macro_f1", *(f"ccc_{dimension}" for dimension in dimensions)):
        scores[name], scores["intervals"][name] = aggregate(seeds, name, dimensions)
    facts = {
        "model_name": "audio-emotion small student",
        "model_id": "embedded",
        "is_default_model": True,
        "license": model.config.license,
        "license_note": "CC BY-NC-SA 4.0, the terms of its training corpus RAVDESS: non-commercial use only, with "
        "attribution; derivatives under the same license.",
        "emotions": list(model.config.emotions),
        "dimensions": list(model.config.dimensions),
        "dimensions_source": model.config.dimensions_source,
        "parameters": model.num_parameters(),
        "megabytes": (FOLDER / "model.safetensors").stat().st_size / 1e6,
        "training_data": training_data_rows(model.config.training_data),
        "recipe_command": "accelerate launch recipes/distill.py --config recipes/configs/embedded.yaml",
        "results_table": results_table(scores, dimensions),
        "results_note": "These weights were trained on all twenty actors and cannot be evaluated on them. The scores "
        f"are those of students trained by the same recipe on folds: {len(seeds[0].ids):,} clips of "
        f"{len(set(seeds[0].speakers))} actors, each predicted by a student that was not trained on the actor; mean "
        f"over {len(seeds)} seed(s). Intervals: bootstrap over speakers.",
    }
    return render_card("student", facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/embedded", help="run folder of the student trained on all speakers")
    main(parser.parse_args())
