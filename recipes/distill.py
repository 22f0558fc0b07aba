"""Distill teachers into a small student whose only input is log-mel frames.

    accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml

Flags override values of the file: `--seed 1`. Several teachers, each with its own classes:
`--teacher speech=runs/teacher_ravdess face=runs/face_teacher`.

Without a file, a teacher of the synthetic corpus is trained first, and then its student: about a minute on two cores.
`--labeled 0.1` lets the student use the labels of a tenth of the clips only.
"""

import runpy
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification, StudentEmotionModel
from audio_emotion.checkpoint_loading import loading_options
from audio_emotion.data.augmentation import AugmentationStrengths
from audio_emotion.data.dataset import Batch
from audio_emotion.data.feature_augmentation import mask_spectrogram
from audio_emotion.data.registry import select_speakers
from audio_emotion.data.training_set import (
    class_numbers,
    combine_licenses,
    labeled_clips,
    require_training_labels,
    training_data,
)
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.log_mel import LogMel, stack_frames
from audio_emotion.losses import supervised_terms
from audio_emotion.teachers.load import (
    find_checkpoint,
    find_teacher,
    load_teacher_outputs,
    teacher_augmentation,
    training_data_of_teachers,
)
from audio_emotion.teachers.outputs import version_id
from audio_emotion.training.arguments import TrainingArguments, argument_group, fraction, option, parse_arguments
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
from audio_emotion.training.loop import TrainingLoop
from audio_emotion.training.optim import gather_labels, gather_output
from audio_emotion.training.variance_calibration import write_calibrated

SYNTHETIC_TEACHER = "runs/teacher_synthetic"


@argument_group("training clips and labels")
class LabelArguments:
    """Which corpora and labels the student is trained on."""

    mix: list[str] = option([], "Other corpora to train on, NAME=WEIGHT: each clip is sampled WEIGHT times per epoch.")
    labeled: float = fraction(1.0, "Fraction of the labels that are used, 0 to 1; a random subset of the clips.")
    labeled_list: str = option("", "File with one clip id per line: use the labels of these clips instead.")
    labeled_weight: float = option(1.0, "Sampling weight of labeled clips: how often each is sampled per epoch.")
    unlabeled_weight: float = option(1.0, "Sampling weight of unlabeled clips; 0 excludes them.")


@argument_group("student")
class StudentArguments:
    """The architecture of the student."""

    trunk: str = option("tc-gru", "Trunk: tc-gru (of the paper) or convolutional.")
    size: str = option("small", "Size: nano, small or base.")
    level: str = option("absolute", "Level of the log-mel frames: absolute, or relative: independent of gain.")
    frames_per_step: int = option(4, "Number of 10 ms frames per step: 2, 4 or 8.")
    pooling: str = option("attentive", "Pooling over time: last (of the paper), statistics or attentive.")
    predict_variance: bool = option(False, "Also predict the variance of each dimension: `return_uncertainty`.")
    convolution: bool = option(True, "Time convolution before the GRU: Figure 1(B) of the paper; without, 1(A).")
    initial_model: str = option(
        "", "Checkpoint whose front end and trunk the student starts from, such as of pretrain_student.py."
    )


@argument_group("augmentation")
class AugmentationArguments:
    """Augmentation of the student's input; teachers receive clean audio, or with --consistent the same."""

    augment: float = fraction(0.0, "Probability of noise, reverberation, speed and gain, each; also masks frames.")
    telephone: float = fraction(0.0, "Probability of telephone bandwidth, 0 to 1.")
    pauses: float = fraction(0.0, "Probability of silence before or after the clip, 0 to 1.")
    augment_versions: int = option(0, "Number of cached augmented versions per clip; 0: augment anew in every epoch.")
    consistent: bool = option(
        True, "Train on the augmented versions for which the teachers have outputs, in place of --augment_versions."
    )
    cache: str = option("runs/cache", "Cache folder for log-mel statistics and augmented versions.")


