"""What is computed once per clip and kept: tensors on disk, a safetensors shard per hundred clips."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation
from audio_emotion.data.dataset import ClipStream
from audio_emotion.encoders import LayerStatistics, averaged_steps
from audio_emotion.layers import LogMel
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification

STATES_VERSION = 3  # raise it when the numbers of `FusedEmotionModel.encode` change
CLIPS_PER_SHARD = 100


class ClipCache:
    """The same number of float16 tensors for every clip, read from disk when asked.

    Args:
        folder: of these tensors alone; its name must change with whatever decides the numbers.
        count: tensors of a clip.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.shard_of: dict[str, Path] = {}  # clip id -> the file it lies in
        self._open = lru_cache(maxsize=64)(partial(safe_open, framework="pt"))
        self.read()

    def __contains__(self, name: str) -> bool:
        return name in self.shard_of

    def __getitem__(self, name: str) -> list[Tensor]:
        """All tensors of a clip."""
        return [self.tensor(name, number) for number in range(self.count)]

    def tensor(self, name: str, number: int) -> Tensor:
        """One tensor of a clip."""
        return self._open(self.shard_of[name]).get_tensor(f"{name}/{number}")

    def read(self) -> None:
        """Find what is on disk, another process's shards included."""
        for shard in set(self.folder.glob("*.safetensors")) - set(self.shard_of.values()):
            with safe_open(shard, framework="pt") as tensors:
                self.shard_of |= {key.rsplit("/", 1)[0]: shard for key in tensors.keys()}  # noqa: SIM118 - no dict

    @torch.no_grad()
    def compute(self, stream: ClipStream, compute: Callable[[Tensor, str], Sequence[Tensor]], doing: str) -> None:
        """Compute the clips that are not there yet, one by one.

        Args:
            stream: of clips.
            compute: from a clean waveform `(S,)` and the clip's id to its tensors.
            doing: what the progress bar says.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read()
        fresh: dict[str, Tensor] = {}
        missing = [index for index, name in enumerate(stream.table["id"]) if name not in self]
        for example in tqdm(stream.clips(missing), doing, len(missing), disable=not missing):
            computed = compute(torch.as_tensor(example["waveform"]), example["id"])
            for number, tensor in enumerate(computed):
                fresh[f"{example['id']}/{number}"] = tensor.half().cpu().contiguous()
            if len(fresh) >= CLIPS_PER_SHARD * self.count:
                self._write(fresh)
                fresh = {}
        if fresh:
            self._write(fresh)

    def _write(self, fresh: dict[str, Tensor]) -> None:
        """Write one shard under a name of its content, whole or not at all."""
        shard = self.folder / f"{hashlib.sha256(''.join(sorted(fresh)).encode()).hexdigest()[:16]}.safetensors"
        whole = shard.with_suffix(f".{os.getpid()}.partial")  # another run may be writing the same one
        save_file(fresh, whole)
        whole.rename(shard)
        self.shard_of |= {key.rsplit("/", 1)[0]: shard for key in fresh}


class EncoderStates:
    """What every stream of a teacher with frozen encoders says of every clip, each stream in a cache of its own.

    Teachers that share an encoder share its cache, whatever else they fuse and whoever they are trained on.

    Args:
        folder: where caches live; one subfolder a stream, named by what decides its numbers.
        model: the teacher; its front end's statistics must be set before.
    """

    def __init__(self, folder: str | Path, model: FusedEmotionForAudioClassification) -> None:
        self.model = model
        self.caches = []
        for facts, stream in zip(model.config.streams, model.teacher.streams, strict=True):
            described = [STATES_VERSION, facts, model.config.frames_per_step]
            digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
            for name, tensor in sorted(stream.state_dict().items()):
                if not name.startswith(("layer_mix", "projection")):
                    digest.update(tensor.detach().cpu().numpy().tobytes())
            self.caches.append(ClipCache(Path(folder) / digest.hexdigest()[:16], 1))

    def __contains__(self, name: str) -> bool:
        return all(name in cache for cache in self.caches)

    def __getitem__(self, name: str) -> list[Tensor]:
        """States of one clip, per stream `(L, T, H)` in float16; streams may differ by a last step."""
        return [cache.tensor(name, 0) for cache in self.caches]

    def read(self) -> None:
        """Find what is on disk, another process's shards included."""
        for cache in self.caches:
            cache.read()

    def fill(self, clips: ClipStream) -> None:
        """Encode the clips that are not there yet, clean."""
        self.model.eval()
        for facts, stream, cache in zip(
            self.model.config.streams, self.model.teacher.streams, self.caches, strict=True
        ):
            cache.compute(clips, partial(self._encode, stream), f"encoding by {facts['name']}")

    def _encode(self, stream: nn.Module, waveform: Tensor, name: str) -> list[Tensor]:
        """One stream's states of one clip, `(L, T, H)`."""
        waveform = waveform[None].to(self.model.device)
        states, lengths = stream.encode(waveform, torch.ones_like(waveform, dtype=torch.long))
        return [averaged_steps(states, lengths, self.model.config.frames_per_step)[0]]

    def batch(self, ids: list[str]) -> tuple[list[Tensor], Tensor]:
        """States of some clips as `judge` takes them: per stream `(B, L, T, H)`, and the true steps `(B,)`."""
        clips = [self[name] for name in ids]
        lengths = torch.tensor([min(states.shape[1] for states in clip) for clip in clips])  # that all streams have
        padded = []
        for number in range(len(self.caches)):
            layers, _, width = clips[0][number].shape
            states = torch.zeros(len(clips), layers, int(lengths.max()), width)
            for row, clip, length in zip(states, clips, lengths.tolist(), strict=True):
                row[:, :length] = clip[number][:, :length]
            padded.append(states)
        return padded, lengths


