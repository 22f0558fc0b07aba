"""Distil teachers into a small student that sees nothing but log-mel frames.

    accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml

Several teachers, each in its own classes: `--teacher speech=runs/teacher_ravdess face=runs/face_teacher`.

A flag after the file replaces one of its values: `--seed 1`. Without a file a student learns the synthetic corpus from
a teacher that is trained first: about a minute on two cores. `--labeled 0.1` leaves it the labels of a tenth of the
clips.
"""

import runpy
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation, mask_spectrogram
from audio_emotion.data.collate import Batch, batches
from audio_emotion.data.label_subset import labeled_clips
from audio_emotion.data.mixture import combine_licenses, training_data
from audio_emotion.data.registry import select_speakers
from audio_emotion.evaluation.predictions import predict, save_predictions
from audio_emotion.evaluation.report import headline, measure, selection_score
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.layers import LogMel
from audio_emotion.losses import supervised_terms
from audio_emotion.teachers.load import load_teacher_outputs, training_data_of_teachers
from audio_emotion.training.arguments import RunArguments, parse_arguments
from audio_emotion.training.distillation import DistillationLoss, StudentWithProjections
from audio_emotion.training.experiment import ExperimentData, begin
from audio_emotion.training.feature_cache import AugmentedFrames, set_log_mel_statistics
from audio_emotion.training.optim import gather_output, gathered, one_cycle
from audio_emotion.training.trainer_state import Resume

SYNTHETIC_TEACHER = "runs/teacher_synthetic"


@strict
@dataclass(kw_only=True)
class DistillArguments(RunArguments):
    """What one run needs."""

    output: str = field(default="runs/distill_synthetic", metadata={"help": "Run folder."})
    teacher: str | list[str] = field(
        default_factory=lambda: [SYNTHETIC_TEACHER],
        metadata={"help": "Run folders or folders of outputs, NAME=FOLDER or FOLDER; '' for labels only."},
    )
    mix: list[str] = field(default_factory=list, metadata={"help": "Other corpora to train on: crema-d=0.5."})
    labeled: float = field(default=1.0, metadata={"help": "Share of the labels that are used, drawn at random."})
    labeled_list: str = field(default="", metadata={"help": "File with a clip id a line: they are used instead."})
    labeled_weight: float = field(default=1.0, metadata={"help": "How often an epoch draws each labeled clip."})
    unlabeled_weight: float = field(
        default=1.0,
        metadata={"help": "And each of the others; 0 where no teacher speaks of them: they teach nothing."},
    )
    trunk: str = field(default="tc-gru", metadata={"help": "tc-gru (the paper's) or convolutional."})
    size: str = field(default="small", metadata={"help": "nano, small or base."})
    level: str = field(default="absolute", metadata={"help": "absolute, or relative: no gain changes an answer."})
    frames_per_step: int = field(default=4, metadata={"help": "10 ms frames in a step: 2, 4 or 8."})
    pooling: str = field(default="attentive", metadata={"help": "last (the paper's), statistics or attentive."})
    convolution: bool = field(default=True, metadata={"help": "Figure 1(B); without it, 1(A). TC-GRU."})
    augment: float = field(default=0.0, metadata={"help": "0..1: how often noise, reverberation, speed, gain, masks."})
    telephone: float = field(default=0.0, metadata={"help": "0..1: how often the narrow band of a telephone."})
    pauses: float = field(default=0.0, metadata={"help": "0..1: how often silence before the clip or after it."})
    augment_versions: int = field(
        default=0, metadata={"help": "Versions of each clip that are made once and kept; 0: anew in each epoch."}
    )
    cache: str = field(default="runs/cache", metadata={"help": "Where they are kept."})
    epochs: int = field(default=20, metadata={"help": "Passes over the training clips."})
    learning_rate: float = field(default=2e-3, metadata={"help": "Peak of a one-cycle schedule."})
    temperature: float = field(default=2.0, metadata={"help": "Softening of teacher and student."})
    teacher_weights: list[float] = field(default_factory=list, metadata={"help": "One a teacher; else 1 each."})
    teacher_heads: str = field(
        default="",
        metadata={"help": "shared: teachers speak to the student's head; own: a head each; '': own if need be."},
    )
    confidence: str = field(default="", metadata={"help": "Weigh clips by it: given, probability, entropy; '': not."})
    agreement: bool = field(default=False, metadata={"help": "Weigh clips by how far the teachers agree."})
    contrastive: list[str] = field(
        default_factory=list, metadata={"help": "Teachers whose embedding is told apart (InfoNCE), not reproduced."}
    )
    teacher_embedding_weight: float = field(default=1.0, metadata={"help": "Weight of the embedding term."})
    teacher_emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the divergence."})
    teacher_dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC with the teacher."})
    teacher_contrastive_weight: float = field(default=1.0, metadata={"help": "Weight of the InfoNCE term."})
    product_weight: float = field(
        default=0.0, metadata={"help": "Weight of the divergence from all teachers' product."}
    )
    product_fit: bool = field(
        default=False,
        metadata={"help": "Fit the teachers' exponents in it on the labeled clips; cross-fitted teachers."},
    )
    validate_every: int = field(default=5, metadata={"help": "Epochs between validations."})


