"""Augmentation has the stated strengths, is reproducible for a seed, and leaves padding unchanged."""

import itertools
import math

import numpy as np
import pytest
import soundfile
import torch

from audio_emotion.data.augmentation import (
    NOISE_SLOPES,
    AugmentationStrengths,
    WaveformAugmentation,
    colored_noise,
    reverberate,
    room_response,
    with_pauses,
)
from audio_emotion.data.feature_augmentation import crop_time, mask_spectrogram, mask_time, mix_clips

NOTHING = {
    "speed_probability": 0.0,
    "reverberation_probability": 0.0,
    "noise_probability": 0.0,
    "gain_probability": 0.0,
}


@pytest.fixture
def speech():
    """Two seconds of an interrupted tone, (32000,)."""
    seconds = torch.arange(32_000) / 16_000
    return 0.1 * torch.sin(2 * math.pi * 220 * seconds) * (torch.sin(2 * math.pi * 2 * seconds) > 0)


def only(**changed):
    return WaveformAugmentation(AugmentationStrengths(**{**NOTHING, **changed}))


def decibels(ratio):
    return 10 * math.log10(ratio)


@pytest.mark.parametrize("seed", range(8))
def test_added_noise_has_the_given_snr(speech, seed):
    augment = only(noise_probability=1.0, snr=(12.0, 12.0))
    noise = augment(speech, seed) - speech

    assert decibels(speech.square().sum() / noise.square().sum()) == pytest.approx(12.0, abs=0.01)


def power_of(waveform, low, high):
    """Between two frequencies, Hz."""
    power, frequencies = torch.fft.rfft(waveform).abs().square(), torch.fft.rfftfreq(len(waveform), 1 / 16_000)
    return power[(frequencies >= low) & (frequencies < high)].sum().item()


def test_a_telephone_removes_frequencies_above_half_its_rate_and_in_half_of_the_cases_below_300_hz():
    sound = torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    below = set()
    for seed in range(16):
        heard = only(telephone_probability=1.0, telephone_rates=(8_000,))(sound, seed)

        assert heard.shape == sound.shape
        assert power_of(heard, 800, 3_000) == pytest.approx(power_of(sound, 800, 3_000), rel=0.05)
        assert power_of(heard, 5_000, 8_000) < 1e-4 * power_of(sound, 5_000, 8_000)
        below.add(power_of(heard, 0, 150) < 0.2 * power_of(sound, 0, 150))
    assert below == {True, False}


def test_the_telephone_is_applied_before_or_after_the_noise():
    tone = torch.sin(2 * math.pi * 500 * torch.arange(32_000) / 16_000) * torch.hann_window(32_000)
    augment = only(telephone_probability=1.0, telephone_rates=(8_000,), noise_probability=1.0, snr=(10.0, 10.0))
    above = [power_of(augment(tone, seed), 5_000, 8_000) > 500 for seed in range(16)]

    assert set(above) == {True, False}


def test_pauses_are_digital_silence_before_the_clip_after_it_or_both(speech):
    seen = set()
    for seed in range(20):
        heard = with_pauses(speech + 1, (0.5, 1.0), seed)
        voice = heard.nonzero().squeeze(1)
        before, after = int(voice[0]), len(heard) - 1 - int(voice[-1])

        torch.testing.assert_close(heard[before : len(heard) - after], speech + 1)
        assert all(each == 0 or 8_000 <= each <= 16_000 for each in (before, after))
        seen.add((before > 0, after > 0))
    assert seen == {(True, False), (False, True), (True, True)}


def test_a_seed_gives_the_stored_result_without_telephone_and_pauses(speech):
    """Results of versions without telephone and pauses stay reproducible."""
    settings = {"speed_probability": 0.5, "noise_probability": 0.5, "gain_probability": 0.5}
    stored = [73.11379, 101.63738, 144.34531]
    ours = [only(**settings)(speech, seed).square().sum().item() for seed in range(3)]

    assert ours == pytest.approx(stored, rel=1e-4)


@pytest.mark.parametrize(("color", "fall"), [("white", 0.0), ("pink", 3.01), ("brown", 6.02)])
def test_noise_decays_by_its_decibels_per_octave(color, fall):
    power = torch.fft.rfft(colored_noise(160_000, color, 0)).abs().square()  # bins of 0.1 Hz
    octaves = [power[10 * low : 20 * low].mean() for low in (100, 200, 400, 800, 1600, 3200)]

    for lower, upper in itertools.pairwise(octaves):
        assert decibels(lower / upper) == pytest.approx(fall, abs=0.8)


def test_noise_of_every_color_has_the_given_length():
    for color in NOISE_SLOPES:
        assert colored_noise(12_345, color, 0).shape == (12_345,)


def test_silence_stays_silent():
    assert not WaveformAugmentation()(torch.zeros(16_000), 3).any()


