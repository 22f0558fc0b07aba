"""Statistics of the front end: of a sample of the training clips, decoded once for all processes and runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from audio_emotion.data.dataset import ClipReader, ClipStream
from audio_emotion.data.registry import corpus_table
from audio_emotion.log_mel import LogMel
from audio_emotion.training import feature_statistics
from audio_emotion.training.feature_statistics import SpeakerStatistics, set_log_mel_statistics, statistics_sample

BAD = "synthetic/bad"


def front_end(level: str = "absolute") -> torch.nn.ModuleList:
    return torch.nn.ModuleList([LogMel(10, 16000, level)])


@pytest.fixture
def count_decoded(monkeypatch) -> list[int]:
    """Row numbers in the order in which clips are decoded."""
    decoded, original = [], ClipReader.row

    def row(self, index):
        decoded.append(int(index))
        return original(self, index)

    monkeypatch.setattr(ClipReader, "row", row)
    return decoded


@pytest.fixture(scope="module")
def table() -> Dataset:
    return corpus_table("synthetic", count=20)


def test_statistics_of_a_small_corpus_are_those_of_all_frames(table):
    model = front_end()

    set_log_mel_statistics(model, ClipStream(table))

    waveforms = [torch.tensor(row["waveform"])[None] for row in ClipStream(table).clips()]
    frames = np.concatenate([model[0].compute_log_mel(waveform)[0].numpy() for waveform in waveforms])
    np.testing.assert_allclose(model[0].mean.numpy(), frames.mean(0), atol=1e-4)
    np.testing.assert_allclose(model[0].deviation.numpy(), frames.std(0), atol=1e-4)


def test_of_a_large_corpus_only_the_sample_is_decoded(table, monkeypatch, count_decoded):
    monkeypatch.setattr(feature_statistics, "SAMPLE_CLIPS", 5)

    set_log_mel_statistics(front_end(), ClipStream(table))

    assert count_decoded == statistics_sample(20)
    assert len(count_decoded) == 5


def test_a_second_process_and_a_second_run_read_the_statistics_and_decode_nothing(table, tmp_path, count_decoded):
    first, second, third = front_end(), front_end(), front_end()
    set_log_mel_statistics(first, ClipStream(table, num_processes=2), tmp_path)
    assert len(count_decoded) == 20
    count_decoded.clear()

    set_log_mel_statistics(second, ClipStream(table, process_index=1, num_processes=2), tmp_path)
    set_log_mel_statistics(third, ClipStream(table), tmp_path)

    assert count_decoded == []
    for model in (second, third):
        assert torch.equal(model[0].mean, first[0].mean)
        assert torch.equal(model[0].deviation, first[0].deviation)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


@pytest.mark.parametrize("change", ["front end", "clips", "audio", "sample"])
def test_other_clips_audio_or_front_ends_have_other_statistics(change, table, tmp_path, monkeypatch, count_decoded):
    set_log_mel_statistics(front_end(), ClipStream(table), tmp_path)
    count_decoded.clear()

    model, other = front_end(), table
    if change == "front end":
        model = front_end("relative")
    elif change == "clips":
        other = table.select(range(19))
    elif change == "audio":
        audio = {"bytes": table[1]["audio"]["bytes"], "path": None}
        other = Dataset.from_list([{**table[0], "audio": audio}, *table.select(range(1, 20))], features=table.features)
    else:
        monkeypatch.setattr(feature_statistics, "SAMPLE_CLIPS", 10)
    set_log_mel_statistics(model, ClipStream(other), tmp_path)

    assert count_decoded
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_clips_of_the_sample_that_cannot_be_decoded_are_stored_with_the_statistics(table, tmp_path):
    bad = {**table[0], "id": BAD, "audio": {"bytes": b"no audio", "path": None}}
    broken = Dataset.from_list([bad, *table], features=table.features)
    streams = [ClipStream(broken), ClipStream(broken)]

    for stream in streams:
        set_log_mel_statistics(front_end(), stream, tmp_path)

    assert set(streams[1].quarantine) == {BAD}
    assert streams[1].quarantine == streams[0].quarantine


def test_damaged_statistics_are_an_error(table, tmp_path):
    set_log_mel_statistics(front_end(), ClipStream(table), tmp_path)
    file = next(tmp_path.rglob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[:-8] + bytes(8))

    with pytest.raises(ValueError, match=rf"{file.name}.*Delete"):
        set_log_mel_statistics(front_end(), ClipStream(table), tmp_path)


class States:
    """Two streams of cached states of three clips."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        shapes = [(2, 6, 4), (1, 6, 3)]  # (L, T, H)
        self.caches = shapes
        self.of = {
            name: [3 + 2 * torch.randn(shape, generator=generator) for shape in shapes] for name in ("a1", "a2", "b1")
        }

    def __contains__(self, name: str) -> bool:
        return name in self.of

    def __getitem__(self, name: str) -> list[torch.Tensor]:
        return self.of[name]


def standardized(probability: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States of a1, a2 and of a clip of an unknown speaker, before and after."""
    states = States()
    speakers = SpeakerStatistics(states, {"a1": "a", "a2": "a", "b1": "b", "c1": "c"})
    batch = [torch.stack([states[name][stream] for name in ("a1", "a2", "b1")]) for stream in (0, 1)]
    targets = [(torch.full((2, 4), 5.0), torch.full((2, 4), 0.5)), (torch.zeros(1, 3), torch.ones(1, 3))]
    return batch, speakers.standardize(batch, ["a", "a", ""], targets, probability, seed=0)


def test_standardized_clips_of_a_speaker_have_the_statistics_of_the_training_set():
    before, after = standardized(1.0)

    for stream, (mean, std) in enumerate([(5.0, 0.5), (0.0, 1.0)]):
        frames = after[stream][:2].transpose(1, 2).flatten(0, 1)  # (2 T, L, H)
        torch.testing.assert_close(frames.mean(0), torch.full(frames.shape[1:], mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(frames.std(0, correction=0), torch.full(frames.shape[1:], std), atol=1e-4, rtol=0)
        torch.testing.assert_close(after[stream][2], before[stream][2])  # of an unknown speaker


def test_clips_are_standardized_with_the_probability():
    before, after = standardized(0.0)

    torch.testing.assert_close(after, before)
