"""Distill teachers into a small student whose only input is log-mel frames.

    accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml

Flags override values of the file: `--seed 1`. Several teachers, each with its own classes:
`--teacher speech=runs/teacher_ravdess face=runs/face_teacher`.

Without a file, a teacher of the synthetic corpus is trained first, and then its student: about a minute on two cores.
`--labeled 0.1` lets the student use the labels of a tenth of the clips only.
"""

import runpy
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from huggingface_hub.dataclasses import strict
from torch import Tensor

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.data.augmentation import mask_spectrogram
from audio_emotion.data.dataset import Batch
from audio_emotion.data.registry import select_speakers
from audio_emotion.data.training_set import combine_licenses, labeled_clips, training_data
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.layers import LogMel
from audio_emotion.losses import supervised_terms
from audio_emotion.teachers.load import load_teacher_outputs, training_data_of_teachers
from audio_emotion.training.arguments import TrainingArguments, parse_arguments
from audio_emotion.training.distillation import DistillationLoss, StudentWithProjections
from audio_emotion.training.experiment import (
    ExperimentData,
    augmentation_strengths,
    finish_run,
    seeded_augmentation,
    start_run,
)
from audio_emotion.training.feature_cache import AugmentedFrameCache
from audio_emotion.training.feature_statistics import set_log_mel_statistics
from audio_emotion.training.loop import TrainingLoop, supervised_weights
from audio_emotion.training.optim import gather_labels, gather_output, one_cycle

SYNTHETIC_TEACHER = "runs/teacher_synthetic"


@strict
@dataclass(kw_only=True)
class LabelArguments:
    """Which corpora and labels the student is trained on."""

    group: ClassVar[str] = "training clips and labels"

    mix: list[str] = field(
        default_factory=list,
        metadata={"help": "Other corpora to train on, NAME=WEIGHT: each clip is sampled WEIGHT times per epoch."},
    )
    labeled: float = field(
        default=1.0, metadata={"help": "Fraction of the labels that are used, 0 to 1; a random subset of the clips."}
    )
    labeled_list: str = field(
        default="", metadata={"help": "File with one clip id per line: use the labels of these clips instead."}
    )
    labeled_weight: float = field(
        default=1.0, metadata={"help": "Sampling weight of labeled clips: how often each is sampled per epoch."}
    )
    unlabeled_weight: float = field(
        default=1.0, metadata={"help": "Sampling weight of unlabeled clips; 0 excludes them."}
    )


@strict
@dataclass(kw_only=True)
class StudentArguments:
    """The architecture of the student."""

    group: ClassVar[str] = "student"

    trunk: str = field(default="tc-gru", metadata={"help": "Trunk: tc-gru (of the paper) or convolutional."})
    size: str = field(default="small", metadata={"help": "Size: nano, small or base."})
    level: str = field(
        default="absolute",
        metadata={"help": "Level of the log-mel frames: absolute, or relative, which is independent of gain."},
    )
    frames_per_step: int = field(default=4, metadata={"help": "Number of 10 ms frames per step: 2, 4 or 8."})
    pooling: str = field(
        default="attentive", metadata={"help": "Pooling over time: last (of the paper), statistics or attentive."}
    )
    convolution: bool = field(
        default=True, metadata={"help": "Time convolution before the GRU: Figure 1(B) of the paper; without, 1(A)."}
    )


@strict
@dataclass(kw_only=True)
class AugmentationArguments:
    """Augmentation of the student's input; teachers receive clean audio."""

    group: ClassVar[str] = "augmentation"

    augment: float = field(
        default=0.0, metadata={"help": "Probability of noise, reverberation, speed and gain, each; also masks frames."}
    )
    telephone: float = field(default=0.0, metadata={"help": "Probability of telephone bandwidth, 0 to 1."})
    pauses: float = field(default=0.0, metadata={"help": "Probability of silence before or after the clip, 0 to 1."})
    augment_versions: int = field(
        default=0, metadata={"help": "Number of cached augmented versions per clip; 0: augment anew in every epoch."}
    )
    cache: str = field(
        default="runs/cache", metadata={"help": "Cache folder for log-mel statistics and augmented versions."}
    )


