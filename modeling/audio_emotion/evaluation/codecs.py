"""Lossy codecs of telephony and streaming, applied to a waveform by FFmpeg's own encoders through PyAV."""

from __future__ import annotations

from typing import NamedTuple

import av
import numpy as np
import soxr

SAMPLING_RATE = 16_000  # hertz, of every waveform in and out


class Codec(NamedTuple):
    """An encoder with its sampling rate and, where it has one, its bit rate.

    Attributes:
        encoder: name in FFmpeg.
        rate: hertz at which it encodes.
        bit_rate: bits per second; 0 where the codec has only one.
        sample_format: of its input, as named by FFmpeg.
        options: of the encoder.
    """

    encoder: str
    rate: int
    bit_rate: int = 0
    sample_format: str = "s16"
    options: tuple[tuple[str, str], ...] = ()


VOICE = (("application", "voip"),)
CODECS = {
    "opus-24": Codec("libopus", 16_000, 24_000, options=VOICE),
    "opus-12": Codec("libopus", 16_000, 12_000, options=VOICE),
    "opus-8": Codec("libopus", 16_000, 8_000, options=VOICE),
    "mp3-32": Codec("libmp3lame", 16_000, 32_000, "s16p"),
    "amr-12": Codec("libopencore_amrnb", 8_000, 12_200),
    "amr-5": Codec("libopencore_amrnb", 8_000, 4_750),
    "g722": Codec("g722", 16_000),
    "mu-law": Codec("pcm_mulaw", 8_000),
}


def transcode(waveform: np.ndarray, codec: Codec) -> np.ndarray:
    """Encode and decode a waveform; the delay of the codec is removed.

    Args:
        waveform: `(S,)` at 16 kHz, clipped to -1..1.
        codec: see `CODECS`.

    Returns:
        `(S,)` float32 at 16 kHz.
    """
    narrow = np.clip(soxr.resample(waveform.astype(np.float32), SAMPLING_RATE, codec.rate), -1, 1)
    decoded = _decode(_encode(narrow, codec), codec)
    decoded = soxr.resample(decoded, codec.rate, SAMPLING_RATE)
    return _aligned(decoded.astype(np.float32), waveform.astype(np.float32))


def _encode(samples: np.ndarray, codec: Codec) -> tuple[list[av.Packet], bytes]:
    """Packets of `(S,)` and the header that the decoder needs."""
    context = av.CodecContext.create(codec.encoder, "w")
    context.sample_rate, context.format, context.layout = codec.rate, codec.sample_format, "mono"
    context.options = dict(codec.options)
    if codec.bit_rate:
        context.bit_rate = codec.bit_rate
    context.open()
    size = context.frame_size or codec.rate // 50  # 20 ms
    samples = np.pad(samples, (0, -len(samples) % size + 2 * size))  # the last frames hold the delayed end
    packets = []
    for start in range(0, len(samples), size):
        integers = np.round(samples[start : start + size] * 32767).astype(np.int16)[None]  # (1, size)
        frame = av.AudioFrame.from_ndarray(integers, codec.sample_format, "mono")
        frame.sample_rate, frame.pts = codec.rate, start
        packets += context.encode(frame)
    return [*packets, *context.encode(None)], bytes(context.extradata or b"")


def _decode(encoded: tuple[list[av.Packet], bytes], codec: Codec) -> np.ndarray:
    """The samples `(S',)` of the packets, with the encoder's delay."""
    packets, header = encoded
    name = {"libmp3lame": "mp3float", "libopencore_amrnb": "amrnb"}.get(codec.encoder, codec.encoder)
    context = av.CodecContext.create(name, "r")
    context.sample_rate, context.layout = codec.rate, "mono"
    if header:
        context.extradata = header
    frames = [frame for packet in packets for frame in context.decode(av.Packet(bytes(packet)))]
    frames += context.decode(None)
    resampler = av.AudioResampler("flt", "mono", codec.rate)
    parts = [part.to_ndarray()[0] for frame in [*frames, None] for part in resampler.resample(frame)]
    return np.concatenate(parts)


def _aligned(decoded: np.ndarray, original: np.ndarray) -> np.ndarray:
    """`decoded` moved by its delay, found by cross-correlation within 0.1 s, with the length of `original`."""
    size = 1 << (len(decoded) + len(original)).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size))
    delays = np.fft.irfft(product, size)[: SAMPLING_RATE // 10]
    moved = decoded[int(delays.argmax()) :][: len(original)]
    return np.pad(moved, (0, len(original) - len(moved)))
