"""Where the audio files of known containers begin and end: recognizes them, splits joined files, finds cut ones."""

# SPDX-License-Identifier: Apache-2.0

import re
import struct
from collections.abc import Callable

from .audio_frames import (
    MISSING,
    RESYNC,
    Extent,
    adts_extent,
    adts_frame,
    after_id3,
    amr_extent,
    find_pattern,
    frame_after,
    mp3_extent,
    mpeg_frame,
)

UNKNOWN_SIZE = 0x7FFF0000  # bytes; programs that write to a pipe put at least this into the header
SLACK = 64  # bytes by which headers are often wrong


def split_joined(content: bytes) -> tuple[list[tuple[str, bytes, float]], bool]:
    """Divide content into the files that are joined in it.

    Returns:
        FFmpeg's demuxer, the content and the duration (0 if unknown) of each file, and whether an end is missing.

    Raises:
        ValueError: for a container that is not read, or a file that is shorter than its header states.
    """
    files: list[tuple[str, bytes, float]] = []
    start, is_truncated = 0, False
    while (container := _recognize(content, start)) is not None:
        demuxer, find_extent = container
        extent = find_extent(content, start)
        missing = extent.end - len(content)
        if extent.states_size and max(missing / (extent.end - start), 1 - extent.found) > MISSING:
            found = min(extent.found, (len(content) - start) / (extent.end - start))
            raise ValueError(f"it is cut short, {found:.0%} of what its header states")
        is_truncated |= missing > (SLACK if extent.states_size else 0)
        is_alone = not files and missing >= 0  # then it is not copied
        file = extent.fixed or (content if is_alone else content[start : extent.end])
        files.append((demuxer, file, extent.duration))
        start = _after_tags(content, extent.end)
        if start < len(content) and _recognize(content, start) is None:
            following = find_pattern(STRONG_STARTS, content, start)
            is_truncated |= following - start > MISSING * len(content)  # nobody knows what is between
            start = following
    if not files:
        raise ValueError("it is of no format that is read")
    return files, is_truncated


# Starts of files that do not occur by accident: after bytes that are no audio, only these are searched.
STRONG_STARTS = rb"RIFF.{4}WAVE|fLaC\x00\x00\x00\x22|OggS\x00\x02|ID3[\x02-\x04]\x00|#!AMR"


def _after_tags(content: bytes, place: int) -> int:
    """The place after zeros and tags that follow audio."""
    while True:
        if content[place : place + 3] == b"TAG":
            place += 128
        elif content[place : place + 8] == b"APETAGEX" and place + 32 <= len(content):
            size, _, flags = struct.unpack_from("<III", content, place + 12)
            place += size + (32 if flags & 2**29 else 0)  # the size is without the header
        elif content[place : place + 1] == b"\0" and not content[place : place + 4096].strip(b"\0"):
            place += 4096
        else:
            return place


def _recognize(content: bytes, place: int) -> tuple[str, Callable[[bytes, int], Extent]] | None:
    """FFmpeg's demuxer of the file that starts at `place`, and the function that finds its extent."""
    head = content[place : place + 16]
    for pattern, demuxer, find_extent in CONTAINERS:
        if re.match(pattern, head, re.DOTALL):
            return demuxer, find_extent
    after_tag = after_id3(content, place)
    if content[after_tag : after_tag + 4] == b"fLaC":
        return "flac", _flac_extent
    if place == 0 and after_tag == 0:
        # A recording of a stream starts amid a frame.
        after_tag = frame_after(content, 0, stop=min(len(content), RESYNC))
    if after_tag < len(content):
        if mpeg_frame(content, after_tag):
            return "mp3", mp3_extent
        if adts_frame(content, after_tag):
            return "aac", adts_extent
    if len(head) > 0 and all(content[place + skip : place + skip + 1] in (b"G", b"") for skip in (0, 188, 376)):
        return "mpegts", _ts_extent
    return None