@strict
@dataclass(kw_only=True)
class DistillationArguments:
    """Teachers, and the weights of the distillation terms."""

    group: ClassVar[str] = "distillation"

    teacher: str | list[str] = field(
        default_factory=lambda: [SYNTHETIC_TEACHER],
        metadata={"help": "Run folders or folders of teacher outputs, NAME=FOLDER or FOLDER. '': labels only."},
    )
    temperature: float = field(default=2.0, metadata={"help": "Softmax temperature of teachers and student."})
    teacher_weights: list[float] = field(
        default_factory=list, metadata={"help": "Weight of each teacher, in the order of --teacher. Empty: 1 each."}
    )
    teacher_heads: str = field(
        default="",
        metadata={
            "help": "separate: one head of the student per teacher; shared: the student's own head. Empty: separate "
            "if there are several teachers or other classes."
        },
    )
    teacher_emotions_weight: float = field(
        default=1.0, metadata={"help": "Weight of the divergence from the teacher's class probabilities."}
    )
    teacher_dimensions_weight: float = field(
        default=1.0, metadata={"help": "Weight of the CCC loss with the teacher's dimensions."}
    )
    teacher_embedding_weight: float = field(
        default=1.0, metadata={"help": "Weight of the squared error of the teacher's embedding."}
    )
    teacher_contrastive_weight: float = field(
        default=1.0, metadata={"help": "Weight of the InfoNCE loss with the teacher's embedding; see --contrastive."}
    )
    contrastive: list[str] = field(
        default_factory=list, metadata={"help": "Names of teachers with InfoNCE in place of the squared error."}
    )
    confidence: str = field(
        default="",
        metadata={"help": "Clip weights by teacher confidence: given, probability or entropy. Empty: equal weights."},
    )
    agreement: bool = field(
        default=False, metadata={"help": "Multiply clip weights by the agreement between teachers."}
    )
    product_weight: float = field(
        default=0.0, metadata={"help": "Weight of the divergence from the product of all teachers; 0: no such term."}
    )
    product_fit: bool = field(
        default=False,
        metadata={"help": "Fit the exponents of the product on labeled clips; requires cross-fitted teachers."},
    )


@strict
@dataclass(kw_only=True)
class DistillArguments(
    DistillationArguments, AugmentationArguments, StudentArguments, LabelArguments, TrainingArguments
):
    """Distill teachers into a small student."""

    group: ClassVar[str] = "run"

    output: str = field(
        default="runs/distill_synthetic",
        metadata={"help": "Run folder: configuration, metrics, checkpoints, results."},
    )
    learning_rate: float = field(default=2e-3, metadata={"help": "Peak learning rate of the one-cycle schedule."})
    validate_every: int = field(default=5, metadata={"help": "Number of epochs between validations."})


