"""Evaluate a model on corrupted clips of its test speakers, against the same clips as recorded.

    python recipes/experiments/robustness.py --model runs/crema_d/lite-fold-1-seed-0/checkpoints/last

Writes `recipes/results/default_robustness.json`, from which `table.py` renders docs/robustness.md.
"""

import json
import runpy
from pathlib import Path

from audio_emotion.evaluation.bootstrap import compare
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.training.arguments import argument_group, option, parse_arguments

RECIPES = Path(__file__).parents[1]


@argument_group()
class RobustnessArguments:
    """Evaluate a model on corrupted clips of its test speakers, against the same clips as recorded."""

    model: str = option("runs/crema_d/lite-fold-1-seed-0/checkpoints/last", "Folder of the checkpoint.")
    corpus: str = option("crema-d", "Name of the corpus.")
    corpus_count: int = option(600, "Number of clips of the synthetic corpus.")
    protocol: str = option("crema-d-hicmae-fold-1", "Protocol whose test speakers the model is not trained on.")
    corruptions: list[str] = option(["noise", "telephone", "quiet"], "Names of corruptions; see evaluate.py.")
    output: str = option("runs/robustness", "Folder of the run folders.")
    repeats: int = option(200, "Bootstrap samples and permutations.")
    results: str = option(str(RECIPES / "results" / "default_robustness.json"), "File that is written.")


def main(args: RobustnessArguments) -> dict:
    """Evaluate without and with each corruption, and write the paired differences of the UAR."""
    recipe = runpy.run_path(str(RECIPES / "evaluate.py"))

    def evaluate(corruption: str) -> Predictions:
        output = str(Path(args.output) / (corruption or "as_recorded"))
        facts = {name: getattr(args, name) for name in ("model", "corpus", "corpus_count", "protocol")}
        recipe["main"](
            recipe["EvaluateArguments"](**facts, corruption=corruption, output=output, repeats=0, plots=False)
        )
        return load_predictions(Path(output) / "predictions.parquet")[0]

    recorded = evaluate("")
    found = {}
    for name in args.corruptions:
        difference = compare([evaluate(name)], [recorded], "uar", [], args.repeats)
        found[name] = {
            "uar": difference.first,
            "as_recorded": difference.second,
            "difference": difference.difference,
            "interval": list(difference.interval),
            "p_value": difference.p_value,
            "clips": len(recorded.ids),
        }
    results = {"source": f"recipes/experiments/robustness.py, {args.protocol}: one model", "corruptions": found}
    Path(args.results).write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main(parse_arguments(RobustnessArguments))
