"""What every training recipe starts and ends with: processes, run folder, splits of the data, predictions, scores."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn

from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation
from audio_emotion.data.dataset import Augment, Batch, ClipStream, batches
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers, shard_files
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.training_set import class_numbers, mix_corpora
from audio_emotion.evaluation.predictions import Predictions, predict, save_predictions
from audio_emotion.evaluation.provenance import contamination
from audio_emotion.evaluation.report import headline, measure
from audio_emotion.layers import EmotionOutput
from audio_emotion.training.arguments import TrainingArguments, WaveformAugmentationArguments, tracker_values
from audio_emotion.training.trainer_state import RunFolder
from audio_emotion.training.variance_calibration import calibrate_variance


def start_run(args: TrainingArguments, title: str, plan: Mapping[str, Any]) -> tuple[Accelerator, RunFolder]:
    """Set up processes and run folder of a training, which may be one that was killed, and print title and plan."""
    # Their progress bars would cut through that of the training.
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or None,
        log_with=args.trackers or None,
        project_dir=args.output,
        step_scheduler_with_optimizer=False,
    )
    run = RunFolder(args.output, args, resume=True, restart=args.restart)
    if run.finished is not None:
        accelerator.print(f"Already finished: {run.path}. `--restart true` runs it again.")
        return accelerator, run
    synthetic = f" ({args.corpus_count} clips)" if args.corpus == "synthetic" else ""
    lines = {
        "corpus": f"{args.corpus}{synthetic}, protocol {args.protocol or 'of the corpus'}",
        **plan,
        "training": f"{args.epochs} epochs, {args.batch_size} clips per step, learning rate {args.learning_rate:g}",
        "hardware": f"{accelerator.num_processes} process(es) on {accelerator.device}, seed {args.seed}",
        "output": str(run.path),
    }
    accelerator.print("\n".join([title, *(f"  {name:<10}{value}" for name, value in lines.items()), ""]))
    if args.trackers:
        accelerator.init_trackers("audio-emotion", config=tracker_values(args))
    return accelerator, run


def finish_run(accelerator: Accelerator, run: RunFolder, results: dict[str, Any]) -> None:
    """Write `results.json`, and end the trackers when all processes are done."""
    run.results(results)
    accelerator.wait_for_everyone()
    accelerator.end_training()


class ExperimentData:
    """The splits of a corpus, and other corpora to train on.

    Args:
        args: of the recipe.
        accelerator: of the run.
        run: its folder, for the quarantine.
        mix: other corpora to train on, `name=weight`.

    Attributes:
        info: facts of the corpus.
        emotions: class names, in label order.
        dimensions: names of the rated dimensions.
        table: rows of all corpora.
        license: license expression of all corpora.
        train_speakers: speakers of the training split.
        held_out: rows of the splits `test` and `validation`, where they have any.
        quarantine: id and reason of the clips of all splits that could not be decoded; see `gather_quarantine`.
    """

    def __init__(
        self, args: TrainingArguments, accelerator: Accelerator, run: RunFolder, mix: Sequence[str] = ()
    ) -> None:
        self.args, self.accelerator, self.run = args, accelerator, run
        self.info = corpus_info(args.corpus)
        self.emotions, self.dimensions = list(self.info.emotions), list(self.info.dimensions)
        path = args.corpus_path or None
        table = corpus_table(args.corpus, path, args.corpus_count)
        table, speakers = apply_protocol(args.corpus, table, args.protocol, path)
        self.mixed = mix_corpora(table, shard_files(args.corpus, path), self.info, mix)
        self.table, self.license = self.mixed.table, self.mixed.license
        validation = () if args.train_on_validation else speakers.validation
        also = speakers.validation if args.train_on_validation else ()
        self.train_speakers = speakers.train + also + self.mixed.speakers
        names = {"test": speakers.test, "validation": validation}
        self.held_out = {split: select_speakers(self.table, each) for split, each in names.items() if each}
        self.quarantine: dict[str, str] = {}

    def keep(self, is_kept: Callable[[str], bool]) -> None:
        """Remove all clips from table and held-out splits whose id is not kept."""

        def kept(rows: Dataset) -> Dataset:
            return rows.select([row for row, name in enumerate(rows["id"]) if is_kept(name)])

        self.table = kept(self.table)
        self.held_out = {split: rows for split, each in self.held_out.items() if len(rows := kept(each))}

    def clips(self, rows: Dataset) -> ClipStream:
        """Decoded clips of some rows, for this process."""
        return ClipStream(
            rows,
            self.mixed.files,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.args.max_bad_fraction,
            before_stop=lambda bad: self.run.quarantine(self.quarantine | bad, from_any=True),
        )

    def gather_quarantine(self, clips: ClipStream) -> None:
        """Add the clips that any process had to exclude to `quarantine.jsonl`."""
        clips.gather_quarantine()
        self.quarantine |= clips.quarantine
        self.run.quarantine(self.quarantine)

    def contaminated_by(self, training_data: Iterable[dict], models: Iterable[str] = ()) -> dict[str, list[str]]:
        """By held-out split, its speakers that a model or its teachers were trained on, and public models; warns."""
        training_data, models, found = [*training_data], [*models], {}
        for split, rows in self.held_out.items():
            speakers = {name for name in rows["speaker"] if name}
            if names := contamination(self.info.name, speakers, training_data, models):
                found[split] = names
                self.accelerator.print(
                    f"WARNING: the model or a teacher was trained on {split} data: {', '.join(names)}. Its scores do "
                    "not measure generalization to unseen speakers; `contaminated_by` in `results.json` lists them. "
                    "Choose another protocol, or a model and teachers that were not trained on it."
                )
        return found

    def training_sampler(self, rows: Dataset, labeled: Collection[str] | None = None) -> ResumableSampler:
        """Rows shuffled by seed and epoch; `--balance_classes` counts the labels of the clips in `labeled`, or all."""
        sampler = ResumableSampler.from_table(
            rows,
            self.args.batch_size,
            self.mixed.weights,
            seed=self.args.seed,
            shuffle=True,
            num_processes=self.accelerator.num_processes,
            num_workers=self.args.num_workers,
        )
        if not self.args.balance_classes:
            return sampler
        return sampler.with_balanced_classes(class_numbers(rows, self.emotions, labeled))

    def predict(
        self,
        model: nn.Module,
        rows: Dataset,
        batch_size: int,
        forward: Callable[[nn.Module, Batch], EmotionOutput] | None = None,
        waveforms: bool = True,
    ) -> Predictions:
        """Predict some rows in evaluation mode.

        `model` is not wrapped for several processes, `batch_size` is over all of them. `forward` maps model and batch
        to the output, by default from waveforms; if it needs no waveforms, clips are not decoded.
        """
        model.eval()
        forward = forward or self.forward
        sampler = ResumableSampler.in_order(rows, batch_size, self.accelerator.num_processes)
        clips = self.clips(rows)
        each = batches(clips, sampler, self.emotions, self.dimensions, waveforms=waveforms)
        predictions = predict(self.accelerator, lambda batch: forward(model, batch), each)
        self.gather_quarantine(clips)
        return predictions

    def possible_emotions(self, batch: Batch) -> Tensor:
        """The emotions that the corpus of each clip distinguishes, `(B, C)`: another corpus may lack a label."""
        corpora = [self.mixed.emotions.get(name.split("/")[0], self.emotions) for name in batch.ids]
        return torch.tensor([[name in known for name in self.emotions] for known in corpora])

    def forward(self, model: nn.Module, batch: Batch) -> EmotionOutput:
        """Run the waveforms of a batch through a model."""
        device = self.accelerator.device
        return model(batch.input_values.to(device), batch.attention_mask.to(device))

    def score(self, predictions: Predictions) -> dict[str, Any]:
        """Metrics of predictions, without intervals."""
        return measure(predictions, self.emotions, self.dimensions, self.info.dimensions_source, 0)

    def calibrate_variance(self, model: nn.Module, predict: Callable[[Dataset], Predictions]) -> dict[str, Any]:
        """Scale the variances that a model predicts, if it does, to its errors on validation speakers.

        Returns:
            `variance_scale` for the results, see [`variance_calibration`]; empty for a model without variance.
        """
        if not model.config.predict_variance:
            return {}
        if "validation" not in self.held_out:
            self.accelerator.print(
                "WARNING: no validation speakers, so the variances are not calibrated: they are of the errors on "
                "training clips, which are smaller than others. Leave `--train_on_validation` out."
            )
            return {"variance_scale": {}}
        scales = calibrate_variance(model, predict(self.held_out["validation"]))
        described = ", ".join(f"{name} {value:.2f}" for name, value in scales.items())
        self.accelerator.print(f"Standard deviations scaled to the errors on validation speakers: {described}")
        return {"variance_scale": scales}

    def evaluate(
        self, predict: Callable[[Dataset], Predictions], contaminated_by: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """Metrics with intervals by held-out split, and `contaminated_by` of the test, or without one the validation.

        Prints the scores, and writes `predictions.parquet` of the test.
        """
        scored = "test" if "test" in self.held_out else "validation"
        results: dict[str, Any] = {"contaminated_by": contaminated_by.get(scored, [])}
        for split, rows in self.held_out.items():
            predictions = predict(rows)
            predictions.name_genders(dict(zip(rows["id"], rows["gender"], strict=True)))
            results[split] = measure(predictions, self.emotions, self.dimensions, self.info.dimensions_source)
            if split == "test" and self.accelerator.is_main_process:
                save_predictions(predictions, self.run.path / "predictions.parquet", self.emotions, self.dimensions)
            scores = headline(results[split], self.dimensions).items()
            mark = ""
            if split in contaminated_by:
                mark, results[split]["contaminated_by"] = " (contaminated)", contaminated_by[split]
            self.accelerator.print(f"{split}{mark}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores))
        return results


def augmentation_strengths(probability: float, **others: Any) -> AugmentationStrengths:
    """Noise at 10 to 35 dB, reverberation, speed and gain, each with the same probability per clip and epoch."""
    kinds = ("noise", "reverberation", "speed", "gain")
    probabilities: dict[str, Any] = {f"{kind}_probability": probability for kind in kinds}
    return AugmentationStrengths(**({"snr": (10.0, 35.0)} | probabilities | others))


def waveform_augmentation(args: WaveformAugmentationArguments) -> AugmentationStrengths:
    """Augmentation of what is encoded: gains and noise of other recordings, pauses shorter than a crop.

    Raises:
        ValueError: for a gain that is not a range.
    """
    if len(args.gain) != 2 or args.gain[0] > args.gain[1]:
        raise ValueError(f"Expected the lowest and the highest `--gain` in dB, got {args.gain}.")
    data = Path(os.environ.get("AUDIO_EMOTION_DATA", ""))
    folders = (args.noise_folder, args.rooms_folder)
    noise, rooms = (str(data / name) if name and (data / name).is_dir() else name for name in folders)
    return augmentation_strengths(
        args.augment,
        snr=(5.0, 25.0),
        gain=(args.gain[0], args.gain[1]),
        pause=(0.05, 1.0),
        pause_probability=args.pauses,
        telephone_probability=args.telephone,
        noise_folder=noise,
        rooms_folder=rooms,
    )


def seeded_augmentation(strengths: AugmentationStrengths, seed: int) -> Augment:
    """Augmentation seeded by run, epoch and clip, so that it does not depend on the number of processes."""
    augmentation = WaveformAugmentation(strengths)

    def augment(waveform: np.ndarray, name: str, epoch: int) -> np.ndarray:
        clip_seed = zlib.crc32(f"{seed}/{epoch}/{name}".encode())
        return augmentation(torch.as_tensor(waveform), clip_seed).numpy()

    return augment
