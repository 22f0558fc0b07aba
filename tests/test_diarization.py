"""RTTM files become plain segments; a wrong line is named."""

from __future__ import annotations

import os
import re

import pytest

from audio_emotion.diarization import read_rttm

LINE = "SPEAKER talk 1 0.0 1.0 <NA> <NA> ann <NA> <NA>"


def test_segments_are_grouped_by_recording_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "talk.rttm"
    path.write_text(
        ";; written by hand\n\n"
        "SPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA>\n"
        f"{LINE}\n"
        "SPEAKER two%20words.wav 1 0.5 0.25 <NA> <NA> bob <NA> <NA>\n"
        "SPEAKER talk 1 0.75 1 <NA> <NA> bob\n"
    )

    for given in (path, str(path)):
        assert read_rttm(given) == {
            "talk": [{"start": 0.0, "end": 1.0, "speaker": "ann"}, {"start": 0.75, "end": 1.75, "speaker": "bob"}],
            "two words.wav": [{"start": 0.5, "end": 0.75, "speaker": "bob"}],
        }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER talk 1 0.0", "line 2: expected `SPEAKER recording"),
        ("TALKER talk 1 0.0 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 soon 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected start and duration"),
        ("SPEAKER talk 1 nan 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),
        ("SPEAKER talk 1 -1 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),
        ("SPEAKER talk 1 0.0 0.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),
        ("SPEAKER talk 1 1e308 1e308 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),  # ends at infinity
        ("SPEAKER talk 1 1e308 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),  # ends where it starts
        # a blank in a name moves the fields after it
        ("SPEAKER my talk 1 3.0 2.5 <NA> <NA> ann <NA> <NA>", "line 2: expected `SPEAKER recording"),
        ("SPEAKER my talk 1 3.0 2.5 <NA> <NA> ann", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 1 3.0 2.5 <NA> <NA> ann", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 2 1 3.0 2.5 <NA> <NA> ann", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 3.0 2.5 <NA> <NA> ann smith", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 3.0 2.5 <NA> <NA> ann smith <NA>", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 3.0 2.5 <NA> <NA> ann smith <NA> <NA>", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk 1 3.0 2.5 <NA> <NA> <NA> <NA> <NA>", "line 2: expected `SPEAKER recording"),
        ("SPEAKER talk left 3.0 2.5 <NA> <NA> ann <NA> <NA>", "line 2: expected `SPEAKER recording"),
    ],
)
def test_a_wrong_line_is_named(line, message, tmp_path):
    path = tmp_path / "talk.rttm"
    path.write_text(f"{LINE}\n{line}\n")

    with pytest.raises(ValueError, match=re.escape(f"{path}, ") + message):
        read_rttm(path)


def test_channels_are_read_where_a_recording_has_several(tmp_path):
    lines = [LINE, LINE.replace("talk 1", "talk 2"), LINE.replace("talk", "mono"), LINE.replace("talk 1", "right 2")]
    (tmp_path / "talk.rttm").write_text("\n".join([*lines, LINE.replace("talk 1", "kaldi 0")]))

    segments = read_rttm(tmp_path / "talk.rttm")

    assert {name: [each.get("channel") for each in rows] for name, rows in segments.items()} == {
        "talk": [1, 2],
        "mono": [None],  # a system that mixes the channels writes 1, too
        "right": [2],
        "kaldi": [None],
    }
    (tmp_path / "talk.rttm").write_text("\n".join([LINE, LINE.replace("talk 1", "talk 0")]))
    with pytest.raises(ValueError, match=r"talk\.rttm: expected channels from 1 on in 'talk', got \[0, 1\]"):
        read_rttm(tmp_path / "talk.rttm")


def test_a_byte_order_mark_and_decomposed_accents_do_not_matter(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    lines = [LINE.replace("talk", name) for name in (composed, decomposed)]
    (tmp_path / "talk.rttm").write_text("\n".join(lines), encoding="utf-8-sig")

    segments = read_rttm(tmp_path / "talk.rttm")

    assert list(segments) == [composed]
    assert len(segments[composed]) == 2


def test_a_pipe_and_a_device_are_refused_without_reading_them(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path}: expected an RTTM file, got OSError: it is a pipe or a device"):
            read_rttm(path)


def test_a_missing_file_a_folder_and_a_file_without_segments_are_refused(tmp_path):
    (tmp_path / "empty.rttm").write_text(";; nothing\n")

    with pytest.raises(ValueError, match=r"empty\.rttm: expected .* speaker segments, got none"):
        read_rttm(tmp_path / "empty.rttm")
    for path in (tmp_path / "missing.rttm", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: expected an RTTM file, got"):
            read_rttm(path)
