"""Distil a teacher into a small student that sees nothing but log-mel frames.

    accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml

A flag after the file replaces one of its values: `--seed 1`. Without a file a student learns the synthetic corpus, few
of whose clips are labelled, from a teacher that is trained first: about a minute on two cores.
"""

import random
import runpy
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm
from transformers import AutoModelForAudioClassification

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.evaluation.predictions import predict
from audio_emotion.evaluation.protocols import assert_disjoint, split
from audio_emotion.evaluation.results import measure
from audio_emotion.hub.checkpoints import write_checkpoint
from audio_emotion.losses import supervised_terms
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.augmentation import AugmentationStrengths, WaveformAugmentation, mask_spectrogram
from audio_emotion.training.batches import Batch, batches
from audio_emotion.training.distillation import Apprentice, distillation_terms
from audio_emotion.training.global_batch import gathered
from audio_emotion.training.run_folder import RunFolder
from audio_emotion.training.statistics import set_log_mel_statistics
from audio_emotion.training.streams import ClipStream
from audio_emotion.training.tables import corpus_info, corpus_table, spoken_by
from audio_emotion.training.teacher_outputs import TeacherOutputs

SYNTHETIC_TEACHER = "runs/teacher_synthetic"


@strict
@dataclass(kw_only=True)
class DistillArguments:
    """What one run needs."""

    output: str = field(default="runs/distill_synthetic", metadata={"help": "Run folder."})
    teacher: str = field(default=SYNTHETIC_TEACHER, metadata={"help": "Run folder of a teacher; '' for labels only."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    split: str = field(default="synthetic-10", metadata={"help": "Speaker split by name."})
    train_on_validation: bool = field(default=False, metadata={"help": "Train on the validation speakers too."})
    labelled: float = field(default=0.1, metadata={"help": "Share of training clips whose labels are used."})
    size: str = field(default="small", metadata={"help": "nano, small or base."})
    frames_per_step: int = field(default=4, metadata={"help": "10 ms frames in a step: 2, 4 or 8."})
    read_out: str = field(default="attentive", metadata={"help": "last (the paper's), statistics or attentive."})
    convolution: bool = field(default=True, metadata={"help": "Figure 1(B); without it, 1(A)."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout of trunk and heads."})
    augment: float = field(default=0.0, metadata={"help": "0..1: how often noise, reverberation, speed, gain, masks."})
    epochs: int = field(default=20, metadata={"help": "Passes over the training clips."})
    batch_size: int = field(default=32, metadata={"help": "Clips of a global batch, over which the CCC is taken."})
    learning_rate: float = field(default=2e-3, metadata={"help": "Peak of a one-cycle schedule."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's."})
    label_smoothing: float = field(default=0.1, metadata={"help": "Of the cross-entropy on labels."})
    temperature: float = field(default=2.0, metadata={"help": "Softening of teacher and student."})
    dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC with labels."})
    emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy with labels."})
    teacher_embedding_weight: float = field(default=1.0, metadata={"help": "Weight of the embedding term."})
    teacher_emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the divergence."})
    teacher_dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC with the teacher."})
    validate_every: int = field(default=5, metadata={"help": "Epochs between validations."})
    mixed_precision: str = field(default="", metadata={"help": "no or bf16; else as launched."})
    trackers: list[str] = field(default_factory=list, metadata={"help": "tensorboard, trackio."})
    seed: int = field(default=0, metadata={"help": "Of everything."})


def main(args: DistillArguments) -> dict:
    """Distil, test and write the run folder; returns what stands in `results.json`."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or None, log_with=args.trackers or None, project_dir=args.output
    )
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}, seed {args.seed}")
    if args.teacher == SYNTHETIC_TEACHER and not (Path(args.teacher) / "checkpoints" / "last").exists():
        accelerator.print("No teacher of the synthetic corpus yet: training one with recipes/train_teacher.py.")
        recipe = runpy.run_path(str(Path(__file__).with_name("train_teacher.py")))
        recipe["main"](recipe["TeacherArguments"](output=args.teacher, corpus_count=args.corpus_count))
    run = RunFolder(args.output, args, writes=accelerator.is_main_process)
    if args.trackers:
        accelerator.init_trackers("audio-emotion")

    # Who trains, who validates, who is tested; whose labels are used.
    info = corpus_info(args.corpus)
    emotions, dimensions = list(info.emotions), ["activation", "valence", "dominance"]
    speakers = split(args.split)
    assert_disjoint(speakers)
    train_speakers = speakers.train + (speakers.validation if args.train_on_validation else ())
    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)
    training_rows = spoken_by(table, train_speakers)
    shuffled = random.Random(args.seed).sample(training_rows["id"], len(training_rows))
    labelled = set(shuffled[: round(args.labelled * len(shuffled))])

    def stream(rows, shuffle=False):
        return ClipStream(
            rows.to_iterable_dataset(num_shards=-(-len(rows) // SHARD)),
            size=len(rows),
            seed=args.seed,
            shuffle=shuffle,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )

    train = stream(training_rows, shuffle=True)
    held_out = {"test": stream(spoken_by(table, speakers.test)) if speakers.test else None}
    if speakers.validation and not args.train_on_validation:
        held_out["validation"] = stream(spoken_by(table, speakers.validation))

    # The teacher has spoken, cross-fitted, or speaks now; it hears clean audio.
    said, seen = None, []
    if args.teacher:
        said = teacher_outputs(args.teacher, accelerator, stream(training_rows), emotions, dimensions)
        seen = said.training_data
        said.embedding = standardised(said.embedding, said.teacher)

    set_seed(args.seed)
    student = StudentEmotionForAudioClassification(
        StudentEmotionConfig.of_size(
            args.size,
            emotions=emotions,
            frames_per_step=args.frames_per_step,
            read_out=args.read_out,
            dropout=args.dropout,
            license=info.license,
            dimensions_source=info.dimensions_source,
            training_data=[{"corpus": info.name, "speakers": sorted(train_speakers), "teachers": seen}],
            **({} if args.convolution else {"convolution_size": 0}),
        )
    )
    set_log_mel_statistics(student, ClipStream(train.source, train.size))
    apprentice = Apprentice(student, said.num_teachers if said else 0, said.embedding.shape[1] if said else 0)
    optimizer = torch.optim.AdamW(apprentice.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    apprentice, optimizer = accelerator.prepare(apprentice, optimizer)
    steps = args.epochs * -(-train.size // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=steps, pct_start=0.2)
    often = dict.fromkeys(("noise", "reverberation", "speed", "gain"), args.augment)
    augmentation = WaveformAugmentation(
        AugmentationStrengths(snr=(10.0, 35.0), **{f"{name}_probability": share for name, share in often.items()})
    )

    def augment(waveform, name: str, epoch: int):
        # Seeded by clip and epoch, so that the same clip sounds the same on one process and on two.
        seed = zlib.crc32(f"{args.seed}/{epoch}/{name}".encode())
        return augmentation(torch.as_tensor(waveform), seed).numpy()

    def ask(clips: ClipStream):
        student.eval()
        size = 64 // accelerator.num_processes * accelerator.num_processes

        def judge(batch: Batch):
            return student(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

        return predict(accelerator, judge, batches(clips, 0, size, emotions, dimensions))

    # The loop.
    bar = tqdm(total=steps, desc="student", disable=not accelerator.is_local_main_process)
    best, scores = -1.0, {}
    for epoch in range(args.epochs):
        apprentice.train()
        totals: dict[str, float] = {}
        clips = batches(train, epoch, args.batch_size, emotions, dimensions, augment if args.augment else None)
        for step, batch in enumerate(clips):
            hidden = torch.tensor([name not in labelled for name in batch.ids])
            batch.labels[hidden], batch.dimension_labels[hidden] = -100, torch.nan
            with torch.no_grad():  # the front end has nothing to learn
                features, lengths = student.student.features(
                    batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device)
                )
                if args.augment:
                    seed = zlib.crc32(f"{args.seed}/{epoch}/{step}/{accelerator.process_index}".encode())
                    features = mask_spectrogram(features, lengths, seed, 1, 12, 0.2, 1, 16)
            with accelerator.autocast():
                output, projected = apprentice(features, lengths)
            for name in ("logits", "dimensions", "embedding"):
                output[name] = gathered(accelerator, output[name])
            projected = gathered(accelerator, projected)
            labels, ratings, weight = (
                gathered(accelerator, each.to(accelerator.device))
                for each in (batch.labels, batch.dimension_labels, batch.weight)
            )
            terms = supervised_terms(
                output, labels, ratings, student.config.dimension_weights, weight, args.label_smoothing
            )
            if said is not None:
                heard = said.of(batch.ids)
                for name in ("logits", "dimensions", "embedding", "teacher"):
                    setattr(heard, name, gathered(accelerator, getattr(heard, name).to(accelerator.device)))
                terms |= distillation_terms(
                    output.logits,
                    output.dimensions,
                    projected,
                    heard,
                    weight,
                    student.config.dimension_weights,
                    args.temperature,
                )
            loss = sum(getattr(args, f"{name}_weight") * term for name, term in terms.items())
            accelerator.backward(loss * accelerator.num_processes)
            accelerator.clip_grad_norm_(apprentice.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            for name, term in terms.items():
                totals[name] = totals.get(name, 0.0) + term.item()
            bar.update()
        means = {f"loss_{name}": round(args.epochs * value / steps, 4) for name, value in totals.items()}
        if "validation" in held_out and ((epoch + 1) % args.validate_every == 0 or epoch + 1 == args.epochs):
            scores = measure(ask(held_out["validation"]), emotions, dimensions, info.dimensions_source, 0)
            means |= {f"validation_{key}": round(scores[key], 4) for key in SCORES}
            bar.set_postfix(validation_uar=round(scores["uar"], 3))
            if scores["uar"] > best and accelerator.is_main_process:
                best = scores["uar"]
                write_checkpoint(student, run.path / "checkpoints" / "best")
        run.log(epoch=epoch + 1, **means)
        accelerator.log(means, step=epoch + 1)
    bar.close()

    results = {
        "recipe": "distill",
        "model": f"{args.size}, {'distilled' if args.teacher else 'labels only'}",
        "split": args.split,
        "seed": args.seed,
        "labelled": args.labelled,
        "parameters": student.num_parameters(),
        "train_speakers": sorted(train_speakers),
    }
    for side, clips in held_out.items():
        if clips is not None:
            results[side] = measure(ask(clips), emotions, dimensions, info.dimensions_source)
            accelerator.print(f"{side}: " + ", ".join(f"{key} {results[side][key]:.3f}" for key in SCORES))
    if accelerator.is_main_process:
        write_checkpoint(student, run.path / "checkpoints" / "last")
    run.quarantine(train.quarantine)
    run.results(results)
    checkpoint = run.path / "checkpoints" / "last"
    accelerator.print(f"Student: {checkpoint}")
    if args.corpus == "synthetic":
        accelerator.print(
            "Next, the same student without its teacher:\n"
            "  accelerate launch recipes/distill.py --teacher '' --output runs/labels_only_synthetic\n"
            "or on real speech, with RAVDESS in $AUDIO_EMOTION_DATA/ravdess:\n"
            "  accelerate launch recipes/train_teacher.py --config recipes/configs/teacher_ravdess.yaml\n"
            "  accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml\n"
            f'or ask it: pipeline("audio-emotion", model="{checkpoint}")'
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def teacher_outputs(run: str, accelerator: Accelerator, clips: ClipStream, emotions, dimensions) -> TeacherOutputs:
    """What the teacher says of the training clips: from its cross-fitted outputs, or of the teacher itself now."""
    if (Path(run) / "teacher_outputs").exists():
        return TeacherOutputs.load(Path(run) / "teacher_outputs")
    teacher = AutoModelForAudioClassification.from_pretrained(Path(run) / "checkpoints" / "last")
    teacher = teacher.to(accelerator.device).eval()
    size = 16 // accelerator.num_processes * accelerator.num_processes

    def judge(batch: Batch):
        return teacher(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    said = predict(accelerator, judge, batches(clips, 0, size, emotions, dimensions))
    return TeacherOutputs(
        said.ids,
        torch.from_numpy(said.logits),
        torch.from_numpy(said.dimensions),
        torch.from_numpy(said.embedding),
        torch.zeros(len(said.ids), dtype=torch.long),
        emotions,
        list(teacher.config.training_data),
    )


def standardised(embedding: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit deviation of every feature, teacher by teacher, `(N, D)`."""
    result = torch.empty_like(embedding)
    for number in teacher.unique():
        mine = embedding[teacher == number]
        result[teacher == number] = (mine - mine.mean(0)) / mine.std(0).clamp(min=1e-4)
    return result


SHARD = 4096  # rows shuffled together in memory
SCORES = ("uar", "accuracy", "ccc_activation", "ccc_valence", "ccc_dominance")

if __name__ == "__main__":
    main(parse_arguments(DistillArguments))
