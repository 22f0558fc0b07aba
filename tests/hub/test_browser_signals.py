"""Signals in the browser page: WAV files, resampling and flags are those of the pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import soxr

from audio_emotion.audio_io import read_audio
from audio_emotion.hub.browser_page import STATIC, flag_limits

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which runs the page's modules")

RUN = """
import { readFileSync, writeFileSync } from "node:fs";
import { decodeWav } from "%(static)s/wav.js";
import { Resampler, resample } from "%(static)s/resample.js";
import { Band, Measurements, findFlags, isCanceled } from "%(static)s/flags.js";
const read = (name) => readFileSync("%(folder)s/" + name);
const buffer = (name) => { const b = read(name); return b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength); };
const bytes = (floats) => new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
const write = (name, floats) => writeFileSync("%(folder)s/" + name, bytes(floats));
%(script)s
"""


@pytest.fixture
def node(tmp_path):
    """Run a script with the page's modules; returns what it prints, as JSON."""
    static = tmp_path / "static"  # beside a package.json, without which node takes .js for CommonJS
    shutil.copytree(STATIC, static)
    (static / "package.json").write_text('{"type": "module"}')

    def run(script: str):
        file = tmp_path / "script.mjs"
        file.write_text(RUN % {"static": static.as_posix(), "folder": tmp_path.as_posix(), "script": script})
        done = subprocess.run(["node", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    return run


def test_pcm_samples_are_those_of_soundfile(node, tmp_path, speech):
    kinds = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 1, "PCM_32": 2, "FLOAT": 1, "DOUBLE": 2}
    for kind, channels in kinds.items():
        samples = np.stack([speech, 0.5 * speech[::-1]], axis=1)[:, :channels]
        soundfile.write(tmp_path / f"{kind}.wav", samples, 22050, subtype=kind)
    soundfile.write(tmp_path / "extensible.wav", speech, 22050, subtype="PCM_24", format="WAVEX")
    soundfile.write(tmp_path / "ulaw.wav", speech, 8000, subtype="ULAW")
    names = [*kinds, "extensible"]

    rates = node(
        f"const names = {json.dumps(names)};"
        "const found = names.map((name) => {"
        "  const { rate, channels } = decodeWav(buffer(name + '.wav'));"
        "  channels.forEach((channel, c) => write(`${name}.${c}`, channel));"
        "  return [rate, channels.length];"
        "});"
        "console.log(JSON.stringify([...found, decodeWav(buffer('ulaw.wav'))]));"
    )

    assert rates == [*([22050, kinds.get(name, 1)] for name in names), None]
    for name in names:
        expected, _ = soundfile.read(tmp_path / f"{name}.wav", dtype="float32", always_2d=True)
        for channel in range(expected.shape[1]):
            np.testing.assert_array_equal(
                np.fromfile(tmp_path / f"{name}.{channel}", np.float32), expected[:, channel]
            )


def test_stated_rates_are_those_of_the_files(node, tmp_path, speech):
    rates = {"a.flac": 16000, "b.flac": 44100, "c.ogg": 22050, "d.ogg": 48000, "e.mp3": 16000, "f.mp3": 44100}
    for name, rate in rates.items():
        soundfile.write(tmp_path / name, speech, rate)
    names = json.dumps([*rates])

    found = node(
        'import { statedRate } from "./static/audio.js";'
        f"const rates = {names}.map((name) => statedRate(read(name)));"
        "console.log(JSON.stringify([...rates, statedRate(new Uint8Array(3)), statedRate(new Uint8Array(99))]));"
    )

    assert found == [*rates.values(), None, None]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_resampling_is_that_of_soxr_in_pieces_and_as_a_whole(node, tmp_path, rate):
    generator = np.random.default_rng(0)
    noise = soxr.resample(generator.normal(scale=0.1, size=2 * 16000), 16000, rate).astype(np.float32)
    noise.tofile(tmp_path / "input")

    node(
        "const input = new Float32Array(buffer('input'));"
        f"write('whole', resample(input, {rate}, 16000));"
        f"const resampler = new Resampler({rate}, 16000); const parts = [];"
        "for (let at = 0; at < input.length; at += 1117) parts.push(...resampler.push(input.slice(at, at + 1117)));"
        "write('parts', Float32Array.from([...parts, ...resampler.flush()]));"
    )

    whole, parts = (np.fromfile(tmp_path / name, np.float32) for name in ("whole", "parts"))
    expected = soxr.resample(noise, rate, 16000)
    np.testing.assert_array_equal(parts, whole)
    assert len(whole) == len(expected)
    error = whole - expected
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.sqrt(np.mean(expected**2))  # near the Nyquist frequency alone
    spectrum = np.abs(np.fft.rfft(error)) / np.abs(np.fft.rfft(expected)).max()
    assert spectrum[: int(0.88 * min(rate, 16000) / 16000 * len(spectrum))].max() < 1e-3


def make_problem(name: str, speech: np.ndarray) -> np.ndarray:
    """Two seconds `(S, C)` at 16 kHz with one problem."""
    generator = np.random.default_rng(0)
    noise = 0.003 * generator.normal(size=len(speech)).astype(np.float32)
    seconds = np.arange(len(speech)) / 16000
    late = np.concatenate([np.zeros(9 * 16000), speech]).astype(np.float32)
    one = {
        "none": speech + noise,
        "silence": noise * 1e-2,
        "clipped": np.clip(6 * speech, -1, 1),
        "short": (speech + noise)[:12000],
        "out_of_range": 4 * speech + noise,
        "narrow_band": soxr.resample(soxr.resample(speech + noise, 16000, 8000), 8000, 16000),
        "pauses": late,
        "no_speech": 0.1 * np.sin(2 * np.pi * 440 * seconds) + noise,
    }
    if name == "canceled":
        return np.stack([speech, -0.99 * speech], axis=1)
    if name == "channels_differ":
        first = np.arange(len(speech)) < len(speech) // 2
        return np.stack([np.where(first, speech, noise), np.where(first, noise, speech)], axis=1)
    if name == "stereo":
        return np.stack([speech, 0.3 * speech + noise], axis=1)
    return one[name][:, None]


PROBLEMS = [
    *(
        "none",
        "stereo",
        "silence",
        "clipped",
        "short",
        "out_of_range",
        "canceled",
        "channels_differ",
        "narrow_band",
        "pauses",
    ),
    "no_speech",
]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_flags_of_clip_and_windows_are_those_of_the_pipeline(node, tmp_path, speech, problem):
    samples = make_problem(problem, speech).astype(np.float32)
    clip = read_audio({"array": samples, "sampling_rate": 16000})
    clip.waveform.tofile(tmp_path / "waveform")
    for channel, each in enumerate(samples.T):
        np.ascontiguousarray(each).tofile(tmp_path / f"channel{channel}")
    bounds = [(start, min(start + 1.5, clip.duration)) for start in np.arange(0, clip.duration - 0.25, 0.5)]

    whole, windows = node(
        f"const limits = {json.dumps(flag_limits())};"
        f"const channels = [...Array({samples.shape[1]}).keys()].map((c) => new Float32Array(buffer('channel' + c)));"
        "const waveform = new Float32Array(buffer('waveform'));"
        "const measurements = new Measurements(16000, limits);"
        "for (let at = 0; at < channels[0].length; at += 700)"
        "  measurements.push(channels.map((channel) => channel.slice(at, at + 700)));"
        "measurements.flush();"
        "const band = new Band(16000, limits); band.push(waveform);"
        "const flags = (frames, part) => findFlags(frames, part, 16000, band.isNarrow, limits);"
        f"const windows = {json.dumps(bounds)}.map(([start, end]) => flags("
        "  measurements.between(start, end), waveform.slice(Math.round(start * 16000), Math.round(end * 16000))));"
        "console.log(JSON.stringify([flags(measurements.frames, waveform), windows]));"
    )

    assert whole == list(clip.flags)
    assert problem in ("none", "stereo") or problem in whole
    assert windows == [list(clip.flags_between(start, end)) for start, end in bounds]
