"""The corpus of telephone prompts, and how often a model calls them neutral."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from neutral_prompts import EMOTIONS, PromptArguments, main

from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.hub.checkpoint import write_checkpoint

RATE = 16000


def tone(seconds: float) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * 200 * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def write_g722(file: Path, waveform: np.ndarray) -> None:
    """Raw G.722, as in Debian's packages."""
    with av.open(str(file), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=RATE, layout="mono")
        samples = (waveform * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A corpus of two speakers, one of them in two languages."""
    sounds = tmp_path / "sounds"
    for name in ("en_US_f_Allison", "es_MX_f_Allison/digits", "it_IT_m_Carlo", "readme"):
        (sounds / name).mkdir(parents=True)
    write_g722(sounds / "en_US_f_Allison" / "hello.g722", tone(2.0))
    write_g722(sounds / "en_US_f_Allison" / "beep.g722", tone(2.0))
    soundfile.write(sounds / "es_MX_f_Allison" / "digits" / "uno.wav", tone(1.5)[::2], RATE // 2)
    soundfile.write(sounds / "it_IT_m_Carlo" / "ciao.wav", tone(3.0)[::2], RATE // 2)
    soundfile.write(sounds / "it_IT_m_Carlo" / "si.wav", tone(0.4)[::2], RATE // 2)  # too short
    soundfile.write(sounds / "readme" / "other.wav", tone(2.0), RATE)
    main(PromptArguments(sounds=str(sounds), corpus=str(tmp_path / "prompts")))
    return tmp_path / "prompts"


def test_every_speaker_is_a_corpus_of_neutral_clips_that_other_emotions_count_against(corpus):
    tables = {name: corpus_table(str(corpus / f"{name}.yaml")) for name in ("allison", "carlo")}

    assert {name: len(table) for name, table in tables.items()} == {"allison": 2, "carlo": 1}
    assert set(tables["allison"]["speaker"]) == {"prompts-allison/allison"}
    assert {*tables["allison"]["emotion"], *tables["carlo"]["emotion"]} == {"neutral"}
    info = corpus_info(str(corpus / "carlo.yaml"))
    assert list(info.emotions) == EMOTIONS
    assert info.license == "CC-BY-SA-3.0"


def test_prompts_are_decoded_at_their_length_and_level(corpus):
    for file, seconds in (("allison/en/hello", 2.0), ("allison/es/digits_uno", 1.5), ("carlo/it/ciao", 3.0)):
        waveform, rate = soundfile.read(corpus / "clips" / f"{file}.flac")
        assert rate == RATE
        assert len(waveform) / RATE == pytest.approx(seconds, abs=0.05)
        assert np.sqrt(np.mean(waveform**2)) == pytest.approx(0.2 / np.sqrt(2), rel=0.05)


def test_a_model_is_measured_by_language_on_speakers_that_it_was_not_trained_on(corpus, tiny_student, tmp_path):
    tiny_student.config.training_data = [
        {"corpus": "prompts-carlo", "speakers": ["prompts-carlo/carlo"], "teachers": []}
    ]
    tiny_student.heads.emotions.bias.data[tiny_student.config.emotions.index("neutral")] += 20
    write_checkpoint(tiny_student, tmp_path / "model")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"models": {"other": {}}}))

    main(PromptArguments(corpus=str(corpus), models=[f"mine={tmp_path / 'model'}"], results=str(results)))

    measured = json.loads(results.read_text())["models"]
    assert measured["other"] == {}
    assert set(measured["mine"]) == {"en allison", "es allison"}
    assert measured["mine"]["en allison"]["clips"] == 1
    assert measured["mine"]["en allison"]["neutral"] == 1.0
    assert measured["mine"]["en allison"]["confidence"] > 0.99


def test_a_folder_without_sounds_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="en_US_f_Allison"):
        main(PromptArguments(sounds=str(tmp_path), corpus=str(tmp_path / "prompts")))
