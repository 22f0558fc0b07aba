"""Caches of what is computed once per clip: encoder states, and log-mel frames of augmented versions.

Tensors are stored in float16, a hundred clips per safetensors file with its checksum in its name. A cache identifies a
clip by its id: delete the cache folder if audio has changed under the same ids.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation
from audio_emotion.data.dataset import ClipStream
from audio_emotion.encoders import average_steps
from audio_emotion.log_mel import LogMel
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.training.checksums import check_tensors, save_tensors

STATES_VERSION = 3  # increase when the numbers of `FusedEmotionModel.encode` change
FRAMES_VERSION = 2  # increase when the numbers of `LogMel.compute_log_mel` or of the augmentation change
CLIPS_PER_FILE = 100
LARGEST = torch.finfo(torch.float16).max  # some encoders have larger states


def digest_of(facts: Any) -> str:
    """Name of a cache: 16 hexadecimal digits of the hash of JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class TensorCache:
    """The same number of float16 tensors for every clip, read from disk on access.

    Args:
        folder: folder of this cache alone; its name must depend on everything that decides the numbers.
        count: number of tensors per clip.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.file_of: dict[str, Path] = {}  # by clip id
        self._open = lru_cache(maxsize=512)(partial(safe_open, framework="pt"))
        self.refresh()

    def __contains__(self, name: str) -> bool:
        return name in self.file_of

    def tensor(self, name: str, number: int) -> Tensor:
        """One tensor of a clip."""
        check_tensors(self.file_of[name])
        return self._open(self.file_of[name]).get_tensor(f"{name}/{number}")

    def refresh(self) -> None:
        """Index the files on disk, including those that other processes have written since."""
        for file in sorted(set(self.folder.glob("*.*.safetensors")) - set(self.file_of.values())):
            try:
                keys = self._open(file).keys()
            except SafetensorError:
                check_tensors(file)
                raise
            self.file_of |= {key.rsplit("/", 1)[0]: file for key in keys}

    @torch.no_grad()
    def compute(self, stream: ClipStream, function: Callable[[Tensor, str], Sequence[Tensor]], label: str) -> None:
        """Compute the tensors of all clips that are not cached, from each waveform `(S,)` and id by a function."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.refresh()
        computed: dict[str, Tensor] = {}
        missing = [index for index, name in enumerate(stream.table["id"]) if name not in self]
        for example in tqdm(stream.clips(missing), label, len(missing), disable=not missing):
            for number, tensor in enumerate(function(torch.as_tensor(example["waveform"]), example["id"])):
                computed[f"{example['id']}/{number}"] = tensor.clamp(-LARGEST, LARGEST).half().cpu().contiguous()
            if len(computed) >= CLIPS_PER_FILE * self.count:
                self._write(computed)
                computed = {}
        if computed:
            self._write(computed)

    def _write(self, tensors: dict[str, Tensor]) -> None:
        file = save_tensors(tensors, self.folder / digest_of(sorted(tensors)))
        self.file_of |= {key.rsplit("/", 1)[0]: file for key in tensors}