@argument_group("distillation")
class DistillationArguments:
    """Teachers, and the weights of the distillation terms."""

    teacher: str | list[str] = option(
        [SYNTHETIC_TEACHER], "Runs, checkpoints, Hub ids or teacher outputs, NAME=TEACHER or TEACHER. '': labels only."
    )
    temperature: float = option(2.0, "Softmax temperature of teachers and student.")
    teacher_weights: list[float] = option([], "Weight of each teacher, in the order of --teacher. Empty: 1 each.")
    teacher_heads: str = option(
        "", "Heads: separate (one per teacher) or shared. Empty: separate for several teachers or other classes."
    )
    teacher_emotions_weight: float = option(1.0, "Weight of the divergence from the teacher's class probabilities.")
    teacher_dimensions_weight: float = option(1.0, "Weight of the CCC loss with the teacher's dimensions.")
    teacher_embedding_weight: float = option(1.0, "Weight of the squared error of the teacher's embedding.")
    teacher_contrastive_weight: float = option(1.0, "Weight of the InfoNCE loss with it; see --contrastive.")
    contrastive: list[str] = option([], "Names of teachers with InfoNCE in place of the squared error.")
    confidence: str = option("", "Clip weights by confidence: given, probability or entropy. Empty: equal weights.")
    agreement: bool = option(False, "Multiply clip weights by the agreement between teachers.")
    product_weight: float = option(0.0, "Weight of the divergence from the product of all teachers; 0: no such term.")
    product_fit: bool = option(False, "Fit the product's exponents on labeled clips, with cross-fitted teachers.")


@argument_group("run")
class DistillArguments(
    DistillationArguments, AugmentationArguments, StudentArguments, LabelArguments, TrainingArguments
):
    """Distill teachers into a small student."""

    output: str = option("runs/distill_synthetic", "Run folder: configuration, metrics, checkpoints, results.")
    learning_rate: float = option(2e-3, "Peak learning rate of the one-cycle schedule.")
    validate_every: int = option(5, "Number of epochs between validations.")


