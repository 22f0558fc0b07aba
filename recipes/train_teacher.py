"""Train a fused teacher, and on request cross-fitted teachers whose outputs a student is distilled from.

    accelerate launch recipes/train_teacher.py --config recipes/configs/teacher_ravdess.yaml

Flags override values of the file: `--seed 1`. Without a file, a small teacher is trained on the synthetic corpus.
Start a killed run again with the same command: it resumes at its last saved state.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch import nn

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.data.dataset import Batch
from audio_emotion.data.feature_augmentation import crop_time, mask_time, mix_clips
from audio_emotion.data.registry import select_speakers
from audio_emotion.data.training_set import distributions, require_training_labels, soft_labels, training_data
from audio_emotion.encoders import GRID
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.evaluation.report import headline
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.layers import EmotionOutput, get_trunk
from audio_emotion.losses import supervised_terms
from audio_emotion.teachers.outputs import TeacherOutputs, version_id
from audio_emotion.training.arguments import (
    TrainingArguments,
    WaveformAugmentationArguments,
    argument_group,
    fraction,
    option,
    parse_arguments,
)
from audio_emotion.training.experiment import (
    ExperimentData,
    finish_run,
    seeded_augmentation,
    start_run,
    waveform_augmentation,
)
from audio_emotion.training.feature_cache import EncoderStateCache
from audio_emotion.training.feature_statistics import (
    SpeakerStatistics,
    copy_statistics,
    set_layer_statistics,
    set_log_mel_statistics,
    statistics_sample,
    stream_statistics,
)
from audio_emotion.training.loop import TrainingLoop
from audio_emotion.training.lora import add_lora
from audio_emotion.training.optim import gather_labels, gather_output, gather_with_gradient, parameter_groups
from audio_emotion.training.variance_calibration import write_calibrated


@argument_group("encoders")
class EncoderArguments:
    """Streams of the teacher, and how they are trained."""

    encoders: list[str] = option(["log-mel"], "Encoders to fuse: Hub ids, folders, log-mel or log-mel-relative.")
    layers: list[int] = option([], "Indices of the hidden states used of every encoder. Empty: all.")
    tuning: str = option("frozen", "Training of the encoders: frozen, full, or lora in their feed-forward layers.")
    encoder_learning_rate: float = option(5e-5, "Peak learning rate of the encoders with --tuning full or lora.")
    cache: str = option("runs/cache", "Cache folder for states of frozen encoders. '': run them in every step.")


@argument_group("network")
class NetworkArguments:
    """The network on top of the encoders."""

    layer_fusion: str = option("mix", "Fusion of layers: mix (one softmax weight per layer) or concatenate.")
    fusion: str = option("concatenate", "Fusion of streams: concatenate (paper) or gate.")
    projection_size: int = option(128, "Width to which each encoder is projected; 0, for one encoder: no projection.")
    frames_per_step: int = option(1, "Number of 20 ms frames that are averaged into one step of the trunk.")
    trunk: str = option("tc-gru", "Trunk: tc-gru (of the paper), convolutional or linear.")
    hidden_size: int = option(64, "Width of the layers of the trunk.")
    convolution_size: int = option(64, "Channels of the time convolution beside the identity; 0: Figure 1(A).")
    pooling: str = option("statistics", "Pooling over time: last (of the paper), statistics or attentive.")
    pooling_heads: int = option(1, "Number of scores of attentive pooling.")
    predict_variance: bool = option(False, "Also predict the variance of each dimension: `return_uncertainty`.")
    dimension_weights: list[float] = option([], "Weight of each dimension in the CCC loss. Empty: equal weights.")


@argument_group("augmentation")
class TeacherAugmentationArguments(WaveformAugmentationArguments):
    """Augmentation of waveforms and of encoder states."""

    crop: float = option(0.0, "Longest random crop in seconds, 0: whole clips; with cached states only.")
    stream_dropout: float = fraction(0.0, "Probability that a stream is dropped in training.")
    time_mask: float = fraction(0.2, "Largest masked span, as a fraction of the clip; with cached states only.")
    speaker_adaptation: float = fraction(
        0.0, "Probability that a clip is standardized for its speaker in training; with cached states only."
    )
    mixup: float = option(0.0, "Alpha of mixup; 0: no mixup; with cached states only.")


@argument_group("data")
class TeacherArguments(TeacherAugmentationArguments, NetworkArguments, EncoderArguments, TrainingArguments):
    """Train a fused teacher."""

    output: str = option("runs/teacher_synthetic", "Run folder: as of other recipes, and teacher outputs.")
    mix: list[str] = option([], "Other corpora to train on, NAME=WEIGHT: each clip is sampled WEIGHT times per epoch.")
    soft_labels: bool = option(False, "Train on the distribution of the raters' votes, where the corpus has one.")
    vote_weight: float = fraction(1.0, "Weight of the votes in such a target, 0 to 1; the rest is that of the label.")
    cross_fit: int = option(0, "Cross-fitted teachers for the outputs on training clips; 0: the teacher itself.")
    epochs: int = option(15, "Number of training epochs.")


def main(args: TeacherArguments) -> dict:
    """Train, test and write the run folder; returns the contents of `results.json`."""
    plan = {"encoders": f"{', '.join(args.encoders)} ({args.tuning})"}
    if args.cross_fit:
        plan["outputs"] = f"of {args.cross_fit} cross-fitted teachers, trained after the teacher"
    accelerator, run = start_run(args, "Train a teacher", plan)
    if run.finished is not None:
        return run.finished

    # Data, and the teacher with the statistics of the training clips.
    data = ExperimentData(args, accelerator, run, args.mix)
    if args.cross_fit and not 2 <= args.cross_fit <= len(data.train_speakers):
        raise ValueError(
            f"Expected `--cross_fit` 0 or 2 to {len(data.train_speakers)}, the number of training speakers, got "
            f"{args.cross_fit}: each cross-fitted teacher leaves some speakers out."
        )
    folds = [data.train_speakers[number :: args.cross_fit] for number in range(args.cross_fit)]
    for left_out in [(), *folds]:  # of the teacher, and of every cross-fitted one
        speakers = [name for name in data.train_speakers if name not in left_out]
        require_training_labels(select_speakers(data.table, speakers), data.emotions, data.dimensions)
    if args.soft_labels:
        soft_labels(data.table)  # an error before the encoders run, not after
    model = new_teacher(args, data, accelerator)
    clips = data.clips(select_speakers(data.table, data.train_speakers))
    cache_folder = args.cache or run.path / "cache"
    set_log_mel_statistics(model, clips, cache_folder)

    # States of frozen encoders are cached for all clips; otherwise only for the sample of the layer statistics.
    state_cache = EncoderStateCache(cache_folder, model)
    is_cached = args.tuning == "frozen" and bool(args.cache)
    strengths = waveform_augmentation(args) if args.augment else None
    versions = range(1, args.augment_versions if strengths and is_cached else 1)
    augmented = [EncoderStateCache(cache_folder, model, strengths, version) for version in versions]
    to_encode = data.clips(data.table if is_cached else clips.table.select(statistics_sample(len(clips))))
    with accelerator.main_process_first():
        state_cache.fill(to_encode)
        state_cache.refresh()
        for cache in augmented:
            cache.fill(clips)
            cache.refresh()
    data.quarantine |= to_encode.quarantine | clips.quarantine
    if is_cached:
        data.keep(state_cache.__contains__)
    rows = select_speakers(data.table, data.train_speakers)
    sample = [rows[row]["id"] for row in statistics_sample(len(rows))]
    sample = [name for name in sample if name in state_cache]
    set_layer_statistics(model, state_cache, sample)
    caches = [state_cache, *augmented] if is_cached else []
    speakers = None
    if args.speaker_adaptation and caches:
        speakers = SpeakerStatistics(state_cache, dict(zip(rows["id"], rows["speaker"], strict=True)))
    forward = TeacherForward(args, data, accelerator, caches, sample[0], speakers)

    # The teacher.
    model.config.training_data = training_data(data.train_speakers)
    train(args, data, accelerator, model, rows, forward, "teacher", data.held_out.get("validation"))
    variance_scale = data.calibrate_variance(model, lambda rows: forward.predict(model, rows))
    if accelerator.is_main_process:  # before the test, which unreadable clips may stop
        write_checkpoint(model, run.path / "checkpoints" / "last")
    results = {
        "recipe": "train_teacher",
        "model": "teacher",
        "protocol": args.protocol or args.corpus,
        "seed": args.seed,
        "parameters": model.num_parameters(),
        "train_speakers": sorted(data.train_speakers),
        **variance_scale,
    }
    results |= data.evaluate(lambda rows: forward.predict(model, rows), data.contaminated_by([], args.encoders))

    # Teacher outputs for all clips: on training clips of cross-fitted teachers, each for the speakers that it was not
    # trained on, or else of the teacher itself.
    parts = []
    for number, others in enumerate(folds):
        speakers = [name for name in data.train_speakers if name not in others]
        one = new_teacher(args, data, accelerator)
        copy_statistics(model, one)
        name = f"cross-fit {number + 1} of {args.cross_fit}"
        train(args, data, accelerator, one, select_speakers(data.table, speakers), forward, name)
        one.config.training_data = model.config.training_data  # of all cross-fitted teachers
        unseen = select_speakers(data.table, others)
        predictions = forward.predict(one, unseen)
        parts.append(outputs_of_versions(predictions, one, unseen, forward, len(caches)))
        scores = headline(data.score(predictions), data.dimensions)
        run.log(model=f"cross-fit {number + 1}", **{f"unseen_{key}": round(value, 4) for key, value in scores.items()})
    if remaining := [*([] if args.cross_fit else [rows]), *data.held_out.values()]:
        outputs = [
            outputs_of_versions(forward.predict(model, each), model, each, forward, len(caches) if each is rows else 1)
            for each in remaining
        ]
        joined = TeacherOutputs.concatenate(outputs)
        parts.append(replace(joined, teacher=torch.zeros_like(joined.teacher)))  # all of the one teacher
    if accelerator.is_main_process:
        outputs = TeacherOutputs.concatenate(parts)
        described = {"augmentation": asdict(strengths), "versions": len(caches)} if len(caches) > 1 else {}
        replace(outputs, **described).save(run.path / "teacher_outputs")

    finish_run(accelerator, run, results)
    accelerator.print(f"Teacher: {run.path / 'checkpoints' / 'last'}")
    return results


def train(
    args: TeacherArguments,
    data: ExperimentData,
    accelerator: Accelerator,
    model: FusedEmotionForAudioClassification,
    rows: Dataset,
    forward: "TeacherForward",
    name: str,
    validation: Dataset | None = None,
) -> None:
    """Train one teacher on some rows; `validation` selects the best checkpoint."""
    groups = parameter_groups(model, args.learning_rate, args.encoder_learning_rate)
    loop = TrainingLoop(args, data, model, groups, data.clips(rows), data.training_sampler(rows), name, part=name)
    soft = soft_labels(rows) if args.soft_labels else {}
    on_line = bool(args.augment) and not forward.caches  # without a cache of augmented versions
    augment = seeded_augmentation(waveform_augmentation(args), args.seed) if on_line else None
    write_best = partial(write_checkpoint, model, data.run.path / "checkpoints" / "best")
    for batch in loop.batches(augment, waveforms=not forward.caches):
        if soft:
            batch.labels = distributions(batch, len(data.emotions), soft, args.vote_weight)
        with accelerator.autocast():
            output = forward(loop.model, batch, seed=args.seed + loop.step_number)
        gather_output(accelerator, output)
        labels, ratings, weight = gather_labels(accelerator, batch)
        possible = gather_with_gradient(accelerator, data.possible_emotions(batch).to(accelerator.device))
        terms = supervised_terms(
            output, labels, ratings, model.config.dimension_weights, weight, args.label_smoothing, possible
        )
        loop.step(terms)
        if loop.epoch_ended:
            predictions = None if validation is None else forward.predict(model, validation)
            scores = None if predictions is None else data.score(predictions)
            loop.end_epoch(scores, partial(write_calibrated, model, predictions, write_best))
        loop.save_state()


@dataclass
class TeacherForward:
    """Forward pass of a teacher, from cached encoder states or from waveforms."""

    args: TeacherArguments
    data: ExperimentData
    accelerator: Accelerator
    caches: list[EncoderStateCache]  # states of all clips, and of augmented training clips; none to run the encoders
    padding: str  # id of a clip whose states fill a batch up, at weight 0
    speakers: SpeakerStatistics | None = None  # to standardize training clips

    def __call__(self, model: nn.Module, batch: Batch, seed: int | None = None) -> EmotionOutput:
        """Run a batch through the model; with a seed, cached states and their labels are augmented."""
        if not self.caches:
            return self.data.forward(model, batch)
        cache = self.caches[0 if seed is None else seed % len(self.caches)]
        states, lengths = cache.batch([name or self.padding for name in batch.ids])
        if seed is not None and self.speakers is not None:
            targets = [stream_statistics(each) for each in self.accelerator.unwrap_model(model).teacher.streams]
            probability = self.args.speaker_adaptation
            states = self.speakers.standardize(states, batch.speakers, targets, probability, seed)
        if seed is not None and self.args.crop:
            longest = round(self.args.crop * GRID / self.args.frames_per_step)
            states, lengths = crop_time(states, lengths, longest, seed)
        if seed is not None and self.args.time_mask:
            streams = self.accelerator.unwrap_model(model).teacher.streams
            values = [stream_statistics(each)[0] for each in streams]
            states = mask_time(states, lengths, values, seed, self.args.time_mask)
        if seed is not None and self.args.mixup:
            states, lengths, batch.labels, batch.dimension_labels = mix_clips(
                states,
                lengths,
                distributions(batch, len(self.data.emotions)),
                batch.dimension_labels,
                batch.weight,
                # Every process mixes the clips of its own batch, with different coefficients.
                seed * self.accelerator.num_processes + self.accelerator.process_index,
                self.args.mixup,
            )
        device = self.accelerator.device
        return model(features=[each.to(device) for each in states], lengths=lengths.to(device))

    def predict(self, model: FusedEmotionForAudioClassification, rows: Dataset, version: int = 0) -> Predictions:
        """Predict some rows, or the cached augmented version of a number above 0 of each."""
        forward = replace(self, caches=self.caches[version : version + 1])
        return self.data.predict(model, rows, 64, forward, waveforms=not self.caches)


def new_teacher(
    args: TeacherArguments, data: ExperimentData, accelerator: Accelerator
) -> FusedEmotionForAudioClassification:
    """A teacher with pretrained encoders and an untrained network, the same for the same seed."""
    set_seed(args.seed)
    model = FusedEmotionForAudioClassification.from_encoders(
        args.encoders,
        dict.fromkeys(args.encoders, args.layers) if args.layers else None,
        emotions=data.emotions,
        dimensions=data.dimensions,
        projection_size=args.projection_size,
        trunk=args.trunk,
        look_ahead=0 if get_trunk(args.trunk).is_causal else 1,
        hidden_size=args.hidden_size,
        convolution_size=args.convolution_size,
        pooling=args.pooling,
        pooling_heads=args.pooling_heads,
        frames_per_step=args.frames_per_step,
        dimension_weights=args.dimension_weights or None,
        predict_variance=args.predict_variance,
        layer_fusion=args.layer_fusion,
        fusion=args.fusion,
        stream_dropout=args.stream_dropout,
        dropout=args.dropout,
        license=data.license,
        dimensions_source=data.info.dimensions_source,
    )
    if args.tuning == "frozen":
        model.teacher.freeze_encoders()
    elif args.tuning == "lora":
        add_lora(model)
    elif args.tuning != "full":
        raise ValueError(f"Expected `--tuning` frozen, lora or full, got {args.tuning!r}.")
    return model.to(accelerator.device)


def teacher_outputs(
    predictions: Predictions, data: ExperimentData, model: FusedEmotionForAudioClassification
) -> TeacherOutputs:
    """Predictions of one teacher as the outputs that a student is distilled from."""
    return TeacherOutputs.from_predictions(
        predictions, data.emotions, model.config.training_data, dimension_names=data.dimensions, license=data.license
    )


def outputs_of_versions(
    predictions: Predictions,
    model: FusedEmotionForAudioClassification,
    rows: Dataset,
    forward: TeacherForward,
    versions: int,
) -> TeacherOutputs:
    """Outputs of one teacher for clips and, with `versions` above 1, for their augmented versions.

    `predictions` are those for the clips themselves.
    """
    parts = [teacher_outputs(predictions, forward.data, model)]
    for version in range(1, versions):
        outputs = teacher_outputs(forward.predict(model, rows, version), forward.data, model)
        parts.append(replace(outputs, ids=[version_id(name, version) for name in outputs.ids]))
    joined = TeacherOutputs.concatenate(parts)
    return replace(joined, teacher=torch.zeros_like(joined.teacher))  # all of the one teacher


if __name__ == "__main__":
    main(parse_arguments(TeacherArguments))
