"""The log-mel front end: numbers, frames, statistics and the relative level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from audio_emotion.log_mel import (
    FLOOR,
    HOP,
    RELATIVE_FLOOR,
    WINDOW,
    LogMel,
    _mel_power_by_products,
    cumulative_sum,
    frame_mask,
    mel_power,
    stack_frames,
)

RATE = 16000


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))


def test_frames_are_the_log_of_the_mel_power_by_its_formula():
    """HTK mel, triangles, power of a Hann-windowed frame: by the formulas, in float64."""
    bins, waveform = 12, noise(2000)
    frames = LogMel(bins, RATE).compute_log_mel(waveform)[0]

    def mel(hertz: float) -> float:
        return 2595.0 * np.log10(1.0 + hertz / 700.0)

    corners = 700.0 * (10 ** (np.linspace(mel(20.0), mel(RATE / 2), bins + 2) / 2595.0) - 1.0)
    frequencies = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    for t in range(frames.shape[0]):
        power = np.abs(np.fft.rfft(waveform[0, t * HOP : t * HOP + WINDOW].numpy().astype(np.float64) * window)) ** 2
        for m in range(bins):
            low, middle, high = corners[m : m + 3]
            rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
            triangle = np.maximum(0.0, np.minimum(rising, falling))
            assert frames[t, m].item() == pytest.approx(np.log(power @ triangle + FLOOR), abs=1e-3)


def test_frames_are_those_of_transformers():
    bins, waveform = 40, noise(RATE)
    filters = mel_filter_bank(WINDOW // 2 + 1, bins, 20.0, RATE / 2, RATE, mel_scale="htk")
    power = spectrogram(
        waveform[0].numpy(),
        window_function(WINDOW, "hann"),
        frame_length=WINDOW,
        hop_length=HOP,
        power=2.0,
        center=False,
        mel_filters=filters,
        mel_floor=0.0,
    )

    ours = LogMel(bins, RATE).compute_log_mel(waveform)[0].numpy()

    np.testing.assert_allclose(ours, np.log(power.T + FLOOR), atol=1e-3)


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (559, 1), (560, 2), (16000, 98)])
def test_only_frames_entirely_inside_the_clip_count(samples, frames):
    features, lengths = LogMel(10, RATE)(noise(samples), torch.ones(1, samples))

    assert features.shape == (1, frames, 10)
    assert lengths.tolist() == [frames]


def test_padding_adds_zeros_and_does_not_change_the_frames():
    front_end = LogMel(10, RATE)
    front_end.set_statistics(torch.full((10,), -3.0), torch.full((10,), 2.0))
    clip = noise(1000)
    waveform, mask = torch.zeros(1, 3000), torch.zeros(1, 3000)
    waveform[:, :1000], mask[:, :1000] = clip, 1

    padded, lengths = front_end(waveform, mask)
    alone, _ = front_end(clip, torch.ones(1, 1000))

    assert lengths.tolist() == [alone.shape[1]]
    torch.testing.assert_close(padded[:, : alone.shape[1]], alone)
    assert not padded[:, alone.shape[1] :].any()


def test_statistics_are_fixed_and_not_those_of_the_clip():
    front_end = LogMel(10, RATE)
    raw = front_end.compute_log_mel(noise(RATE))
    front_end.set_statistics(raw.mean((0, 1)), raw.std((0, 1)))

    features, _ = front_end(noise(RATE), torch.ones(1, RATE))
    louder, _ = front_end(10 * noise(RATE), torch.ones(1, RATE))

    torch.testing.assert_close(features.mean((0, 1)), torch.zeros(10), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std((0, 1)), torch.ones(10), atol=1e-4, rtol=0)
    assert (louder.mean((0, 1)) > 1).all()


def test_digital_silence_is_finite():
    assert LogMel(10, RATE)(torch.zeros(1, 800), torch.ones(1, 800))[0].isfinite().all()


def test_mixed_precision_does_not_change_the_front_end():
    front_end, waveform = LogMel(10, RATE), noise(RATE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = front_end(waveform, torch.ones(1, RATE))

    assert torch.equal(mixed, front_end(waveform, torch.ones(1, RATE))[0])


def test_steps_are_stacked_frames_and_an_incomplete_one_is_left_out():
    frames = torch.arange(14.0).view(2, 7, 1)
    frames[1, 5:] = 0

    steps, lengths = stack_frames(frames, torch.tensor([7, 5]), per_step=2)

    assert steps[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert steps[1].tolist() == [[7, 8], [9, 10], [0, 0]]  # the frame 11 is half a step
    assert lengths.tolist() == [3, 2]


def test_a_clip_shorter_than_a_step_is_one_step():
    steps, lengths = stack_frames(torch.ones(1, 3, 2), torch.tensor([3]), per_step=4)

    assert steps.tolist() == [[[1.0] * 6 + [0.0] * 2]]
    assert lengths.tolist() == [1]


def test_a_frame_mask_has_as_many_ones_as_frames():
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_relative_frames_are_ratios_to_the_power_so_far_by_amplitude():
    waveform = noise(4000) * torch.linspace(0.2, 1.0, 4000)
    power = LogMel(10, RATE).compute_log_mel(waveform)[0].double().exp() - FLOOR

    ours = LogMel(10, RATE, "relative").compute_log_mel(waveform)[0]

    each = power.mean(-1)
    for t in range(len(power)):
        so_far = np.average(each[: t + 1], weights=each[: t + 1] ** 0.5)
        expected = (power[t] / so_far + RELATIVE_FLOOR).log()
        torch.testing.assert_close(ours[t].double(), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("pause", [0.0, 3e-4], ids=["digital silence", "-70 dB"])
def test_ten_seconds_of_pause_hardly_change_the_relative_frames_of_a_voice(pause):
    voice, front_end = noise(RATE), LogMel(10, RATE, "relative")
    paused = torch.cat([pause * noise(10 * RATE), voice], dim=1)

    alone, after = front_end.compute_log_mel(voice), front_end.compute_log_mel(paused)[:, 1000:]

    assert (after - alone)[:, 50:].abs().max() < 0.1  # their mean over all frames would move them by 3


@pytest.mark.parametrize("gain", [1e-2, 0.3, 4.0])
def test_gain_changes_absolute_frames_and_not_relative_ones(gain):
    waveform = noise(RATE) * torch.linspace(0.0, 1.0, RATE)

    relative, absolute = (LogMel(10, RATE, level) for level in ("relative", "absolute"))

    difference = (relative.compute_log_mel(gain * waveform) - relative.compute_log_mel(waveform)).abs()
    assert difference.max() < 1e-3
    difference = (absolute.compute_log_mel(gain * waveform) - absolute.compute_log_mel(waveform))[0, 50:].abs()
    assert difference.min() > 0.5


@pytest.mark.parametrize("peak", [1e-4, 2.0**31])
def test_relative_frames_are_the_same_from_the_quietest_to_the_loudest_samples(peak):
    waveform, front_end = noise(20 * RATE).clamp(-0.5, 0.5) * 2, LogMel(10, RATE, "relative")

    difference = front_end.compute_log_mel(peak * waveform) - front_end.compute_log_mel(waveform)

    assert difference.abs().max() < 0.01


@pytest.mark.parametrize(("hours", "tolerance"), [(1, 1e-5), (10, 1e-3)])
def test_a_cumulative_sum_over_hours_is_precise_where_sums_are_in_float32(hours, tolerance, monkeypatch):
    values = torch.full((1, 360_000 * hours), 0.1)  # frames of 10 ms
    expected = values.double().cumsum(-1)
    # The CPU adds in float64, a GPU in the type of the tensor, as numpy.
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda self, dim: torch.from_numpy(self.numpy().cumsum(dim)))
    plain = values.cumsum(-1)

    ours = cumulative_sum(values, values.new_zeros(len(values), 2))[0]

    assert ours.dtype == torch.float32
    assert (plain / expected - 1).abs().max() > 10 * tolerance
    assert (ours / expected - 1).abs().max() < tolerance


@pytest.mark.parametrize("length", [1, 7, 1023, 1024, 1025, 5000])
def test_a_cumulative_sum_is_that_of_torch(length):
    values = torch.rand(3, length, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(cumulative_sum(values, values.new_zeros(len(values), 2))[0], values.cumsum(-1))


def test_a_relative_frame_does_not_depend_on_later_samples():
    front_end, waveform = LogMel(10, RATE, "relative"), noise(RATE)
    loud_end = torch.cat([waveform[:, :8000], 10 * waveform[:, 8000:]], dim=1)

    ours, cut = front_end.compute_log_mel(loud_end), front_end.compute_log_mel(waveform[:, :8000])

    torch.testing.assert_close(ours[:, : cut.shape[1]], cut)


def test_relative_frames_of_digital_silence_are_finite_and_the_floor():
    frames = LogMel(10, RATE, "relative").compute_log_mel(torch.zeros(1, 800))

    torch.testing.assert_close(frames, torch.full_like(frames, float(np.log(RELATIVE_FLOOR))))


@pytest.mark.parametrize("samples", [400, 559, 560, 16_001])
def test_the_products_of_an_exported_graph_equal_the_transform(samples):
    front_end, waveform = LogMel(20, RATE), noise(samples)
    arguments = waveform, front_end.window, front_end.filters
    expected = mel_power(*arguments)

    found = _mel_power_by_products(*arguments)

    torch.testing.assert_close(found, expected, atol=1e-6 * expected.max().item(), rtol=1e-5)