def test_the_same_seed_gives_the_same_result_and_another_seed_another(speech):
    augment = only(speed_probability=0.5, reverberation_probability=1.0, noise_probability=1.0, gain_probability=1.0)
    generator = torch.Generator().manual_seed(5)

    torch.testing.assert_close(augment(speech, 5), augment(speech, 5), rtol=0, atol=0)
    torch.testing.assert_close(augment(speech, 5), augment(speech, generator), rtol=0, atol=0)
    assert not torch.equal(augment(speech, 5)[:20_000], augment(speech, 6)[:20_000])


def test_with_all_probabilities_0_the_clip_is_unchanged(speech):
    assert torch.equal(only()(speech, 0), speech)


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1, 1.15])
def test_speed_divides_the_length_and_multiplies_the_pitch(factor):
    tone = torch.sin(2 * math.pi * 500 * torch.arange(32_000) / 16_000)

    faster = only(speed_probability=1.0, speed_factors=(factor,))(tone, 0)

    assert faster.shape[0] == math.ceil(round(32_000 / factor, 6))
    peak = torch.fft.rfft(faster).abs().argmax().item() * 16_000 / len(faster)
    assert peak == pytest.approx(500 * factor, abs=1.0)


@pytest.mark.parametrize("length", [32_000, 4_001, 59_207])
def test_reverberation_is_convolution_at_the_level_of_the_dry_clip(length):
    dry = torch.randn(length, generator=torch.Generator().manual_seed(0))
    response = room_response(0.05, 3.0, 1)

    wet = reverberate(dry, response)

    expected = torch.nn.functional.conv1d(
        dry.view(1, 1, -1), response.flip(0).view(1, 1, -1), padding=len(response) - 1
    )
    expected = expected.flatten()[:length]
    expected *= dry.square().mean().sqrt() / expected.square().mean().sqrt()
    torch.testing.assert_close(wet, expected, rtol=0, atol=1e-4)


def test_reverberation_keeps_the_onset():
    click = torch.zeros(16_000)
    click[5_000] = 1.0

    wet = reverberate(click, room_response(0.4, 6.0, 0))

    assert wet.abs().argmax() == 5_000
    assert wet[:5_000].abs().max() < 1e-5
    assert wet[5_001:].abs().max() > 1e-3


def test_a_room_response_decays_by_60_db_in_its_time():
    tail = torch.stack([room_response(0.3, 0.0, seed)[1:] for seed in range(50)]).square().mean(dim=0)
    early, late = tail[:480].mean(), tail[2_400:2_880].mean()  # 0.15 s apart: half of rt60

    assert decibels(early / late) == pytest.approx(30.0, abs=1.0)


def test_a_room_response_has_the_given_direct_to_reverberant_ratio():
    response = room_response(0.3, 7.0, 2)

    assert decibels(response[0].square() / response[1:].square().sum()) == pytest.approx(7.0, abs=1e-3)


def test_gain_changes_the_level_by_its_decibels(speech):
    louder = only(gain_probability=1.0, gain=(4.0, 4.0))(speech, 0)

    torch.testing.assert_close(louder, speech * 10 ** (4 / 20))


def test_masking_leaves_padding_unchanged():
    features = torch.ones(16, 100, 20)
    lengths = torch.tensor([100, 60, 33, 1] * 4)

    masked = mask_spectrogram(features, lengths, 0)

    for clip, length in zip(masked, lengths, strict=True):
        assert torch.equal(clip[length:], torch.ones(100 - length, 20))


def test_masks_are_whole_rows_and_columns_within_the_given_width():
    features = torch.ones(200, 100, 40)
    masked = mask_spectrogram(
        features, torch.full((200,), 100), 0, time_masks=1, time_width=10, frequency_masks=1, frequency_width=6
    )
    rows, columns = (masked == 0).all(dim=2), (masked == 0).all(dim=1)  # (B, T), (B, F)

    assert torch.equal(masked == 0, rows[:, :, None] | columns[:, None, :])
    assert rows.sum(dim=1).max() == 10
    assert columns.sum(dim=1).max() == 6
    assert rows.any(dim=0).all()  # every frame and every bin is hidden in some clip
    assert columns.any(dim=0).all()


def test_time_masks_cover_at_most_their_fraction_of_a_short_clip():
    masked = mask_spectrogram(
        torch.ones(100, 50, 8), torch.full((100,), 22), 0, time_masks=1, time_fraction=0.2, frequency_masks=0
    )

    assert (masked == 0).all(dim=2).sum(dim=1).max() == 4  # floor(0.2 x 22)


def test_masking_is_reproducible_and_does_not_modify_its_input():
    features = torch.ones(4, 50, 20)
    lengths = torch.full((4,), 50)

    one, same, other = (mask_spectrogram(features, lengths, seed) for seed in (1, 1, 2))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(features, torch.ones(4, 50, 20))


def test_a_time_mask_covers_the_same_frames_in_every_stream_and_no_padding():
    states = [torch.ones(2, 3, 40, 4), torch.ones(2, 1, 40, 6)]
    fills = [torch.full((3, 4), 7.0), torch.zeros(1, 6)]

    first, second = mask_time(states, torch.tensor([40, 20]), fills, 1)

    blank = second[:, 0, :, 0] == 0  # (B, T)
    assert torch.equal(first[:, 2, :, 1] == 7, blank)
    assert blank.any()
    assert (blank.sum(1) <= torch.tensor([8, 4])).all()
    assert not blank[1, 20:].any()


