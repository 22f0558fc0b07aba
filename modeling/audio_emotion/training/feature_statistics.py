"""Mean and standard deviation of log-mel features and encoder layers, from a sample of the training clips."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open
from torch import Tensor, nn

from audio_emotion.data.dataset import ClipStream
from audio_emotion.encoders import LogMelStream
from audio_emotion.layer_fusion import LayerStatistics
from audio_emotion.log_mel import LogMel
from audio_emotion.speaker_adaptation import mean_and_std
from audio_emotion.training.checksums import check_tensors, save_tensors
from audio_emotion.training.feature_cache import FRAMES_VERSION, EncoderStateCache, digest_of

SAMPLE_CLIPS = 500  # clips from which statistics are computed; of a smaller corpus, all clips
SPEAKER_CLIPS = 30  # clips from which the statistics of a speaker are computed
SAMPLE_SEED = 0  # not the seed of the training: runs with different seeds share the cached statistics


def statistics_sample(count: int) -> list[int]:
    """Row numbers of at most `SAMPLE_CLIPS` of `count` clips, in ascending order."""
    return sorted(random.Random(SAMPLE_SEED).sample(range(count), min(count, SAMPLE_CLIPS)))


@torch.no_grad()
def set_log_mel_statistics(model: nn.Module, clips: ClipStream, cache: str | Path | None = None) -> None:
    """Set the statistics of all log-mel front ends, which are alike, to those of a sample of the training clips.

    The main process decodes the sample once and stores the statistics; other processes, and later runs on the same
    clips, read the file. Clips of the sample that cannot be decoded are stored with it and enter the quarantine.
    Without a cache folder, every process computes the statistics.
    """
    front_ends = [module for module in model.modules() if isinstance(module, LogMel)]
    if not front_ends:
        return
    rows = statistics_sample(len(clips))
    if cache is None:
        statistics, _ = _compute_log_mel_statistics(front_ends[0], clips, rows)
    else:
        folder = Path(cache) / "log_mel_statistics"
        key = _statistics_key(front_ends[0], clips, rows)
        with PartialState().main_process_first():
            if file := min(folder.glob(f"{key}.*.safetensors"), default=None):
                check_tensors(file)
                with safe_open(file, framework="pt") as stored:
                    statistics = {name: stored.get_tensor(name) for name in ("mean", "std")}
                    clips.add_to_quarantine(json.loads(stored.metadata()["quarantine"]))
            else:
                statistics, bad = _compute_log_mel_statistics(front_ends[0], clips, rows)
                folder.mkdir(parents=True, exist_ok=True)
                save_tensors(statistics, folder / key, {"quarantine": json.dumps(bad)})
    for front_end in front_ends:
        front_end.set_statistics(statistics["mean"], statistics["std"])


def _compute_log_mel_statistics(
    front_end: LogMel, clips: ClipStream, rows: list[int]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Mean and standard deviation `(M,)` over the frames of some clips, and the clips that could not be decoded."""
    device = front_end.window.device
    waveforms = (torch.as_tensor(example["waveform"])[None].to(device) for example in clips.clips(rows))
    mean, std = mean_and_std(front_end.compute_log_mel(waveform)[0] for waveform in waveforms)
    sample = set(clips.table.select(rows)["id"])
    bad = {name: reason for name, reason in clips.quarantine.items() if name in sample}
    return {"mean": mean, "std": std}, bad


def _statistics_key(front_end: LogMel, clips: ClipStream, rows: list[int]) -> str:
    """Hash of all that decides the statistics: the front end, and ids and stored audio of the sample."""
    table = clips.table.select(rows)
    audio = [_audio_key(row, clips.reader.files) for row in table.select_columns(["audio", "shard", "row"])]
    facts = [FRAMES_VERSION, front_end.num_mel_bins, front_end.sampling_rate, front_end.level]
    return digest_of([*facts, list(table["id"]), audio])


def _audio_key(row: dict, files: Sequence[str]) -> list:
    """What identifies the audio of a clip without decoding it: its shard and row, its bytes, or its file's size."""
    if row["shard"] is not None:
        return [files[row["shard"]], row["row"]]
    audio = row["audio"]
    if audio["bytes"] is not None:
        return [zlib.crc32(audio["bytes"])]
    path = audio["path"]
    return [os.path.getsize(path) if path and os.path.exists(path) else None]


@torch.no_grad()
def set_layer_statistics(model: nn.Module, cache: EncoderStateCache, ids: Sequence[str]) -> None:
    """Set the layer statistics of every encoder stream of a teacher to those of cached clips."""
    for number, stream in enumerate(model.teacher.streams):  # type: ignore[union-attr, arg-type]
        for module in stream.modules():
            if isinstance(module, LayerStatistics):
                module.set_statistics(*mean_and_std(cache[name][number].transpose(0, 1) for name in ids))


def stream_statistics(stream: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(L, H)` with which a stream standardizes: 0 and 1 for cached log-mel frames."""
    if isinstance(stream, LogMelStream):
        size = stream.projection.in_features
        return torch.zeros(1, size), torch.ones(1, size)
    return stream.layer_mix.mean, stream.layer_mix.deviation


def copy_statistics(source: nn.Module, target: nn.Module) -> None:
    """Copy all statistics from one model to another of the same architecture."""
    for target_module, source_module in zip(target.modules(), source.modules(), strict=True):
        if isinstance(target_module, (LogMel, LayerStatistics)):
            target_module.set_statistics(source_module.mean, source_module.deviation)  # type: ignore[arg-type]


class SpeakerStatistics:
    """Mean and standard deviation of the cached states of every speaker, per stream.

    Args:
        cache: states of the clips; at most `SPEAKER_CLIPS` of a speaker are read.
        speakers: speaker of each clip, by its id; a clip of an unknown speaker, `""`, is left out.
    """

    def __init__(self, cache: EncoderStateCache, speakers: Mapping[str, str]) -> None:
        clips: dict[str, list[str]] = {}
        for name, speaker in speakers.items():
            if speaker and name in cache:
                clips.setdefault(speaker, []).append(name)
        self.of: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for speaker, names in clips.items():
            states = [cache[name] for name in names[:: -(-len(names) // SPEAKER_CLIPS)]]  # per clip and stream
            streams = zip(*states, strict=True)
            self.of[speaker] = [mean_and_std(each.transpose(0, 1) for each in stream) for stream in streams]

    def standardize(
        self,
        states: Sequence[Tensor],
        speakers: Sequence[str],
        targets: Sequence[tuple[Tensor, Tensor]],
        probability: float,
        seed: int,
    ) -> list[Tensor]:
        """Give the states of random clips of a batch the mean and standard deviation of the training set.

        Args:
            states: per stream `(B, L, T, H)`.
            speakers: of each clip.
            targets: mean and standard deviation `(L, H)` per stream, as the model subtracts and divides by them.
            probability: of each clip.
            seed: of the choice of clips.

        Returns:
            per stream `(B, L, T, H)`; other clips, and those of speakers without statistics, are unchanged.
        """
        chosen = torch.rand(len(speakers), generator=torch.Generator().manual_seed(seed)) < probability
        standardized = [each.clone() for each in states]
        for row, speaker in enumerate(speakers):
            if chosen[row] and speaker in self.of:
                for each, own, (mean, std) in zip(standardized, self.of[speaker], targets, strict=True):
                    scale = std / own[1]  # (L, H)
                    each[row] = each[row] * scale[:, None] + (mean - own[0] * scale)[:, None]
        return standardized
