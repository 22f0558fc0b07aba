"""A stream gives, after any parts, what the model gives for the samples so far in one piece."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.audio_io import read_audio
from audio_emotion.layers import TRUNKS, Trunk
from audio_emotion.log_mel import CONTEXT, HOP, LogMel

SIZES = {"num_mel_bins": 12, "convolution_size": 6, "hidden_size": 10, "embedding_size": 8}
NAMES = ("embedding", "dimensions", "logits", "log_variance")
STUDENTS = {
    "default": {},
    "relative level": {"level": "relative", "frames_per_step": 8, "pooling": "statistics"},
    "last frame": {"pooling": "last", "frames_per_step": 2},
    "two heads": {"pooling": "attentive", "pooling_heads": 2, "level": "relative"},
    "no convolution": {"convolution_size": 0, "pooling": "statistics"},
    "look-ahead": {"look_ahead": 2, "convolution_kernel": 5},
    "one kernel": {"convolution_kernel": 1},
    "convolutional": {"trunk": "convolutional", "convolution_kernel": 5, "num_convolution_blocks": 5},
    "linear": {"trunk": "linear", "level": "relative"},
    "variance": {"predict_variance": True},
}
CHUNKS = {"one": None, "single samples": 1, "20 ms": 320, "half a second": 8_000, "uneven": (0, 7, 1_999, 401, 3, 160)}


def student(**fields) -> StudentEmotionForAudioClassification:
    """A student with random weights and statistics."""
    torch.manual_seed(0)
    model = StudentEmotionForAudioClassification(
        StudentEmotionConfig(emotions=["angry", "sad"], **{**SIZES, **fields})
    )
    model.student.log_mel.set_statistics(torch.full((12,), -6.0), torch.full((12,), 2.0))
    return model.eval()


def voice(samples: int, seed: int = 0) -> torch.Tensor:
    """Noise whose level changes, `(S,)`."""
    random = torch.Generator().manual_seed(seed)
    level = 0.02 + 0.2 * torch.rand(samples // 800 + 1, generator=random).repeat_interleave(800)[:samples]
    return level * torch.randn(samples, generator=random)


def parts(samples: torch.Tensor, chunks) -> list[torch.Tensor]:
    """The samples in parts of a length, or of alternating lengths."""
    lengths = [len(samples)] if chunks is None else [chunks] if isinstance(chunks, int) else list(chunks)
    found, begin = [], 0
    while begin < len(samples):
        found.append(samples[begin : begin + lengths[len(found) % len(lengths)]])
        begin += len(found[-1])
    return found


def require_equal(
    output, expected, tolerance: float = 5e-5
) -> None:  # up to 1.7e-5 with AVX-512: sums in another order
    for name in NAMES:
        assert (name in output) == (name in expected), name
        if name in expected:
            torch.testing.assert_close(output[name], expected[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("fields", STUDENTS.values(), ids=STUDENTS)
@torch.no_grad()
def test_a_stream_in_parts_gives_the_output_of_the_whole_clip(fields, chunks):
    model = student(**fields)
    samples = voice(2_500 if chunks == 1 else 30_011)
    stream = model.stream()
    for part in parts(samples, chunks):
        stream.feed(part)
    require_equal(stream.result(), model(samples[None]))


@pytest.mark.parametrize("fields", STUDENTS.values(), ids=STUDENTS)
@torch.no_grad()
def test_every_output_on_the_way_is_that_of_the_samples_so_far(fields):
    model, samples = student(**fields), voice(12_000)
    stream, length = model.stream(), 0
    for part in parts(samples, (700, 2_600)):
        output, length = stream.feed(part), length + len(part)
        require_equal(stream.result(), model(samples[None, :length]))
        if output is not None and not model.config.look_ahead:
            require_equal(output, model(samples[None, :length]))
    assert output is not None


@pytest.mark.parametrize("length", [1, 100, CONTEXT - 1, CONTEXT, 399, 400, 879, 880, 881, 1_040])
@torch.no_grad()
def test_a_short_stream_gives_the_output_of_the_short_clip(length):
    model, samples = student(level="relative"), voice(length)
    stream = model.stream()
    for part in parts(samples, 150):
        stream.feed(part)
    require_equal(stream.result(), model(samples[None]))


@torch.no_grad()
def test_streams_of_a_batch_are_independent_of_each_other_and_of_their_pace():
    model = student(level="relative", pooling="statistics")
    clips = [voice(length, seed) for seed, length in enumerate((20_000, 9_001, 15_555))]
    stream, begin = model.stream(batch_size=3), [0, 0, 0]
    random = np.random.default_rng(0)
    while any(start < len(clip) for start, clip in zip(begin, clips, strict=True)):
        lengths = random.integers(0, 3_000, size=3)
        stream.feed([clip[start : start + n] for clip, start, n in zip(clips, begin, lengths, strict=True)])
        begin = [start + int(n) for start, n in zip(begin, lengths, strict=True)]
    result = stream.result()
    for row, clip in enumerate(clips):
        alone = model(clip[None])
        for name in ("embedding", "dimensions", "logits"):
            torch.testing.assert_close(result[name][row], alone[name][0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stream_that_is_reset_starts_anew_and_the_others_continue():
    model, first, second = student(level="relative"), voice(9_000), voice(7_000, seed=1)
    stream = model.stream(batch_size=2)
    stream.feed(torch.stack([first, first]))
    stream.reset([1])
    stream.feed([first[:0], second])
    result = stream.result()
    torch.testing.assert_close(result.logits[0], model(first[None]).logits[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.logits[1], model(second[None]).logits[0], atol=1e-5, rtol=1e-5)
    stream.reset()
    assert stream.feed([first[:0], first[:0]]) is None


@torch.no_grad()
def test_the_step_is_a_function_of_samples_and_state_alone():
    model = student(level="relative", frames_per_step=2)
    state = model.student.initial_state(1)
    samples = voice(CONTEXT + 10 * 2 * HOP)
    state["context"] = samples[None, :CONTEXT]
    kept = {name: each.clone() for name, each in state.items()}
    outputs, after = model.streaming_step(samples[None, CONTEXT:], state)
    assert set(after) == set(state)
    assert {name: each.shape for name, each in after.items()} == {name: each.shape for name, each in state.items()}
    for name, each in kept.items():
        torch.testing.assert_close(state[name], each)
    again = model(samples[None], output_frames=True)
    torch.testing.assert_close(outputs["dimensions"], again.frame_dimensions, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_memory_does_not_grow_with_the_length_of_a_stream():
    stream, second = student(level="relative").stream(), voice(16_000)
    sizes = []
    for _ in range(20):
        stream.feed(second)
        sizes.append(sum(each.numel() for each in [*stream.state.values(), *stream.waiting]))
    assert max(sizes[5:]) <= max(sizes[:5]) + stream.step_samples


def test_a_level_over_hours_is_carried_without_rounding():
    """In parts of a minute, the sums over three hours are those in double precision."""
    front_end = LogMel(12, 16_000, "relative")
    level, exact = torch.zeros(1, 4), [0.0, 0.0]
    power = torch.rand(180, 6_000, generator=torch.Generator().manual_seed(0)) ** 4
    from audio_emotion.log_mel import cumulative_sum

    state = torch.zeros(1, 2)
    for minute in power:
        sums, state = cumulative_sum(minute[None], state)
        exact[0] += float(minute.double().sum())
    assert float(sums[0, -1]) == pytest.approx(exact[0], rel=1e-6)
    assert front_end.continue_log_mel(torch.zeros(1, 400), level)[1].shape == level.shape


def test_wrong_samples_and_models_are_refused():
    stream = student().stream()
    for wrong in (torch.zeros(2, 100), torch.tensor([0.0, float("nan")])):
        with pytest.raises(ValueError, match="Expected"):
            stream.feed(wrong)
    with pytest.raises(ValueError, match="Expected samples"):
        stream.result()
    with pytest.raises(ValueError, match="forward trunk"):
        student(bidirectional=True).stream()


def test_a_trunk_without_a_step_is_refused(monkeypatch):
    class Frames(torch.nn.Module):
        def __init__(self, input_size, config):
            super().__init__()
            self.linear, self.output_size = torch.nn.Linear(input_size, 4), 4

        def forward(self, features, lengths):
            return self.linear(features)

    monkeypatch.setitem(TRUNKS, "frame", Trunk(Frames, sizes={}, is_causal=True))
    with pytest.raises(ValueError, match="trunk"):
        student(trunk="frame").stream()


@pytest.mark.slow
@torch.no_grad()
def test_real_clips_in_seven_ways_give_the_offline_output():
    folder = os.environ.get("AUDIO_EMOTION_DATA", "")
    clips = sorted(Path(folder, "crema-d", "AudioWAV").glob("*.ogg"))[::70][:100]
    if len(clips) < 100:
        pytest.skip("needs CREMA-D in $AUDIO_EMOTION_DATA")
    import audio_emotion

    model = StudentEmotionForAudioClassification.from_pretrained(audio_emotion.STUDENT).eval()
    for clip in clips:
        samples = torch.from_numpy(read_audio(clip, 16_000).waveform)
        expected = model(samples[None])
        for chunks in (None, 160, 320, 1_000, 8_000, 16_000, (0, 7, 1_999, 401, 3, 160)):
            stream = model.stream()
            for part in parts(samples, chunks):
                stream.feed(part)
            require_equal(stream.result(), expected)
