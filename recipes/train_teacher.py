"""Train a fused teacher, and on request cross-fitted ones whose outputs a student can learn from.

    accelerate launch recipes/train_teacher.py --config recipes/configs/teacher_ravdess.yaml

A flag after the file replaces one of its values: `--seed 1`. Without a file a small teacher learns the synthetic
corpus. A run that was killed goes on where it stood when the same command is given again.
"""

from dataclasses import dataclass, field, replace

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.data.augmentation import mask_time, mix_clips
from audio_emotion.data.collate import Batch, batches
from audio_emotion.data.mixture import training_data
from audio_emotion.data.registry import select_speakers
from audio_emotion.encoders import LogMelStream
from audio_emotion.evaluation.predictions import Predictions, predict, save_predictions
from audio_emotion.evaluation.report import headline, measure, selection_score
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.losses import supervised_terms
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.arguments import RunArguments, parse_arguments
from audio_emotion.training.experiment import ExperimentData, begin
from audio_emotion.training.feature_cache import (
    EncoderStates,
    copy_statistics,
    set_layer_statistics,
    set_log_mel_statistics,
)
from audio_emotion.training.lora import add_lora
from audio_emotion.training.optim import gather_output, gathered, one_cycle
from audio_emotion.training.trainer_state import Resume


@strict
@dataclass(kw_only=True)
class TeacherArguments(RunArguments):
    """What one run needs."""

    output: str = field(default="runs/teacher_synthetic", metadata={"help": "Run folder."})
    mix: list[str] = field(default_factory=list, metadata={"help": "Other corpora to train on: crema-d=0.5."})
    encoders: list[str] = field(
        default_factory=lambda: ["log-mel"], metadata={"help": "Hub ids, folders, log-mel, log-mel-relative."}
    )
    tuning: str = field(default="frozen", metadata={"help": "frozen, full or lora (peft, feed-forward layers)."})
    cross_fit: int = field(default=0, metadata={"help": "Teachers for outputs on the training clips; 0: the one."})
    hidden_size: int = field(default=64, metadata={"help": "Width of the GRU layers."})
    convolution_size: int = field(default=64, metadata={"help": "Channels beside the identity; 0: Figure 1(A)."})
    pooling: str = field(default="statistics", metadata={"help": "last (the paper's), statistics or attentive."})
    frames_per_step: int = field(default=1, metadata={"help": "20 ms frames averaged into a step of the trunk."})
    layers: list[int] = field(default_factory=list, metadata={"help": "Hidden states of every encoder; else all."})
    layer_fusion: str = field(default="mix", metadata={"help": "mix (a softmax weight a layer) or concatenate."})
    fusion: str = field(default="concatenate", metadata={"help": "concatenate (the paper's) or gate."})
    stream_dropout: float = field(default=0.0, metadata={"help": "Chance of a silent stream in training."})
    time_mask: float = field(default=0.2, metadata={"help": "Widest blank span, share of a clip; frozen encoders."})
    mixup: float = field(default=0.0, metadata={"help": "Alpha of mixup; 0: none; frozen encoders."})
    epochs: int = field(default=15, metadata={"help": "Passes over the training clips."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak of a one-cycle schedule."})
    dimension_weights: list[float] = field(default_factory=list, metadata={"help": "One a dimension; else equal."})
    encoder_learning_rate: float = field(default=5e-5, metadata={"help": "The same, of encoders in training."})
    cache: str = field(default="runs/cache", metadata={"help": "Where states of frozen encoders are kept; or ''."})


def main(args: TeacherArguments) -> dict:
    """Train, test and write the run folder; returns what stands in `results.json`."""
    accelerator, run = begin(args)
    if run.finished is not None:
        return run.finished

    # Who trains, who validates, who is tested.
    setting = ExperimentData(args, accelerator, run, args.mix)
    info, emotions, dimensions = setting.info, setting.emotions, setting.dimensions
    train_speakers, held_out = setting.train_speakers, setting.held_out
    table = setting.table

    def build():
        set_seed(args.seed)
        model = FusedEmotionForAudioClassification.from_encoders(
            args.encoders,
            dict.fromkeys(args.encoders, args.layers) if args.layers else None,
            emotions=emotions,
            dimensions=dimensions,
            hidden_size=args.hidden_size,
            convolution_size=args.convolution_size,
            pooling=args.pooling,
            frames_per_step=args.frames_per_step,
            dimension_weights=args.dimension_weights or None,
            layer_fusion=args.layer_fusion,
            fusion=args.fusion,
            stream_dropout=args.stream_dropout,
            dropout=args.dropout,
            license=setting.license,
            dimensions_source=info.dimensions_source,
        )
        if args.tuning == "frozen":
            model.teacher.freeze_encoders()
        elif args.tuning == "lora":
            add_lora(model)
        elif args.tuning != "full":
            raise ValueError(f"Expected `--tuning` frozen, lora or full, got {args.tuning!r}.")
        return model.to(accelerator.device)

    model = build()
    training_clips = setting.clips(select_speakers(table, train_speakers))
    set_log_mel_statistics(model, training_clips)

    # Frozen encoders hear every clip once; others, and those without a cache, start from the statistics of some clips.
    cached = args.tuning == "frozen" and bool(args.cache)
    heard_once = EncoderStates(args.cache or run.path / "cache", model)
    everything = setting.clips(table if cached else first_of(training_clips.table, STATISTICS_CLIPS))
    with accelerator.main_process_first():
        heard_once.fill(everything)
        heard_once.read()
    if cached:
        table = known_to(heard_once, table)
        held_out = {side: rows for side, each in held_out.items() if len(rows := known_to(heard_once, each))}
    heard = [
        name for name in first_of(select_speakers(table, train_speakers), STATISTICS_CLIPS)["id"] if name in heard_once
    ]
    set_layer_statistics(model, heard_once, heard)
    cache = heard_once if cached else None

    def judge(model, batch: Batch, seed: int | None = None):
        """Answers to a batch; with a seed its states are augmented, and its labels with them."""
        if cache is None:
            device = accelerator.device
            return model(batch.input_values.to(device), batch.attention_mask.to(device))
        states, lengths = cache.batch([name or heard[0] for name in batch.ids])  # fillers have no name
        if seed is not None and args.time_mask:
            fills = [silent_frame(each) for each in accelerator.unwrap_model(model).teacher.streams]
            states = mask_time(states, lengths, fills, seed, args.time_mask)
        if seed is not None and args.mixup:
            states, lengths, batch.labels, batch.dimension_labels = mix_clips(
                states,
                lengths,
                distributions(batch.labels, len(emotions)),
                batch.dimension_labels,
                batch.weight,
                # Every process mixes its own clips, by its own share.
                seed * accelerator.num_processes + accelerator.process_index,
                args.mixup,
            )
        return model(states=[each.to(accelerator.device) for each in states], lengths=lengths.to(accelerator.device))

    def ask(model, rows) -> Predictions:
        model.eval()
        order = setting.reading_order(rows, 64)
        clips = setting.clips(rows)
        each = batches(clips, order, emotions, dimensions, waveforms=cache is None)
        answers = predict(accelerator, lambda batch: judge(model, batch), each)
        setting.gather_quarantine(clips)
        return answers

    def fit(model, rows, name: str, validation=None):
        """The loop; `rows` are trained on, `validation` is asked after every epoch."""
        order = setting.training_order(rows)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = parameter_groups(model, args.learning_rate, args.encoder_learning_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
        steps = args.epochs * order.steps
        schedule = one_cycle(optimizer, steps)
        accelerator.free_memory()  # of the training before this one
        wrapped, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
        set_seed(args.seed)
        resume = Resume(accelerator, run.path / "state" / name.replace(" ", "-"), args.save_every)
        progress = resume.load()
        stream = setting.clips(rows)
        stream.quarantine |= progress.quarantine
        bar = tqdm(total=steps, initial=progress.step, desc=name, disable=not accelerator.is_local_main_process)
        each = batches(stream, order, emotions, dimensions, args.epochs, progress.step, waveforms=cache is None)
        for batch in each:
            epoch = progress.step // order.steps
            wrapped.train()
            with accelerator.autocast():
                output = judge(wrapped, batch, seed=args.seed + progress.step)
            gather_output(accelerator, output)
            labels, ratings, weight = (
                gathered(accelerator, each.to(accelerator.device))
                for each in (batch.labels, batch.dimension_labels, batch.weight)
            )
            terms = supervised_terms(
                output, labels, ratings, model.config.dimension_weights, weight, args.label_smoothing
            )
            weights = {"dimensions": args.dimensions_weight, "emotions": args.emotions_weight, "variance": 1.0}
            loss = sum(weights[term] * value for term, value in terms.items())
            accelerator.backward(loss * accelerator.num_processes)
            accelerator.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            for term, value in terms.items():
                progress.totals[term] = progress.totals.get(term, 0.0) + value.item()
            bar.update()
            progress.step += 1
            progress.quarantine = stream.quarantine
            if progress.step % order.steps == 0:
                means = {f"loss_{term}": round(value / order.steps, 4) for term, value in progress.totals.items()}
                progress.totals = {}
                if validation is not None:
                    scores = measure(ask(model, validation), emotions, dimensions, info.dimensions_source, 0)
                    known = headline(scores, dimensions)
                    means |= {f"validation_{key}": round(value, 4) for key, value in known.items()}
                    if selection_score(scores, dimensions) > progress.best:
                        progress.best = selection_score(scores, dimensions)
                        if accelerator.is_main_process:
                            model.config.training_data = provenance
                            write_checkpoint(model, run.path / "checkpoints" / "best")
                bar.set_postfix(
                    {key.removeprefix("validation_"): value for key, value in means.items() if "ccc" not in key}
                )
                run.log(model=name, epoch=epoch + 1, **means)
                setting.gather_quarantine(stream)
                accelerator.log({f"{name}/{key}": value for key, value in means.items()}, step=epoch + 1)
            resume.save(progress, last=progress.step == steps)
        bar.close()
        setting.gather_quarantine(stream)
        return model

    # The teacher itself.
    provenance = training_data(train_speakers)
    setting.left_out |= everything.quarantine | training_clips.quarantine
    model = fit(model, select_speakers(table, train_speakers), "teacher", held_out.get("validation"))
    model.config.training_data = provenance
    if accelerator.is_main_process:  # before the test, which broken clips may stop
        write_checkpoint(model, run.path / "checkpoints" / "last")
    results = {"recipe": "train_teacher", "model": "teacher", "split": args.split or args.corpus, "seed": args.seed}
    results |= {"parameters": model.num_parameters(), "train_speakers": sorted(train_speakers)}
    for side, rows in held_out.items():
        said = ask(model, rows)
        said.name_genders(dict(zip(rows["id"], rows["gender"], strict=True)))
        results[side] = measure(said, emotions, dimensions, info.dimensions_source)
        if side == "test" and accelerator.is_main_process:
            save_predictions(said, run.path / "predictions.parquet", emotions, dimensions)

    # What is said of every clip, for the targets of distillation: by teachers that are each silent on their own
    # training speakers, or else by the teacher itself, which speaks in any case of those whom it has not heard.
    def outputs_of(said: Predictions) -> TeacherOutputs:
        facts = {"dimension_names": dimensions, "license": setting.license}
        return TeacherOutputs.of_one(said, emotions, provenance, **facts)

    parts = []
    for number in range(args.cross_fit):
        heard = [name for index, name in enumerate(train_speakers) if index % args.cross_fit != number]
        unheard = [name for name in train_speakers if name not in heard]
        one = build()
        copy_statistics(model, one)
        one = fit(one, select_speakers(table, heard), f"cross-fit {number + 1} of {args.cross_fit}")
        said = ask(one, select_speakers(table, unheard))
        parts.append(outputs_of(said))
        scores = measure(said, emotions, dimensions, info.dimensions_source, 0)
        known = headline(scores, dimensions)
        run.log(model=f"cross-fit {number + 1}", **{f"unheard_{key}": round(value, 4) for key, value in known.items()})
    unsaid = (
        list(held_out.values()) if args.cross_fit else [select_speakers(table, train_speakers), *held_out.values()]
    )
    if unsaid:
        its = TeacherOutputs.joined([outputs_of(ask(model, rows)) for rows in unsaid])
        parts.append(replace(its, teacher=torch.zeros_like(its.teacher)))  # one teacher, of however many sides
    if accelerator.is_main_process:
        TeacherOutputs.joined(parts).save(run.path / "teacher_outputs")

    run.results(results)
    for side in ("validation", "test"):
        if side in results:
            scores = headline(results[side], dimensions).items()
            accelerator.print(f"{side}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores))
    accelerator.print(f"Teacher: {run.path / 'checkpoints' / 'last'}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def known_to(cache: EncoderStates, rows: Dataset) -> Dataset:
    """The rows of clips whose states are kept; others are bad."""
    return rows.select([row for row, name in enumerate(rows["id"]) if name in cache])


def first_of(rows, count: int):
    """As many rows as that, evenly spread."""
    return rows.select(range(0, len(rows), max(1, len(rows) // count)))


def parameter_groups(model, learning_rate: float, encoder_learning_rate: float) -> list[dict]:
    """What is trained: pretrained encoders, or the adapters in them, at a rate of their own, and the rest."""
    streams = [stream for stream in model.teacher.streams if not isinstance(stream, LogMelStream)]
    encoders = {id(parameter) for stream in streams for parameter in stream.encoder.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inside = [parameter for parameter in trained if id(parameter) in encoders]
    rest = [parameter for parameter in trained if id(parameter) not in encoders]
    groups = [{"params": rest, "lr": learning_rate}, {"params": inside, "lr": encoder_learning_rate}]
    return [group for group in groups if group["params"]]


def distributions(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Class numbers `(B,)` as distributions `(B, C)`; NaN where a number is -100."""
    known = torch.nn.functional.one_hot(labels.clamp(min=0), count).float()  # (B, C)
    return known.masked_fill(labels[:, None] < 0, torch.nan)


def silent_frame(stream) -> torch.Tensor:
    """What a stream takes for nothing, `(L, H)`: the mean it subtracts; log-mel frames are normalized already."""
    if isinstance(stream, LogMelStream):
        return torch.zeros(1, stream.projection.in_features)
    return stream.layer_mix.mean


STATISTICS_CLIPS = 1000  # enough for the mean and deviation of every feature of every layer

if __name__ == "__main__":
    main(parse_arguments(TeacherArguments))