def main(args: DistillArguments) -> dict:
    """Train a student, test it and write the run folder; returns the contents of `results.json`."""
    sources = [name for name in ([args.teacher] if isinstance(args.teacher, str) else args.teacher) if name]
    missing = SYNTHETIC_TEACHER in sources and not (Path(SYNTHETIC_TEACHER) / "results.json").exists()
    plan = {
        "student": f"{args.size}, {args.trunk}",
        "teachers": ", ".join(sources) + (", to be trained first" if missing else "") or "none",
        "labels": f"{args.labeled:.0%} of the labeled clips" if not args.labeled_list else args.labeled_list,
    }
    accelerator, run = start_run(args, "Distill a student", plan)
    if run.finished is not None:
        return run.finished
    if missing:
        train_synthetic_teacher(args)

    # Data: training clips, their cached augmented versions, and the clips whose labels are used.
    data = ExperimentData(args, accelerator, run, args.mix)
    emotions, dimensions = data.emotions, data.dimensions
    rows = select_speakers(data.table, data.train_speakers)
    stream = data.clips(rows)
    strengths = augmentation_strengths(
        args.augment, telephone_probability=args.telephone, pause_probability=args.pauses
    )
    frame_cache, augment = None, None
    if args.augment_versions:
        default = StudentEmotionConfig()
        front_end = LogMel(default.num_mel_bins, default.sampling_rate, args.level)
        frame_cache = AugmentedFrameCache(args.cache, front_end, strengths, args.augment_versions)
        with accelerator.main_process_first():
            frame_cache.fill(stream)
            frame_cache.refresh()
        rows = rows.select([row for row, name in enumerate(rows["id"]) if name in frame_cache])
        stream, excluded = data.clips(rows), stream.quarantine
        stream.quarantine |= excluded
    elif args.augment or args.telephone or args.pauses:
        augment = seeded_augmentation(strengths, args.seed)
    with_label = clips_with_labels(rows, dimensions)
    candidates = rows["id"] if args.labeled_list else with_label
    labeled = labeled_clips(candidates, args.labeled, args.labeled_list, args.seed).intersection(with_label)
    accelerator.print(f"{len(labeled)} of {len(with_label)} labels used, of {len(rows)} training clips")
    sampler = data.training_sampler(rows)
    if (args.labeled_weight, args.unlabeled_weight) != (1.0, 1.0):
        is_labeled = np.isin(rows["id"], sorted(labeled))
        sampler = sampler.with_sampling_weights(is_labeled, args.labeled_weight, args.unlabeled_weight)

    # Teachers: outputs for clean audio, loaded or computed now.
    outputs = load_teacher_outputs(sources, accelerator, stream, emotions, dimensions)
    labels = class_numbers(rows, emotions, labeled)
    distillation = DistillationLoss.from_arguments(outputs, emotions, labels, args)
    if distillation.target is not None:
        exponents = ", ".join(f"{name} {value:.2f}" for name, value in distillation.exponents.items())
        accelerator.print(f"Exponents of the product of teachers: {exponents}")
    trained_on = training_data(data.train_speakers, training_data_of_teachers(outputs))
    contaminated_by = data.contaminated_by(trained_on)

    # Student.
    set_seed(args.seed)
    student = new_student(
        args,
        emotions=emotions,
        dimensions=dimensions,
        license=combine_licenses([data.license, *(each.license for each in outputs.values())]),
        dimensions_source=data.info.dimensions_source,
        training_data=trained_on,
        teacher_emotions={name: outputs[name].emotions for name in distillation.separate_heads} or None,
    )
    set_log_mel_statistics(student, stream, args.cache)
    model = StudentWithProjections(student, distillation.spaces)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    schedule = one_cycle(optimizer, args.epochs * sampler.steps)
    accelerator.free_memory()  # of the teacher that may have been trained first
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)

    # Training.
    set_seed(args.seed)
    loop = TrainingLoop(args, data, model, optimizer, schedule, stream, sampler, "student")
    for batch in loop.batches(augment, waveforms=frame_cache is None):
        model.train()
        is_unlabeled = torch.tensor([name not in labeled for name in batch.ids])
        batch.labels[is_unlabeled], batch.dimension_labels[is_unlabeled] = -100, torch.nan
        with torch.no_grad():  # the front end has no trained parameters
            features, lengths = compute_features(student, batch, frame_cache, rows[0]["id"], loop.epoch)
            if args.augment:
                step = loop.step_number % sampler.steps
                seed = zlib.crc32(f"{args.seed}/{loop.epoch}/{step}/{accelerator.process_index}".encode())
                features = mask_spectrogram(features, lengths, seed, 1, 12, 0.2, 1, 16)
        with accelerator.autocast():
            output, projected = model(features, lengths)
        gather_output(accelerator, output)
        labels, ratings, weight = gather_labels(accelerator, batch)
        dimension_weights = student.config.dimension_weights
        terms = supervised_terms(output, labels, ratings, dimension_weights, weight, args.label_smoothing)
        weights = supervised_weights(args, terms)
        teacher_terms, teacher_weights = distillation.compute_terms(
            batch.ids, output, projected, weight, dimension_weights, accelerator
        )
        loop.step(terms | teacher_terms, weights | teacher_weights)
        if loop.epoch_ended:
            scores = None
            is_due = loop.epoch % args.validate_every == 0 or loop.epoch == args.epochs
            if is_due and "validation" in data.held_out:
                scores = data.score(data.predict(student, data.held_out["validation"], 64))
            loop.end_epoch(
                scores, lambda: write_checkpoint(student.without_teacher_heads(), run.path / "checkpoints" / "best")
            )
        loop.save_state()
    checkpoint = run.path / "checkpoints" / "last"
    if accelerator.is_main_process:  # before the test, which unreadable clips may stop
        write_checkpoint(student.without_teacher_heads(), checkpoint)

    # Test.
    results = {
        "recipe": "distill",
        "model": f"{args.size}, {'distilled' if outputs else 'labels only'}",
        "trunk": args.trunk,
        "teachers": distillation.exponents,  # by name
        "protocol": args.protocol or args.corpus,
        "seed": args.seed,
        "labeled": len(labeled) / max(1, len(with_label)),
        "parameters": student.without_teacher_heads().num_parameters(),
        "train_speakers": sorted(data.train_speakers),
        "contaminated_by": contaminated_by,
    }
    results |= data.evaluate(lambda rows: data.predict(student, rows, 64), contaminated_by)
    finish_run(accelerator, run, results)
    accelerator.print(f"Student: {checkpoint}")
    if args.corpus == "synthetic":
        accelerator.print(next_steps(args, checkpoint))
    return results


