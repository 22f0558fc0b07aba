"""Evaluate any audio classifier on one split of a corpus: scores with intervals, per group, and plots.

    accelerate launch recipes/evaluate.py --model runs/distill_ravdess/checkpoints/last --corpus ravdess \
        --protocol ravdess-20-fixed --output runs/evaluate_distilled --against runs/evaluate_labels_only

Writes `results.json`, `predictions.parquet` and `plots/`. `--against` names run folders of earlier evaluations on the
same clips: the models are compared, paired over speakers.

The model may be any `AutoModelForAudioClassification`. Its classes are matched with the corpus's emotions by name, and
scored over those that both have (`MATCHING_RULE` is in the results); for unknown names, `--label_map FILE` maps
classes to emotions (`hap: happy`) or to null in YAML. Without `--protocol`, every clip of a corpus is a test clip. It
is an error if the model or a teacher of it was trained on a speaker of the split, or is a public model known to be
trained on the corpus; with `--contaminated true` it is evaluated, and the results are marked.

`--corruption telephone` (or pauses, noise, room, quiet) corrupts every clip, deterministically; `--against` an
evaluation without it gives the loss.
"""

from dataclasses import asdict
from pathlib import Path

import yaml
from accelerate import Accelerator

import audio_emotion  # noqa: F401 - registers the Auto classes
from audio_emotion.data.dataset import ClipStream, batches
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, shard_files
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.evaluation.bootstrap import compare
from audio_emotion.evaluation.corruptions import get_corruption
from audio_emotion.evaluation.label_matching import MATCHING_RULE, MatchedClassifier
from audio_emotion.evaluation.plots import model_comparison, save_figure, save_plots
from audio_emotion.evaluation.predictions import Predictions, load_predictions, predict, save_predictions
from audio_emotion.evaluation.provenance import require_uncontaminated
from audio_emotion.evaluation.report import measure, measure_groups
from audio_emotion.training.arguments import CorpusArguments, argument_group, option, parse_arguments
from audio_emotion.training.trainer_state import RunFolder


@argument_group("model")
class ModelArguments:
    """The model under evaluation."""

    model: str = option("runs/distill_synthetic/checkpoints/last", "Hub id or checkpoint folder.")
    label_map: str = option("", "YAML file that maps classes of the model to emotions, or to null.")
    contaminated: bool = option(False, "Evaluate also on speakers that the model was trained on; results are marked.")


@argument_group("data")
class EvaluationDataArguments(CorpusArguments):
    """The clips that are evaluated."""

    protocol: str = option("", "Name of the protocol. Empty: the default of the corpus, or `all` clips.")
    split: str = option("test", "train, validation or test.")
    batch_size: int = option(32, "Clips per batch, over all processes.")
    corruption: str = option("", "Corrupt every clip: telephone, pauses, noise, room or quiet.")


@argument_group("report")
class ReportArguments:
    """What is computed and written."""

    output: str = option("runs/evaluate", "Run folder.")
    against: list[str] = option([], "Run folders of evaluations to compare with.")
    repeats: int = option(1000, "Bootstrap samples of each interval; 0: no intervals.")
    plots: bool = option(True, "Write `plots/`.")
    restart: bool = option(False, "Overwrite another run in the output folder.")


@argument_group()
class EvaluateArguments(ReportArguments, EvaluationDataArguments, ModelArguments):
    """Evaluate an audio classifier on one split of a corpus."""


