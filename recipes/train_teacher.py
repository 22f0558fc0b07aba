"""Train a fused teacher, and on request cross-fitted ones whose outputs a student can learn from.

    accelerate launch recipes/train_teacher.py --config recipes/configs/teacher_ravdess.yaml

A flag after the file replaces one of its values: `--seed 1`. Without a file a small teacher learns the synthetic
corpus.
"""

import itertools
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.encoders import LogMelStream
from audio_emotion.evaluation.predictions import Predictions, predict
from audio_emotion.evaluation.protocols import assert_disjoint, split
from audio_emotion.evaluation.results import measure
from audio_emotion.hub.checkpoints import write_checkpoint
from audio_emotion.losses import supervised_terms
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.augmentation import mask_time
from audio_emotion.training.batches import Batch, batches
from audio_emotion.training.caches import EncoderStates
from audio_emotion.training.global_batch import gathered
from audio_emotion.training.run_folder import RunFolder
from audio_emotion.training.statistics import copy_statistics, set_layer_statistics, set_log_mel_statistics
from audio_emotion.training.streams import ClipStream
from audio_emotion.training.tables import corpus_info, corpus_table, spoken_by
from audio_emotion.training.teacher_outputs import TeacherOutputs


@strict
@dataclass(kw_only=True)
class TeacherArguments:
    """What one run needs."""

    output: str = field(default="runs/teacher_synthetic", metadata={"help": "Run folder."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    split: str = field(default="synthetic-10", metadata={"help": "Speaker split by name."})
    train_on_validation: bool = field(default=False, metadata={"help": "Train on the validation speakers too."})
    encoders: list[str] = field(default_factory=lambda: ["log-mel"], metadata={"help": "Hub ids, folders, log-mel."})
    tuning: str = field(default="frozen", metadata={"help": "frozen, full or lora (peft, feed-forward layers)."})
    cross_fit: int = field(default=0, metadata={"help": "Teachers for outputs on the training clips; 0 for none."})
    hidden_size: int = field(default=64, metadata={"help": "Width of the GRU layers."})
    convolution_size: int = field(default=64, metadata={"help": "Channels beside the identity; 0: Figure 1(A)."})
    read_out: str = field(default="statistics", metadata={"help": "last (the paper's), statistics or attentive."})
    fusion: str = field(default="concatenate", metadata={"help": "concatenate (the paper's) or gate."})
    stream_dropout: float = field(default=0.0, metadata={"help": "Chance of a silent stream in training."})
    time_mask: float = field(default=0.2, metadata={"help": "Widest blank span, share of a clip; frozen encoders."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout of trunk and heads."})
    epochs: int = field(default=15, metadata={"help": "Passes over the training clips."})
    batch_size: int = field(default=32, metadata={"help": "Clips of a global batch, over which the CCC is taken."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak of a one-cycle schedule."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's."})
    label_smoothing: float = field(default=0.1, metadata={"help": "Of the cross-entropy."})
    dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC term."})
    emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy."})
    mixed_precision: str = field(default="", metadata={"help": "no or bf16; else as launched."})
    cache: str = field(default="runs/cache", metadata={"help": "Where states of frozen encoders are kept."})
    trackers: list[str] = field(default_factory=list, metadata={"help": "tensorboard, trackio."})
    seed: int = field(default=0, metadata={"help": "Of everything."})


def main(args: TeacherArguments) -> dict:
    """Train, test and write the run folder; returns what stands in `results.json`."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or None, log_with=args.trackers or None, project_dir=args.output
    )
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}, seed {args.seed}")
    run = RunFolder(args.output, args, writes=accelerator.is_main_process)
    if args.trackers:
        accelerator.init_trackers("audio-emotion")

    # Who trains, who validates, who is tested.
    info = corpus_info(args.corpus)
    speakers = split(args.split)
    assert_disjoint(speakers)
    train_speakers = speakers.train + (speakers.validation if args.train_on_validation else ())
    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)

    def stream(names, shuffle=False):
        rows = spoken_by(table, names)
        return ClipStream(
            rows.to_iterable_dataset(num_shards=-(-len(rows) // SHARD)),
            size=len(rows),
            seed=args.seed,
            shuffle=shuffle,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )

    def build():
        set_seed(args.seed)
        model = FusedEmotionForAudioClassification.from_encoders(
            args.encoders,
            emotions=list(info.emotions),
            hidden_size=args.hidden_size,
            convolution_size=args.convolution_size,
            read_out=args.read_out,
            fusion=args.fusion,
            stream_dropout=args.stream_dropout,
            dropout=args.dropout,
            license=info.license,
            dimensions_source=info.dimensions_source,
        )
        if args.tuning != "full":
            model.teacher.freeze_encoders()
        if args.tuning == "lora":
            add_lora(model)
        return model.to(accelerator.device)

    model = build()
    train = stream(train_speakers, shuffle=True)
    set_log_mel_statistics(model, ClipStream(train.source, train.size))
    held_out = {
        "test": stream(speakers.test) if speakers.test else None,
        "validation": stream(speakers.validation) if speakers.validation and not args.train_on_validation else None,
    }

    # Frozen encoders hear every clip once; encoders in training start from the statistics of their first states.
    heard_once = EncoderStates(args.cache, model)
    with accelerator.main_process_first():
        heard_once.fill(ClipStream(table.to_iterable_dataset(), len(table)))
    train_ids = spoken_by(table, train_speakers)["id"]
    set_layer_statistics(model, [heard_once.states[name] for name in train_ids if name in heard_once.states])
    cache = heard_once if args.tuning == "frozen" else None

    step_number = itertools.count(args.seed)

    def judge(model, batch: Batch):
        if cache is None:
            device = accelerator.device
            return model(batch.input_values.to(device), batch.attention_mask.to(device))
        states, lengths = cache.batch(batch.ids)
        if model.training and args.time_mask:
            fills = [silent_frame(each) for each in accelerator.unwrap_model(model).teacher.streams]
            states = mask_time(states, lengths, fills, next(step_number), args.time_mask)
        return model(states=[each.to(accelerator.device) for each in states], lengths=lengths.to(accelerator.device))

    def ask(model, clips: ClipStream):
        model.eval()
        each = batches(
            clips, 0, 64 // accelerator.num_processes * accelerator.num_processes, info.emotions, DIMENSIONS
        )
        return predict(accelerator, lambda batch: judge(model, batch), each)

    def fit(model, clips: ClipStream, name: str, validation: ClipStream | None):
        """The loop."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)
        steps = args.epochs * -(-clips.size // args.batch_size)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=steps, pct_start=0.2)
        bar = tqdm(total=steps, desc=name, disable=not accelerator.is_local_main_process)
        best = -1.0
        for epoch in range(args.epochs):
            wrapped.train()
            totals: dict[str, float] = {}
            for batch in batches(clips, epoch, args.batch_size, info.emotions, DIMENSIONS):
                with accelerator.autocast():
                    output = judge(wrapped, batch)
                for field_name in ("logits", "dimensions", "embedding"):
                    output[field_name] = gathered(accelerator, output[field_name])
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
                    totals[term] = totals.get(term, 0.0) + value.item()
                bar.update()
            means = {f"loss_{term}": round(args.epochs * value / steps, 4) for term, value in totals.items()}
            if validation is not None:
                scores = measure(
                    ask(model, validation), list(info.emotions), list(DIMENSIONS), info.dimensions_source, 0
                )
                means |= {f"validation_{key}": round(scores[key], 4) for key in SCORES}
                if scores["uar"] > best and accelerator.is_main_process:
                    best = scores["uar"]
                    model.config.training_data = provenance
                    write_checkpoint(model, run.path / "checkpoints" / "best")
            bar.set_postfix(
                {key.removeprefix("validation_"): value for key, value in means.items() if "ccc" not in key}
            )
            run.log(model=name, epoch=epoch + 1, **means)
            accelerator.log({f"{name}/{key}": value for key, value in means.items()}, step=epoch + 1)
        bar.close()
        return model

    # The teacher itself.
    provenance = [{"corpus": info.name, "speakers": sorted(train_speakers), "teachers": []}]
    model = fit(model, train, "teacher", held_out["validation"])
    model.config.training_data = provenance
    results = {"recipe": "train_teacher", "model": "teacher", "split": args.split, "seed": args.seed}
    results |= {"parameters": model.num_parameters(), "train_speakers": sorted(train_speakers)}
    for side, clips in held_out.items():
        if clips is not None:
            results[side] = measure(ask(model, clips), list(info.emotions), list(DIMENSIONS), info.dimensions_source)
    if accelerator.is_main_process:
        write_checkpoint(model, run.path / "checkpoints" / "last")
    run.quarantine(train.quarantine)
    run.results(results)

    # Teachers that are each silent on their own training speakers, for the targets of distillation; the teacher itself
    # speaks of those whom it has not heard.
    def outputs(said: Predictions) -> TeacherOutputs:
        return TeacherOutputs(
            said.ids,
            torch.from_numpy(said.logits),
            torch.from_numpy(said.dimensions),
            torch.from_numpy(said.embedding),
            torch.zeros(len(said.ids), dtype=torch.long),
            list(info.emotions),
            provenance,
        )

    if args.cross_fit:
        parts = []
        for number in range(args.cross_fit):
            heard = [name for index, name in enumerate(train_speakers) if index % args.cross_fit != number]
            unheard = [name for name in train_speakers if name not in heard]
            one = build()
            copy_statistics(model, one)
            one = fit(one, stream(heard, shuffle=True), f"cross-fit {number + 1} of {args.cross_fit}", None)
            said = ask(one, stream(unheard))
            parts.append(outputs(said))
            scores = measure(said, list(info.emotions), list(DIMENSIONS), info.dimensions_source, 0)
            run.log(model=f"cross-fit {number + 1}", **{f"unheard_{key}": round(scores[key], 4) for key in SCORES})
        parts += [outputs(ask(model, clips)) for clips in held_out.values() if clips is not None]
        if accelerator.is_main_process:
            TeacherOutputs.joined(parts).save(run.path / "teacher_outputs")

    for side in ("validation", "test"):
        if side in results:
            accelerator.print(f"{side}: " + ", ".join(f"{key} {results[side][key]:.3f}" for key in SCORES))
    accelerator.print(f"Teacher: {run.path / 'checkpoints' / 'last'}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def silent_frame(stream) -> torch.Tensor:
    """What a stream takes for nothing, `(L, H)`: the mean it subtracts; log-mel frames are normalised already."""
    if isinstance(stream, LogMelStream):
        return torch.zeros(1, stream.projection.in_features)
    return stream.layer_mix.mean


def add_lora(model) -> None:
    """LoRA on the encoders' feed-forward layers; on WavLM's attention it would silently do nothing (no gradient)."""
    from peft import LoraConfig

    new = [
        name for name, _ in model.named_modules() if name.endswith((".layer_mix", ".projection")) and "streams" in name
    ]
    new = [name for name in new if ".encoder." not in name]
    feed_forward = r".*\.encoder\..*(intermediate_dense|output_dense|\.fc1|\.fc2)"
    rest = ["teacher.trunk", "heads"]
    model.add_adapter(LoraConfig(r=8, lora_alpha=16, target_modules=feed_forward, modules_to_save=[*new, *rest]))


SHARD = 4096  # rows shuffled together in memory
DIMENSIONS = ("activation", "valence", "dominance")
SCORES = ("uar", "accuracy", *(f"ccc_{name}" for name in DIMENSIONS))

if __name__ == "__main__":
    main(parse_arguments(TeacherArguments))
