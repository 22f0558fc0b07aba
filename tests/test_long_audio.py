"""Recordings of any length, their channels, and time lines: equal to the pipeline, with flat memory, resumable."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from transformers import pipeline

from audio_emotion.audio_io import read_audio
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.onnx_export import export_onnx
from audio_emotion.long_audio import predict_windows, read_blocks, summarize, windows_of_blocks
from audio_emotion.pipeline_segments import window_bounds
from audio_emotion.runtime import EmotionRuntime
from audio_emotion_cli import EXIT_OK, EXIT_USAGE, main
from audio_emotion_cli.timeline_formats import WRITERS

RATE = 16_000


@pytest.fixture
def folder(tiny_student, tmp_path) -> Path:
    path = write_checkpoint(tiny_student, tmp_path / "checkpoint")
    export_onnx(tiny_student, path / "onnx")
    return path


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 16_000), ("flac", 8_000), ("ogg", 44_100), ("wav", 48_000)])
def test_blocks_joined_are_the_clip_that_is_read_at_once(suffix, rate, tmp_path, speech):
    samples = np.tile(speech, 8)
    file = tmp_path / f"clip.{suffix}"
    soundfile.write(file, np.stack([samples, 0.5 * samples], axis=1), rate)
    blocks = list(read_blocks(file))
    whole = read_audio(file, RATE).waveform
    joined = np.concatenate(blocks)
    assert len(blocks) > 1
    assert len(joined) == len(whole)
    np.testing.assert_allclose(joined, whole, atol=1e-6)
    one = np.concatenate(list(read_blocks(file, channel=2)))
    np.testing.assert_allclose(one, read_audio(file, RATE).channel(2, 1e5).waveform, atol=1e-6)
    with pytest.raises(ValueError, match="channel from 1 to 2"):
        list(read_blocks(file, channel=3))


@pytest.mark.parametrize(
    ("seconds", "window", "hop"), [(10.0, 3.0, 3.0), (10.1, 3.0, 1.5), (2.0, 4.0, 4.0), (7.3, 2, 3)]
)
def test_windows_of_blocks_are_those_of_the_pipeline(seconds, window, hop):
    samples = np.random.default_rng(0).normal(size=round(seconds * RATE)).astype(np.float32)
    blocks = np.array_split(samples, [100, 100, 9_000, 50_000])
    found = list(windows_of_blocks(blocks, window, hop))
    expected = window_bounds(len(samples), window, hop, RATE)
    assert [(round(each.start * RATE), round(each.end * RATE)) for each in found] == expected
    for each, (first, stop) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each.waveform, samples[first:stop])


def test_too_little_sound_is_an_error():
    with pytest.raises(ValueError, match=r"0\.25 s"):
        list(windows_of_blocks([np.zeros(100, np.float32)], 1.0, 1.0))


def test_predictions_of_windows_are_those_of_the_pipeline(folder, tmp_path, speech):
    file = tmp_path / "clip.wav"
    soundfile.write(file, np.tile(speech, 4), RATE)
    recognizer, runtime = pipeline("audio-emotion", model=str(folder), device="cpu"), EmotionRuntime(folder)
    expected = recognizer(str(file), window=2.0, hop=1.0)["windows"]
    found = list(predict_windows(runtime, windows_of_blocks(read_blocks(file), 2.0, 1.0)))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one["start"], one["end"]) == (other["start"], other["end"])
        for name, value in other["dimensions"].items():
            assert one["dimensions"][name] == pytest.approx(value, abs=1e-4)


def test_the_whole_is_the_mean_over_windows_with_speech():
    def window(start, end, value, flags=()):
        emotions = [{"label": "angry", "score": value}, {"label": "sad", "score": 1 - value}]
        return {
            "start": start,
            "end": end,
            "dimensions": {"valence": value},
            "emotions": emotions,
            "flags": list(flags),
        }

    found = summarize([window(0, 60, 0.2), window(60, 80, 0.8), window(80, 100, 0.9, ["silence"])])
    assert found["dimensions"]["valence"] == pytest.approx((60 * 0.2 + 20 * 0.8) / 80)
    assert found["emotions"][0] == {"label": "sad", "score": pytest.approx((60 * 0.8 + 20 * 0.2) / 80)}
    assert (found["windows"], found["seconds"], found["flags"]) == (2, 80, ["long"])
    assert summarize([window(0, 4, 0.9, ["no_speech"])])["flags"] == ["no_speech"]


def call(speech, rate=RATE) -> np.ndarray:
    """A call: one speaks in the left channel, then another in the right one, `(S, 2)`."""
    silence = np.zeros_like(speech)
    left, right = np.concatenate([speech, silence, speech]), np.concatenate([silence, 0.7 * speech, silence])
    return np.stack([left, right], axis=1)


def test_channels_of_a_call_are_predicted_apart_and_flagged(folder, tmp_path, speech):
    samples = call(speech)
    clip = {"array": samples, "sampling_rate": RATE}
    for recognizer in (pipeline("audio-emotion", model=str(folder), device="cpu"), EmotionRuntime(folder)):
        mixed = recognizer(clip)
        assert "channels_differ" in mixed["flags"]
        split = recognizer(clip, channels="split")
        assert split["emotions"] == mixed["emotions"]
        assert [each["channel"] for each in split["channels"]] == [1, 2]
        for number in (1, 2):
            alone = recognizer({"array": samples[:, number - 1], "sampling_rate": RATE})
            chosen = recognizer(clip, channels=number)
            for name, value in alone["dimensions"].items():
                assert split["channels"][number - 1]["dimensions"][name] == pytest.approx(value, abs=1e-5)
                assert chosen["dimensions"][name] == pytest.approx(value, abs=1e-5)
        with pytest.raises(ValueError, match="channel from 1 to 2"):
            recognizer(clip, channels=3)
        with pytest.raises(ValueError, match="channels"):
            recognizer(clip, channels="left")


@pytest.mark.parametrize("gains", [(1.0, 1.0), (1.0, 0.1), (0.3, 0.9)])
def test_one_voice_in_two_channels_is_not_flagged(speech, gains):
    noise = 1e-4 * np.random.default_rng(0).normal(size=(len(speech), 2))
    stereo = np.stack([gain * speech for gain in gains], axis=1) + noise
    assert "channels_differ" not in read_audio({"array": stereo.astype(np.float32), "sampling_rate": RATE}).flags


def test_segments_of_diarization_systems_are_accepted(folder, speech):
    class Turn:
        def __init__(self, start, end):
            self.start, self.end = start, end

    class Annotation:
        def itertracks(self, yield_label):
            assert yield_label
            yield Turn(0.0, 0.5), "A", "SPEAKER_00"
            yield Turn(0.5, 1.0), "B", "SPEAKER_01"

    class Output:
        speaker_diarization = Annotation()

    whisperx = {"segments": [{"start": 0.0, "end": 0.5, "text": "x", "speaker": "SPEAKER_00"},
                             {"start": 0.2, "end": 0.4, "text": "y"},
                             {"start": 0.5, "end": 1.0, "text": "z", "speaker": "SPEAKER_01"}],
                "word_segments": []}  # fmt: skip
    nemo = ["0.0 0.5 SPEAKER_00", "0.5 1.0 SPEAKER_01"]
    runtime = EmotionRuntime(folder)
    clip = {"array": speech, "sampling_rate": RATE}
    expected = runtime(clip, segments=[(0.0, 0.5, "SPEAKER_00"), (0.5, 1.0, "SPEAKER_01")])["segments"]
    for given in (Annotation(), Output(), whisperx, nemo):
        assert runtime(clip, segments=given)["segments"] == expected


@pytest.fixture
def lanes() -> dict:
    """Two channels with three windows each, one of them silent."""

    def window(start, label, score, flags=()):
        other = {"angry": "sad", "sad": "angry"}[label]
        emotions = [{"label": label, "score": score}, {"label": other, "score": 1 - score}]
        dimensions = {"activation": 0.25, "valence": 0.5, "dominance": 0.75}
        return {
            "start": start,
            "end": start + 2.0,
            "dimensions": dimensions,
            "emotions": emotions,
            "flags": list(flags),
        }

    rows = [window(0.0, "angry", 0.9), window(1.0, "sad", 0.6, ["short"]), window(2.0, "sad", 0.6, ["silence"])]
    return {"1": rows, "2": rows[:2]}


def test_every_format_states_times_and_emotions(lanes):
    rows = list(csv.DictReader(io.StringIO(WRITERS["csv"]("a b.wav", lanes))))
    assert [(row["channel"], row["start"], row["emotion"]) for row in rows][:3] == [
        ("1", "0.000", "angry"), ("1", "1.000", "sad"), ("1", "2.000", "")]  # fmt: skip
    assert json.loads(WRITERS["json"]("a b.wav", lanes))["channels"]["2"] == lanes["2"]

    lines = WRITERS["rttm"]("a b.wav", lanes).splitlines()
    assert lines[0] == "SPEAKER a%20b.wav 1 0.000 2.000 <NA> <NA> angry 0.900 <NA>"
    assert all(len(line.split()) == 10 for line in lines)

    text = WRITERS["vtt"]("a b.wav", lanes)
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n<v channel 1>angry 0.90 (activation 0.25")
    assert len(re.findall(r"^\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}$", text, re.MULTILINE)) == 5
    starts = re.findall(r"^(\S+) -->", text, re.MULTILINE)
    assert starts == sorted(starts)

    grid = WRITERS["textgrid"]("a b.wav", lanes)
    tiers = re.findall(r'name = "([^"]*)"', grid)
    assert tiers == [
        f"{name} {number}" for number in (1, 2) for name in ("emotion", "activation", "valence", "dominance")
    ]
    for block in grid.split("item [")[2:]:
        bounds = [float(each) for each in re.findall(r"^ {12}xm(?:in|ax) = (\S+)", block, re.MULTILINE)]
        assert bounds[0] == 0.0  # without gaps, without overlaps, to the end of the recording
        assert bounds[-1] == 4.0
        assert bounds[1:-1:2] == bounds[2::2]


def timeline(*words: str) -> list[str]:
    return [sys.executable, "-m", "audio_emotion_cli", "timeline", *words]


def test_the_command_writes_a_time_line_and_a_plot(folder, tmp_path, speech, capsys):
    file = tmp_path / "call.wav"
    soundfile.write(file, np.tile(call(speech), (3, 1)), RATE)
    output, plot = tmp_path / "out.csv", tmp_path / "out.png"
    words = ["timeline", str(file), "--model", str(folder), "--window", "1", "--channels", "split"]
    assert main([*words, "--output", str(output), "--plot", str(plot)]) == EXIT_OK
    rows = list(csv.DictReader(output.open()))
    assert {row["channel"] for row in rows} == {"1", "2"}
    assert any("silence" in row["flags"] for row in rows)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "channel 2 over" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob(".*")] == []  # nothing is left
    assert main(["timeline", str(tmp_path / "no.wav")]) == EXIT_USAGE


def test_an_interrupted_time_line_is_continued_and_equal(folder, tmp_path, speech):
    file, output = tmp_path / "long.wav", tmp_path / "out.json"
    soundfile.write(file, np.tile(speech, 150), RATE)
    words = timeline(
        str(file), "--model", str(folder), "--window", "0.5", "--hop", "0.25", "--format", "json", "--output"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*words, str(tmp_path / "whole.json")], env=environment, check=True, capture_output=True)

    running = subprocess.Popen([*words, str(output)], env=environment, stderr=subprocess.PIPE)
    state = tmp_path / ".out.json.windows.jsonl"
    limit = time.monotonic() + 60
    while (not state.exists() or state.read_text().count("\n") < 60) and time.monotonic() < limit:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    done = state.read_text().count("\n") - 1
    assert done >= 50
    continued = subprocess.run([*words, str(output)], env=environment, check=True, capture_output=True, text=True)
    assert "windows are done" in continued.stderr
    assert output.read_text() == (tmp_path / "whole.json").read_text()


@pytest.mark.slow
def test_memory_of_two_hours_is_that_of_a_minute(folder, tmp_path, speech):
    def peak(seconds: int) -> int:
        file = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16") as target:
            for _ in range(seconds * RATE // len(speech)):
                target.write(speech)
        running = subprocess.Popen(
            timeline(str(file), "--model", str(folder), "--window", "30", "--output", str(tmp_path / "out.csv")),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        process, highest = psutil.Process(running.pid), 0
        while running.poll() is None:
            try:
                highest = max(highest, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.05)
        assert running.wait() == 0
        return highest

    assert peak(7_200) - peak(60) < 50e6