def main(args: EvaluateArguments) -> dict:
    """Predict every clip once and score all predictions together; returns the content of `results.json`."""
    accelerator = Accelerator()
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}")
    run = RunFolder(args.output, args, restart=args.restart)
    corpus_path = args.corpus_path or None

    # The model, with its outputs matched to the corpus.
    info = corpus_info(args.corpus)
    label_map = yaml.safe_load(Path(args.label_map).read_text()) if args.label_map else None
    model = MatchedClassifier(args.model, info.emotions, info.dimensions, label_map).to(accelerator.device).eval()
    emotions, dimensions = model.emotions, model.dimensions

    # The clips, by speakers that the model was not trained on.
    table = corpus_table(args.corpus, corpus_path, args.corpus_count)
    whole = not info.default_protocol and not args.corpus.endswith(".yaml")
    protocol = args.protocol or ("all" if whole else "")
    rows, _ = apply_protocol(args.corpus, table, protocol, corpus_path, (args.split,))
    speakers = {name for name in rows["speaker"] if name}
    contaminated_by = require_uncontaminated(
        args.model, info.name, speakers, model.training_data, model.public_models, args.contaminated
    )
    clips = ClipStream(
        rows,
        shard_files(args.corpus, corpus_path),
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    sampler = ResumableSampler.in_order(rows, args.batch_size, accelerator.num_processes)
    corrupt = get_corruption(args.corruption) if args.corruption else None

    # Predictions.
    predictions = predict(accelerator, model, batches(clips, sampler, info.emotions, dimensions, augment=corrupt))
    predictions.name_genders(dict(zip(rows["id"], rows["gender"], strict=True)))
    if model.match:
        predictions.labels = model.match.labels(info.emotions, predictions.labels)

    # Scores, comparisons and plots.
    scores = measure(predictions, emotions, dimensions, info.dimensions_source, args.repeats)
    results = {
        "recipe": "evaluate",
        "model": args.model,
        "corpus": info.name,
        "protocol": protocol or args.corpus,
        "corruption": args.corruption,
        "parameters": model.model.num_parameters(),
        "contaminated_by": contaminated_by,
        "left_out": list(model.match.left_out) if model.match else [],
        "matching": matching(model),
        args.split: scores,
    }
    if accelerator.is_main_process:
        groups = measure_groups(predictions, emotions, dimensions, info.dimensions_source, args.repeats)
        results[args.split] = {**scores, "groups": groups}
        save_predictions(predictions, run.path / "predictions.parquet", emotions, dimensions)
        if args.plots:
            save_plots(run.path / "plots", predictions, emotions, dimensions, results[args.split])
        if args.against:
            results["against"] = compare_with_others(args, run.path, predictions, scores, emotions, dimensions)
    clips.gather_quarantine()
    run.quarantine(clips.quarantine)
    run.results(results)
    for name, value in results[args.split].items():
        if isinstance(value, float):
            interval = results[args.split]["intervals"].get(name)
            in_brackets = f"  {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            accelerator.print(f"{name:24} {value:.4f}{in_brackets}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def matching(model: MatchedClassifier) -> dict:
    """How classes and emotions were matched; empty for a model without categories."""
    if not model.match:
        return {}
    return {
        "rule": MATCHING_RULE,
        "scored": list(model.match.emotions),
        "counted_as": dict(model.match.merged),
        "emotions_left_out": list(model.match.left_out),
        "classes_left_out": list(model.match.ignored),
    }


def compare_with_others(
    args: EvaluateArguments, folder: Path, predictions: Predictions, scores: dict, emotions: list, dimensions: list
) -> dict:
    """Paired comparisons with the evaluations of `--against`: printed, plotted and returned."""
    compared, comparisons = {Path(args.output).name: scores}, {}
    metrics = [*(["uar", "macro_f1"] if emotions else []), *(f"ccc_{name}" for name in dimensions)]
    for other in args.against:
        other_predictions, other_emotions, other_dimensions = load_predictions(Path(other) / "predictions.parquet")
        if (other_emotions, other_dimensions) != (emotions, dimensions):
            raise ValueError(
                f"Expected the emotions {emotions} and dimensions {dimensions} in {other}, got {other_emotions} and "
                f"{other_dimensions}. Evaluate both models with the same `--corpus` and, if needed, `--label_map`."
            )
        compared[Path(other).name] = measure(other_predictions, emotions, dimensions, None, args.repeats)
        comparisons[other] = {}
        for name in metrics:
            found = compare([predictions], [other_predictions], name, dimensions, max(args.repeats, 100))
            comparisons[other][name] = asdict(found)
            low, high = found.interval
            print(
                f"against {other}, {name}: {found.difference:+.3f} ({low:+.3f} to {high:+.3f}), "
                f"p = {found.p_value:.3f} over {found.units} {found.unit}"
            )
    if args.plots:
        save_figure(model_comparison(compared), folder / "plots" / "comparison.png")
    return comparisons


if __name__ == "__main__":
    main(parse_arguments(EvaluateArguments))
