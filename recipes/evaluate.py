"""Score any checkpoint on one side of a speaker split, with intervals.

    accelerate launch recipes/evaluate.py --model runs/distill_ravdess/checkpoints/last --corpus ravdess \
        --split ravdess-20-fixed

A model that has heard a speaker of the test side, or whose teacher has, is refused unless `--contaminated` is given;
the results then say so.
"""

from dataclasses import dataclass, field

from accelerate import Accelerator
from huggingface_hub.dataclasses import strict
from transformers import AutoModelForAudioClassification

import audio_emotion  # noqa: F401 - registers the Auto classes
from audio_emotion.evaluation.predictions import predict
from audio_emotion.evaluation.protocols import split
from audio_emotion.evaluation.provenance import heard_speakers
from audio_emotion.evaluation.results import measure
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.batches import Batch, batches
from audio_emotion.training.run_folder import RunFolder
from audio_emotion.training.streams import ClipStream
from audio_emotion.training.tables import corpus_info, corpus_table, spoken_by


@strict
@dataclass(kw_only=True)
class EvaluateArguments:
    """What one run needs."""

    model: str = field(default="runs/distill_synthetic/checkpoints/last", metadata={"help": "Hub id or folder."})
    output: str = field(default="runs/evaluate", metadata={"help": "Run folder."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    split: str = field(default="synthetic-10", metadata={"help": "Speaker split by name."})
    side: str = field(default="test", metadata={"help": "train, validation or test."})
    batch_size: int = field(default=32, metadata={"help": "Clips of a global batch; the numbers do not depend on it."})
    contaminated: bool = field(default=False, metadata={"help": "Score on heard speakers all the same, and say so."})


def main(args: EvaluateArguments) -> dict:
    """Judge every clip once, score them together; returns what stands in `results.json`."""
    accelerator = Accelerator()
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}")
    run = RunFolder(args.output, args, writes=accelerator.is_main_process)
    model = AutoModelForAudioClassification.from_pretrained(args.model).to(accelerator.device).eval()
    speakers = getattr(split(args.split), args.side)
    both = sorted(set(speakers) & heard_speakers(list(model.config.training_data)))
    if both and not args.contaminated:
        raise ValueError(
            f"{args.model}, or a teacher of it, was trained on {', '.join(both)}, who stand on the {args.side} side "
            f"of {args.split}. Evaluate on others, or pass `--contaminated` for a result that is marked so."
        )
    rows = spoken_by(corpus_table(args.corpus, args.corpus_path or None, args.corpus_count), speakers)
    clips = ClipStream(
        rows.to_iterable_dataset(num_shards=1),
        size=len(rows),
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    emotions, dimensions = list(model.config.emotions), list(model.config.dimensions)

    def judge(batch: Batch):
        return model(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    predictions = predict(accelerator, judge, batches(clips, 0, args.batch_size, emotions, dimensions))
    results = {
        "recipe": "evaluate",
        "model": args.model,
        "split": args.split,
        "parameters": model.num_parameters(),
        "contaminated_by": both,
        args.side: measure(predictions, emotions, dimensions, corpus_info(args.corpus).dimensions_source),
    }
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


if __name__ == "__main__":
    main(parse_arguments(EvaluateArguments))
