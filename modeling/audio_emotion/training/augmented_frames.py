"""Log-mel frames of augmented clips, some versions of each made once and kept."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from audio_emotion.log_mel import LogMel
from audio_emotion.training.augmentation import AugmentationStrengths, WaveformAugmentation
from audio_emotion.training.caches import ClipCache
from audio_emotion.training.streams import ClipStream

CODE_VERSION = 2  # raise it when the numbers of `LogMel.unnormalised` or of the augmentation change


class AugmentedFrames(ClipCache):
    """Each clip in a few fixed versions, for students that hear it many times: all that is left to do is to learn.

    Augmenting anew in every epoch costs a small student more than its own training step. The versions are the same for
    every seed of a training; masks on the spectrogram are still drawn anew.

    Args:
        folder: where caches live; one subfolder for each front end and augmentation.
        front_end: of the student; its statistics play no part.
        strengths: of the augmentation.
        versions: of each clip; the first is the clean one.
    """

    def __init__(self, folder: str | Path, front_end: LogMel, strengths: AugmentationStrengths, versions: int) -> None:
        facts = [CODE_VERSION, front_end.num_mel_bins, front_end.sampling_rate, asdict(strengths), versions]
        facts += [front_end.level]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        self.front_end, self.augmentation = front_end, WaveformAugmentation(strengths)
        super().__init__(Path(folder) / digest.hexdigest()[:16], versions)

    def fill(self, stream: ClipStream) -> None:
        """Augment the clips that are not there yet."""

        def versions(waveform: Tensor, name: str) -> list[Tensor]:
            seeds = [zlib.crc32(f"{version}/{name}".encode()) for version in range(1, self.count)]
            heard = [waveform, *(self.augmentation(waveform, seed) for seed in seeds)]
            device = self.front_end.window.device
            return [self.front_end.unnormalised(each[None].to(device))[0] for each in heard]

        self.compute(stream, versions, "augmenting")

    def batch(self, ids: list[str], epoch: int) -> tuple[Tensor, Tensor]:
        """Unnormalised frames `(B, T, M)` of the version whose turn it is, and their number `(B,)`."""
        clips = [self.tensor(name, epoch % self.count) for name in ids]
        return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).float(), torch.tensor([len(c) for c in clips])
