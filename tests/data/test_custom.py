"""Somebody's own data: one YAML file names it, and says so where it is wrong."""

from __future__ import annotations

import copy
import io
import json
import logging
import re
import runpy
import tarfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from audio_visual import babble, encode
from datasets import Audio, ClassLabel, Features, Value

from audio_emotion.audio_io import read_audio
from audio_emotion.data.custom import described_info, described_rows, described_shards, described_split
from audio_emotion.data.registry import corpus_table, sides
from audio_emotion.data.shards import read_shard

PAGE = Path(__file__).parents[2] / "docs" / "your_own_data.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def clip(number: int = 0, form: str = "WAV") -> bytes:
    """Half a second at 16 kHz, different for each number."""
    content = io.BytesIO()
    samples = 0.1 * np.random.default_rng(number).standard_normal(8000)
    soundfile.write(content, samples, 16000, format=form, subtype="PCM_16")
    return content.getvalue()


@pytest.fixture
def described(tmp_path):
    """The page's own example, on disk; a function that writes a changed description and returns its path."""
    (table,) = blocks("csv")
    (tmp_path / "clips.csv").write_text(table)
    for line in table.splitlines()[1:]:
        file = tmp_path / "recordings" / line.split(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(clip())
    (example,) = blocks("yaml")

    def write(remove: tuple[str, ...] = (), columns: dict | None = None, **changes) -> str:
        values = copy.deepcopy(yaml.safe_load(example)) | changes
        values["columns"] = values["columns"] | (columns or {})
        file = tmp_path / "callcenter.yaml"
        file.write_text(yaml.safe_dump({key: value for key, value in values.items() if key not in remove}))
        return str(file)

    return write


def test_the_example_of_the_page_gives_its_table_on_a_scale_of_0_to_1(described, tmp_path):
    file = described()
    info, rows = described_info(file), list(described_rows(file))

    assert (info.name, info.license, info.emotions) == ("callcenter", "other", ("cross", "pleased", "flat"))
    assert (info.dimensions, info.dimensions_source) == (("activation", "valence"), "rated")
    assert rows[0] == {
        "id": "callcenter/monday/0001",
        "audio": {"bytes": None, "path": str(tmp_path / "recordings" / "monday" / "0001.wav")},
        "speaker": "callcenter/anna",
        "gender": "female",
        "emotion": "cross",
        "activation": 0.875,  # (4.5 - 1) / 4
        "valence": 0.125,
        "partition": None,
    }
    assert (rows[4]["emotion"], rows[4]["activation"], rows[4]["valence"]) == (None, 0.25, None)
    assert described_shards(file) == []
    assert described_split(file) == {
        "train": ("callcenter/anna",),
        "validation": ("callcenter/ben",),
        "test": ("callcenter/cleo",),
    }


def test_numbers_are_read_as_text_and_words_of_absence_as_words(described, tmp_path):
    (tmp_path / "clips.csv").write_text(
        "file,who,sex,label,arousal,val\nmonday/0001.wav,01,,NA,1,5\nmonday/0002.wav,007,,none,1,5\n"
    )
    rows = list(described_rows(described(emotions=["NA", "none"], remove=("splits",))))

    assert [row["speaker"] for row in rows] == ["callcenter/01", "callcenter/007"]
    assert [row["emotion"] for row in rows] == ["NA", "none"]


def test_values_are_renamed_joined_and_dropped_by_a_mapping(described):
    file = described(emotions={"cross": "negative", "flat": "negative", "pleased": None})

    assert described_info(file).emotions == ("negative",)
    assert [row["emotion"] for row in described_rows(file)] == ["negative", None, "negative", "negative", None]


def test_own_dimensions_keep_their_names_and_a_scale_may_run_backwards(described):
    file = described(
        dimensions=["tension", "pleasure"],
        columns={"tension": "arousal", "pleasure": "val", "activation": "arousal", "valence": "val"},
        scale={"tension": [1, 5], "pleasure": [5, 1]},
    )
    with pytest.raises(ValueError, match="activation"):  # a column for a dimension that is not listed
        described_info(file)

    values = yaml.safe_load(Path(file).read_text())
    del values["columns"]["activation"], values["columns"]["valence"]
    Path(file).write_text(yaml.safe_dump(values))
    first = next(described_rows(file))
    assert described_info(file).dimensions == ("tension", "pleasure")
    assert (first["tension"], first["pleasure"]) == (0.875, 0.875)  # (4.5 - 1) / 4, (1.5 - 5) / -4


def test_arousal_is_another_name_of_activation(described):
    values = yaml.safe_load(Path(described()).read_text())
    values["columns"]["arousal"] = values["columns"].pop("activation")
    values["dimensions"] = ["arousal", "valence"]
    file = described()
    Path(file).write_text(yaml.safe_dump(values))

    assert described_info(file).dimensions == ("activation", "valence")
    assert next(described_rows(file))["activation"] == 0.875


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scala": [1, 5]}, "scala"),
        ({"remove": ("license",)}, "license"),
        ({"name": "call center"}, "call center"),
        ({"source": "excel"}, "excel"),
        ({"columns": {"speaker": 3}}, "speaker"),
        ({"columns": {"rhythm": "val"}}, "rhythm"),
        ({"dimensions": ["activation", "valence", "dominance"]}, "dominance"),
        ({"dimensions_source": "guessed"}, "guessed"),
        ({"dimensions_source": "none"}, "dimensions_source"),
        ({"scale": [1, "5"]}, "activation"),
        ({"scale": {"activation": [1, 5]}}, "valence"),
        ({"emotions": ["cross", False]}, "quotes"),
        ({"emotions": ["cross", "cross"]}, "repetition"),
        ({"remove": ("emotions",)}, "emotions"),
        ({"splits": {"train": [1, 2]}}, "quotes"),
        ({"splits": {"tests": ["anna"]}}, "tests"),
        ({"splits": {"shares": {"train": 0.5}}}, "sum to 1"),
        ({"splits": "partition"}, "partition"),
        ({"revision": "main"}, "source: hub"),
    ],
)
def test_a_wrong_description_is_refused_by_name(described, changes, message):
    with pytest.raises(ValueError, match=message):
        described_info(described(**changes))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ("monday/0001.wav,anna,f,furious,4,2", ("row 2", "furious")),
        ("monday/0002.wav,anna,f,cross,5.5,2", ("row 2", "activation", "5.5", "1 to 5")),
        ("monday/0002.wav,anna,f,cross,high,2", ("row 2", "high")),
        ("monday/0002.wav,anna,f,cross,nan,2", ("row 2", "nan")),
        ("monday/0002.wav,anna,q,cross,4,2", ("row 2", "'q'")),
        ("monday/0001.wav,anna,f,cross,4,2", ("row 2", "row 1", "callcenter/monday/0001")),
        (",anna,f,cross,4,2", ("row 2", "path")),
    ],
)
def test_a_wrong_row_is_refused_with_its_number_and_value(described, tmp_path, row, messages):
    header, first = blocks("csv")[0].splitlines()[:2]
    (tmp_path / "clips.csv").write_text(f"{header}\n{first}\n{row}\n")

    with pytest.raises(ValueError) as error:
        list(described_rows(described()))
    assert all(message in str(error.value) for message in messages), error.value


