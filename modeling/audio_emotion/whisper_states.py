"""Layers of a Whisper encoder for clips of any length.

The forward of Whisper's encoder in transformers requires 30 s of frames and has no mask, so that a short clip costs
as much as 30 s. Here its stem and layers run on the true frames only; frames beyond the clip are 0 and masked in the
attention. (Radford et al. 2022, https://arxiv.org/abs/2212.04356, section 2.)
"""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from .log_mel import HOP, WINDOW, frame_mask, mel_power


def whisper_log_mel(
    waveform: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whisper's log-mel features, scaled by the loudest bin of each clip, 0 beyond its end.

    Args:
        waveform (`torch.Tensor` of shape `(B, S)`): 16 kHz, 0 beyond each clip.
        lengths (`torch.Tensor` of shape `(B,)`): true samples.
        num_mel_bins: 80, or 128 for the large-v3 family.

    Returns:
        features `(B, M, T)` at 100 Hz and their number `(B,)`.
    """
    with torch.autocast(waveform.device.type, enabled=False):
        bank = mel_filter_bank(WINDOW // 2 + 1, num_mel_bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
        filters = torch.from_numpy(bank.astype(np.float32)).to(waveform.device)  # (201, M)
        window = torch.hann_window(WINDOW, device=waveform.device)
        # Reflection padding at the start, as in Whisper; zeros at the end, as from its padding to 30 s.
        start = waveform[:, 1 : WINDOW // 2 + 1].flip(-1)
        padded = nn.functional.pad(torch.cat([start, waveform], dim=-1), (0, WINDOW))
        # Rounded up; a graph's division of negative integers rounds towards zero.
        time = (waveform.shape[-1] + HOP - 1) // HOP
        power = mel_power(padded, window, filters)[:, :time]  # (B, T, M)
        features = power.clamp(min=1e-10).log10().transpose(1, 2)  # (B, M, T)
        frames = (lengths + HOP - 1) // HOP  # (B,)
        mask = frame_mask(frames, time).unsqueeze(1)  # (B, 1, T)
        loudest = features.masked_fill(mask == 0, -10.0).amax(dim=(1, 2), keepdim=True)  # (B, 1, 1)
        return (torch.maximum(features, loudest - 8.0) + 4.0) / 4.0 * mask, frames


def whisper_hidden_states(
    encoder: nn.Module, features: torch.Tensor, frames: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Run the encoder's stem and layers on the true frames.

    Args:
        encoder: a `WhisperEncoder`.
        features (`torch.Tensor` of shape `(B, M, T)`): 0 beyond each clip.
        frames (`torch.Tensor` of shape `(B,)`): true frames at 100 Hz.

    Returns:
        the input of the first layer and the output of each, the last one normalized, as `(B, ceil(T / 2), H)`; and the
        true lengths at 50 Hz `(B,)`. Longer clips are split into independent chunks of 30 s.
    """
    limit = 2 * encoder.config.max_source_positions
    if torch.onnx.is_in_onnx_export() or features.shape[-1] > limit:
        batch, bins, time = features.shape
        # In a graph, which has no branches, a clip of at most 30 s is one chunk of its own length.
        length: Any = torch._shape_as_tensor(features)[2].clamp(max=limit) if torch.onnx.is_in_onnx_export() else limit
        chunks = (time + length - 1) // length
        padded = nn.functional.pad(features, (0, chunks * length - time))  # (B, M, N * length)
        parts = padded.reshape(batch, bins, chunks, length).transpose(1, 2).reshape(batch * chunks, bins, length)
        starts = torch.arange(chunks, device=frames.device) * length  # (N,)
        inside = (frames[:, None] - starts).clamp(min=0, max=limit).flatten()  # (B * N,)
        states, _ = _whisper_layers(encoder, parts, inside)
        steps = (time + 1) // 2
        return [each.reshape(batch, -1, each.shape[-1])[:, :steps] for each in states], (frames + 1) // 2
    return _whisper_layers(encoder, features, frames)


def _whisper_layers(
    encoder: nn.Module, features: torch.Tensor, frames: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """[`whisper_hidden_states`] of clips of at most 30 s."""
    features = features.to(encoder.conv1.weight.dtype)
    mask = frame_mask(frames, features.shape[-1]).unsqueeze(1).to(features.dtype)  # (B, 1, T)
    stem = nn.functional.gelu(encoder.conv1(features)) * mask  # zeros beyond the clip, as for a clip alone
    stem = nn.functional.gelu(encoder.conv2(stem)).transpose(1, 2)  # (B, T / 2, H)
    lengths = (frames + 1) // 2  # (B,)
    hidden = stem + encoder.embed_positions.weight[: stem.shape[1]]
    visible = frame_mask(lengths.clamp(min=1), stem.shape[1])[:, None, None, :]  # (B, 1, 1, T / 2)
    # Additive: attention implementations disagree on the meaning of a boolean mask.
    bias = torch.zeros_like(visible, dtype=hidden.dtype).masked_fill(visible == 0, torch.finfo(hidden.dtype).min)
    bias = bias.expand(-1, -1, stem.shape[1], -1)
    hidden_states = [hidden]
    for layer in encoder.layers:
        hidden = layer(hidden, bias)
        hidden_states.append(hidden)
    hidden_states[-1] = encoder.layer_norm(hidden)
    return hidden_states, lengths
