"""Put a distilled student into the package as its default model, with its card and license text.

python recipes/experiments/embed.py --run runs/embedded --scored "recipes/results/folds/default-fold-*-seed-*.parquet"
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path

from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import audio_emotion
from audio_emotion.evaluation.bootstrap import aggregate, pooled
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.hub.card import render_card

PACKAGE = Path(audio_emotion.__file__).parent
FOLDER = PACKAGE / "embedded" / "student"
NAME = "embedded-default"
# The default needs no name, and has no code beside it.
OF_THE_DEFAULT = {
    f', model="{NAME}"': "",
    f" --model {NAME}": "",
    f"\naudio-emotion info {NAME}": "",
    (
        "Without it, the same checkpoint brings its own code: leave the import out, read that code, then give "
        "`pipeline` your\nconsent (`trust_remote_code=True`) together with a pinned `revision`."
    ): "It is the package's default model: it needs no name, and has no code beside it.",
}
CARRIED_ONLY = ("auto_map", "custom_pipelines")  # the package itself is the code


def main(args: argparse.Namespace) -> None:
    """Copy weights, configuration and front end; render the card."""
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
    seeds, dimensions = scored(args.scored)
    rows = []
    for name in ("uar", "accuracy", "macro_f1", "ccc_activation", "ccc_valence", "ccc_dominance"):
        value, (low, high) = aggregate(seeds, name, dimensions)
        rows.append(f"| {name} | {value:.3f} | {low:.2f} to {high:.2f} |")
    seen = [
        {**data, "teachers": sorted({teacher["corpus"] for teacher in data["teachers"]})}
        for data in model.config.training_data
    ]
    card = render_card(
        "student",
        {
            "model_name": "audio-emotion small student",
            "model_id": NAME,
            "license": model.config.license,
            "license_name_line": "CC BY-NC-SA 4.0, because it was trained on RAVDESS, whose terms these are: "
            "non-commercial use, with attribution, under the same terms.",
            "emotions": list(model.config.emotions),
            "dimensions": list(model.config.dimensions),
            "dimensions_source": model.config.dimensions_source,
            "parameters": model.num_parameters(),
            "megabytes": (FOLDER / "model.safetensors").stat().st_size / 1e6,
            "training_data": seen,
            "recipe_command": "accelerate launch recipes/distill.py --config recipes/configs/embedded.yaml",
            "results_table": "\n".join(["| measure | value | 95 % interval |", "| --- | --- | --- |", *rows]),
            "results_note": "These weights were trained on all twenty actors and cannot be scored on them. The "
            f"figures are those of students of the same recipe, over folds: {len(seeds[0].ids):,} clips, every one "
            f"of the {len(set(seeds[0].speakers))} actors tested by a student that has not heard them, mean over "
            f"{len(seeds)} seed(s). Intervals are bootstrapped over speakers.",
            "version": audio_emotion.__version__,
        },
    )
    for text, instead in OF_THE_DEFAULT.items():
        if text not in card:
            raise ValueError(f"Expected {text!r} in the card of a student, which the default model words otherwise.")
        card = card.replace(text, instead)
    (FOLDER / "README.md").write_text(card)
    print(f"{FOLDER}: {sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6:.2f} MB")


def scored(pattern: str) -> tuple[list[Predictions], list[str]]:
    """Predictions over folds, one set of clips a seed, and their dimensions.

    Raises:
        FileNotFoundError: if no file fits the pattern.
    """
    paths = sorted(Path().glob(pattern))
    if not paths:
        raise FileNotFoundError(
            f"Expected predictions as recipes/experiments/run_set.py leaves them, got no file {pattern}."
        )
    by_seed = defaultdict(list)
    for path in paths:
        predictions, _, dimensions = load_predictions(path)
        by_seed[path.stem.rpartition("-")[2]].append(predictions)
    return [pooled(folds) for folds in by_seed.values()], dimensions


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/embedded", help="run folder of the student trained on all speakers")
    parser.add_argument(
        "--scored",
        default="recipes/results/folds/default-fold-*-seed-*.parquet",
        help="predictions of students of the same recipe that were trained on folds",
    )
    main(parser.parse_args())
