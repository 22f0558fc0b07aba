"""Tables of clips: every row is read, from any tool that wrote it, or an error names file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from audio_emotion.data.custom import load_custom_corpus

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def read(tmp_path):
    """A function that writes a table of some of four (empty) files and returns its rows."""
    for name in NAMES:
        (tmp_path / f"{name}.wav").touch()

    def rows(name: str, content: bytes, **others) -> list[dict]:
        (tmp_path / name).write_bytes(content)
        description = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "csv", "path": name}
        description |= {"columns": {"audio": "file", "speaker": "who"}, **others}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(description))
        return list(load_custom_corpus(str(tmp_path / "own.yaml")).rows())

    return rows


def speakers(rows: list[dict]) -> list[str]:
    return [row["speaker"].removeprefix("own/") for row in rows]


def table(separator: str, *names: str, header: str = "file", text: str = "text") -> str:
    """A table of the files a, b, ... with the speakers `names`, and a text column that nobody needs."""
    lines = [separator.join((header, text, "who"))]
    lines += [separator.join((f"{file}.wav", "hello", name)) for file, name in zip(NAMES, names, strict=False)]
    return "\n".join(lines) + "\n"


def test_a_tab_separated_field_that_opens_with_a_quote_swallows_no_row(read):
    content = table("\t", "anna", "ben", "cleo", "dora").replace("hello", '"never closed', 1)
    assert speakers(read("clips.tsv", content.encode())) == ["anna", "ben", "cleo", "dora"]


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("last", ["hello", '"quoted"', '"x{}y"'])
def test_a_quote_that_is_closed_in_a_later_row_is_an_error_with_its_lines(read, separator, last):
    lines = table(separator, "anna", "ben", "cleo", "dora").splitlines()
    lines[1], lines[3] = lines[1].replace("hello", '"opens'), lines[3].replace("hello", 'closes"')
    lines[4] = lines[4].replace("hello", last.format(separator))
    with pytest.raises(ValueError, match=r"clips, line 2: expected one row per line.*line 4, which makes 3 rows one"):
        read("clips", "\n".join(lines).encode())


def test_line_breaks_and_separators_in_quoted_fields_are_read(read):
    content = table(",", "anna", "ben").replace("hello", '"one, ""two""\nthree, four, five"', 1)
    assert speakers(read("clips.csv", content.encode())) == ["anna", "ben"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("name", ["clips.csv", "clips.tsv", "clips.txt"])
def test_the_separator_is_that_of_the_header(read, separator, name):
    assert speakers(read(name, table(separator, "anna", "ben").encode())) == ["anna", "ben"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_utf_8_and_utf_16_are_read(read, encoding):
    assert speakers(read("clips.csv", table(",", "Jürgen", "Łucja").encode(encoding))) == ["Jürgen", "Łucja"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
def test_another_encoding_is_an_error_with_line_and_remedy(read, encoding):
    with pytest.raises(ValueError, match=r"clips\.csv, line [13]: expected text in UTF-8.*Save the table as UTF-8"):
        read("clips.csv", table(",", "anna", "Jürgen").encode(encoding))


@pytest.mark.parametrize("header", [",file,who", '"",file,who'])
def test_an_index_column_without_a_name_is_ignored(read, header):
    content = f"{header},\n0,a.wav,anna,\n1,b.wav,ben,\n"
    assert speakers(read("clips.csv", content.encode())) == ["anna", "ben"]


def test_an_index_column_without_a_header_is_an_error(read):
    with pytest.raises(ValueError, match=r"clips\.csv, line 2: expected 2 fields, as in the header, got 3"):
        read("clips.csv", b"file,who\n0,a.wav,anna\n1,b.wav,ben\n")


def test_a_short_row_is_an_error_with_its_line_and_an_empty_one_is_none(read):
    with pytest.raises(ValueError, match=r"clips\.csv, line 4: expected 3 fields.*got 2\. Fill the row up"):
        read("clips.csv", (table(",", "anna", "ben") + "c.wav,hello\n").encode())
    assert speakers(read("clips.csv", (table(",", "anna", "ben") + "\n,,\n").encode())) == ["anna", "ben"]


def test_a_column_that_is_there_twice_is_an_error(read):
    with pytest.raises(ValueError, match=r"got several called \['who'\]"):
        read("clips.csv", table(",", "anna", text="who").encode())


def test_json_lines_may_leave_out_values_and_name_their_errors(read):
    lines = ['{"file": "a.wav"}', "", '{"file": "b.wav", "who": "007"}', '{"file": "c.wav", "who": 8}']
    assert speakers(read("clips.jsonl", "\n".join(lines).encode()))[1:] == ["007", "8"]
    with pytest.raises(ValueError, match=r"clips\.jsonl, line 5: expected a JSON object"):
        read("clips.jsonl", "\n".join([*lines, '["d.wav"]']).encode())


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_every_type_of_text_column_of_parquet_is_one_of_paths(read, tmp_path, text):
    schema = pa.schema([("file", text), ("who", text)])
    rows = [{"file": f"{name}.wav", "who": name} for name in NAMES]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "clips.parquet")
    content = (tmp_path / "clips.parquet").read_bytes()

    found = read("clips.parquet", content, source="parquet")

    assert speakers(found) == list(NAMES)
    assert found[0]["audio"]["path"] == str(tmp_path / "a.wav")


@pytest.mark.parametrize("path", ["../outside.wav", "{outside}", "deeper/../../outside.wav"])
@pytest.mark.parametrize("source", ["csv", "parquet", "audiofolder"])
def test_paths_in_a_table_stay_in_its_folder_unless_audio_folder_allows_them(read, tmp_path, path, source):
    outside = tmp_path.parent / "outside.wav"
    outside.touch()
    path = path.format(outside=outside)
    name = {"csv": "clips.csv", "parquet": "clips.parquet", "audiofolder": "metadata.csv"}[source]
    others = {"source": source, "path": "." if source == "audiofolder" else name}
    if source == "parquet":
        pq.write_table(pa.table({"file": [path], "who": ["anna"]}), tmp_path / name)
        content = (tmp_path / name).read_bytes()
    else:
        content = f"file,who\n{path},anna\n".encode()

    with pytest.raises(ValueError, match=r"expected a path inside .*outside\.wav`.*`audio_folder`"):
        read(name, content, **others)
    if source != "audiofolder" and Path(path).is_absolute():
        (row,) = read(name, content, **others, audio_folder=str(tmp_path.parent))
        assert row["audio"]["path"] == str(outside)
