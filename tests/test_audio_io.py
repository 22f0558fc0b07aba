"""Reading audio: every form gives the same waveform, and an invalid source is refused by name."""

from __future__ import annotations

import http.server
import io
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from audio_emotion import read_audio
from audio_emotion.audio_io import decode, resample


def encoded(samples: np.ndarray, rate: int = 16000, **how) -> bytes:
    """Samples as the bytes of a file."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, **{"format": "WAV", "subtype": "FLOAT", **how})
    return content.getvalue()


def tone(rate: int, seconds: float = 1.5, level: float = 0.5) -> np.ndarray:
    """440 Hz, `(S,)`."""
    return level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def chord(seconds: float = 1.5, level: float = 0.5) -> np.ndarray:
    """440 Hz and, 26 dB below, 5 kHz, at a rate of 16 kHz, `(S,)`: as broad as a voice."""
    times = np.arange(round(seconds * 16000)) / 16000
    return level * (0.95 * np.sin(2 * np.pi * 440 * times) + 0.05 * np.sin(2 * np.pi * 5000 * times))


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    """White, of this standard deviation, at a rate of 16 kHz, `(S,)`."""
    return level * np.random.default_rng(seed).normal(size=round(seconds * 16000))


def rounded(samples: np.ndarray) -> np.ndarray:
    """As 16-bit samples hold it."""
    return np.round(samples * 2**15) / 2**15


def test_path_bytes_file_and_row_give_the_samples_of_the_file(speech, tmp_path):
    content = encoded(speech)
    path = tmp_path / "a clip.wav"
    path.write_bytes(content)
    decoder = SimpleNamespace(
        get_all_samples=lambda: SimpleNamespace(data=torch.from_numpy(speech)[None], sample_rate=16000)
    )
    forms = [
        path,
        str(path),
        content,
        io.BytesIO(content),
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        {"audio": {"bytes": content, "path": "x.wav"}, "emotion": "sad"},
        {"audio": {"array": speech, "sampling_rate": 16000}},
        {"raw": torch.from_numpy(speech), "sampling_rate": 16000},
        {"array": speech.tolist(), "sampling_rate": 16000},
        {"waveform": torch.from_numpy(speech)[None], "sample_rate": 16000},
        decoder,
        {"audio": decoder},
        path.as_uri(),
        path.as_uri().replace("file:///", "FILE://localhost/"),
    ]

    for form in forms:
        clip = read_audio(form)
        assert clip.waveform.dtype == np.float32
        np.testing.assert_array_equal(clip.waveform, speech)
        assert clip.duration == 2.0
        assert clip.flags == ()


def test_a_url_is_downloaded(speech, tmp_path):
    (tmp_path / "clip.wav").write_bytes(encoded(speech))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        clip = read_audio(f"{address}/clip.wav")
        with pytest.raises(ValueError, match=r"missing\.wav.*404"):
            read_audio(f"{address}/missing.wav")
        server.shutdown()

    np.testing.assert_array_equal(clip.waveform, speech)
    assert clip.name == f"{address}/clip.wav"


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_any_rate_is_resampled_to_the_same_tone_at_16_khz(rate):
    clip = read_audio({"array": tone(rate), "sampling_rate": rate})

    assert clip.waveform.shape[0] == pytest.approx(24000, abs=1)
    assert clip.duration == pytest.approx(1.5, abs=1e-4)
    np.testing.assert_allclose(clip.waveform[2000:22000], tone(16000)[2000:22000], atol=2e-3)


@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_channels_are_averaged_in_either_layout(speech, layout, count):
    gains = np.linspace(0.5, 1.0, count, dtype=np.float32)
    channels = gains[:, None] * speech

    clip = read_audio({"array": channels if layout == "channels first" else channels.T, "sampling_rate": 16000})

    np.testing.assert_allclose(clip.waveform, gains.mean() * speech, atol=1e-6)


@pytest.mark.parametrize(
    ("integers", "quantum"),
    [
        (lambda x: (x * 2**15).astype(np.int16), 2**-15),
        (lambda x: (x * 2**31).astype(np.int32), 2**-23),
        (lambda x: (x * 2**7 + 2**7).astype(np.uint8), 2**-6),
        (lambda x: (x * 2**15).astype(np.int64).tolist(), 2**-15),
        (lambda x: torch.from_numpy((x * 2**15).astype(np.int16)), 2**-15),
        (lambda x: torch.from_numpy(x).bfloat16(), 2**-8),
    ],
)
def test_integers_and_half_precision_are_scaled_within_a_quantum(speech, integers, quantum):
    clip = read_audio({"array": integers(speech.astype(np.float32)), "sampling_rate": 16000})

    np.testing.assert_allclose(clip.waveform, speech, atol=quantum)
    assert clip.flags == ()


@pytest.mark.parametrize(("form", "tolerance"), [("FLAC", 1e-4), ("OGG", 0.1), ("MP3", 0.1)])
def test_compressed_formats_are_decoded(form, tolerance):
    stereo = np.stack([tone(44100)] * 2, axis=1)

    samples, rate = decode(encoded(stereo, 44100, format=form, subtype=None))

    assert rate == 44100
    assert samples.dtype == np.float32
    assert samples.shape[1] == 2
    assert abs(len(samples) - len(stereo)) < 3000  # mp3 pads to whole frames
    assert abs(samples.std() - stereo.std()) < tolerance


def test_the_audio_track_of_a_video_is_decoded():
    av = pytest.importorskip("av")
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        track = container.add_stream("aac", rate=44100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([tone(44100)] * 2).astype(np.float32), "fltp", "stereo")
        frame.sample_rate = 44100
        for packet in [*track.encode(frame), *track.encode(None)]:
            container.mux(packet)

    clip = read_audio(content.getvalue())

    assert abs(clip.duration - 1.5) < 0.1
    assert abs(clip.waveform[4000:20000].std() - 0.5 / np.sqrt(2)) < 0.02


@pytest.mark.parametrize(
    ("samples", "flags"),
    [
        (np.zeros(32000), ("silence",)),
        (np.clip(3 * chord(), -1, 1), ("clipped",)),
        (chord(level=1.0), ()),  # loud is not clipped
        (chord(seconds=0.5), ("short",)),
        (chord(level=1.5), ("out_of_range",)),
        (np.zeros(8000), ("silence", "short")),
        (tone(16000), ("narrow_band",)),
        (np.stack([chord(), chord()]), ()),
        (np.stack([chord(), -chord()]), ("canceled",)),
        (np.stack([chord(), np.zeros(24000)]), ()),
        (np.stack([noise(2, 0.1, seed) for seed in range(9)]), ()),  # nothing to do with each other
        (np.concatenate([np.zeros(160000), chord()]), ("pauses",)),
    ],
)
def test_flags_name_the_problem(samples, flags):
    assert read_audio({"array": samples, "sampling_rate": 16000}).flags == flags


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.wav", r"missing\.wav: expected an audio file.*No such file"),
        (b"", "0 bytes"),
        (b"no audio at all" * 50, "audio of 750 bytes: expected audio that can be decoded"),
        # Named: a float WAV holds the second it was written, and two test processes must give a case the same name.
        pytest.param(encoded(np.zeros(0)), "no samples", id="no samples"),
        (io.StringIO("text"), "binary mode.*got str"),
        (SimpleNamespace(read=lambda: np.zeros(16000)), r"`read\(\)` gives bytes, got ndarray"),
        (np.zeros(16000), r"bare array of shape \(16000,\).*sampling_rate"),
        ([0.1, 0.2], "bare array.*sampling_rate"),
        ({"array": np.zeros(16000)}, "sampling_rate"),
        ({"array": np.zeros(16000), "sampling_rate": 16}, "hertz.*got 16"),
        ({"array": np.zeros(16000), "sampling_rate": "fast"}, "rate in hertz"),
        ({"array": np.zeros(0), "sampling_rate": 16000}, "no samples"),
        ({"array": np.zeros(3999), "sampling_rate": 16000}, r"at least 0\.25 s.*got 0\.249938 s"),
        ({"array": np.full(16000, np.nan), "sampling_rate": 16000}, "16000 that are NaN or infinite"),
        ({"array": np.array([0.0] * 9999 + [np.inf]), "sampling_rate": 16000}, "1 that are NaN or infinite"),
        ({"array": np.zeros((100, 100)), "sampling_rate": 16000}, r"\(100, 100\)"),
        ({"array": np.zeros(16000, dtype=bool), "sampling_rate": 16000}, "got bool"),
        ({"array": np.full(16000, 1e20), "sampling_rate": 16000}, "of size 1e\\+20"),
        ({"bytes": 10**12}, 'bytes under "bytes", got int'),
        ({"path": ["clip.wav"]}, 'string under "path", got list'),
        ({"audio": {"audio": b"x"}}, "Pass the inner one"),
        (SimpleNamespace(read=lambda: 1 / 0), "file that can be read, got ZeroDivisionError"),
        ({"array": torch.zeros(16000, device="meta"), "sampling_rate": 16000}, "expected an array of samples"),
        ("http://a b/c.wav", "InvalidURL"),
        ({"text": "hello"}, r"dict: expected.*'text'"),
        ({"bytes": None, "path": None}, r"audio under \['bytes', 'path'\], got None"),
        ({"wave": np.zeros(16000), "sampling_rate": 16000}, r"got the keys \['sampling_rate', 'wave'\]"),
        ({"audio": [b"one", b"two"], "emotion": ["sad", "sad"]}, "several rows, 2 under.*Iterate over the dataset"),
        ("", "got an empty path"),
        ("s3://bucket/clip.wav", "got s3://bucket"),
        ("FTP://host/clip.wav", "got ftp://host"),
        ("file://host/clip.wav", "file of this machine, got file://host"),
        ("HTTP://127.0.0.1:1/clip.wav", "clip.wav: expected an audio file, got URLError"),
        (None, "NoneType object"),
    ],
)
def test_an_invalid_source_is_refused_with_its_reason(source, message):
    with pytest.raises(ValueError, match=message):
        read_audio(source)


def test_a_truncated_file_is_refused_by_name(speech, tmp_path):
    path = tmp_path / "cut.flac"
    content = encoded(speech, format="FLAC", subtype="PCM_16")
    path.write_bytes(content[: len(content) // 2])

    with pytest.raises(ValueError, match=r"cut\.flac: expected audio that can be decoded"):
        read_audio(path)


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("MP3", None)])
def test_a_file_shorter_than_its_header_states_is_refused(form, subtype, speech):
    content = encoded(speech, format=form, subtype=subtype)

    assert len(read_audio(content).waveform) >= 32000
    with pytest.raises(ValueError, match="cut short"):
        read_audio(content[: len(content) // 2])


def test_a_wav_of_unknown_length_from_a_pipe_is_read(speech):
    content = bytearray(encoded(speech))
    for place in (4, content.index(b"data") + 4):
        content[place : place + 4] = b"\xff\xff\xff\xff"

    np.testing.assert_array_equal(read_audio(bytes(content)).waveform, speech)


def test_a_file_with_an_impossible_rate_or_number_of_channels_is_refused(speech):
    slow, wide = bytearray(encoded(speech)), encoded(np.zeros((16000, 40)))
    slow[24:28] = (1).to_bytes(4, "little")

    with pytest.raises(ValueError, match=r"rate in hertz \(1000 to 768000\), got 1\."):
        read_audio(bytes(slow))
    with pytest.raises(ValueError, match="fewer than 32 channels, got 40"):
        read_audio(wide)


def test_a_pipe_and_a_device_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")

    for path in (tmp_path / "pipe.wav", "/dev/zero"):
        with pytest.raises(ValueError, match="a pipe or a device"):
            read_audio(path)


def test_flags_of_a_part_are_those_of_the_part_as_a_clip(speech):
    loud = np.concatenate([np.zeros(16000), 2 * speech, np.clip(5 * tone(16000), -1, 1)])

    clip = read_audio({"array": loud, "sampling_rate": 16000})

    for start, end in ((0.0, 1.0), (0.0, 0.5), (1.0, 3.0), (3.0, 4.5)):
        part = {"array": loud[round(16000 * start) : round(16000 * end)], "sampling_rate": 16000}
        assert clip.flags_between(start, end) == read_audio(part).flags
    assert clip.flags_between(0.0, 0.5) == ("silence", "short")
    assert clip.flags_between(3.0, 4.5) == ("clipped",)


def test_narrow_band_of_a_part_is_that_of_its_clip(speech):
    telephone = resample(resample(speech, 16000, 8000), 8000, 16000)
    vowel = tone(16000, seconds=1.0)

    assert read_audio({"array": telephone, "sampling_rate": 16000}).flags_between(0.5, 1.5) == ("narrow_band",)
    broad = read_audio({"array": np.concatenate([speech, vowel]), "sampling_rate": 16000})
    assert broad.flags_between(2.0, 3.0) == ()
    assert read_audio({"array": vowel, "sampling_rate": 16000}).flags == ("narrow_band",)


@pytest.mark.parametrize("gain", [1.0, 0.05])
@pytest.mark.parametrize("stored_at", [8000, 16000, 48000])
def test_telephone_speech_is_flagged_however_it_is_stored_and_other_speech_is_not(speech, stored_at, gain):
    telephone = resample(rounded(gain * resample(speech, 16000, 8000)), 8000, stored_at)
    broad = resample(rounded(gain * speech), 16000, stored_at)

    assert read_audio({"array": rounded(telephone), "sampling_rate": stored_at}).flags == ("narrow_band",)
    if stored_at > 8000:
        assert read_audio({"array": rounded(broad), "sampling_rate": stored_at}).flags == ()


@pytest.mark.parametrize("gain", [1.0, 0.01])
@pytest.mark.parametrize("silence", [np.zeros(160000), noise(10, 10 ** (-70 / 20))], ids=["zeros", "noise"])
def test_a_clip_that_is_mostly_silence_is_flagged_at_any_gain(speech, silence, gain):
    for parts in ([silence, speech], [speech, silence], [silence, speech, silence]):
        clip = {"array": gain * np.concatenate(parts), "sampling_rate": 16000}
        assert read_audio(clip).flags == ("pauses",)
    assert read_audio({"array": gain * np.concatenate([silence[:16000], speech]), "sampling_rate": 16000}).flags == ()


def test_the_loudest_of_canceling_channels_is_taken(speech):
    channels = np.stack([0.9 * speech, -speech])  # their mean keeps a 400th of their power

    clip = read_audio({"array": channels, "sampling_rate": 16000})

    np.testing.assert_array_equal(clip.waveform, -speech)
    assert clip.flags == ("canceled",)


def test_a_file_object_at_its_end_is_refused_and_not_rewound(speech):
    file = io.BytesIO(encoded(speech))
    read_audio(file)

    with pytest.raises(ValueError, match=r"is at its end. Call its `seek\(0\)`"):
        read_audio(file)
    file.seek(0)
    np.testing.assert_array_equal(read_audio(file).waveform, speech)
    with pytest.raises(ValueError, match="0 bytes"):
        read_audio(io.BytesIO())


def test_resample_returns_the_same_rate_unchanged_and_keeps_channels():
    stereo = np.stack([tone(48000), tone(48000)], axis=1).astype(np.float32)

    assert resample(stereo, 48000, 48000) is stereo
    assert resample(stereo, 48000, 16000).shape == (24000, 2)
