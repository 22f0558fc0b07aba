"""Frozen encoders run once: their states on disk, a safetensors shard per hundred clips."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.training.streams import ClipStream

CODE_VERSION = 1  # raise it when the numbers of `FusedEmotionModel.encode` change
CLIPS_PER_SHARD = 100


class EncoderStates:
    """What every stream of a teacher with frozen encoders says of every clip, in float16.

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
        self.states: dict[str, list[Tensor]] = {}  # clip id -> per stream (L, T, H)
        self.read()

    def read(self) -> None:
        """Take in what is on disk, another process's shards included."""
        self.states.clear()
        for shard in sorted(self.folder.glob("*.safetensors")):
            self._take(load_file(shard))

    @torch.no_grad()
    def fill(self, stream: ClipStream) -> None:
        """Encode the clips that are not there yet, clean and one by one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read()
        self.model.eval()
        fresh: dict[str, Tensor] = {}
        for example in stream.epoch(0):
            if example["id"] in self.states:
                continue
            states, _ = self.model.teacher.encode(torch.as_tensor(example["waveform"])[None].to(self.model.device))
            for number, state in enumerate(states):
                assert state is not None
                fresh[f"{example['id']}/{number}"] = state[0].half().cpu()
            if len(fresh) >= CLIPS_PER_SHARD * len(states):
                self._write(fresh)
                fresh = {}
        if fresh:
            self._write(fresh)

    def batch(self, ids: list[str]) -> tuple[list[Tensor], Tensor]:
        """States of some clips as `judge` takes them: per stream `(B, L, T, H)`, and the true frames `(B,)`."""
        clips = [self.states[name] for name in ids]
        lengths = torch.tensor([clip[0].shape[1] for clip in clips])
        time = int(lengths.max())
        padded = [
            torch.stack([torch.nn.functional.pad(clip[n], (0, 0, 0, time - clip[n].shape[1])) for clip in clips])
            for n in range(len(clips[0]))
        ]
        return [states.float() for states in padded], lengths

    def _take(self, tensors: dict[str, Tensor]) -> None:
        for key in sorted(tensors, key=lambda key: int(key.rsplit("/", 1)[1])):
            self.states.setdefault(key.rsplit("/", 1)[0], []).append(tensors[key])

    def _write(self, fresh: dict[str, Tensor]) -> None:
        """Write one shard under a name of its content, whole or not at all."""
        name = hashlib.sha256("".join(sorted(fresh)).encode()).hexdigest()[:16]
        partial = self.folder / f"{name}.partial"
        save_file({key: tensor.contiguous() for key, tensor in fresh.items()}, partial)
        partial.rename(self.folder / f"{name}.safetensors")
        self._take(fresh)
