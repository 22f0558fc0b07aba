"""RTTM files become plain segments; a wrong line is named."""

from __future__ import annotations

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
    ],
)
def test_a_wrong_line_is_named(line, message, tmp_path):
    path = tmp_path / "talk.rttm"
    path.write_text(f"{LINE}\n{line}\n")

    with pytest.raises(ValueError, match=re.escape(f"{path}, ") + message):
        read_rttm(path)


def test_a_missing_file_a_folder_and_a_file_without_segments_are_refused(tmp_path):
    (tmp_path / "empty.rttm").write_text(";; nothing\n")

    with pytest.raises(ValueError, match=r"empty\.rttm: expected .* speaker segments, got none"):
        read_rttm(tmp_path / "empty.rttm")
    for path in (tmp_path / "missing.rttm", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: expected an RTTM file, got"):
            read_rttm(path)