def main(args: DistillArguments) -> dict:
    """Train a student, test it and write the run folder; returns the contents of `results.json`."""
    sources = [name for name in ([args.teacher] if isinstance(args.teacher, str) else args.teacher) if name]
    missing = SYNTHETIC_TEACHER in sources and not (Path(SYNTHETIC_TEACHER) / "results.json").exists()
    plan = {
        "student": f"{args.size}, {args.trunk}",
        "teachers": ", ".join(sources) + (", to be trained first" if missing else "") or "none",
        "labels": f"{args.labeled:.0%} of the labeled clips" if not args.labeled_list else args.labeled_list,
    }
    for source in sources:
        if not (missing and source == SYNTHETIC_TEACHER):
            find_teacher(source)  # before the corpus is read
    accelerator, run = start_run(args, "Distill a student", plan)
    if run.finished is not None:
        return run.finished
    if missing:
        recipe = runpy.run_path(str(Path(__file__).with_name("train_teacher.py")))
        recipe["main"](recipe["TeacherArguments"](output=SYNTHETIC_TEACHER, corpus_count=args.corpus_count))

    # Data: training clips, their cached augmented versions, and the clips whose labels are used.
    data = ExperimentData(args, accelerator, run, args.mix)
    emotions, dimensions = data.emotions, data.dimensions
    rows = select_speakers(data.table, data.train_speakers)
    stream = data.clips(rows)
    strengths = augmentation_strengths(
        args.augment, telephone_probability=args.telephone, pause_probability=args.pauses
    )
    frame_cache, augment, versions = None, None, 1
    if args.consistent and (known := teacher_augmentation(sources))[1] > 1:
        strengths, versions = AugmentationStrengths(**known[0]), known[1]
        accelerator.print(f"Training on the {versions} versions of each clip for which the teachers have outputs")
    if args.augment_versions or versions > 1:
        default = StudentEmotionConfig()
        front_end = LogMel(default.num_mel_bins, default.sampling_rate, args.level)
        frame_cache = AugmentedFrameCache(
            args.cache, front_end, strengths, versions if versions > 1 else args.augment_versions
        )
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
    sampler = data.training_sampler(rows, labeled)
    if (args.labeled_weight, args.unlabeled_weight) != (1.0, 1.0):
        is_labeled = np.isin(rows["id"], sorted(labeled))
        sampler = sampler.with_sampling_weights(is_labeled, [args.unlabeled_weight, args.labeled_weight])

    # Teachers: outputs for clean audio, loaded or computed now.
    outputs = load_teacher_outputs(sources, accelerator, stream, emotions, dimensions, versions)
    labels = torch.from_numpy(class_numbers(rows, emotions, labeled)).repeat(versions)
    distillation = DistillationLoss.from_arguments(outputs, emotions, labels, args)
    with_used_label = rows.select([row for row, name in enumerate(rows["id"]) if name in labeled])
    require_training_labels(with_used_label, *distillation.without_teacher(emotions, dimensions))
    if distillation.target is not None:
        exponents = ", ".join(f"{name} {value:.2f}" for name, value in distillation.exponents.items())
        accelerator.print(f"Exponents of the product of teachers: {exponents}")
    initial = load_initial_model(args.initial_model) if args.initial_model else None
    seen = [*training_data_of_teachers(outputs), *(initial.config.training_data if initial else ())]
    trained_on = training_data(data.train_speakers, seen)
    contaminated_by = data.contaminated_by(trained_on)

    # Student.
    set_seed(args.seed)
    student = new_student(
        args,
        emotions=emotions,
        dimensions=dimensions,
        license=combine_licenses(
            [data.license, *(each.license for each in outputs.values()), initial.config.license if initial else None]
        ),
        dimensions_source=data.info.dimensions_source,
        training_data=trained_on,
        teacher_emotions={name: outputs[name].emotions for name in distillation.separate_heads} or None,
    )
    if initial:
        copy_trunk(initial, student)
    else:
        set_log_mel_statistics(student, stream, args.cache)
    model = StudentWithProjections(student, distillation.spaces)

    # Training.
    groups = [{"params": model.parameters(), "lr": args.learning_rate}]
    loop = TrainingLoop(args, data, model, groups, stream, sampler, "student")

    def write_best() -> None:
        write_checkpoint(student.without_teacher_heads(), run.path / "checkpoints" / "best")

    for batch in loop.batches(augment, waveforms=frame_cache is None):
        is_unlabeled = torch.tensor([name not in labeled for name in batch.ids])
        batch.labels[is_unlabeled], batch.dimension_labels[is_unlabeled] = -100, torch.nan
        with torch.no_grad():  # the front end has no trained parameters
            frames, lengths = compute_frames(student, batch, frame_cache, rows[0]["id"], loop.epoch)
            if args.augment:
                step = loop.step_number % sampler.steps
                seed = zlib.crc32(f"{args.seed}/{loop.epoch}/{step}/{accelerator.process_index}".encode())
                widths = {"time_width": 12 * args.frames_per_step, "frequency_width": frames.shape[-1] // 5}
                frames = mask_spectrogram(frames, lengths, seed, time_masks=1, frequency_masks=1, **widths)
            features, lengths = stack_frames(frames, lengths, args.frames_per_step)
        with accelerator.autocast():
            output, projected = loop.model(features, lengths)
        gather_output(accelerator, output)
        labels, ratings, weight = gather_labels(accelerator, batch)
        dimension_weights = student.config.dimension_weights
        terms = supervised_terms(output, labels, ratings, dimension_weights, weight, args.label_smoothing)
        names = [version_id(name, loop.epoch % versions) if name else name for name in batch.ids]
        teacher_terms, teacher_weights = distillation.compute_terms(
            names, output, projected, weight, dimension_weights, accelerator
        )
        loop.step(terms | teacher_terms, teacher_weights)
        if loop.epoch_ended:
            scores = predictions = None
            is_due = loop.epoch % args.validate_every == 0 or loop.epoch == args.epochs
            if is_due and "validation" in data.held_out:
                predictions = data.predict(student, data.held_out["validation"], 64)
                scores = data.score(predictions)
            loop.end_epoch(scores, partial(write_calibrated, student, predictions, write_best))
        loop.save_state()
    variance_scale = data.calibrate_variance(student, lambda rows: data.predict(student, rows, 64))
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
        **variance_scale,
    }
    results |= data.evaluate(lambda rows: data.predict(student, rows, 64), contaminated_by)
    finish_run(accelerator, run, results)
    accelerator.print(f'Predict with it: pipeline("audio-emotion", model="{checkpoint}")')
    if args.corpus == "synthetic":
        accelerator.print(
            "Next: no teacher (`--teacher '' --output runs/labels_only`), or real speech (recipes/README.md)."
        )
    return results


