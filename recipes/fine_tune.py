"""Fine-tune any checkpoint of this package, teacher or student, on a corpus with categories and ratings of its own.

    accelerate launch recipes/fine_tune.py --model runs/distill_ravdess/checkpoints/last --corpus my_clips.yaml

`my_clips.yaml` describes the corpus (docs/your_own_data.md). Without `--model` it is the student inside the package
that learns. What the checkpoint had learned from stays written in it, and so do its terms. A run that was killed goes
on where it stood when the same command is given again.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import set_seed
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForAudioClassification

import audio_emotion
from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation
from audio_emotion.data.collate import Batch, batches
from audio_emotion.data.mixture import combine_licenses, training_data
from audio_emotion.data.registry import select_speakers
from audio_emotion.evaluation.predictions import predict, save_predictions
from audio_emotion.evaluation.report import headline, measure, selection_score
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.losses import supervised_terms
from audio_emotion.training.arguments import RunArguments, parse_arguments
from audio_emotion.training.experiment import ExperimentData, begin
from audio_emotion.training.lora import add_lora
from audio_emotion.training.optim import gather_output, gathered, one_cycle
from audio_emotion.training.trainer_state import Resume


@strict
@dataclass(kw_only=True)
class FineTuneArguments(RunArguments):
    """What one run needs."""

    corpus: str = field(metadata={"help": "The corpus's description (.yaml), or a corpus by name."})
    model: str = field(default="", metadata={"help": "Hub id or folder; else the student inside the package."})
    revision: str = field(default="main", metadata={"help": "Of a model on the Hub."})
    output: str = field(default="runs/fine_tune", metadata={"help": "Run folder."})
    tuning: str = field(default="full", metadata={"help": "frozen (heads alone), lora (teachers) or full."})
    augment: float = field(default=0.3, metadata={"help": "0..1: how often noise, reverberation, speed, gain."})
    epochs: int = field(default=20, metadata={"help": "Passes over the training clips."})
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak of a one-cycle schedule."})


def main(args: FineTuneArguments) -> dict:
    """Fine-tune, test and write the run folder; returns what stands in `results.json`."""
    accelerator, run = begin(args)
    if run.finished is not None:
        return run.finished

    # Who trains, who validates, who is tested.
    setting = ExperimentData(args, accelerator, run)
    info, emotions, dimensions = setting.info, setting.emotions, setting.dimensions
    train_speakers, held_out = setting.train_speakers, setting.held_out
    rows = select_speakers(setting.table, train_speakers)

    # The checkpoint with heads for this corpus; heads of the same names and order are kept.
    set_seed(args.seed)
    source = args.model or str(Path(audio_emotion.__file__).parent / "embedded" / "student")
    config = AutoConfig.from_pretrained(source, revision=args.revision)
    learnt_before, same_heads = list(config.training_data), list(config.emotions) == emotions
    config.emotions, config.dimensions = emotions, dimensions
    config.dimension_weights = [1 / len(dimensions) for _ in dimensions]
    config.predict_variance = config.predict_variance and bool(dimensions)
    config.dimensions_source, config.dropout = info.dimensions_source, args.dropout
    config.license = combine_licenses([config.license, info.license])
    config.training_data = [*learnt_before, *training_data(train_speakers)]
    streams = config.streams if config.model_type == "fused-emotion" else ()
    encoders = [each["source"] for each in streams if each["kind"] == "encoder"]
    contaminated_by = setting.contaminated_by(learnt_before, [source, *encoders])
    model = AutoModelForAudioClassification.from_pretrained(
        source, revision=args.revision, config=config, new_heads=True
    )
    if not same_heads:
        model.heads.apply(model._init_weights)  # a head of the same size may be of other categories
    prepare_for_tuning(model, args.tuning)
    model.to(accelerator.device)

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)
    order = setting.training_order(rows)
    steps = args.epochs * order.steps
    schedule = one_cycle(optimizer, steps)
    wrapped, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    often = dict.fromkeys(("noise", "reverberation", "speed", "gain"), args.augment)
    augmentation = WaveformAugmentation(
        AugmentationStrengths(snr=(10.0, 35.0), **{f"{name}_probability": share for name, share in often.items()})
    )

    def augment(waveform, name: str, epoch: int):
        # Seeded by clip and epoch, so that the same clip sounds the same on one process and on two.
        seed = zlib.crc32(f"{args.seed}/{epoch}/{name}".encode())
        return augmentation(torch.as_tensor(waveform), seed).numpy()

    def judge(model, batch: Batch):
        return model(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    def ask(rows):
        model.eval()
        order = setting.reading_order(rows, 32)
        clips = setting.clips(rows)
        answers = predict(accelerator, lambda batch: judge(model, batch), batches(clips, order, emotions, dimensions))
        setting.gather_quarantine(clips)
        return answers

    # The loop.
    set_seed(args.seed)
    resume = Resume(accelerator, run.path / "state", args.save_every)
    progress = resume.load()
    stream = setting.clips(rows)
    stream.quarantine |= progress.quarantine
    bar = tqdm(total=steps, initial=progress.step, desc="model", disable=not accelerator.is_local_main_process)
    each = batches(stream, order, emotions, dimensions, args.epochs, progress.step, augment if args.augment else None)
    for batch in each:
        epoch, step = divmod(progress.step, order.steps)
        wrapped.train()
        with accelerator.autocast():
            output = judge(wrapped, batch)
        gather_output(accelerator, output)
        labels, ratings, weight = (
            gathered(accelerator, each.to(accelerator.device))
            for each in (batch.labels, batch.dimension_labels, batch.weight)
        )
        terms = supervised_terms(output, labels, ratings, model.config.dimension_weights, weight, args.label_smoothing)
        weights = {"dimensions": args.dimensions_weight, "emotions": args.emotions_weight, "variance": 1.0}
        loss = sum(weights[name] * term for name, term in terms.items())
        accelerator.backward(loss * accelerator.num_processes)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        for name, term in terms.items():
            progress.totals[name] = progress.totals.get(name, 0.0) + term.item()
        bar.update()
        progress.step += 1
        progress.quarantine = stream.quarantine
        if step + 1 == order.steps:
            means = {f"loss_{name}": round(value / order.steps, 4) for name, value in progress.totals.items()}
            progress.totals = {}
            if "validation" in held_out:
                scores = measure(ask(held_out["validation"]), emotions, dimensions, info.dimensions_source, 0)
                means |= {f"validation_{key}": round(value, 4) for key, value in headline(scores, dimensions).items()}
                bar.set_postfix({key: value for key, value in means.items() if "validation" in key})
                if selection_score(scores, dimensions) > progress.best:
                    progress.best = selection_score(scores, dimensions)
                    if accelerator.is_main_process:
                        write_checkpoint(model, run.path / "checkpoints" / "best")
            setting.gather_quarantine(stream)
            run.log(epoch=epoch + 1, **means)
            accelerator.log(means, step=epoch + 1)
        resume.save(progress, last=progress.step == steps)
    bar.close()
    setting.gather_quarantine(stream)
    if accelerator.is_main_process:  # before the test, which broken clips may stop
        write_checkpoint(model, run.path / "checkpoints" / "last")

    results = {
        "recipe": "fine_tune",
        "model": f"fine-tuned {config.model_type}",
        "split": args.split or args.corpus,
        "seed": args.seed,
        "parameters": model.num_parameters(),
        "train_speakers": sorted(train_speakers),
        "contaminated_by": contaminated_by,
    }
    for side, rows in held_out.items():
        answers = ask(rows)
        answers.name_genders(dict(zip(rows["id"], rows["gender"], strict=True)))
        results[side] = measure(answers, emotions, dimensions, info.dimensions_source)
        if side == "test" and accelerator.is_main_process:
            save_predictions(answers, run.path / "predictions.parquet", emotions, dimensions)
        scores = headline(results[side], dimensions).items()
        mark = " (contaminated)" if contaminated_by else ""
        accelerator.print(f"{side}{mark}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores))
    run.results(results)
    accelerator.print(f'Ask it: pipeline("audio-emotion", model="{run.path / "checkpoints" / "last"}")')
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def prepare_for_tuning(model, tuning: str) -> None:
    """Choose what learns.

    Raises:
        ValueError: for an unknown choice, or LoRA on a student, which has nothing that it fits.
    """
    if tuning == "frozen":
        model.base_model.requires_grad_(False)
    elif tuning == "lora":
        if model.config.model_type != "fused-emotion":
            raise ValueError("`--tuning lora` adapts a teacher's encoders; a student is small: `frozen` or `full`.")
        add_lora(model)
    elif tuning != "full":
        raise ValueError(f"Expected `--tuning` frozen, lora or full, got {tuning!r}.")


if __name__ == "__main__":
    main(parse_arguments(FineTuneArguments))