def test_missing_files_and_columns_are_named(described, tmp_path):
    (tmp_path / "recordings" / "tuesday" / "0002.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"tuesday/0002\.wav"):
        next(described_rows(described()))
    with pytest.raises(ValueError, match=r"nickname.*who"):
        next(described_rows(described(columns={"speaker": "nickname"})))
    with pytest.raises(FileNotFoundError, match=r"clip\.csv"):
        next(described_rows(described(path="clip.csv")))
    with pytest.raises(FileNotFoundError, match=r"nobody\.yaml"):
        described_info(str(tmp_path / "nobody.yaml"))


def test_without_a_speaker_every_clip_is_its_own_and_the_log_warns(described, caplog):
    file = described(remove=("splits",))
    values = yaml.safe_load(Path(file).read_text())
    del values["columns"]["speaker"]
    Path(file).write_text(yaml.safe_dump(values))

    with caplog.at_level(logging.WARNING):
        rows = list(described_rows(file))
    assert [row["speaker"] for row in rows] == [row["id"] for row in rows]
    assert "5 of 5 clips have no speaker" in caplog.text


def test_splits_name_speakers_who_are_absent_or_on_two_sides(described):
    with pytest.raises(ValueError, match="callcenter/dora"):
        described_split(described(splits={"train": ["anna", "dora"]}))
    with pytest.raises(ValueError, match=r"callcenter/ben.*`train` and in `test`"):
        described_split(described(splits={"train": ["anna", "ben"], "test": ["ben"]}))
    with pytest.raises(ValueError, match="splits"):
        described_split(described(remove=("splits",)))


def test_a_partition_column_becomes_the_split(described, tmp_path):
    lines = blocks("csv")[0].splitlines()
    parts = ["part", "train", "train", "dev", "dev", "test"]
    (tmp_path / "clips.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, parts, strict=True)) + "\n")
    file = described(columns={"partition": "part"}, splits="partition")

    assert described_split(file)["validation"] == ("callcenter/ben",)
    (tmp_path / "clips.csv").write_text((tmp_path / "clips.csv").read_text().replace("dev", "test", 1))
    with pytest.raises(ValueError, match="callcenter/ben"):
        described_split(file)


def test_clips_of_other_partitions_are_on_no_side_though_their_speakers_are(described, tmp_path, caplog):
    lines = blocks("csv")[0].splitlines()
    parts = ["part", "train", "exclude", "dev", "", "test"]
    (tmp_path / "clips.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, parts, strict=True)) + "\n")
    file = described(columns={"partition": "part"}, splits="partition")

    with caplog.at_level(logging.WARNING):
        rows, split = sides(file, corpus_table(file))

    assert rows["id"][:] == ["callcenter/monday/0001", "callcenter/tuesday/0001", "callcenter/tuesday/0003"]
    assert (split.train, split.validation) == (("callcenter/anna",), ("callcenter/ben",))
    assert "['None', 'exclude'] are on no side, 2 in all" in caplog.text
    Path(file).with_name("other.yaml").write_text(Path(file).read_text())
    lists = described(splits={"train": ["anna"], "test": ["ben", "cleo"]})
    again, _ = sides(lists, corpus_table(lists), str(tmp_path / "other.yaml"))  # the split that is asked for counts
    assert again["id"][:] == rows["id"][:]


def test_a_random_split_is_fixed_by_its_seed_leaves_nobody_out_and_keeps_its_shares(described, tmp_path):
    lines = [f"monday/0001.wav,{number:02d},f,cross,4,2,{number}" for number in range(20)]
    (tmp_path / "clips.csv").write_text("file,who,sex,label,arousal,val,key\n" + "\n".join(lines))

    def drawn(seed: int) -> dict:
        shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
        return described_split(described(columns={"id": "key"}, splits={"shares": shares, "seed": seed}))

    split = drawn(0)
    assert {side: len(speakers) for side, speakers in split.items()} == {"train": 14, "validation": 2, "test": 4}
    assert len({speaker for speakers in split.values() for speaker in speakers}) == 20
    assert drawn(0) == split != drawn(1)


def test_a_folder_is_read_by_its_names_or_by_its_metadata(tmp_path):
    for name in ("anna/cross/1.wav", "ben/flat/1.wav", "ben/flat/notes.txt"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(clip())
    values = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "audiofolder", "path": "data"}
    values |= {"emotions": ["cross", "flat"]}
    file = tmp_path / "own.yaml"
    columns = {"audio": "file_name", "speaker": "folder_1", "emotion": "label"}
    file.write_text(yaml.safe_dump(values | {"columns": columns}))
    rows = list(described_rows(str(file)))

    assert [(row["id"], row["speaker"], row["emotion"]) for row in rows] == [
        ("own/anna/cross/1", "own/anna", "cross"),
        ("own/ben/flat/1", "own/ben", "flat"),
    ]
    assert (described_info(str(file)).dimensions, described_info(str(file)).dimensions_source) == ((), "none")

    lines = [{"file_name": "ben/flat/1.wav", "who": "ben", "what": "cross"}]
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file.write_text(yaml.safe_dump(values | {"columns": {"audio": "file_name", "speaker": "who", "emotion": "what"}}))
    (row,) = described_rows(str(file))
    assert (row["speaker"], row["emotion"]) == ("own/ben", "cross")
    assert row["audio"]["path"] == str(tmp_path / "data" / "ben" / "flat" / "1.wav")


def test_the_sound_of_films_in_a_folder_is_read_and_what_is_skipped_is_said(tmp_path, caplog):
    sound, _ = babble(0.5)
    made = {"flv": "flv", "avi": "avi", "mkv": "mkv", "mov": "mp4", "MP4": "mp4", "webm": "webm"}  # suffix: format
    (tmp_path / "data" / "folder.txt").mkdir(parents=True)
    for number, (suffix, form) in enumerate(made.items()):
        (tmp_path / "data" / "folder.txt" / f"{number}.{suffix}").write_bytes(encode(form, None, sound, 0.5))
    for name in ("notes.txt", "more.TXT", "README", ".hidden.doc", "1.wma"):
        (tmp_path / "data" / name).write_bytes(b"x")
    values = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "audiofolder", "path": "data"}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(values | {"columns": {"audio": "file_name", "speaker": "folder_1"}}))

    with caplog.at_level(logging.WARNING):
        rows = list(described_rows(str(file)))

    assert [Path(row["audio"]["path"]).suffix for row in rows] == [f".{suffix}" for suffix in made]
    for row in rows:
        assert len(read_audio(row["audio"]["path"]).waveform) == pytest.approx(8000, abs=2500)  # a codec's padding
    (said,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert "skipped 1 without a suffix, 2 .txt, 1 .wma in `data`" in said


def parquet_with_audio(file: Path, numbers: range) -> None:
    """As `datasets` writes it: audio and class numbers, typed."""
    types = Features({"speech": Audio(), "label": ClassLabel(names=["cross", "flat"]), "who": Value("string")})
    rows = [
        {"speech": {"bytes": clip(n), "path": f"{n}.wav"}, "label": -1 if n == 3 else n % 2, "who": str(n)}
        for n in numbers
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=types.arrow_schema), file)


@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_audio_inside_parquet_stays_there_and_is_pointed_at(tmp_path, source):
    parquet_with_audio(tmp_path / "data" / "data" / "train-00000-of-00002.parquet", range(3))
    parquet_with_audio(tmp_path / "data" / "data" / "train-00001-of-00002.parquet", range(3, 5))
    if source == "hub":
        parquet_with_audio(tmp_path / "data" / "data" / "test-00000-of-00001.parquet", range(5, 7))
    values = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": source}
    values |= {"path": "data" if source == "hub" else "data/data", "emotions": ["cross", "flat"]}
    values |= {"columns": {"audio": "speech", "speaker": "who", "emotion": "label"}, "splits": "partition"}
    if source == "parquet":
        del values["splits"]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(values))
    rows, shards = list(described_rows(str(file))), described_shards(str(file))

    assert [row["emotion"] for row in rows[:5]] == ["cross", "flat", "cross", None, "cross"]
    assert all(row["audio"] == {"bytes": None, "path": None} for row in rows)
    heard = [[clip["audio"]["bytes"] for clip in read_shard(shard)] for shard in shards]
    assert [heard[row["shard"]][row["row"]] for row in rows] == [clip(n) for n in range(len(rows))]
    if source == "hub":
        assert described_split(str(file))["test"] == ("own/5", "own/6")
        file.write_text(yaml.safe_dump(values | {"split": "test", "splits": None}))
        assert [row["speaker"] for row in described_rows(str(file))] == ["own/5", "own/6"]

    file.write_text(yaml.safe_dump(values | {"columns": {"audio": "who", "emotion": "label"}}))
    if source == "hub":
        with pytest.raises(ValueError, match="got it in `speech`"):
            list(described_rows(str(file)))
    else:  # a column of text is one of paths
        with pytest.raises(FileNotFoundError, match="data/data/0"):
            list(described_rows(str(file)))


