"""What is computed once per clip and kept: tensors on disk, a safetensors shard per hundred clips."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from audio_emotion.encoders import averaged_steps
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.training.streams import ClipStream

CODE_VERSION = 3  # raise it when the numbers of `FusedEmotionModel.encode` change
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
            described = [CODE_VERSION, facts, model.config.frames_per_step]
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