def _riff_extent(content: bytes, start: int) -> Extent:
    """WAV (RIFF, RF64, RIFX) and AVI: chunks of an identifier, a size and data."""
    order = ">" if content[start : start + 4] == b"RIFX" else "<"
    (size,) = struct.unpack_from(order + "I", content, start + 4)
    following = find_pattern(rb"RIF[FX].{4}(?:WAVE|AVI )", content, start + 12)
    if content[start : start + 4] == b"RF64":
        size, data_size = struct.unpack_from("<QQ", content, start + 20)  # of the chunk `ds64`
        return Extent(max(start + 8 + size, start + 12 + data_size))
    if content[start + 8 : start + 12] == b"AVI ":
        end = start + 8 + size
        while size and content[end : end + 4] == b"RIFF" and content[end + 8 : end + 12] == b"AVIX":
            end += 8 + struct.unpack_from("<I", content, end + 4)[0]
        return Extent(end) if size else Extent(following, states_size=False)
    end, place = start + 8 + size + size % 2, start + 12
    while place + 8 <= len(content):
        (chunk_size,) = struct.unpack_from(order + "I", content, place + 4)
        if content[place : place + 4] == b"data":
            if chunk_size >= UNKNOWN_SIZE:
                return Extent(following)
            if chunk_size == 0 and end < following:  # the recorder has stopped before it wrote the sizes
                unknown = struct.pack(order + "I", 2**32 - 1)
                fixed = content[start : start + 4] + unknown + content[start + 8 : place + 4] + unknown
                fixed += content[place + 8 : following]
                return Extent(following, fixed=fixed)
            return Extent(max(end, place + 8 + chunk_size) if size < UNKNOWN_SIZE else place + 8 + chunk_size)
        place += 8 + chunk_size + chunk_size % 2
    return Extent(end if size < UNKNOWN_SIZE else following)


def _aiff_extent(content: bytes, start: int) -> Extent:
    (size,) = struct.unpack_from(">I", content, start + 4)
    return Extent(start + 8 + size if size else len(content))


def _w64_extent(content: bytes, start: int) -> Extent:
    return Extent(start + struct.unpack_from("<Q", content, start + 16)[0])


def _caf_extent(content: bytes, start: int) -> Extent:
    place = start + 8
    while place + 12 <= len(content) and re.match(rb"[ -~]{4}", content[place : place + 4]):
        (size,) = struct.unpack_from(">q", content, place + 4)
        if size < 0 or content[place : place + 4] == b"caff":  # -1: until the end
            return Extent(len(content) if size < 0 else place)
        place += 12 + size
    return Extent(place)


def _au_extent(content: bytes, start: int) -> Extent:
    offset, size = struct.unpack_from(">II", content, start + 4)
    return Extent(start + offset + size if size < UNKNOWN_SIZE else len(content))


def _nist_extent(content: bytes, start: int) -> Extent:
    header = content[start : start + 1024].decode("latin-1")
    values = dict(re.findall(r"^(\w+) -i (\d+)", header, re.MULTILINE))
    if "embedded" in header or "sample_count" not in values:  # compressed
        return Extent(len(content))
    size = int(values["sample_count"]) * int(values.get("channel_count", 1)) * int(values.get("sample_n_bytes", 2))
    return Extent(start + int(header.split()[1]) + size)


def _flac_extent(content: bytes, start: int) -> Extent:
    start = content.index(b"fLaC", start)
    end = find_pattern(rb"fLaC[\x00\x80]\x00\x00\x22", content, start + 4)
    if int.from_bytes(content[start + 21 : start + 26], "big") & (2**36 - 1):
        return Extent(end)  # the number of samples is stated, and checked after decoding
    # A frame ends with its CRC-16, so that the one of a whole last frame is 0.
    first = max(start, end - 2**16)
    for match in list(re.finditer(rb"\xff[\xf8\xf9]", content[first:end]))[:-33:-1]:  # the last ones
        crc = 0
        for byte in content[first + match.start() : end]:
            crc = (crc << 8 & 0xFFFF) ^ CRC_16[crc >> 8 ^ byte]
        if crc == 0:
            return Extent(end, states_size=False)
    return Extent(end + 1, states_size=False)


