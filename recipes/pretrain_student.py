"""Pretrain a student on speech without labels: its frames regress the lower layers of a pretrained encoder.

    accelerate launch recipes/pretrain_student.py --config recipes/configs/pretrain_student.yaml

Flags override values of the file: `--seed 1`. `recipes/distill.py --initial_model <run>/checkpoints/last` then trains
the student on labels and teachers. Labels are not used here; held-out speakers are not trained on, and the explained
variance of the states of their clips is reported.
"""

import torch
from accelerate.utils import set_seed
from datasets import Dataset

from audio_emotion import FusedEmotionForAudioClassification, StudentEmotionConfig, StudentEmotionModel
from audio_emotion.data.dataset import batches
from audio_emotion.data.registry import select_speakers
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.training_set import training_data
from audio_emotion.log_mel import LogMel
from audio_emotion.teachers.load import public_source
from audio_emotion.training.arguments import (
    TrainingArguments,
    WaveformAugmentationArguments,
    argument_group,
    option,
    parse_arguments,
)
from audio_emotion.training.experiment import ExperimentData, finish_run, start_run, waveform_augmentation
from audio_emotion.training.feature_cache import AugmentedFrameCache, EncoderStateCache
from audio_emotion.training.feature_statistics import (
    set_layer_statistics,
    set_log_mel_statistics,
    statistics_sample,
)
from audio_emotion.training.loop import TrainingLoop
from audio_emotion.training.optim import gather_with_gradient
from audio_emotion.training.state_regression import StateRegression


@argument_group("student")
class PretrainedStudentArguments:
    """The architecture of the student, and the encoder whose states it regresses."""

    encoder: str = option("openai/whisper-tiny.en", "Encoder: Hub id or folder.")
    layers: list[int] = option([1, 2], "Indices of the hidden states that the student regresses.")
    trunk: str = option("tc-gru", "Trunk: tc-gru (of the paper) or convolutional.")
    size: str = option("small", "Size: nano, small or base.")
    level: str = option("relative", "Level of the log-mel frames: absolute, or relative: independent of gain.")
    frames_per_step: int = option(8, "Number of 10 ms frames per step: 2, 4 or 8.")
    pooling: str = option(
        "statistics", "Pooling over time, not trained here: last (of the paper), statistics or attentive."
    )


@argument_group("run")
class PretrainArguments(PretrainedStudentArguments, WaveformAugmentationArguments, TrainingArguments):
    """Pretrain a student on the states of an encoder."""

    output: str = option("runs/pretrained_student", "Run folder: configuration, metrics, checkpoints, results.")
    mix: list[str] = option([], "Other corpora to train on, NAME=WEIGHT: each clip is sampled WEIGHT times per epoch.")
    cache: str = option("runs/cache", "Cache folder for encoder states and log-mel frames.")


