"""Where the audio files of known containers begin and end: recognizes them, splits joined files, finds cut ones."""

# SPDX-License-Identifier: Apache-2.0

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

UNKNOWN_SIZE = 0x7FFF0000  # bytes; programs that write to a pipe put at least this into the header
MISSING = 0.01  # fraction of the size in the header that may be missing
SLACK = 64  # bytes by which headers are often wrong
RESYNC = 2**16  # bytes that are searched for the next frame of MP3 or AAC


@dataclass(frozen=True)
class Extent:
    """Where one file ends in content that may hold several files.

    Args:
        end: the byte after its last one; beyond the content where bytes are missing.
        states_size: whether the header states the size: then missing bytes are an error, and else a flag.
        found: fraction of the file that is there, where the header counts other units than bytes.
        fixed: the file, where its header had to be corrected.
        duration: of the frames that were found, in seconds; 0 if unknown.
    """

    end: int
    states_size: bool = True
    found: float = 1.0
    fixed: bytes | None = None
    duration: float = 0.0


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
            following = _find(STRONG_STARTS, content, start)
            is_truncated |= following - start > MISSING * len(content)  # nobody knows what is between
            start = following
    if not files:
        raise ValueError("it is of no format that is read")
    return files, is_truncated


# Starts of files that do not occur by accident: after bytes that are no audio, only these are searched.
STRONG_STARTS = rb"RIFF.{4}WAVE|fLaC\x00\x00\x00\x22|OggS\x00\x02|ID3[\x02-\x04]\x00|#!AMR"


def _find(pattern: bytes, content: bytes, place: int, stop: int | None = None) -> int:
    """Where the pattern is next, or `stop`, by default the length of the content."""
    stop = len(content) if stop is None else stop
    match = re.compile(pattern, re.DOTALL).search(content, place, stop)
    return match.start() if match else stop


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
    after_tag = _after_id3(content, place)
    if content[after_tag : after_tag + 4] == b"fLaC":
        return "flac", _flac_extent
    if place == 0 and after_tag == 0:
        # A recording of a stream starts amid a frame.
        after_tag = _frame_after(content, 0, stop=min(len(content), RESYNC))
    if after_tag < len(content):
        if _mpeg_frame(content, after_tag):
            return "mp3", _mp3_extent
        if _adts_frame(content, after_tag):
            return "aac", _adts_extent
    if len(head) > 0 and all(content[place + skip : place + skip + 1] in (b"G", b"") for skip in (0, 188, 376)):
        return "mpegts", _ts_extent
    return None


def _riff_extent(content: bytes, start: int) -> Extent:
    """WAV (RIFF, RF64, RIFX) and AVI: chunks of an identifier, a size and data."""
    order = ">" if content[start : start + 4] == b"RIFX" else "<"
    (size,) = struct.unpack_from(order + "I", content, start + 4)
    following = _find(rb"RIF[FX].{4}(?:WAVE|AVI )", content, start + 12)
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
    end = _find(rb"fLaC[\x00\x80]\x00\x00\x22", content, start + 4)
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


def _after_id3(content: bytes, place: int) -> int:
    """The place after ID3v2 tags."""
    while content[place : place + 3] == b"ID3" and place + 10 <= len(content):
        a, b, c, d = content[place + 6 : place + 10]
        place += 10 + (a << 21 | b << 14 | c << 7 | d)
    return place