def clips_with_labels(rows: Dataset, dimensions: list[str]) -> list[str]:
    """Ids of the clips that have an emotion or a value of some dimension, in their order."""
    columns = [rows[name] for name in ("emotion", *dimensions)]
    named = zip(rows["id"], zip(*columns, strict=True), strict=True)
    return [name for name, values in named if any(value is not None for value in values)]


def new_student(args: DistillArguments, **facts) -> StudentEmotionForAudioClassification:
    """An untrained student; `facts` are fields of its configuration that corpus and teachers decide."""
    return StudentEmotionForAudioClassification(
        StudentEmotionConfig.of_size(
            args.size,
            trunk=args.trunk,
            level=args.level,
            frames_per_step=args.frames_per_step,
            pooling=args.pooling,
            predict_variance=args.predict_variance,
            dropout=args.dropout,
            **({} if args.convolution else {"convolution_size": 0}),
            **facts,
        )
    )


def load_initial_model(source: str) -> StudentEmotionModel:
    """The front end and the trunk of a student, from a run folder, a checkpoint or the Hub."""
    place = find_checkpoint(source)
    return StudentEmotionModel.from_pretrained(place, **loading_options(place))


def copy_trunk(initial: StudentEmotionModel, student: StudentEmotionForAudioClassification) -> None:
    """Copy the statistics of the front end and the parameters of the trunk.

    Raises:
        ValueError: for a model of another architecture, naming the fields that differ.
    """
    names = ("trunk", "num_mel_bins", "level", "frames_per_step", "pooling", "convolution_size", "hidden_size")
    fields = [*names, "convolution_kernel", "num_convolution_blocks", "num_gru_layers", "embedding_size"]
    pairs = {name: (getattr(initial.config, name), getattr(student.config, name)) for name in fields}
    if different := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
        described = ", ".join(f"{name} {new!r} instead of {old!r}" for name, (old, new) in different.items())
        raise ValueError(
            f"Expected a student of the architecture of `--initial_model`, got {described}. Pass the same "
            "architecture, or pretrain another student."
        )
    student.base_model.load_state_dict(initial.state_dict())


def compute_frames(
    student: StudentEmotionForAudioClassification,
    batch: Batch,
    frame_cache: AugmentedFrameCache | None,
    padding: str,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Normalized log-mel frames `(B, T, M)` and their number `(B,)`, from waveforms or of an epoch from the cache.

    `padding` is the id of a clip whose frames fill the batch up, at weight 0.
    """
    device = student.device
    if frame_cache is None:
        return student.student.frames(batch.input_values.to(device), batch.attention_mask.to(device))
    frames, lengths = (each.to(device) for each in frame_cache.batch([name or padding for name in batch.ids], epoch))
    return student.student.log_mel.normalize(frames, lengths), lengths


if __name__ == "__main__":
    main(parse_arguments(DistillArguments))