def test_mixup_weights_labels_like_clips():
    torch.manual_seed(0)
    lengths = torch.tensor([5, 3, 4, 5])
    states = [torch.randn(4, 2, 5, 3), torch.randn(4, 1, 5, 6)]
    labels, ratings = torch.eye(4), torch.arange(4.0)[:, None]
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0])

    for seed in range(5):
        mixed, shorter, shares, rated = mix_clips(states, lengths, labels, ratings, weight, seed)

        partners = [
            next((other for other in range(4) if other != clip and shares[clip, other] > 0), clip) for clip in range(4)
        ]
        assert partners[3] == 3  # a filler stays alone
        assert sorted(partners) == list(range(4))
        own = {round(shares[clip, clip].item(), 5) for clip in range(4) if partners[clip] != clip}
        assert len(own) <= 1  # one share a batch
        torch.testing.assert_close(rated, shares @ ratings)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        assert shorter.tolist() == [min(lengths[clip], lengths[partners[clip]]).item() for clip in range(4)]
        for before, after in zip(states, mixed, strict=True):
            expected = torch.einsum("bc,clth->blth", shares, before[:, :, : after.shape[2]])
            torch.testing.assert_close(after, expected)


def test_mixup_labels_are_missing_where_one_clip_has_none():
    states, lengths = [torch.ones(2, 1, 3, 2)], torch.tensor([3, 3])
    labels = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    ratings = torch.tensor([[0.2, torch.nan], [0.4, 0.5]])

    found = [mix_clips(states, lengths, labels, ratings, torch.ones(2), seed) for seed in range(8)]

    swapped = [(shares, rated) for _, _, shares, rated in found if shares.isnan().all()]
    assert 0 < len(swapped) < 8  # a clip may be its own matching_label
    for _, rated in swapped:
        assert rated[:, 0].isfinite().all()
        assert rated[:, 1].isnan().all()


def test_recorded_noise_and_rooms_are_used_beside_generated_ones(speech, tmp_path):
    tone = 0.5 * np.sin(2 * math.pi * 3_000 * np.arange(8_000) / 16_000)
    for name in ("noise", "rooms"):
        (tmp_path / name).mkdir()
    soundfile.write(tmp_path / "noise" / "hum.wav", tone, 16_000)
    room = np.zeros((400, 2))
    room[100], room[300] = 1.0, 0.5  # an echo of the direct sound, both at two microphones
    soundfile.write(tmp_path / "rooms" / "hall.wav", room, 16_000)
    in_noise = only(noise_probability=1.0, snr=(10.0, 10.0), noise_folder=str(tmp_path / "noise"))
    in_rooms = only(reverberation_probability=1.0, rooms_folder=str(tmp_path / "rooms"))

    hums = [power_of(in_noise(speech, seed) - speech, 2_900, 3_100) for seed in range(12)]
    echoed = torch.nn.functional.pad(speech, (200, 0))[:-200] * 0.5 + speech
    echoed *= (speech.square().mean() / echoed.square().mean()).sqrt()
    echoes = [torch.allclose(in_rooms(speech, seed), echoed, atol=1e-3) for seed in range(12)]

    assert {hum > 100 * min(hums) for hum in hums} == {True, False}
    assert set(echoes) == {True, False}


def test_a_folder_without_recordings_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got none\. Correct the folder"):
        only(noise_folder=str(tmp_path))


def test_a_crop_is_the_same_in_every_stream_and_leaves_shorter_clips_whole():
    frames = torch.arange(20.0)
    states = [frames.expand(2, 3, 20).unsqueeze(-1) * scale for scale in (1, 10)]  # (B, L, T, H)
    lengths = torch.tensor([20, 4])
    starts = set()
    for seed in range(200):
        (first, second), cropped = crop_time(states, lengths, 6, seed)

        assert cropped.tolist() == [6, 4]
        assert torch.equal(second, 10 * first)
        start = int(first[0, 0, 0, 0])
        assert first[0, 1, :, 0].tolist() == list(range(start, start + 6))
        assert first[1, 2, :4, 0].tolist() == [0, 1, 2, 3]
        starts.add(start)
    assert starts == set(range(15))


def test_a_silent_part_of_a_recording_is_no_noise(speech, tmp_path):
    click = np.full(80_000, 1e-34)  # as a resampler leaves it
    click[:100] = 0.5
    soundfile.write(tmp_path / "click.wav", click, 16_000, subtype="FLOAT")
    augment = only(noise_probability=1.0, snr=(10.0, 10.0), noise_folder=str(tmp_path))

    for seed in range(12):
        noise = augment(speech, seed) - speech
        assert decibels(speech.square().sum() / noise.square().sum()) == pytest.approx(10.0, abs=0.01)