class EncoderStateCache:
    """States of every stream of a teacher with frozen encoders, in one cache per stream.

    Teachers with the same encoder share its cache, whatever else they fuse and whichever speakers they train on.

    Args:
        folder: cache folder, with a subfolder per stream.
        model: the teacher; the statistics of its log-mel front ends must be set before.
        strengths: parameters of the augmentation; None for clean clips.
        version: number of the augmented version, from which its random numbers follow.
    """

    def __init__(
        self,
        folder: str | Path,
        model: FusedEmotionForAudioClassification,
        strengths: AugmentationStrengths | None = None,
        version: int = 0,
    ) -> None:
        self.model, self.version = model, version
        self.augmentation = None if strengths is None else WaveformAugmentation(strengths)
        augmented = [] if strengths is None else [FRAMES_VERSION, asdict(strengths), version]
        self.caches = []
        for facts, stream in zip(model.config.streams, model.teacher.streams, strict=True):
            described = [STATES_VERSION, facts, model.config.frames_per_step, *augmented]
            digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
            for name, tensor in sorted(stream.state_dict().items()):
                if not name.startswith(("layer_mix", "projection")):
                    digest.update(tensor.detach().cpu().numpy().tobytes())
            self.caches.append(TensorCache(Path(folder) / digest.hexdigest()[:16], 1))

    def __contains__(self, name: str) -> bool:
        return all(name in cache for cache in self.caches)

    def __getitem__(self, name: str) -> list[Tensor]:
        """States of one clip, per stream `(L, T, H)` in float16; streams may differ by one step at the end."""
        return [cache.tensor(name, 0) for cache in self.caches]

    def refresh(self) -> None:
        """Index the files on disk, including those that other processes have written since."""
        for cache in self.caches:
            cache.refresh()

    def fill(self, clips: ClipStream) -> None:
        """Encode the clips that are not cached."""
        model = self.model.eval()
        for facts, stream, cache in zip(model.config.streams, model.teacher.streams, self.caches, strict=True):
            cache.compute(clips, partial(self._encode, stream), f"encoding by {facts['name']}")

    def _encode(self, stream: nn.Module, waveform: Tensor, name: str) -> list[Tensor]:
        """States of one clip in one stream, `(L, T, H)`."""
        if self.augmentation is not None:
            waveform = self.augmentation(waveform, zlib.crc32(f"{self.version}/{name}".encode()))
        waveform = waveform[None].to(self.model.device)
        states, lengths = stream.encode(waveform, torch.ones_like(waveform, dtype=torch.long))
        return [average_steps(states, lengths, self.model.config.frames_per_step)[0]]

    def batch(self, ids: list[str]) -> tuple[list[Tensor], Tensor]:
        """Padded states of some clips, per stream `(B, L, T, H)`, and their number of steps `(B,)`."""
        clips = [self[name] for name in ids]
        lengths = torch.tensor([min(states.shape[1] for states in clip) for clip in clips])  # common to all streams
        padded = []
        for number in range(len(self.caches)):
            layers, _, width = clips[0][number].shape
            states = torch.zeros(len(clips), layers, int(lengths.max()), width)
            for row, clip, length in zip(states, clips, lengths.tolist(), strict=True):
                row[:, :length] = clip[number][:, :length]
            padded.append(states)
        return padded, lengths


class AugmentedFrameCache(TensorCache):
    """Log-mel frames of a fixed number of augmented versions of each clip, for students that train for many epochs.

    Augmenting in every epoch costs a small student more than its training step. The versions do not depend on the seed
    of a training; masks on the spectrogram are not cached.

    Args:
        folder: cache folder, with a subfolder per front end and augmentation.
        front_end: of the student; its statistics are not used.
        strengths: of the augmentation.
        versions: number of versions per clip; the first is not augmented.
    """

    def __init__(self, folder: str | Path, front_end: LogMel, strengths: AugmentationStrengths, versions: int) -> None:
        facts = [FRAMES_VERSION, front_end.num_mel_bins, front_end.sampling_rate, asdict(strengths), versions]
        facts.append(front_end.level)
        self.front_end, self.augmentation = front_end, WaveformAugmentation(strengths)
        super().__init__(Path(folder) / digest_of(facts), versions)

    def fill(self, stream: ClipStream) -> None:
        """Augment the clips that are not cached."""

        def compute_versions(waveform: Tensor, name: str) -> list[Tensor]:
            seeds = [zlib.crc32(f"{version}/{name}".encode()) for version in range(1, self.count)]
            versions = [waveform, *(self.augmentation(waveform, seed) for seed in seeds)]
            device = self.front_end.window.device
            return [self.front_end.compute_log_mel(each[None].to(device))[0] for each in versions]

        self.compute(stream, compute_versions, "augmenting")

    def batch(self, ids: list[str], epoch: int) -> tuple[Tensor, Tensor]:
        """Unnormalized frames `(B, T, M)` of the version of an epoch, and their number `(B,)`."""
        clips = [self.tensor(name, epoch % self.count) for name in ids]
        return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).float(), torch.tensor([len(c) for c in clips])
