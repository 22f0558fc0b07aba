"""Reading audio: every form gives the same waveform, and an invalid source is refused by name."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from audio_emotion import (
    EmotionFeatureExtractor,
    audio_decoding,
    audio_flags,
    audio_io,
    audio_resampling,
    audio_sources,
    read_audio,
)
from audio_emotion.audio_io import decode
from audio_emotion.audio_resampling import resample


def encoded(samples: np.ndarray, rate: int = 16000, **how) -> bytes:
    """Samples as the bytes of a file."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, **{"format": "WAV", "subtype": "FLOAT", **how})
    return content.getvalue()


def encoded_by_ffmpeg(
    form: str, codec: str, samples: np.ndarray, rate: int = 16000, gap: float = 0.0, **options: str
) -> bytes:
    """Mono samples `(S,)` as the bytes of a file of FFmpeg, with a gap in the timestamps amid them, in seconds."""
    av = pytest.importorskip("av")
    content = io.BytesIO()
    with av.open(content, "w", format=form, container_options=options) as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        kinds = [each.name for each in track.codec_context.codec.audio_formats or []]
        convert = av.AudioResampler(format="fltp" if "fltp" in kinds or not kinds else kinds[0], frame_size=960)
        whole = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
        whole.sample_rate, whole.pts = rate, 0
        for frame in [*convert.resample(whole), None]:
            for packet in track.encode(frame):
                if packet.pts is not None and packet.pts * packet.time_base > len(samples) / rate / 2:
                    packet.pts += round(gap / packet.time_base)
                    packet.dts = packet.pts
                container.mux(packet)
    return content.getvalue()


def tone(rate: int, seconds: float = 1.5, level: float = 0.5) -> np.ndarray:
    """440 Hz, `(S,)`."""
    return level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def chord(seconds: float = 1.5, level: float = 0.5) -> np.ndarray:
    """440 Hz and, 26 dB below, 5 kHz, at a rate of 16 kHz, `(S,)`: as broad as a voice."""
    times = np.arange(round(seconds * 16000)) / 16000
    return level * (0.95 * np.sin(2 * np.pi * 440 * times) + 0.05 * np.sin(2 * np.pi * 5000 * times))


def syllables(seconds: float = 1.5, level: float = 0.5) -> np.ndarray:
    """A chord whose level changes four times a second, `(S,)` at 16 kHz."""
    times = np.arange(round(seconds * 16000)) / 16000
    return chord(seconds, level) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * times))


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
    clip = read_audio(encoded_by_ffmpeg("mp4", "aac", tone(44100), 44100))

    assert abs(clip.duration - 1.5) < 0.1
    assert abs(clip.waveform[4000:20000].std() - 0.5 / np.sqrt(2)) < 0.02


