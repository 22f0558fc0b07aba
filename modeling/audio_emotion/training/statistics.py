"""Means and deviations over the training clips, fixed in a model: of log-mel bins and of encoders' features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from audio_emotion.encoders import LayerStatistics
from audio_emotion.log_mel import LogMel
from audio_emotion.training.caches import EncoderStates
from audio_emotion.training.streams import ClipStream


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
    mean, deviation = _moments(front_ends[0].unnormalised(waveform)[0] for waveform in waveforms)
    for front_end in front_ends:
        front_end.set_statistics(mean, deviation)


@torch.no_grad()
def set_layer_statistics(model: nn.Module, cache: EncoderStates, ids: Sequence[str]) -> None:
    """Fix the standardisation of every encoder stream.

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