def _crc_16(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


CRC_16 = [_crc_16(byte) for byte in range(256)]


def _ogg_extent(content: bytes, start: int) -> Extent:
    """Pages; the first of each stream and the last are marked, and a first one after others starts a new file."""
    place, flags, has_data = start, 0, False
    while place + 27 <= len(content):
        if content[place : place + 4] != b"OggS":
            following = content.find(b"OggS\x00", place)
            if following < 0:
                break
            place = following
            continue
        flags, count = content[place + 5], content[place + 26]
        if flags & 2 and has_data:
            return Extent(place, states_size=False)
        has_data |= not flags & 2
        place += 27 + count + sum(content[place + 27 : place + 27 + count])
    is_whole = flags & 4 and place <= len(content)
    return Extent(len(content) if is_whole else max(place, len(content) + 1), states_size=False)


def _ts_extent(content: bytes, start: int) -> Extent:
    place = start
    while content[place : place + 1] == b"G":
        place += 188
    return Extent(place, states_size=False)


def _mp4_extent(content: bytes, start: int) -> Extent:
    """Boxes of a size, a type and data."""
    place = start
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if not re.match(rb"[ -~\xa9]{4}", kind) or (kind == b"ftyp" and place > start):
            return Extent(place)
        if size == 0:  # until the end
            return Extent(len(content))
        if size == 1 and place + 16 <= len(content):
            (size,) = struct.unpack_from(">Q", content, place + 8)
        place += max(size, 8)
    return Extent(place if place >= len(content) else len(content) + 1, states_size=place >= len(content))


def _matroska_extent(content: bytes, start: int) -> Extent:
    """Elements of an identifier, a size and data; a recorder that streams does not know those of the outer ones."""
    place, states_size = start, True
    while place < len(content):
        if content[place : place + 4] == b"\x1a\x45\xdf\xa3" and place > start:
            return Extent(place)
        identifier, place_of_size = _variable_length(content, place, keep_marker=True)
        size, place_of_data = _variable_length(content, place_of_size, keep_marker=False)
        if identifier in (0x18538067, 0x1F43B675) and size < 0:  # a segment or a cluster of unknown size
            place, states_size = place_of_data, False
            continue
        if identifier <= 0 or size < 0:
            if place_of_data <= len(content):
                return Extent(place, states_size)  # no element
            return Extent(len(content) + 1, states_size)
        place = place_of_data + size
        if identifier == 0x18538067:
            return Extent(place)
    return Extent(place, states_size)


def _variable_length(content: bytes, place: int, keep_marker: bool) -> tuple[int, int]:
    """An integer whose first bit set states its length, -1 if all others are set, and the place after it."""
    first = content[place] if place < len(content) else 0
    length = 9 - first.bit_length()
    if first == 0:
        return -1, place + 1 if place < len(content) else len(content) + 1
    value = int.from_bytes(content[place : place + length], "big")
    if not keep_marker:
        value &= (1 << 7 * length) - 1
        value = -1 if value == (1 << 7 * length) - 1 else value
    return value, place + length


def _flv_extent(content: bytes, start: int) -> Extent:
    place = start + struct.unpack_from(">I", content, start + 5)[0] + 4
    while place < len(content) and content[place] & 31 in (8, 9, 18):
        place += 15 + int.from_bytes(content[place + 1 : place + 4], "big")
    return Extent(place, states_size=False)


def _asf_extent(content: bytes, start: int) -> Extent:
    """Objects of an identifier of 16 bytes, a size and data."""
    place = start
    while place + 24 <= len(content):
        if place > start and content[place : place + 4] == content[start : start + 4]:
            return Extent(place)
        (size,) = struct.unpack_from("<Q", content, place + 16)
        if size < 24:  # a live stream does not know it
            return Extent(len(content), states_size=False)
        place += size
    return Extent(max(place, len(content)))


CONTAINERS: list[tuple[bytes, str, Callable[[bytes, int], Extent]]] = [  # first bytes, and FFmpeg's demuxer
    (rb"(?:RIFF|RIFX|RF64).{4}WAVE", "wav", _riff_extent),
    (rb"RIFF.{4}AVI ", "avi", _riff_extent),
    (rb"FORM.{4}AIF[FC]", "aiff", _aiff_extent),
    (rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "w64", _w64_extent),
    (rb"caff\x00\x01", "caf", _caf_extent),
    (rb"\.snd", "au", _au_extent),
    (rb"NIST_1A\n", "nistsphere", _nist_extent),
    (rb"fLaC", "flac", _flac_extent),
    (rb"OggS\x00", "ogg", _ogg_extent),
    (rb"#!AMR(?:-WB)?\n", "amr", amr_extent),
    (rb".{4}(?:ftyp|moov|mdat|wide|free|skip|styp)", "mov", _mp4_extent),
    (rb"\x1a\x45\xdf\xa3", "matroska", _matroska_extent),
    (rb"FLV\x01", "flv", _flv_extent),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", _asf_extent),
]
