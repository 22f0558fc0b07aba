"""The demo prints a table of the prediction and plots it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib import image

import audio_emotion
from audio_emotion.hub.checkpoint import write_checkpoint

RECIPE = Path(__file__).parents[1] / "recipes" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> dict:
    return runpy.run_path(str(RECIPE))


def run(demo: dict, *argv: object) -> None:
    demo["main"](demo["parse_arguments"]([str(each) for each in argv]))


def test_demo_prints_and_plots_the_prediction_of_the_pipeline(demo, tiny_student, tmp_path, capsys):
    tiny_student.config.dimensions_source = "norm-derived"
    write_checkpoint(tiny_student, tmp_path / "model")
    capsys.readouterr()

    run(demo, "--model", tmp_path / "model", "--plot", tmp_path / "new" / "demo.png")

    printed = capsys.readouterr().out
    clip = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"
    prediction = demo["pipeline"]("audio-emotion", model=str(tmp_path / "model"))(str(clip))
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for name, value in prediction["dimensions"].items():
        assert rows[name][1] == f"{value:.2f}"
    for each in prediction["emotions"]:
        assert rows[each["label"]][1] == f"{each['score']:.2f}"
    assert rows["valence"][2] == "negative"
    assert rows["valence"][-1] == "positive"
    for text in ("Jane Austen", "LibriVox", "public domain", "5.30 s", "norm-derived", "demo.png"):
        assert text in printed
    plot = image.imread(tmp_path / "new" / "demo.png")  # (height, width, 4)
    inked = (plot[..., :3] < 0.9).any(-1)
    assert inked.mean() > 0.02
    half = plot.shape[1] // 2
    assert inked[:, :half].any(1).mean() > 0.3  # ink in many rows: waveform, curves
    assert inked[:, half:].any(1).mean() > 0.3  # and bars


@pytest.mark.parametrize("absent", ["emotions", "dimensions"])
def test_demo_leaves_out_a_head_that_the_model_lacks(demo, tiny_student_config, speech, tmp_path, capsys, absent):
    fields = tiny_student_config.to_dict() | {
        absent: [],
        "id2label": None,
        "label2id": None,
        "dimension_weights": None,
    }
    fields["predict_variance"] = False
    model = audio_emotion.StudentEmotionForAudioClassification(type(tiny_student_config)(**fields))
    write_checkpoint(model, tmp_path / "model")
    soundfile.write(tmp_path / "clip.wav", speech, 16000)

    run(demo, tmp_path / "clip.wav", "--model", tmp_path / "model", "--plot", tmp_path / "demo.png")

    printed = capsys.readouterr().out
    assert "clip.wav" in printed
    assert "Austen" not in printed
    assert absent.capitalize() not in printed
    assert (tmp_path / "demo.png").is_file()


def test_demo_names_a_clip_that_it_cannot_read(demo, tiny_student, tmp_path):
    write_checkpoint(tiny_student, tmp_path / "model")
    soundfile.write(tmp_path / "blip.wav", np.zeros(100), 16000)

    with pytest.raises(SystemExit, match=r"blip\.wav"):
        run(demo, tmp_path / "blip.wav", "--model", tmp_path / "model", "--plot", tmp_path / "demo.png")


def test_demo_without_an_embedded_model_requires_one(demo, monkeypatch, tmp_path):
    monkeypatch.setitem(demo["main"].__globals__, "EMBEDDED", tmp_path)

    with pytest.raises(SystemExit, match="--model"):
        run(demo, "--plot", tmp_path / "demo.png")
