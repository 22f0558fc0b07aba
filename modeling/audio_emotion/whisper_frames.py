"""Whisper's encoder on clips of any length: its own log-mel, its stem and layers, with a mask.

The stock forward demands 30 s of frames and masks nothing, so that a short clip costs 30 s of computation. Here the
stem and the layers are run on the true frames only; frames past the clip are 0, and attention does not see them.
(Radford et al. 2022, https://arxiv.org/abs/2212.04356, section 2.)
"""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from .log_mel import HOP, WINDOW, frame_mask


def whisper_log_mel(
    waveform: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whisper's features of each clip, scaled by the clip's own loudest bin, 0 past its end.

    Args:
        waveform (`torch.Tensor` of shape `(B, S)`): 16 kHz, 0 past each clip.
        lengths (`torch.Tensor` of shape `(B,)`): true samples.
        num_mel_bins: 80, or 128 for the large-v3 family.

    Returns:
        features `(B, M, T)` at 100 Hz and their number `(B,)`.
    """
    with torch.autocast(waveform.device.type, enabled=False):
        filters = torch.tensor(
            mel_filter_bank(WINDOW // 2 + 1, num_mel_bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney"),
            dtype=torch.float32,
            device=waveform.device,
        )  # (201, M)
        window = torch.hann_window(WINDOW, device=waveform.device)
        # Reflected at the start, as Whisper's own features are; zeros at the end, as its padding to 30 s gives them.
        start = waveform[:, 1 : WINDOW // 2 + 1].flip(-1)
        padded = nn.functional.pad(torch.cat([start, waveform], dim=-1), (0, WINDOW))
        spectrum = torch.stft(padded, WINDOW, HOP, window=window, center=False, return_complex=True)
        time = -(-waveform.shape[-1] // HOP)
        power = torch.view_as_real(spectrum[..., :time]).square().sum(-1)  # (B, 201, T)
        features = (filters.T @ power).clamp(min=1e-10).log10()  # (B, M, T)
        frames = -(-lengths // HOP)  # (B,)
        mask = frame_mask(frames, time).unsqueeze(1)  # (B, 1, T)
        loudest = features.masked_fill(mask == 0, -10.0).amax(dim=(1, 2), keepdim=True)  # (B, 1, 1)
        return (torch.maximum(features, loudest - 8.0) + 4.0) / 4.0 * mask, frames


def whisper_hidden_states(
    encoder: nn.Module, features: torch.Tensor, frames: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Run the encoder's stem and layers on as many frames as there are.

    Args:
        encoder: a `WhisperEncoder`.
        features (`torch.Tensor` of shape `(B, M, T)`): 0 past each clip.
        frames (`torch.Tensor` of shape `(B,)`): true frames at 100 Hz.

    Returns:
        the input of the first layer, the output of each, the last one normalised, as `(B, ceil(T / 2), H)`; and the
        true lengths at 50 Hz `(B,)`. More than 30 s are run in pieces of 30 s that do not see each other.
    """
    limit = 2 * encoder.config.max_source_positions
    if features.shape[-1] > limit:
        pieces = [
            whisper_hidden_states(encoder, features[..., begin : begin + limit], (frames - begin).clamp(0, limit))
            for begin in range(0, features.shape[-1], limit)
        ]
        states = [torch.cat(parts, dim=1) for parts in zip(*(piece[0] for piece in pieces), strict=True)]
        return states, (frames + 1) // 2
    features = features.to(encoder.conv1.weight.dtype)
    mask = frame_mask(frames, features.shape[-1]).unsqueeze(1).to(features.dtype)  # (B, 1, T)
    stem = nn.functional.gelu(encoder.conv1(features)) * mask  # alone, the next convolution would see zeros there
    stem = nn.functional.gelu(encoder.conv2(stem)).transpose(1, 2)  # (B, T / 2, H)
    lengths = (frames + 1) // 2  # (B,)
    hidden = stem + encoder.embed_positions.weight[: stem.shape[1]]
    seen = frame_mask(lengths.clamp(min=1), stem.shape[1])[:, None, None, :]  # (B, 1, 1, T / 2)
    # Added to the scores: a mask of truth values means this to one attention implementation, +1 to another.
    unseen = torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(seen == 0, torch.finfo(hidden.dtype).min)
    unseen = unseen.expand(-1, -1, stem.shape[1], -1)
    hidden_states = [hidden]
    for layer in encoder.layers:
        hidden = layer(hidden, unseen)
        hidden_states.append(hidden)
    hidden_states[-1] = encoder.layer_norm(hidden)
    return hidden_states, lengths
