"""ResLSTM-SA in our protocol: its features, its size, and that padding and test speakers have no influence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import reslstm
import torch
from reslstm import Features, ResLSTM, ResLSTMArguments, chroma_filters, main, padded


def tone(frequency: float, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(16000 * seconds)) / 16000)


@pytest.mark.parametrize(("frequency", "pitch_class"), [(440.0, 9), (880.0, 9), (523.25, 0), (1244.5, 3)])
def test_the_chroma_of_a_tone_is_highest_at_its_pitch_class(frequency, pitch_class):
    frames = Features()(tone(frequency))

    assert frames.shape == (1 + 16000 // 682, 46)
    assert (frames[2:-2, 34:].argmax(-1) == pitch_class).all()
    assert frames[:, 34:].amax() == pytest.approx(1.0)


def test_the_fractions_of_a_bin_in_the_pitch_classes_sum_to_one():
    filters = chroma_filters(683)

    torch.testing.assert_close(filters[3:].sum(-1), torch.ones(680), atol=1e-5, rtol=0)  # from 35 Hz
    assert filters[:2].sum() == 0


def test_the_model_has_the_published_number_of_parameters():
    model = ResLSTM(46, 64, 8, 0.1)

    assert sum(each.numel() for each in model.parameters()) == 46_772


def test_padding_changes_no_output_and_gets_no_attention():
    torch.manual_seed(0)
    model = ResLSTM(46, 64, 8, 0.1).eval()
    short, long = torch.randn(9, 46), torch.randn(30, 46)

    together, weights = model(*padded([short, long]))
    alone, _ = model(*padded([short]))

    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    assert weights[0, 9:].abs().max() == 0


@pytest.mark.slow
def test_hyperparameters_and_normalization_do_not_depend_on_test_clips(tmp_path, monkeypatch):
    def run(name: str) -> tuple[np.ndarray, dict, list]:
        seen = []

        def spy(rows, *others, **named):
            seen.append(torch.cat(rows[0]))
            return train(rows, *others, **named)

        monkeypatch.setattr(reslstm, "train", spy)
        output = tmp_path / name
        arguments = {"corpus": "synthetic", "protocol": "", "trials": 2, "epochs": 1, "output": str(output)}
        main(ResLSTMArguments(**arguments, cache=str(output / "cache")))
        return seen, json.loads((output / "results.json").read_text())

    train = reslstm.train
    plain, results = run("plain")
    clips = reslstm.ClipStream.clips

    def louder_test(self, rows):
        for each in clips(self, rows):
            is_test = each["speaker"] in results["test"]["speakers"]
            yield {**each, "waveform": each["waveform"] * (3.0 if is_test else 1.0)}

    monkeypatch.setattr(reslstm.ClipStream, "clips", louder_test)
    changed, changed_results = run("changed")

    assert all(torch.equal(one, other) for one, other in zip(plain, changed, strict=True))
    assert results["hyperparameters"] == changed_results["hyperparameters"]
    assert results["test"]["uar"] != pytest.approx(changed_results["test"]["uar"], abs=1e-9) or not np.allclose(
        results["test"]["confidence"], changed_results["test"]["confidence"]
    )
