"""A teacher's adapters in place of its weights, and the record of the encoders that they belong to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash

from audio_emotion.checkpoint_loading import ADAPTER
from audio_emotion.hub.checkpoint import BASE_ENCODERS
from audio_emotion.hub.checks import load_strictly


def record_base_encoders(model: PreTrainedModel, checkpoint: Path) -> None:
    """Write the digests and revisions of the encoders under a teacher's adapters into its configuration.

    Raises:
        ValueError: if the checkpoint has no adapters.
    """
    path = checkpoint / ADAPTER / BASE_ENCODERS
    if not path.is_file():
        raise ValueError(
            f"Expected the checkpoint of a run with `--tuning lora`, with its adapters in {ADAPTER}/, got none in "
            f"{checkpoint}. Publish the whole model: leave `--adapter-only` out."
        )
    digests = json.loads(path.read_text(encoding="utf-8"))
    for stream in model.config.streams:
        if stream["kind"] == "encoder":
            stream["base_sha256"] = digests[stream["name"]]
            if stream["revision"] is None and stream["source"].count("/") == 1:
                # The newest revision; loading verifies by the digest that it is the one used in training.
                stream["revision"] = extract_commit_hash(cached_file(stream["source"], CONFIG_NAME), None)


def replace_weights_by_adapter(
    folder: Path, checkpoint: Path, model: PreTrainedModel, encoders: dict[str, str]
) -> None:
    """Put the adapters in place of the weights, and verify that with the encoders they give the same model.

    Raises:
        ValueError: if they do not.
    """
    for weights in folder.glob("model*.safetensors*"):
        weights.unlink()
    shutil.copytree(checkpoint / ADAPTER, folder / ADAPTER, ignore=shutil.ignore_patterns(BASE_ENCODERS))
    loaded = load_strictly(folder, encoders).state_dict()
    different = [
        name
        for name, tensor in model.state_dict().items()
        if not name.endswith("masked_spec_embed") and not torch.allclose(loaded[name], tensor, rtol=1e-5, atol=1e-5)
    ]
    if different:
        raise ValueError(
            f"Expected adapters that give the weights of {checkpoint}, got others for {different}. Train again, or "
            "publish the whole model: leave `--adapter-only` out."
        )