FRAMES_VERSION = 2  # raise it when the numbers of `LogMel.unnormalized` or of the augmentation change


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
        facts = [FRAMES_VERSION, front_end.num_mel_bins, front_end.sampling_rate, asdict(strengths), versions]
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
            return [self.front_end.unnormalized(each[None].to(device))[0] for each in heard]

        self.compute(stream, versions, "augmenting")

    def batch(self, ids: list[str], epoch: int) -> tuple[Tensor, Tensor]:
        """Unnormalized frames `(B, T, M)` of the version whose turn it is, and their number `(B,)`."""
        clips = [self.tensor(name, epoch % self.count) for name in ids]
        return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).float(), torch.tensor([len(c) for c in clips])


def _moments(pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the first axis of pieces `(N_i, ...)`, in float64, with a floor on the deviation."""
    count, total, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for piece in pieces:
        wide = piece.double().cpu()
        count, total, square = count + len(wide), total + wide.sum(0), square + wide.square().sum(0)
    mean = total / count
    return mean.float(), (square / count - mean.square()).clamp(min=1e-6).sqrt().float()


@torch.no_grad()
def set_log_mel_statistics(model: nn.Module, clips: ClipStream) -> None:
    """Fix every log-mel front end of a model to the clean training clips; all have the same number of bins."""
    front_ends = [module for module in model.modules() if isinstance(module, LogMel)]
    if not front_ends:
        return
    device = front_ends[0].window.device
    waveforms = (torch.as_tensor(example["waveform"])[None].to(device) for example in clips.clips())
    mean, deviation = _moments(front_ends[0].unnormalized(waveform)[0] for waveform in waveforms)
    for front_end in front_ends:
        front_end.set_statistics(mean, deviation)


@torch.no_grad()
def set_layer_statistics(model: nn.Module, cache: EncoderStates, ids: Sequence[str]) -> None:
    """Fix the standardization of every encoder stream.

    Args:
        model: a fused teacher with heads.
        cache: of what its encoders say.
        ids: the training clips, or enough of them.
    """
    for number, stream in enumerate(model.teacher.streams):  # type: ignore[union-attr, arg-type]
        for module in stream.modules():
            if isinstance(module, LayerStatistics):
                module.set_statistics(*_moments(cache[name][number].transpose(0, 1) for name in ids))


def copy_statistics(source: nn.Module, target: nn.Module) -> None:
    """Give one model the statistics of another of the same shape."""
    for ours, theirs in zip(target.modules(), source.modules(), strict=True):
        if isinstance(ours, (LogMel, LayerStatistics)):
            ours.set_statistics(theirs.mean, theirs.deviation)  # type: ignore[arg-type]
