"""Augmentation of features: masks on log-mel frames and encoder states, crops, and mixtures of clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audio_emotion.data.augmentation import seeded_generator


def mask_spectrogram(
    features: Tensor,
    lengths: Tensor,
    generator: torch.Generator | int,
    time_masks: int = 2,
    time_width: int = 25,
    time_fraction: float = 0.2,
    frequency_masks: int = 2,
    frequency_width: int = 12,
) -> Tensor:
    """Mask random time spans and frequency bands of each clip (SpecAugment, Park et al. 2019).

    https://arxiv.org/abs/1904.08779. Masked values are 0, the mean of features that are normalized with training-set
    statistics. Padding is unchanged.

    Args:
        features: (B, T, F).
        lengths: (B,) frames of each clip without padding.
        generator: of the CPU, or a seed.
        time_masks: time spans per clip; they may overlap.
        time_width: longest time span, frames.
        time_fraction: longest time span as a fraction of the clip.
        frequency_masks: frequency bands per clip.
        frequency_width: widest frequency band, bins.

    Returns:
        (B, T, F), a new tensor.
    """
    generator = seeded_generator(generator)
    _, frames, bins = features.shape
    lengths = lengths.to(features.device)
    widest = (lengths * time_fraction).floor().clamp(max=time_width)  # (B,)
    in_time = _spans(frames, lengths.float(), widest, time_masks, generator)  # (B, T)
    all_bins, widest = torch.full_like(widest, bins), torch.full_like(widest, frequency_width)
    in_frequency = _spans(bins, all_bins, widest, frequency_masks, generator)  # (B, F)
    speech = torch.arange(frames, device=features.device) < lengths[:, None]  # (B, T)
    blank = (in_time[:, :, None] | in_frequency[:, None, :]) & speech[:, :, None]  # (B, T, F)
    return features.masked_fill(blank, 0.0)


def mask_time(
    states: Sequence[Tensor],
    lengths: Tensor,
    fills: Sequence[Tensor],
    generator: torch.Generator | int,
    time_fraction: float = 0.2,
) -> list[Tensor]:
    """Mask one random time span of each clip, the same in every stream.

    Args:
        states: per stream (B, L, T, H), as returned by `FusedEmotionModel.encode`.
        lengths: (B,) frames of each clip without padding.
        fills: per stream (L, H), values of masked frames: the mean that the stream subtracts.
        generator: of the CPU, or a seed.
        time_fraction: longest span as a fraction of the clip.

    Returns:
        per stream (B, L, T, H), new tensors.
    """
    lengths = lengths.cpu().float()
    widest = (lengths * time_fraction).floor()  # (B,)
    spans = _spans(states[0].shape[2], lengths, widest, 1, seeded_generator(generator))  # (B, T)
    return [
        torch.where(spans.to(each.device)[:, None, :, None], fill.to(each.device)[None, :, None], each)
        for each, fill in zip(states, fills, strict=True)
    ]


def crop_time(
    states: Sequence[Tensor], lengths: Tensor, longest: int, generator: torch.Generator | int
) -> tuple[list[Tensor], Tensor]:
    """Crop each clip to `longest` steps from a random one on, the same in every stream; shorter clips stay whole.

    Args:
        states: per stream (B, L, T, H), as returned by `FusedEmotionModel.encode`.
        lengths: (B,) steps of each clip without padding.
        longest: steps of a crop.
        generator: of the CPU, or a seed.

    Returns:
        per stream (B, L, T', H), and the new lengths (B,).
    """
    spare = (lengths - longest).clamp(min=0)  # (B,)
    starts = (torch.rand(len(lengths), generator=seeded_generator(generator)) * (spare + 1)).long()
    steps = starts[:, None] + torch.arange(min(states[0].shape[2], longest))  # (B, T')
    clips = torch.arange(len(lengths))[:, None]
    return [each.transpose(1, 2)[clips, steps].transpose(1, 2) for each in states], lengths.clamp(max=longest)


def mix_clips(
    states: Sequence[Tensor],
    lengths: Tensor,
    labels: Tensor,
    ratings: Tensor,
    weight: Tensor,
    seed: int,
    alpha: float = 0.4,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Interpolate every clip of a batch, and its labels, with another one: mixup (Zhang et al. 2018).

    https://arxiv.org/abs/1710.09412; here of encoder states, frame by frame, with one coefficient per batch. The
    longer clip of a pair is truncated to the shorter one.

    Args:
        states: per stream `(B, L, T, H)`.
        lengths: `(B,)` frames of each clip without padding.
        labels: `(B, C)` distributions, NaN where missing.
        ratings: `(B, A)`, NaN where missing.
        weight: `(B,)`, 0 for clips that only fill the batch, which are not mixed with others.
        seed: of coefficient and pairs.
        alpha: parameter of the beta distribution of the coefficient.

    Returns:
        states, lengths, labels and ratings; labels are missing where one clip of the pair has none.
    """
    random = np.random.default_rng(seed)
    coefficient = random.beta(alpha, alpha)
    partners = torch.arange(len(lengths))
    clips = torch.nonzero(weight > 0).squeeze(1)
    partners[clips] = clips[torch.from_numpy(random.permutation(len(clips)))]
    shorter = torch.minimum(lengths, lengths[partners])  # (B,)
    time = int(shorter.max())

    def mixed(tensor: Tensor) -> Tensor:
        return coefficient * tensor + (1 - coefficient) * tensor[partners]

    return [mixed(each[:, :, :time]) for each in states], shorter, mixed(labels), mixed(ratings)


def _spans(size: int, lengths: Tensor, widest: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Whether each of `size` positions is in one of `count` random spans, at most `widest` (B,) long: (B, N)."""
    draws = torch.rand(2, len(lengths), count, generator=generator).to(lengths.device)
    widths = (draws[0] * (widest[:, None] + 1)).floor().minimum(lengths[:, None])  # (B, M)
    starts = (draws[1] * (lengths[:, None] - widths + 1)).floor()  # (B, M)
    places = torch.arange(size, device=lengths.device)
    return ((places >= starts[..., None]) & (places < (starts + widths)[..., None])).any(dim=1)