def train_synthetic_teacher(args: DistillArguments) -> None:
    """Train the teacher of the synthetic corpus that the default arguments distill."""
    recipe = runpy.run_path(str(Path(__file__).with_name("train_teacher.py")))
    recipe["main"](recipe["TeacherArguments"](output=SYNTHETIC_TEACHER, corpus_count=args.corpus_count))


def clips_with_labels(rows: Dataset, dimensions: list[str]) -> list[str]:
    """Ids of the clips that have an emotion or a value of some dimension, in their order."""
    columns = [rows[name] for name in ("emotion", *dimensions)]
    named = zip(rows["id"], zip(*columns, strict=True), strict=True)
    return [name for name, values in named if any(value is not None for value in values)]


def class_numbers(rows: Dataset, emotions: list[str], labeled: set[str]) -> Tensor:
    """Class number of each clip `(N,)`; -100 without a label, or if it is not used."""
    named = zip(rows["id"], rows["emotion"], strict=True)
    numbers = [emotions.index(label) if label is not None and name in labeled else -100 for name, label in named]
    return torch.tensor(numbers)


def new_student(args: DistillArguments, **facts) -> StudentEmotionForAudioClassification:
    """An untrained student; `facts` are fields of its configuration that corpus and teachers decide."""
    return StudentEmotionForAudioClassification(
        StudentEmotionConfig.of_size(
            args.size,
            trunk=args.trunk,
            level=args.level,
            frames_per_step=args.frames_per_step,
            pooling=args.pooling,
            dropout=args.dropout,
            **({} if args.convolution else {"convolution_size": 0}),
            **facts,
        )
    )


def compute_features(
    student: StudentEmotionForAudioClassification,
    batch: Batch,
    frame_cache: AugmentedFrameCache | None,
    padding: str,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Normalized steps `(B, T, F)` and their number `(B,)`, from waveforms or cached frames.

    Args:
        student: the student.
        batch: clips of this process.
        frame_cache: cached frames; None to compute them from the waveforms.
        padding: id of a clip whose frames fill the batch up, at weight 0.
        epoch: decides the augmented version.
    """
    device = student.device
    if frame_cache is None:
        return student.student.features(batch.input_values.to(device), batch.attention_mask.to(device))
    frames, lengths = frame_cache.batch([name or padding for name in batch.ids], epoch)
    return student.student.features_from_frames(frames.to(device), lengths.to(device))


def next_steps(args: DistillArguments, checkpoint: Path) -> str:
    """Commands to try after the synthetic corpus."""
    return (
        "Next, the same student without its teacher:\n"
        "  accelerate launch recipes/distill.py --teacher '' --output runs/labels_only_synthetic "
        f"--labeled {args.labeled}\n"
        "or real speech, with RAVDESS in $AUDIO_EMOTION_DATA/ravdess:\n"
        "  accelerate launch recipes/train_teacher.py --config recipes/configs/teacher_ravdess.yaml\n"
        "  accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml\n"
        f'or predict with it: pipeline("audio-emotion", model="{checkpoint}")'
    )


if __name__ == "__main__":
    main(parse_arguments(DistillArguments))