def main(args: PretrainArguments) -> dict:
    """Pretrain a student and write the run folder; returns the contents of `results.json`."""
    plan = {"student": f"{args.size}, {args.trunk}", "encoder": f"{args.encoder}, layers {args.layers}"}
    accelerator, run = start_run(args, "Pretrain a student", plan)
    if run.finished is not None:
        return run.finished

    # Data: states of the encoder and log-mel frames of every version of each clip.
    data = ExperimentData(args, accelerator, run, args.mix)
    clips = data.clips(select_speakers(data.table, data.train_speakers))
    encoder = encoder_of_student(args, data).to(accelerator.device)
    strengths = waveform_augmentation(args)
    versions = args.augment_versions if args.augment else 1
    state_caches = [EncoderStateCache(args.cache, encoder)]
    state_caches += [EncoderStateCache(args.cache, encoder, strengths, version) for version in range(1, versions)]
    default = StudentEmotionConfig()
    front_end = LogMel(default.num_mel_bins, default.sampling_rate, args.level)
    frame_cache = AugmentedFrameCache(args.cache, front_end, strengths, versions)
    everything = data.clips(data.table)  # held-out clips, too: their states are explained at the end
    with accelerator.main_process_first():
        state_caches[0].fill(everything)
        for cache in (*state_caches[1:], frame_cache):
            cache.fill(clips)
        for cache in (*state_caches, frame_cache):
            cache.refresh()
    data.quarantine |= everything.quarantine | clips.quarantine
    data.keep(state_caches[0].__contains__)
    rows = select_speakers(data.table, data.train_speakers)
    sample = [rows[row]["id"] for row in statistics_sample(len(rows))]
    set_layer_statistics(encoder, state_caches[0], sample)

    # Student.
    set_seed(args.seed)
    student = StudentEmotionModel(
        StudentEmotionConfig.of_size(
            args.size,
            trunk=args.trunk,
            level=args.level,
            frames_per_step=args.frames_per_step,
            pooling=args.pooling,
            dropout=args.dropout,
            license=data.license,
            training_data=training_data(data.train_speakers),
        )
    )
    set_log_mel_statistics(student, clips, args.cache)
    student.to(accelerator.device)  # its front end is not part of the model that is trained
    model = StateRegression(student, encoder.base_model.streams[0].layer_mix)

    # Training.
    groups = [{"params": model.parameters(), "lr": args.learning_rate}]
    loop = TrainingLoop(args, data, model, groups, data.clips(rows), data.training_sampler(rows), "pretraining")
    for batch in loop.batches(waveforms=False):
        names, version = [name or rows[0]["id"] for name in batch.ids], loop.epoch % versions
        frames, lengths = (each.to(accelerator.device) for each in frame_cache.batch(names, version))
        frames = student.log_mel.normalize(frames, lengths)
        (states,), state_lengths = state_caches[version].batch(names)
        with accelerator.autocast():
            errors, steps = loop.model(
                frames, lengths, states.to(accelerator.device), state_lengths.to(accelerator.device)
            )
        weight = batch.weight.to(accelerator.device)
        errors, steps = (gather_with_gradient(accelerator, weight * each) for each in (errors, steps))
        loop.step({"states": errors.sum() / steps.sum()})
        if loop.epoch_ended:
            loop.end_epoch(None, lambda: None)
        loop.save_state()

    # Explained variance on clips without augmentation.
    results = {
        "recipe": "pretrain_student",
        "model": f"{args.size}, pretrained",
        "trunk": args.trunk,
        "encoder": public_source(args.encoder),
        "layers": args.layers,
        "protocol": args.protocol or args.corpus,
        "seed": args.seed,
        "parameters": student.num_parameters(),
        "train_speakers": sorted(data.train_speakers),
    }
    for split, held_out in data.held_out.items():
        variance = explained_variance(data, student, model, held_out, state_caches[0])
        results[split] = {"explained_variance": variance}
        accelerator.print(f"{split}: explained variance of the states {variance:.3f}")
    checkpoint = run.path / "checkpoints" / "last"
    if accelerator.is_main_process:
        student.save_pretrained(checkpoint)
    finish_run(accelerator, run, results)
    accelerator.print(f"Train it on labels: recipes/distill.py --initial_model {checkpoint}")
    return results


def encoder_of_student(args: PretrainArguments, data: ExperimentData) -> FusedEmotionForAudioClassification:
    """The frozen encoder as the one stream of a teacher, whose steps are as long as those of the student."""
    if args.frames_per_step % 2:
        raise ValueError(f"Expected an even `--frames_per_step`, 10 ms each, got {args.frames_per_step}.")
    model = FusedEmotionForAudioClassification.from_encoders(
        [args.encoder],
        {args.encoder: args.layers},
        emotions=data.emotions,
        dimensions=data.dimensions,
        frames_per_step=args.frames_per_step // 2,  # of 20 ms
        layer_fusion="concatenate",
        projection_size=0,
        trunk="linear",
        look_ahead=0,
    )
    model.teacher.freeze_encoders()
    return model


@torch.no_grad()
def explained_variance(
    data: ExperimentData,
    student: StudentEmotionModel,
    model: StateRegression,
    rows: Dataset,
    state_cache: EncoderStateCache,
) -> float:
    """One minus the mean squared error of the standardized states of the clips of some rows, not augmented."""
    model.eval()
    accelerator, total, count = data.accelerator, 0.0, 0.0
    device = accelerator.device
    sampler = ResumableSampler.in_order(rows, 64, accelerator.num_processes)
    for batch in batches(data.clips(rows), sampler, data.emotions, data.dimensions):
        frames, lengths = student.frames(batch.input_values.to(device), batch.attention_mask.to(device))
        (states,), state_lengths = state_cache.batch([name or rows[0]["id"] for name in batch.ids])
        errors, steps = model(frames, lengths, states.to(device), state_lengths.to(device))
        sums = torch.stack([(batch.weight.to(device) * each).sum() for each in (errors, steps)])
        error, number = accelerator.reduce(sums).tolist()
        total, count = total + error, count + number
    return 1.0 - total / max(count, 1.0)


if __name__ == "__main__":
    main(parse_arguments(PretrainArguments))