def test_tars_of_mixed_formats_are_read_in_order(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(4):
            form = "flac" if number % 2 else "wav"
            parts = {form: clip(number, form), "json": json.dumps({"who": f"s{number}", "rating": number}).encode()}
            for extension, content in parts.items():
                entry = tarfile.TarInfo(f"day/{number}.{extension}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    values = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "webdataset", "path": "a.tar"}
    values |= {"columns": {"audio": "wav", "speaker": "who", "valence": "rating"}, "scale": [0, 4]}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(values | {"dimensions_source": "rated"}))
    with pytest.raises(ValueError, match=r"row 2.*wav"):  # the second clip has none
        list(described_rows(str(file)))

    values["columns"]["audio"] = "audio"
    file.write_text(yaml.safe_dump(values | {"dimensions_source": "rated"}))
    rows = list(described_rows(str(file)))
    assert [(row["id"], row["speaker"], row["valence"]) for row in rows[:2]] == [
        ("own/day/0", "own/s0", 0.0),
        ("own/day/1", "own/s1", 0.25),
    ]
    heard = [each["audio"] for each in read_shard(described_shards(str(file))[0])]
    assert [each["bytes"] for each in heard] == [clip(n, "flac" if n % 2 else "wav") for n in range(4)]
    assert [each["path"] for each in heard] == ["day/0.wav", "day/1.flac", "day/2.wav", "day/3.flac"]


SHARED = "RunArguments"  # of all training recipes


def test_commands_of_the_page_have_flags_that_the_recipes_know():
    commands = " ".join(blocks("bash")).replace("\\\n", " ").splitlines()
    found = 0
    for command in commands:
        if recipe := re.search(r"recipes/\w+\.py", command):
            namespace = runpy.run_path(str(PAGE.parents[1] / recipe[0]))
            (arguments,) = [each for name, each in namespace.items() if name.endswith("Arguments") and name != SHARED]
            known = {each.name for each in fields(arguments)}
            for flag in re.findall(r" --(\w+)", command):
                assert flag in known, (recipe[0], flag)
                found += 1
    assert found > 10
