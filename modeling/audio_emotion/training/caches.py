"""Frozen encoders run once: their states on disk, a safetensors shard per hundred clips."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.training.streams import ClipStream

CODE_VERSION = 1  # raise it when the numbers of `FusedEmotionModel.encode` change
CLIPS_PER_SHARD = 100


class EncoderStates:
    """What every stream of a teacher with frozen encoders says of every clip, in float16, read from disk when asked.

    Args:
        folder: where caches live; one subfolder per set of streams, named by what decides the numbers.
        model: the teacher; its front end's statistics must be set before.
    """

    def __init__(self, folder: str | Path, model: FusedEmotionForAudioClassification) -> None:
        digest = hashlib.sha256(json.dumps([CODE_VERSION, list(model.config.streams)], sort_keys=True).encode())
        for stream in model.teacher.streams:
            for name, tensor in sorted(stream.state_dict().items()):
                if not name.startswith(("layer_mix", "projection")):
                    digest.update(tensor.detach().cpu().numpy().tobytes())
        self.folder = Path(folder) / digest.hexdigest()[:16]
        self.model = model
        self.num_streams = len(model.teacher.streams)
        self.shard_of: dict[str, Path] = {}  # clip id -> the file it lies in
        self._open = lru_cache(maxsize=64)(partial(safe_open, framework="pt"))
        self.read()

    def __contains__(self, name: str) -> bool:
        return name in self.shard_of

    def __getitem__(self, name: str) -> list[Tensor]:
        """States of one clip, per stream `(L, T, H)` in float16."""
        shard = self._open(self.shard_of[name])
        return [shard.get_tensor(f"{name}/{number}") for number in range(self.num_streams)]

    def read(self) -> None:
        """Find what is on disk, another process's shards included."""
        for shard in set(self.folder.glob("*.safetensors")) - set(self.shard_of.values()):
            with safe_open(shard, framework="pt") as tensors:
                self.shard_of |= {key.rsplit("/", 1)[0]: shard for key in tensors.keys()}  # noqa: SIM118 - no dict

    @torch.no_grad()
    def fill(self, stream: ClipStream) -> None:
        """Encode the clips that are not there yet, clean and one by one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read()
        self.model.eval()
        fresh: dict[str, Tensor] = {}
        missing = [index for index, name in enumerate(stream.table["id"]) if name not in self]
        for example in tqdm(stream.clips(missing), "encoding", len(missing), disable=not missing):
            states, _ = self.model.teacher.encode(torch.as_tensor(example["waveform"])[None].to(self.model.device))
            for number, state in enumerate(states):
                assert state is not None
                fresh[f"{example['id']}/{number}"] = state[0].half().cpu().contiguous()
            if len(fresh) >= CLIPS_PER_SHARD * self.num_streams:
                self._write(fresh)
                fresh = {}
        if fresh:
            self._write(fresh)

    def batch(self, ids: list[str]) -> tuple[list[Tensor], Tensor]:
        """States of some clips as `judge` takes them: per stream `(B, L, T, H)`, and the true frames `(B,)`."""
        clips = [self[name] for name in ids]
        lengths = torch.tensor([clip[0].shape[1] for clip in clips])
        padded = []
        for number in range(self.num_streams):
            layers, _, width = clips[0][number].shape
            states = torch.zeros(len(clips), layers, int(lengths.max()), width)
            for row, clip in zip(states, clips, strict=True):
                row[:, : clip[number].shape[1]] = clip[number]
            padded.append(states)
        return padded, lengths

    def _write(self, fresh: dict[str, Tensor]) -> None:
        """Write one shard under a name of its content, whole or not at all."""
        shard = self.folder / f"{hashlib.sha256(''.join(sorted(fresh)).encode()).hexdigest()[:16]}.safetensors"
        whole = shard.with_suffix(".partial")
        save_file(fresh, whole)
        whole.rename(shard)
        self.shard_of |= {key.rsplit("/", 1)[0]: shard for key in fresh}
