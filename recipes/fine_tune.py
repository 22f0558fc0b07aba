"""Fine-tune any checkpoint of this package, teacher or student, on a corpus with its own emotions and dimensions.

    accelerate launch recipes/fine_tune.py --model runs/distill_ravdess/checkpoints/last --corpus my_clips.yaml

`my_clips.yaml` describes the corpus (docs/your_own_data.md). Without `--model`, the default model in the package is
fine-tuned, whose license allows commercial use. The new checkpoint records training data and license of the old one
too. Start a killed run again with the same command: it resumes at its last saved state.
"""

from dataclasses import field
from functools import partial

from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel

import audio_emotion
from audio_emotion.data.registry import select_speakers
from audio_emotion.data.training_set import combine_licenses, require_training_labels, training_data
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.losses import supervised_terms
from audio_emotion.teachers.load import find_checkpoint
from audio_emotion.training.arguments import TrainingArguments, argument_group, fraction, option, parse_arguments
from audio_emotion.training.experiment import (
    ExperimentData,
    augmentation_strengths,
    finish_run,
    seeded_augmentation,
    start_run,
)
from audio_emotion.training.loop import TrainingLoop
from audio_emotion.training.lora import add_lora
from audio_emotion.training.optim import gather_labels, gather_output, parameter_groups
from audio_emotion.training.variance_calibration import write_calibrated


@argument_group("model")
class CheckpointArguments:
    """The checkpoint to start from, and which of its parameters are trained."""

    model: str = option("", "Hub id or folder of the checkpoint. Empty: the default model.")
    revision: str = option("main", "Revision of a checkpoint on the Hub.")
    tuning: str = option("full", "Trained parameters: frozen (heads only), lora (teachers only) or full.")
    encoder_learning_rate: float = option(5e-5, "Peak learning rate of the encoders with --tuning full or lora.")
    augment: float = fraction(0.3, "Probability of noise, reverberation, speed and gain, each, 0 to 1.")


@argument_group()
class FineTuneArguments(CheckpointArguments, TrainingArguments):
    """Fine-tune a checkpoint on your own corpus."""

    corpus: str = field(metadata={"help": "Path of the YAML file that describes the corpus, or name of a corpus."})
    output: str = option("runs/fine_tune", "Run folder: configuration, metrics, checkpoints, results.")
    learning_rate: float = option(5e-4, "Peak learning rate of the one-cycle schedule; not of pretrained encoders.")


def main(args: FineTuneArguments) -> dict:
    """Fine-tune, test and write the run folder; returns the contents of `results.json`."""
    source = find_checkpoint(args.model or audio_emotion.DEFAULT)
    plan = {"model": f"{args.model or 'the default model'}, tuning {args.tuning}"}
    accelerator, run = start_run(args, "Fine-tune a checkpoint", plan)
    if run.finished is not None:
        return run.finished

    # Data.
    data = ExperimentData(args, accelerator, run)
    rows = select_speakers(data.table, data.train_speakers)
    require_training_labels(rows, data.emotions, data.dimensions)
    stream = data.clips(rows)
    augment = seeded_augmentation(augmentation_strengths(args.augment), args.seed) if args.augment else None

    # Model: the checkpoint, with new heads unless it has the same emotions and dimensions.
    set_seed(args.seed)
    config = AutoConfig.from_pretrained(source, revision=args.revision, trust_remote_code=False, dropout=args.dropout)
    encoders = [stream["source"] for stream in getattr(config, "streams", ()) if stream["kind"] == "encoder"]
    contaminated_by = data.contaminated_by(config.training_data, [source, *encoders])
    model = AutoModelForAudioClassification.from_pretrained(
        source, revision=args.revision, config=config, new_heads=True
    )
    adapt_config(model.config, data)
    model.initialize_heads(config)
    freeze_parameters(model, args.tuning)
    model.to(accelerator.device)

    # Training.
    groups = parameter_groups(model, args.learning_rate, args.encoder_learning_rate)
    loop = TrainingLoop(args, data, model, groups, stream, data.training_sampler(rows), "fine-tuning")
    write_best = partial(write_checkpoint, model, run.path / "checkpoints" / "best")
    for batch in loop.batches(augment):
        with accelerator.autocast():
            output = data.forward(loop.model, batch)
        gather_output(accelerator, output)
        labels, ratings, weight = gather_labels(accelerator, batch)
        terms = supervised_terms(output, labels, ratings, model.config.dimension_weights, weight, args.label_smoothing)
        loop.step(terms)
        if loop.epoch_ended:
            scores = predictions = None
            if "validation" in data.held_out:
                predictions = data.predict(model, data.held_out["validation"], 32)
                scores = data.score(predictions)
            loop.end_epoch(scores, partial(write_calibrated, model, predictions, write_best))
        loop.save_state()
    variance_scale = data.calibrate_variance(model, lambda rows: data.predict(model, rows, 32))
    checkpoint = run.path / "checkpoints" / "last"
    if accelerator.is_main_process:  # before the test, which unreadable clips may stop
        write_checkpoint(model, checkpoint)

    # Test.
    results = {
        "recipe": "fine_tune",
        "model": f"fine-tuned {config.model_type}",
        "protocol": args.protocol or args.corpus,
        "seed": args.seed,
        "parameters": model.num_parameters(),
        "train_speakers": sorted(data.train_speakers),
        **variance_scale,
    }
    results |= data.evaluate(lambda rows: data.predict(model, rows, 32), contaminated_by)
    finish_run(accelerator, run, results)
    accelerator.print(f'Predict with it: pipeline("audio-emotion", model="{checkpoint}")')
    return results


def adapt_config(config: PreTrainedConfig, data: ExperimentData) -> None:
    """Set emotions, dimensions, license and training data of the fine-tuned model."""
    config.emotions, config.dimensions = data.emotions, data.dimensions
    config.dimension_weights = [1 / len(data.dimensions) for _ in data.dimensions]
    config.predict_variance = config.predict_variance and bool(data.dimensions)
    config.dimensions_source = data.info.dimensions_source
    config.license = combine_licenses([config.license, data.info.license])
    config.training_data = [*config.training_data, *training_data(data.train_speakers)]


def freeze_parameters(model: PreTrainedModel, tuning: str) -> None:
    """Freeze the parameters that are not trained."""
    if tuning == "frozen":
        model.base_model.requires_grad_(False)
    elif tuning == "lora":
        if model.config.model_type != "fused-emotion":
            raise ValueError("`--tuning lora` adapts a teacher's encoders; for a student, pass `frozen` or `full`.")
        add_lora(model)
    elif tuning != "full":
        raise ValueError(f"Expected `--tuning` frozen, lora or full, got {tuning!r}.")


if __name__ == "__main__":
    main(parse_arguments(FineTuneArguments))
