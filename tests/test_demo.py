"""The demo: a stranger gets a table, and a picture with something in it."""

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


def test_demo_prints_what_the_pipeline_answers_and_draws_it(demo, tiny_student, tmp_path, capsys):
    tiny_student.config.dimensions_source = "norm-derived"
    write_checkpoint(tiny_student, tmp_path / "model")
    capsys.readouterr()

    run(demo, "--model", tmp_path / "model", "--picture", tmp_path / "new" / "demo.png")

    printed = capsys.readouterr().out
    clip = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"
    answer = demo["pipeline"]("audio-emotion", model=str(tmp_path / "model"))(str(clip))
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for name, value in answer["dimensions"].items():
        assert rows[name][1] == f"{value:.2f}"
    for each in answer["emotions"]:
        assert rows[each["label"]][1] == f"{each['score']:.2f}"
    assert rows["valence"][2] == "negative"
    assert rows["valence"][-1] == "positive"
    for said in ("Jane Austen", "LibriVox", "public domain", "5.30 s", "norm-derived", "demo.png"):
        assert said in printed
    picture = image.imread(tmp_path / "new" / "demo.png")  # (height, width, 4)
    painted = (picture[..., :3] < 0.9).any(-1)
    assert painted.mean() > 0.02
    half = picture.shape[1] // 2
    assert painted[:, :half].any(1).mean() > 0.3  # ink in many rows: waveform, curves
    assert painted[:, half:].any(1).mean() > 0.3  # and bars


@pytest.mark.parametrize("absent", ["emotions", "dimensions"])
def test_demo_does_without_a_head_that_the_model_lacks(demo, tiny_student_config, speech, tmp_path, capsys, absent):
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

    run(demo, tmp_path / "clip.wav", "--model", tmp_path / "model", "--picture", tmp_path / "demo.png")

    printed = capsys.readouterr().out
    assert "clip.wav" in printed
    assert "Austen" not in printed
    assert absent.capitalize() not in printed
    assert (tmp_path / "demo.png").is_file()


def test_demo_says_which_clip_it_cannot_judge(demo, tiny_student, tmp_path):
    write_checkpoint(tiny_student, tmp_path / "model")
    soundfile.write(tmp_path / "blip.wav", np.zeros(100), 16000)

    with pytest.raises(SystemExit, match=r"blip\.wav"):
        run(demo, tmp_path / "blip.wav", "--model", tmp_path / "model", "--picture", tmp_path / "demo.png")


def test_demo_asks_for_a_model_where_none_is_embedded(demo, monkeypatch, tmp_path):
    monkeypatch.setitem(demo["main"].__globals__, "EMBEDDED", tmp_path)

    with pytest.raises(SystemExit, match="--model"):
        run(demo, "--picture", tmp_path / "demo.png")