def _mpeg_frame(content: bytes, place: int) -> tuple[int, tuple[int, int, int]] | None:
    """Length in bytes of an MPEG audio frame, and its version, layer and rate."""
    header = int.from_bytes(content[place : place + 4], "big")
    version, layer, bitrate, rate = header >> 19 & 3, 4 - (header >> 17 & 3), header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    hertz = (44100, 48000, 32000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    kilobits = MPEG_BITRATES[(1, layer) if version == 3 else (2, min(layer, 2))][bitrate - 1]
    padding = header >> 9 & 1
    if layer == 1:
        return (12000 * kilobits // hertz + padding) * 4, (version, layer, hertz)
    return (72000 if layer == 3 and version != 3 else 144000) * kilobits // hertz + padding, (version, layer, hertz)


MPEG_BITRATES = {  # kilobits per second by version, and by layer
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # and layer 3
}


def _adts_frame(content: bytes, place: int) -> tuple[int, tuple[int, int, int]] | None:
    """Length in bytes of an AAC frame with ADTS header, and what does not change within a stream."""
    header = content[place : place + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return (length, (header[1], header[2], header[3] & 0xC0)) if length >= 7 else None


def _frame_after(content: bytes, place: int, stop: int) -> int:
    """Where the next three MPEG or ADTS frames in a row start, or `stop`."""
    for match in MPEG_SYNC.finditer(content, place, stop):
        for read in (_mpeg_frame, _adts_frame):
            end, frames = match.start(), 0
            while frames < 3 and (frame := read(content, end)):
                end, frames = end + frame[0], frames + 1
            if frames == 3 or (frames and end == len(content)):
                return match.start()
    return stop


MPEG_SYNC = re.compile(rb"\xff[\xe2-\xff]")


def _mp3_extent(content: bytes, start: int) -> Extent:
    """Frames, of which the first may state (Xing, Info or VBRI) how many there are."""
    place, kind, stated, count = _after_id3(content, start), None, 0, 0
    while place < len(content):
        if (frame := _mpeg_frame(content, place)) is None:
            if content[place : place + 3] in (b"ID3", b"TAG", b"APE"):
                break
            if len(content) - place < 4 and content[place] == 0xFF:
                place = len(content) + 1  # amid the header of a frame
                break
            stop = min(len(content), place + RESYNC)
            stop = _find(rb"ID3[\x02-\x04]\x00", content, place, stop)
            following = _frame_after(content, place, stop)
            if following == stop:
                place = stop if stop == len(content) else place
                break
            place = following
            continue
        frames = _stated_mpeg_frames(content, place)
        if kind is not None and (frames or frame[1] != kind):
            break  # another file
        if stated and count >= stated and len(content) - place > MISSING * (place - start):
            break
        kind, stated, count = frame[1], stated or frames, count + (frames == 0)
        place += frame[0]
    if place > len(content):
        count -= 1
    samples = 384 if kind and kind[1] == 1 else (576 if kind and kind[1] == 3 and kind[0] != 3 else 1152)
    return Extent(place, bool(stated), _found(count, stated), duration=count * samples / kind[2] if kind else 0.0)


def _found(count: int, stated: int) -> float:
    """The fraction of frames that are there; some programs count the one that states it."""
    return min(1.0, (count + 1) / stated) if stated else 1.0


def _stated_mpeg_frames(content: bytes, place: int) -> int:
    """The number of frames that a frame of MPEG audio states, 0 if none."""
    is_first_version, is_mono = content[place + 1] & 8, content[place + 3] >> 6 == 3
    offset = place + 4 + ((17 if is_mono else 32) if is_first_version else (9 if is_mono else 17))
    tag = content[offset : offset + 12]
    if tag[:4] in (b"Xing", b"Info") and len(tag) == 12 and tag[7] & 1:
        return int.from_bytes(tag[8:], "big")
    if content[place + 36 : place + 40] == b"VBRI":
        return int.from_bytes(content[place + 50 : place + 54], "big")
    return 0


def _adts_extent(content: bytes, start: int) -> Extent:
    place, kind = _after_id3(content, start), None
    if not _adts_frame(content, place):
        place = _frame_after(content, place, min(len(content), place + RESYNC))
    while place < len(content) and (frame := _adts_frame(content, place)):
        if kind is not None and frame[1] != kind:
            break
        place, kind = place + frame[0], frame[1]
    if len(content) - 7 < place < len(content) and content[place] == 0xFF:
        place = len(content) + 1  # amid the header of a frame
    return Extent(place, states_size=False)


def _amr_extent(content: bytes, start: int) -> Extent:
    is_wide = content[start : start + 9] == b"#!AMR-WB\n"
    sizes = (17, 23, 32, 36, 40, 46, 50, 58, 60, 5) if is_wide else (12, 13, 15, 17, 19, 20, 26, 31, 5)
    place = start + (9 if is_wide else 6)
    while place < len(content) and content[place : place + 5] != b"#!AMR":
        kind = content[place] >> 3 & 15
        place += 1 + (sizes[kind] if kind < len(sizes) else 0)
    return Extent(place, states_size=False)


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
    (rb"#!AMR(?:-WB)?\n", "amr", _amr_extent),
    (rb".{4}(?:ftyp|moov|mdat|wide|free|skip|styp)", "mov", _mp4_extent),
    (rb"\x1a\x45\xdf\xa3", "matroska", _matroska_extent),
    (rb"FLV\x01", "flv", _flv_extent),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", _asf_extent),
]
