"""Frames of MPEG audio, AAC and AMR, which have no container: where a stream of them begins and ends."""

# SPDX-License-Identifier: Apache-2.0

import re
from dataclasses import dataclass

MISSING = 0.01  # fraction of the size in the header that may be missing
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


def find_pattern(pattern: bytes, content: bytes, place: int, stop: int | None = None) -> int:
    """Where the pattern is next, or `stop`, by default the length of the content."""
    stop = len(content) if stop is None else stop
    match = re.compile(pattern, re.DOTALL).search(content, place, stop)
    return match.start() if match else stop


def after_id3(content: bytes, place: int) -> int:
    """The place after ID3v2 tags."""
    while content[place : place + 3] == b"ID3" and place + 10 <= len(content):
        a, b, c, d = content[place + 6 : place + 10]
        place += 10 + (a << 21 | b << 14 | c << 7 | d)
    return place


def mpeg_frame(content: bytes, place: int) -> tuple[int, tuple[int, int, int]] | None:
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


def adts_frame(content: bytes, place: int) -> tuple[int, tuple[int, int, int]] | None:
    """Length in bytes of an AAC frame with ADTS header, and what does not change within a stream."""
    header = content[place : place + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return (length, (header[1], header[2], header[3] & 0xC0)) if length >= 7 else None


def frame_after(content: bytes, place: int, stop: int) -> int:
    """Where the next three MPEG or ADTS frames in a row start, or `stop`."""
    for match in MPEG_SYNC.finditer(content, place, stop):
        for read in (mpeg_frame, adts_frame):
            end, frames = match.start(), 0
            while frames < 3 and (frame := read(content, end)):
                end, frames = end + frame[0], frames + 1
            if frames == 3 or (frames and end == len(content)):
                return match.start()
    return stop


MPEG_SYNC = re.compile(rb"\xff[\xe2-\xff]")


def mp3_extent(content: bytes, start: int) -> Extent:
    """Frames, of which the first may state (Xing, Info or VBRI) how many there are."""
    place, kind, stated, count = after_id3(content, start), None, 0, 0
    while place < len(content):
        if (frame := mpeg_frame(content, place)) is None:
            if content[place : place + 3] in (b"ID3", b"TAG", b"APE"):
                break
            if len(content) - place < 4 and content[place] == 0xFF:
                place = len(content) + 1  # amid the header of a frame
                break
            stop = min(len(content), place + RESYNC)
            stop = find_pattern(rb"ID3[\x02-\x04]\x00", content, place, stop)
            following = frame_after(content, place, stop)
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


def adts_extent(content: bytes, start: int) -> Extent:
    """AAC frames with ADTS headers, of one kind."""
    place, kind = after_id3(content, start), None
    if not adts_frame(content, place):
        place = frame_after(content, place, min(len(content), place + RESYNC))
    while place < len(content) and (frame := adts_frame(content, place)):
        if kind is not None and frame[1] != kind:
            break
        place, kind = place + frame[0], frame[1]
    if len(content) - 7 < place < len(content) and content[place] == 0xFF:
        place = len(content) + 1  # amid the header of a frame
    return Extent(place, states_size=False)


def amr_extent(content: bytes, start: int) -> Extent:
    """Frames of AMR or AMR-WB, whose first byte has their size."""
    is_wide = content[start : start + 9] == b"#!AMR-WB\n"
    sizes = (17, 23, 32, 36, 40, 46, 50, 58, 60, 5) if is_wide else (12, 13, 15, 17, 19, 20, 26, 31, 5)
    place = start + (9 if is_wide else 6)
    while place < len(content) and content[place : place + 5] != b"#!AMR":
        kind = content[place] >> 3 & 15
        place += 1 + (sizes[kind] if kind < len(sizes) else 0)
    return Extent(place, states_size=False)