@pytest.mark.parametrize(
    ("samples", "flags"),
    [
        (np.zeros(32000), ("silence",)),
        (np.clip(3 * syllables(), -1, 1), ("clipped",)),
        (syllables(level=1.0), ()),  # loud is not clipped
        (syllables(seconds=0.5), ("short",)),
        (syllables(level=1.5), ("out_of_range",)),
        (np.zeros(8000), ("silence", "short")),
        (np.full(24000, 0.3) + noise(1.5, 1e-5), ("silence",)),  # behind a constant
        (0.3 + syllables(), ()),
        (tone(16000), ("narrow_band", "no_speech")),
        (chord(), ("no_speech",)),
        (noise(2, 0.1), ("no_speech",)),
        (np.stack([syllables(), syllables()]), ()),
        (np.stack([syllables(), -syllables()]), ("canceled",)),
        (np.stack([syllables(), np.zeros(24000)]), ()),
        (np.stack([noise(2, 0.1, seed) for seed in range(9)]), ("no_speech",)),  # nothing to do with each other
        (np.concatenate([np.zeros(160000), syllables()]), ("pauses",)),
        (np.concatenate([np.zeros(160000), syllables()]) + 0.3, ("pauses",)),
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
    assert clip.flags_between(3.0, 4.5) == ("clipped", "no_speech")


def test_narrow_band_of_a_part_is_that_of_its_clip(speech):
    telephone = resample(resample(speech, 16000, 8000), 8000, 16000)
    vowel = tone(16000, seconds=1.0)

    assert read_audio({"array": telephone, "sampling_rate": 16000}).flags_between(0.5, 1.5) == ("narrow_band",)
    broad = read_audio({"array": np.concatenate([speech, vowel]), "sampling_rate": 16000})
    assert broad.flags_between(2.0, 3.0) == ("no_speech",)
    assert read_audio({"array": vowel, "sampling_rate": 16000}).flags == ("narrow_band", "no_speech")


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


# --- decoding: formats that are named, bounded in duration and memory, and whole ---

SOUNDFILE_FORMS = [
    ("WAV", "PCM_16"),
    ("WAV", "GSM610"),
    ("WAV", "G721_32"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("AU", "G723_24"),
    ("CAF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
FFMPEG_FORMS = [
    ("mp4", "aac"),
    ("webm", "libopus"),
    ("matroska", "aac"),
    ("avi", "libmp3lame"),
    ("mpegts", "aac"),
    ("flv", "aac"),
    ("adts", "aac"),
    ("asf", "libmp3lame"),
    ("mp3", "libmp3lame"),
    ("ogg", "flac"),
    ("wav", "adpcm_ms"),
]
FORMS = [pytest.param("soundfile", *form, id="-".join(form)) for form in SOUNDFILE_FORMS]
FORMS += [pytest.param("ffmpeg", *form, id="-".join(form)) for form in FFMPEG_FORMS]


def in_form(writer: str, form: str, codec: str, samples: np.ndarray, rate: int = 16000) -> bytes:
    """The bytes of a file of soundfile or FFmpeg."""
    if writer == "soundfile":
        return encoded(samples, rate, format=form, subtype=codec)
    return encoded_by_ffmpeg(form, codec, samples, rate)


@pytest.mark.parametrize(("writer", "form", "codec"), FORMS)
def test_all_of_a_file_is_read_and_a_part_of_it_is_not_taken_for_all(writer, form, codec, speech):
    speech = np.tile(speech, 2)
    content = in_form(writer, form, codec, speech)

    clip = read_audio(content)

    assert clip.duration == pytest.approx(4.0, abs=0.15)
    assert "truncated" not in clip.flags
    for fraction in (0.3, 0.503, 0.9):
        with contextlib.suppress(ValueError):
            assert "truncated" in read_audio(content[: int(fraction * len(content))]).flags


@pytest.mark.parametrize(("writer", "form", "codec"), FORMS)
def test_files_that_are_joined_are_all_read(writer, form, codec, speech):
    low, high = (level * np.tile(speech, 2) for level in (0.2, 1.0))

    clip = read_audio(in_form(writer, form, codec, low) + in_form(writer, form, codec, high))

    assert clip.duration == pytest.approx(8.0, abs=0.3)
    assert clip.waveform[70000:].std() == pytest.approx(5 * clip.waveform[:58000].std(), rel=0.2)
    assert "truncated" not in clip.flags


@pytest.mark.parametrize(("writer", "form", "codec"), [FORMS[0], FORMS[-6], FORMS[-3]])
def test_a_change_of_the_rate_changes_no_duration(writer, form, codec):
    parts = [in_form(writer, form, codec, tone(rate, 2.0), rate) for rate in (32000, 16000)]

    clip = read_audio(b"".join(parts))

    assert clip.duration == pytest.approx(4.0, abs=0.3)
    for part in (clip.waveform[8000:24000], clip.waveform[40000:56000]):
        assert np.abs(np.fft.rfft(part)).argmax() == 440  # hertz


def test_a_gap_in_the_timestamps_is_silence():
    clip = read_audio(encoded_by_ffmpeg("webm", "libopus", tone(48000, 4.0), 48000, gap=3.0))

    assert clip.duration == pytest.approx(7.0, abs=0.1)
    loud = np.abs(clip.waveform[: 7 * 16000].reshape(70, 1600)).max(axis=1) > 0.1  # per 0.1 s
    assert loud[:19].all()
    assert not loud[22:49].any()
    assert loud[52:69].all()


@pytest.mark.parametrize("writer", ["a pipe", "a recorder that stopped", "a recorder that wrote no data"])
def test_a_wav_that_does_not_state_its_size_is_read(writer, speech):
    content = bytearray(encoded(speech, subtype="PCM_16"))
    sizes = {"a pipe": (2**32 - 1, 2**32 - 1), "a recorder that stopped": (0, 0)}.get(writer, (36, 0))
    for place, size in zip((4, content.index(b"data") + 4), sizes, strict=True):
        content[place : place + 4] = size.to_bytes(4, "little")

    clip = read_audio(bytes(content))

    np.testing.assert_allclose(clip.waveform, speech, atol=2**-15)
    assert clip.flags == ()


def without_length(flac: bytes) -> bytes:
    """As a program writes it that writes to a pipe."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + b"\0" * 20 + flac[42:]


def test_a_flac_that_does_not_state_its_length_is_read(speech):
    content = without_length(encoded(speech, format="FLAC", subtype="PCM_16"))

    clip = read_audio(content)

    np.testing.assert_allclose(clip.waveform, speech, atol=2**-15)
    assert clip.flags == ()
    with contextlib.suppress(ValueError):
        assert "truncated" in read_audio(content[: len(content) // 2]).flags


@pytest.mark.parametrize(
    "content",
    [
        b"ffconcat version 1.0\nfile 'other.wav'\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.wav\n#EXT-X-ENDLIST\n",
        b"-E\nNOW base\nbase: 440+10/20\n+00:00:02 off\noff: -\n",
        b"[Script Info]\n" * 20,
    ],
    ids=["ffconcat", "HLS", "SBaGen", "ASS"],
)
def test_text_that_ffmpeg_would_run_or_follow_is_refused(content, speech, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.wav").write_bytes(encoded(speech))
    (tmp_path / "clip.wav").write_bytes(content)

    with pytest.raises(ValueError, match=r"clip\.wav: .*no format that is read"):
        read_audio("clip.wav")


def test_a_codec_that_is_not_listed_is_refused(speech):
    with pytest.raises(ValueError, match="its codec tta is none of aac,"):
        read_audio(encoded_by_ffmpeg("matroska", "tta", speech))


def test_no_protocol_and_no_other_format_is_allowed_to_ffmpeg(speech, monkeypatch):
    av = pytest.importorskip("av")
    given = {}

    def record(*_, **keywords):
        given.update(keywords)
        raise ValueError("recorded")

    content = encoded_by_ffmpeg("webm", "libopus", speech)
    monkeypatch.setattr(av, "open", record)
    with pytest.raises(ValueError, match="recorded"):
        read_audio(content)

    assert given["format"] == given["options"]["format_whitelist"] == "matroska"
    assert given["options"]["protocol_whitelist"] == "none"


@pytest.mark.parametrize(("writer", "form", "codec"), [FORMS[0], FORMS[10], FORMS[13], FORMS[14], FORMS[15]])
def test_a_clip_longer_than_the_limit_is_refused_before_it_is_decoded(writer, form, codec, speech, monkeypatch):
    content = in_form(writer, form, codec, speech)
    monkeypatch.setattr(audio_io, "measure_frames", lambda *_: pytest.fail("decoded"))

    with pytest.raises(ValueError, match=r"expected at most 1\.5 s of audio.*`max_duration`"):
        read_audio(content, max_duration=1.5)


def test_a_clip_that_does_not_state_its_length_is_read_up_to_the_limit(speech, monkeypatch):
    content = without_length(encoded(np.tile(speech, 8), format="FLAC", subtype="PCM_16"))
    for module in (audio_decoding, audio_io):
        monkeypatch.setattr(module, "CHUNK", 16000)
    measure, decoded = audio_io.measure_frames, []
    monkeypatch.setattr(audio_io, "measure_frames", lambda *given: decoded.append(len(given[0])) or measure(*given))

    with pytest.raises(ValueError, match="expected at most 3 s of audio"):
        read_audio(content, max_duration=3.0)

    assert sum(decoded) == 4 * 16000


def test_ten_hours_of_silence_are_refused_by_default(speech):
    flac = bytearray(encoded(speech, format="FLAC", subtype="PCM_16"))
    flac[21:26] = ((flac[21] & 0xF0) << 32 | 10 * 3600 * 16000).to_bytes(5, "big")

    with pytest.raises(ValueError, match="expected at most 14400 s"):
        read_audio(bytes(flac))


def test_a_file_larger_than_the_limit_is_not_read(tmp_path):
    with (tmp_path / "clip.wav").open("wb") as file:
        file.truncate(2**40)  # without using the disk

    with pytest.raises(ValueError, match=r"clip\.wav: expected an audio file, got OSError: more than 2147483648 "):
        read_audio(tmp_path / "clip.wav")


def test_a_lack_of_memory_is_an_error_of_the_clip(speech, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no 10 GB")

    monkeypatch.setattr(audio_resampling.soxr, "resample", fail)
    monkeypatch.setattr(audio_resampling.soxr, "ResampleStream", fail)

    with pytest.raises(ValueError, match=r"array of shape.*fits into memory, got MemoryError: no 10 GB"):
        read_audio({"array": speech, "sampling_rate": 8000})


# --- speech ---


@pytest.mark.parametrize("is_spoken", [True, False])
def test_the_detector_of_silero_decides_where_it_is_installed(is_spoken, speech, monkeypatch):
    class Detector:
        def reset_states(self):
            pass

        def __call__(self, piece, rate):
            assert piece.shape == (512,)
            assert rate == 16000
            return torch.tensor([[float(is_spoken)]])

    audio_flags._silero.cache_clear()
    monkeypatch.setitem(sys.modules, "silero_vad", SimpleNamespace(load_silero_vad=Detector))
    try:
        flags = read_audio({"array": speech, "sampling_rate": 16000}, 8000).flags
    finally:
        audio_flags._silero.cache_clear()

    assert ("no_speech" in flags) is not is_spoken


# --- URLs ---


@contextlib.contextmanager
def served(answer):
    """The address of a server that answers every request by `answer(handler)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_url_that_never_ends_is_given_up(part, monkeypatch):
    monkeypatch.setattr(audio_sources, "URL_DURATION", 0.3)

    def drip(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"\r\n" * (part == "body"))
        for _ in range(30):
            handler.wfile.write(b"x")
            time.sleep(0.1)

    begin = time.monotonic()
    with served(drip) as host, pytest.raises(ValueError, match=r"clip\.wav: .*no end within 0\.3 s"):
        read_audio(f"http://{host}/clip.wav")
    assert time.monotonic() - begin < 2


def test_a_url_with_too_many_bytes_or_too_few_is_refused(monkeypatch):
    monkeypatch.setattr(audio_sources, "MAX_BYTES", 10**6)

    def flood(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b"x" * 10**5)

    with served(flood) as host, pytest.raises(ValueError, match="more than 1000000 bytes"):
        read_audio(f"http://{host}/clip.wav")

    content = encoded(noise(2, 0.1), format="OGG", subtype="VORBIS")

    def stop_early(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(content) + 5))
        handler.wfile.write(content)

    with served(stop_early) as host, pytest.raises(ValueError, match=r"5 bytes too few|IncompleteRead"):
        read_audio(f"http://{host}/clip.wav")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1:1/x.wav", "data:audio/wav;base64,AAAA"])
def test_a_redirect_to_anything_but_http_is_refused(target):
    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    with served(redirect) as host, pytest.raises(ValueError, match=r"status 302|unknown url type"):
        read_audio(f"http://{host}/clip.wav")


def test_a_message_holds_no_password_and_no_signature(speech):
    def answer(handler):
        if "moved" in handler.path:
            handler.send_response(302)
            handler.send_header("Location", "gopher://host/x?signature=SECRET")
            handler.end_headers()
        else:
            handler.send_error(403, "SECRET")

    with served(answer) as host:
        for url in (
            f"http://{host}/clip.wav?signature=SECRET",
            f"http://{host}/moved.wav?signature=SECRET#SECRET",
            f"http://user:SECRET@{host}/clip.wav",
            "http://127.0.0.1:1/a b?signature=SECRET",
            "http://user:SECRET@127.0.0.1:port/clip.wav",
            "s3://SECRET:SECRET@bucket/clip.wav?signature=SECRET",
            "file:///nowhere/clip.wav?signature=SECRET",
        ):
            for source in (url, {"bytes": b"text", "path": url}):
                with pytest.raises(ValueError, match=r": expected") as caught:
                    read_audio(source)
                assert "SECRET" not in str(caught.value)
                assert caught.value.__cause__ is None or "SECRET" not in str(caught.value.__cause__)
    content = encoded(speech)
    with served(lambda handler: handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + content)) as host:
        assert read_audio(f"http://{host}/clip.wav?signature=SECRET").name == f"http://{host}/clip.wav"


# --- feature extractor ---


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.int64])
def test_the_feature_extractor_scales_integers_as_the_pipeline_does(kind, speech):
    scale = {np.uint8: 2**7, np.int32: 2**31}.get(kind, 2**15)
    integers = (speech.astype(np.float64) * scale + (scale if kind is np.uint8 else 0)).astype(kind)

    for given in (integers, [integers], torch.from_numpy(integers), integers.tolist()):
        if kind in (np.int32, np.uint8) and isinstance(given, list) and not isinstance(given[0], np.ndarray):
            continue  # a list has no type
        batch = EmotionFeatureExtractor()(given, sampling_rate=16000, return_tensors="np")
        expected = read_audio({"array": integers, "sampling_rate": 16000}).waveform
        np.testing.assert_array_equal(batch["input_values"], expected[None])


def test_the_feature_extractor_refuses_padding_before_the_clip():
    with pytest.raises(ValueError, match=r'`padding_side` "right", got \'left\''):
        EmotionFeatureExtractor(padding_side="left")