def main(args: DistillArguments) -> dict:
    """Distil, test and write the run folder; returns what stands in `results.json`."""
    accelerator, run = begin(args)
    if run.finished is not None:
        return run.finished
    folders = [name for name in ([args.teacher] if isinstance(args.teacher, str) else args.teacher) if name]
    if SYNTHETIC_TEACHER in folders and not (Path(SYNTHETIC_TEACHER) / "results.json").exists():
        accelerator.print("No teacher of the synthetic corpus yet: training one with recipes/train_teacher.py.")
        recipe = runpy.run_path(str(Path(__file__).with_name("train_teacher.py")))
        recipe["main"](recipe["TeacherArguments"](output=SYNTHETIC_TEACHER, corpus_count=args.corpus_count))

    # Who trains, who validates, who is tested; whose labels are used.
    setting = ExperimentData(args, accelerator, run, args.mix)
    info, emotions, dimensions = setting.info, setting.emotions, setting.dimensions
    train_speakers, held_out = setting.train_speakers, setting.held_out
    training_rows = select_speakers(setting.table, train_speakers)

    stream = setting.clips(training_rows)
    often = dict.fromkeys(("noise", "reverberation", "speed", "gain"), args.augment)
    strengths = AugmentationStrengths(
        snr=(10.0, 35.0),
        telephone_probability=args.telephone,
        pause_probability=args.pauses,
        **{f"{name}_probability": share for name, share in often.items()},
    )
    augmentation = WaveformAugmentation(strengths)
    changed = args.augment or args.telephone or args.pauses
    versions = None
    if args.augment_versions:
        default = StudentEmotionConfig()
        front_end = LogMel(default.num_mel_bins, default.sampling_rate, args.level)
        versions = AugmentedFrames(args.cache, front_end, strengths, args.augment_versions)
        with accelerator.main_process_first():
            versions.fill(stream)
            versions.read()
        training_rows = training_rows.select([row for row, name in enumerate(training_rows["id"]) if name in versions])
        stream, left_out = setting.clips(training_rows), stream.quarantine
        stream.quarantine |= left_out
    known = clips_with_labels(training_rows, dimensions)
    among = training_rows["id"] if args.labeled_list else known
    labeled = labeled_clips(among, args.labeled, args.labeled_list, args.seed).intersection(known)
    accelerator.print(f"{len(labeled)} of {len(known)} labels used, of {len(training_rows)} training clips")
    order = setting.training_order(training_rows)
    if (args.labeled_weight, args.unlabeled_weight) != (1.0, 1.0):
        is_labeled = np.isin(training_rows["id"], sorted(labeled))
        order = order.with_sampling_weights(is_labeled, args.labeled_weight, args.unlabeled_weight)

    # The teachers have spoken, cross-fitted, or speak now; they hear clean audio.
    said = load_teacher_outputs(folders, accelerator, stream, emotions, dimensions)
    named = zip(training_rows["id"], training_rows["emotion"], strict=True)
    classes = [emotions.index(its) if its is not None and name in labeled else -100 for name, its in named]
    teaching = DistillationLoss.of(said, emotions, torch.tensor(classes), args)
    if teaching.target is not None:
        accelerator.print("product: " + ", ".join(f"{name} ^ {each:.2f}" for name, each in teaching.exponents.items()))
    heard = training_data(train_speakers, training_data_of_teachers(said))
    contaminated_by = setting.contaminated_by(heard)

    set_seed(args.seed)
    student = new_student(
        args,
        emotions=emotions,
        dimensions=dimensions,
        license=combine_licenses([setting.license, *(outputs.license for outputs in said.values())]),
        dimensions_source=info.dimensions_source,
        training_data=heard,
        teacher_emotions={name: said[name].emotions for name in teaching.separate_heads} or None,
    )
    set_log_mel_statistics(student, stream)
    apprentice = StudentWithProjections(student, teaching.spaces)
    optimizer = torch.optim.AdamW(apprentice.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    steps = args.epochs * order.steps
    schedule = one_cycle(optimizer, steps)
    accelerator.free_memory()  # of a teacher that was trained first
    apprentice, optimizer, schedule = accelerator.prepare(apprentice, optimizer, schedule)

    def augment(waveform, name: str, epoch: int):
        # Seeded by clip and epoch, so that the same clip sounds the same on one process and on two.
        seed = zlib.crc32(f"{args.seed}/{epoch}/{name}".encode())
        return augmentation(torch.as_tensor(waveform), seed).numpy()

    def ask(rows):
        student.eval()
        order = setting.reading_order(rows, 64)

        def judge(batch: Batch):
            return student(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

        clips = setting.clips(rows)
        answers = predict(accelerator, judge, batches(clips, order, emotions, dimensions))
        setting.gather_quarantine(clips)
        return answers

    # The loop.
    set_seed(args.seed)
    resume = Resume(accelerator, run.path / "state", args.save_every)
    progress = resume.load()
    stream.quarantine |= progress.quarantine
    bar = tqdm(total=steps, initial=progress.step, desc="student", disable=not accelerator.is_local_main_process)
    each = batches(
        stream,
        order,
        emotions,
        dimensions,
        args.epochs,
        progress.step,
        augment if changed and versions is None else None,
        waveforms=versions is None,
    )
    for batch in each:
        epoch, step = divmod(progress.step, order.steps)
        apprentice.train()
        hidden = torch.tensor([name not in labeled for name in batch.ids])
        batch.labels[hidden], batch.dimension_labels[hidden] = -100, torch.nan
        with torch.no_grad():  # the front end has nothing to learn
            if versions is None:
                features, lengths = student.student.features(
                    batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device)
                )
            else:
                frames, lengths = versions.batch([name or training_rows[0]["id"] for name in batch.ids], epoch)
                features, lengths = student.student.features_of_frames(
                    frames.to(accelerator.device), lengths.to(accelerator.device)
                )
            if args.augment:
                seed = zlib.crc32(f"{args.seed}/{epoch}/{step}/{accelerator.process_index}".encode())
                features = mask_spectrogram(features, lengths, seed, 1, 12, 0.2, 1, 16)
        with accelerator.autocast():
            output, projected = apprentice(features, lengths)
        gather_output(accelerator, output)
        labels, ratings, weight = (
            gathered(accelerator, each.to(accelerator.device))
            for each in (batch.labels, batch.dimension_labels, batch.weight)
        )
        terms = supervised_terms(
            output, labels, ratings, student.config.dimension_weights, weight, args.label_smoothing
        )
        scale = {name: getattr(args, f"{name}_weight") for name in terms}
        taught, importance = teaching.terms(
            batch.ids, output, projected, weight, student.config.dimension_weights, accelerator
        )
        terms |= taught
        scale |= importance
        loss = sum(scale[name] * term for name, term in terms.items())
        accelerator.backward(loss * accelerator.num_processes)
        accelerator.clip_grad_norm_(apprentice.parameters(), 1.0)
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
            if "validation" in held_out and ((epoch + 1) % args.validate_every == 0 or epoch + 1 == args.epochs):
                scores = measure(ask(held_out["validation"]), emotions, dimensions, info.dimensions_source, 0)
                means |= {f"validation_{key}": round(value, 4) for key, value in headline(scores, dimensions).items()}
                bar.set_postfix({key: means[key] for key in ("validation_uar",) if key in means})
                if selection_score(scores, dimensions) > progress.best:
                    progress.best = selection_score(scores, dimensions)
                    if accelerator.is_main_process:
                        write_checkpoint(student.without_teachers(), run.path / "checkpoints" / "best")
            setting.gather_quarantine(stream)
            run.log(epoch=epoch + 1, **means)
            accelerator.log(means, step=epoch + 1)
        resume.save(progress, last=progress.step == steps)
    bar.close()
    setting.gather_quarantine(stream)
    if accelerator.is_main_process:  # before the test, which broken clips may stop
        write_checkpoint(student.without_teachers(), run.path / "checkpoints" / "last")

    results = {
        "recipe": "distill",
        "model": f"{args.size}, {'distilled' if said else 'labels only'}",
        "trunk": args.trunk,
        "teachers": teaching.exponents,  # and their exponents in the product
        "split": args.split or args.corpus,
        "seed": args.seed,
        "labeled": len(labeled) / max(1, len(known)),
        "parameters": student.without_teachers().num_parameters(),
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
        accelerator.print(f"{side}{mark}: " + ", ".join(f"{key} {value:.3f}" for key, value in scores))
    run.results(results)
    checkpoint = run.path / "checkpoints" / "last"
    accelerator.print(f"Student: {checkpoint}")
    if args.corpus == "synthetic":
        accelerator.print(
            "Next, the same student without its teacher:\n"
            "  accelerate launch recipes/distill.py --teacher '' --output runs/labels_only_synthetic "
            f"--labeled {args.labeled}\n"
            "or on real speech, with RAVDESS in $AUDIO_EMOTION_DATA/ravdess:\n"
            "  accelerate launch recipes/train_teacher.py --config recipes/configs/teacher_ravdess.yaml\n"
            "  accelerate launch recipes/distill.py --config recipes/configs/distill_ravdess.yaml\n"
            f'or ask it: pipeline("audio-emotion", model="{checkpoint}")'
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def clips_with_labels(rows: Dataset, dimensions: list[str]) -> list[str]:
    """Ids of the clips that have an emotion or a value of some dimension, in their order."""
    columns = [rows[name] for name in ("emotion", *dimensions)]
    named = zip(rows["id"], zip(*columns, strict=True), strict=True)
    return [name for name, values in named if any(value is not None for value in values)]


def new_student(args: DistillArguments, **facts) -> StudentEmotionForAudioClassification:
    """The student of some arguments, which has learned nothing; `facts` are of the corpus and the teachers."""
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


if __name__ == "__main__":
    main(parse_arguments(DistillArguments))
