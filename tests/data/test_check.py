"""`audio-emotion check`: what a corpus contains, and one line for what is wrong with it, as training would find it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from audio_emotion_cli import main

PAGE = Path(__file__).parents[2] / "docs" / "your_own_data.md"


@pytest.fixture
def corpus(tmp_path) -> Path:
    """The example of the docs page, with clips of 1.8 s; returns its folder."""
    table, description = (
        re.search(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)[1] for kind in ("csv", "yaml")
    )
    (tmp_path / "clips.csv").write_text(table)
    (tmp_path / "callcenter.yaml").write_text(description)
    for number, line in enumerate(table.splitlines()[1:]):
        file = tmp_path / "recordings" / line.partition(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, 0.1 * np.random.default_rng(number).standard_normal(28800), 16000)
    return tmp_path


@pytest.fixture
def check(corpus, capsys):
    """A function that runs the command; returns its exit code, what it prints, and the lines of its errors."""

    def run(*options: str) -> tuple[int, str, list[str]]:
        code = main(["check", str(corpus / "callcenter.yaml"), *options])
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.strip() and "clip/s" not in line]
        return code, printed.out, errors

    return run


def replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_the_example_of_the_docs_page_is_in_order(check):
    code, out, errors = check()

    assert (code, errors) == (0, [])
    rows = {line[:24].strip(): line[24:].split() for line in out.splitlines()}
    assert rows[""] == ["train", "validation", "test"]
    assert (rows["license"], rows["language"]) == (["other"], ["en"])
    assert (rows["clips"], rows["speakers"]) == (["3", "2", "1"], ["1", "1", "1"])
    assert (rows["emotion flat"], rows["rated valence"]) == (["1", "1", "0"], ["3", "2", "0"])
    assert (rows["hours"], rows["unreadable clips"]) == (["0.00", "0.00", "0.00"], ["0", "0", "0"])


def misspelled_column(folder: Path) -> None:
    replace(folder / "callcenter.yaml", "speaker: who", "speaker: whoo")


def semicolons_with_decimal_commas(folder: Path) -> None:  # as Excel writes it in most of Europe
    table = (folder / "clips.csv").read_text().replace(",", ";").replace(".5", ",5")
    (folder / "clips.csv").write_text(table)


def unknown_speaker(folder: Path) -> None:
    replace(folder / "callcenter.yaml", "test: [cleo]", "test: [clio]")


def empty_class(folder: Path) -> None:
    replace(folder / "callcenter.yaml", "[cross, pleased, flat]", "[cross, pleased, flat, proud]")


def missing_file(folder: Path) -> None:
    (folder / "recordings" / "tuesday" / "0002.wav").unlink()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (misspelled_column, r"clips\.csv: expected the columns .*none called \['whoo'\].*Correct `columns` in"),
        (
            semicolons_with_decimal_commas,
            r"clips\.csv, line 2: expected `activation`.*point, got '4,5'\. Correct",
        ),
        (
            unknown_speaker,
            r"none of `callcenter/clio`\. The corpus has .*Correct or remove these names under",
        ),
        (empty_class, r"none of \['proud'\] among 3\. Move a speaker .*or leave the class out"),
        (missing_file, r"got no file `.*0002\.wav`\. Correct `audio_folder` or the paths"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(corpus, check, mistake, message):
    mistake(corpus)

    code, _, errors = check()

    assert code == 2
    (line,) = errors
    assert re.match(f"audio-emotion check: .*{message}", line), line


def test_a_table_with_semicolons_alone_is_read(corpus, check):
    replace(corpus / "clips.csv", ",", ";")
    assert check()[0] == 0


def test_unreadable_clips_are_listed_and_too_many_are_an_error(corpus, check, monkeypatch):
    (corpus / "recordings" / "monday" / "0002.wav").write_bytes(b"no sound at all")

    code, out, errors = check()

    assert code == 2
    assert "callcenter/monday/0002" in errors[0]
    assert "1 of 3 clips are bad, more than 5%" in errors[1]
    assert re.search(r"unreadable clips +1 +0 +0", out)
    assert check("--no-audio")[0] == 0

    monkeypatch.setattr("audio_emotion_cli.check.MAX_BAD_FRACTION", 0.5)
    assert check()[0] == 1


def test_without_splits_all_clips_are_counted_together(corpus, check):
    description = yaml.safe_load((corpus / "callcenter.yaml").read_text())
    del description["splits"], description["language"]
    (corpus / "callcenter.yaml").write_text(yaml.safe_dump(description))

    code, out, _ = check()

    assert code == 0
    assert re.search(r"^ +all\nclips +6\nspeakers +3$", out, re.MULTILINE)
    assert "not stated; for example `language: en`" in out


@pytest.mark.parametrize(
    "content", [b"name: [", b"\xff\xfe\x00", b"- a\n- b\n", b"", b"name: x\nsource: hub\n", b"columns: 3\nsource: csv"]
)
def test_no_description_leads_to_a_traceback(corpus, check, content):
    (corpus / "callcenter.yaml").write_bytes(content)

    code, _, errors = check()

    assert code == 2
    assert len(errors) == 1


def test_a_damaged_parquet_file_is_one_line(corpus, check):
    replace(corpus / "callcenter.yaml", "source: csv", "source: parquet")
    (corpus / "clips.csv").write_bytes(b"PAR1 and nothing else")

    code, _, errors = check()

    assert code == 2
    (line,) = errors
    assert "clips.csv: expected a parquet file" in line
