"""Score any checkpoint on one side of a speaker split, with intervals, per group, in numbers and in pictures.

    accelerate launch recipes/evaluate.py --model runs/distill_ravdess/checkpoints/last --corpus ravdess \
        --split ravdess-20-fixed --output runs/evaluate_distilled --against runs/evaluate_labels_only

Writes `results.json`, `predictions.parquet` and `pictures/`. With `--against`, run folders of earlier evaluations on
the same clips, it also says whether the model is better, paired over speakers.

The model may be any `AutoModelForAudioClassification`; its classes are matched with the corpus's emotions by name, and
where names do not suffice `--label_map FILE` says in YAML which class is which emotion (`hap: happy`), or null to
leave one out. A model that has heard a speaker of the test side, or whose teacher has, is refused, and so is a public
model that is known to have heard the corpus, unless `--contaminated true` is given; the results then say so.

With `--condition telephone` (or pauses, noise, room, quiet) every clip is changed on its way to the model, always the
same way; `--against` an evaluation without it says what that costs.
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from accelerate import Accelerator
from huggingface_hub.dataclasses import strict

import audio_emotion  # noqa: F401 - registers the Auto classes
from audio_emotion.data.collate import Batch, batches
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table, shard_files, sides
from audio_emotion.data.sampler import Order
from audio_emotion.evaluation.bootstrap import compare
from audio_emotion.evaluation.corruptions import under
from audio_emotion.evaluation.label_matching import MatchedClassifier
from audio_emotion.evaluation.plots import model_comparison, save_figure, save_plots
from audio_emotion.evaluation.predictions import Predictions, load_predictions, predict, save_predictions
from audio_emotion.evaluation.provenance import require_uncontaminated
from audio_emotion.evaluation.report import measure, measure_groups
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.trainer_state import RunFolder


@strict
@dataclass(kw_only=True)
class EvaluateArguments:
    """What one run needs."""

    model: str = field(default="runs/distill_synthetic/checkpoints/last", metadata={"help": "Hub id or folder."})
    output: str = field(default="runs/evaluate", metadata={"help": "Run folder."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    split: str = field(default="", metadata={"help": "Speaker split by name; else the corpus's own."})
    side: str = field(default="test", metadata={"help": "train, validation or test."})
    batch_size: int = field(default=32, metadata={"help": "Clips of a global batch; the numbers do not depend on it."})
    label_map: str = field(default="", metadata={"help": "YAML file: class of the model to emotion, or null."})
    condition: str = field(default="", metadata={"help": "Change clips: telephone, pauses, noise, room, quiet."})
    against: list[str] = field(default_factory=list, metadata={"help": "Run folders of evaluations to compare with."})
    repeats: int = field(default=1000, metadata={"help": "Bootstrap samples of an interval; 0: no intervals."})
    pictures: bool = field(default=True, metadata={"help": "Draw `pictures/`."})
    contaminated: bool = field(default=False, metadata={"help": "Score on heard speakers all the same, and say so."})


def main(args: EvaluateArguments) -> dict:
    """MatchedClassifier every clip once, score them together; returns what stands in `results.json`."""
    accelerator = Accelerator()
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}")
    run = RunFolder(args.output, args)
    info = corpus_info(args.corpus)
    label_map = yaml.safe_load(Path(args.label_map).read_text()) if args.label_map else None
    judge = MatchedClassifier(args.model, info.emotions, info.dimensions, label_map).to(accelerator.device).eval()
    emotions, dimensions = judge.emotions, judge.dimensions
    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)
    rows, _ = sides(args.corpus, table, args.split, args.corpus_path or None, (args.side,))
    speakers = {name for name in rows["speaker"] if name}
    found = require_uncontaminated(
        args.model, info.name, speakers, judge.training_data, judge.public_models, args.contaminated
    )
    clips = ClipStream(
        rows,
        shard_files(args.corpus, args.corpus_path or None),
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    order = Order.of(rows, args.batch_size, num_processes=accelerator.num_processes)

    def ask(batch: Batch):
        return judge(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    augment = under(args.condition) if args.condition else None
    predictions = predict(accelerator, ask, batches(clips, order, info.emotions, dimensions, augment=augment))
    predictions.name_genders(dict(zip(rows["id"], rows["gender"], strict=True)))
    if judge.match:
        predictions.labels = judge.match.labels(info.emotions, predictions.labels)
    scores = measure(predictions, emotions, dimensions, info.dimensions_source, args.repeats)
    results = {
        "recipe": "evaluate",
        "model": args.model,
        "corpus": info.name,
        "split": args.split or args.corpus,
        "condition": args.condition,
        "parameters": sum(parameter.numel() for parameter in judge.parameters()),
        "contaminated_by": found,
        "left_out": list(judge.match.left_out) if judge.match else [],
        args.side: scores,
    }
    if accelerator.is_main_process:
        groups = measure_groups(predictions, emotions, dimensions, info.dimensions_source, args.repeats)
        results[args.side] = {**scores, "groups": groups}
        save_predictions(predictions, run.path / "predictions.parquet", emotions, dimensions)
        if args.pictures:
            save_plots(run.path / "pictures", predictions, emotions, dimensions, results[args.side])
        if args.against:
            results["against"] = against(args, run.path, predictions, scores, emotions, dimensions)
    run.quarantine(clips.quarantine)
    run.results(results)
    for name, value in results[args.side].items():
        if isinstance(value, float):
            interval = results[args.side]["intervals"].get(name)
            accelerator.print(
                f"{name:24} {value:.4f}" + (f"  {interval[0]:.3f} to {interval[1]:.3f}" if interval else "")
            )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def against(
    args: EvaluateArguments, folder: Path, predictions: Predictions, scores: dict, emotions: list, dimensions: list
) -> dict:
    """Paired comparison with earlier evaluations, a picture of all of them, and a line for each figure."""
    beside, found = {Path(args.output).name: scores}, {}
    metrics = [*(["uar", "macro_f1"] if emotions else []), *(f"ccc_{name}" for name in dimensions)]
    for other in args.against:
        theirs, their_emotions, their_dimensions = load_predictions(Path(other) / "predictions.parquet")
        if (their_emotions, their_dimensions) != (emotions, dimensions):
            raise ValueError(
                f"Expected the emotions {emotions} and dimensions {dimensions} in {other}, got {their_emotions} and "
                f"{their_dimensions}. Evaluate both models alike, with one `--label_map` if need be."
            )
        beside[Path(other).name] = measure(theirs, emotions, dimensions, None, args.repeats)
        found[other] = {
            name: compare([predictions], [theirs], name, dimensions, max(args.repeats, 100)).as_dict()
            for name in metrics
        }
        for name, each in found[other].items():
            low, high = each["interval"]
            print(
                f"against {other}, {name}: {each['difference']:+.3f} ({low:+.3f} to {high:+.3f}), "
                f"p = {each['p_value']:.3f} over {each['units']} {each['unit']}"
            )
    if args.pictures:
        save_figure(model_comparison(beside), folder / "pictures" / "comparison.png")
    return found


if __name__ == "__main__":
    main(parse_arguments(EvaluateArguments))
