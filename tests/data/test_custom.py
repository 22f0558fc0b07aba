"""A corpus described by a YAML file: its rows, shards and splits, and the errors of a wrong description."""

from __future__ import annotations

import copy
import io
import json
import logging
import re
import runpy
import tarfile
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from audio_visual import encode, random_audio
from datasets import Audio, ClassLabel, Features, Value

from audio_emotion.audio_io import read_audio
from audio_emotion.data.custom import load_custom_corpus
from audio_emotion.data.protocols import SPLITS
from audio_emotion.data.registry import apply_protocol, corpus_table
from audio_emotion.data.shards import read_shard

PAGE = Path(__file__).parents[2] / "docs" / "your_own_data.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def info_of(file: str):
    return load_custom_corpus(file).info


def rows_of(file: str):
    return load_custom_corpus(file).rows()


def splits_of(file: str) -> dict[str, tuple[str, ...]]:
    """Speakers of each split."""
    protocol = load_custom_corpus(file).protocol()
    return {split: getattr(protocol, split) for split in SPLITS}


def clip(number: int = 0, form: str = "WAV") -> bytes:
    """Half a second at 16 kHz, different for each number."""
    content = io.BytesIO()
    samples = 0.1 * np.random.default_rng(number).standard_normal(8000)
    soundfile.write(content, samples, 16000, format=form, subtype="PCM_16")
    return content.getvalue()


@pytest.fixture
def described(tmp_path):
    """The example of the docs page on disk: a function that writes it, with changes, and returns its path."""
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


def test_the_example_of_the_docs_page_gives_its_rows_on_a_scale_of_0_to_1(described, tmp_path):
    file = described()
    info, rows = info_of(file), list(rows_of(file))

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
    assert (rows[5]["emotion"], rows[5]["activation"], rows[5]["valence"]) == (None, 0.25, None)
    assert load_custom_corpus(file).shards == []
    assert splits_of(file) == {
        "train": ("callcenter/anna",),
        "validation": ("callcenter/ben",),
        "test": ("callcenter/cleo",),
    }


def test_numbers_and_NA_are_read_as_text(described, tmp_path):
    (tmp_path / "clips.csv").write_text(
        "file,who,sex,label,arousal,val\nmonday/0001.wav,01,,NA,1,5\nmonday/0002.wav,007,,none,1,5\n"
    )
    rows = list(rows_of(described(emotions=["NA", "none"], remove=("splits",))))

    assert [row["speaker"] for row in rows] == ["callcenter/01", "callcenter/007"]
    assert [row["emotion"] for row in rows] == ["NA", "none"]


def test_a_mapping_renames_merges_and_drops_emotions(described):
    file = described(emotions={"cross": "negative", "flat": "negative", "pleased": None})

    assert info_of(file).emotions == ("negative",)
    assert [row["emotion"] for row in rows_of(file)] == ["negative", None, *["negative"] * 3, None]


def test_custom_dimensions_keep_their_names_and_a_scale_may_run_backwards(described):
    file = described(
        dimensions=["tension", "pleasure"],
        columns={"tension": "arousal", "pleasure": "val", "activation": "arousal", "valence": "val"},
        scale={"tension": [1, 5], "pleasure": [5, 1]},
    )
    with pytest.raises(ValueError, match="activation"):  # a column for a dimension that is not listed
        info_of(file)

    values = yaml.safe_load(Path(file).read_text())
    del values["columns"]["activation"], values["columns"]["valence"]
    Path(file).write_text(yaml.safe_dump(values))
    first = next(rows_of(file))
    assert info_of(file).dimensions == ("tension", "pleasure")
    assert (first["tension"], first["pleasure"]) == (0.875, 0.875)  # (4.5 - 1) / 4, (1.5 - 5) / -4


def test_arousal_is_another_name_of_activation(described):
    values = yaml.safe_load(Path(described()).read_text())
    values["columns"]["arousal"] = values["columns"].pop("activation")
    values["dimensions"] = ["arousal", "valence"]
    file = described()
    Path(file).write_text(yaml.safe_dump(values))

    assert info_of(file).dimensions == ("activation", "valence")
    assert next(rows_of(file))["activation"] == 0.875


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
        ({"splits": {"fractions": {"train": 0.5}}}, "sum to 1"),
        ({"splits": "partition"}, "partition"),
        ({"revision": "main"}, "source: hub"),
    ],
)
def test_a_wrong_description_is_refused_by_name(described, changes, message):
    with pytest.raises(ValueError, match=message):
        info_of(described(**changes))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ("monday/0001.wav,anna,f,furious,4,2", ("line 3", "furious")),
        ("monday/0002.wav,anna,f,cross,5.5,2", ("line 3", "activation", "5.5", "1 to 5")),
        ("monday/0002.wav,anna,f,cross,high,2", ("line 3", "high")),
        ("monday/0002.wav,anna,f,cross,nan,2", ("line 3", "nan")),
        ("monday/0002.wav,anna,q,cross,4,2", ("line 3", "'q'")),
        ("monday/0001.wav,anna,f,cross,4,2", ("line 3", "line 2", "callcenter/monday/0001")),
        (",anna,f,cross,4,2", ("line 3", "path")),
    ],
)
def test_a_wrong_row_is_refused_with_its_number_and_value(described, tmp_path, row, messages):
    header, first = blocks("csv")[0].splitlines()[:2]
    (tmp_path / "clips.csv").write_text(f"{header}\n{first}\n{row}\n")

    with pytest.raises(ValueError) as error:
        list(rows_of(described()))
    assert all(message in str(error.value) for message in messages), error.value


def test_missing_files_and_columns_are_named(described, tmp_path):
    (tmp_path / "recordings" / "tuesday" / "0002.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"tuesday/0002\.wav"):
        next(rows_of(described()))
    with pytest.raises(ValueError, match=r"nickname.*who"):
        next(rows_of(described(columns={"speaker": "nickname"})))
    with pytest.raises(FileNotFoundError, match=r"clip\.csv"):
        next(rows_of(described(path="clip.csv")))
    with pytest.raises(FileNotFoundError, match=r"nobody\.yaml"):
        info_of(str(tmp_path / "nobody.yaml"))


def test_without_a_speaker_column_every_clip_is_a_speaker_and_the_log_warns(described, caplog):
    file = described(remove=("splits",))
    values = yaml.safe_load(Path(file).read_text())
    del values["columns"]["speaker"]
    Path(file).write_text(yaml.safe_dump(values))

    with caplog.at_level(logging.WARNING):
        rows = list(rows_of(file))
    assert [row["speaker"] for row in rows] == [row["id"] for row in rows]
    assert "6 of 6 clips have no speaker" in caplog.text


def test_speakers_without_clips_or_in_two_splits_are_named(described):
    with pytest.raises(ValueError, match="callcenter/dora"):
        splits_of(described(splits={"train": ["anna", "dora"]}))
    with pytest.raises(ValueError, match=r"callcenter/ben.*`train` and in `test`"):
        splits_of(described(splits={"train": ["anna", "ben"], "test": ["ben"]}))
    with pytest.raises(ValueError, match="splits"):
        splits_of(described(remove=("splits",)))


def test_a_partition_column_becomes_the_splits(described, tmp_path):
    lines = blocks("csv")[0].splitlines()
    parts = ["part", "train", "train", "train", "dev", "dev", "test"]
    (tmp_path / "clips.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, parts, strict=True)) + "\n")
    file = described(columns={"partition": "part"}, splits="partition")

    assert splits_of(file)["validation"] == ("callcenter/ben",)
    (tmp_path / "clips.csv").write_text((tmp_path / "clips.csv").read_text().replace("dev", "test", 1))
    with pytest.raises(ValueError, match="callcenter/ben"):
        splits_of(file)


def test_clips_of_other_partitions_are_in_no_split_even_if_their_speakers_are(described, tmp_path, caplog):
    lines = blocks("csv")[0].splitlines()
    parts = ["part", "train", "exclude", "train", "dev", "", "test"]
    (tmp_path / "clips.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, parts, strict=True)) + "\n")
    file = described(columns={"partition": "part"}, splits="partition")

    with caplog.at_level(logging.WARNING):
        rows, protocol = apply_protocol(file, corpus_table(file))

    kept = ("monday/0001", "monday/0003", "tuesday/0001", "tuesday/0003")
    assert rows["id"][:] == [f"callcenter/{name}" for name in kept]
    assert (protocol.train, protocol.validation) == (("callcenter/anna",), ("callcenter/ben",))
    assert "['None', 'exclude'] are in no split, 2 in all" in caplog.text
    Path(file).with_name("other.yaml").write_text(Path(file).read_text())
    lists = described(splits={"train": ["anna"], "test": ["ben", "cleo"]})
    again, _ = apply_protocol(lists, corpus_table(lists), str(tmp_path / "other.yaml"))  # the named protocol is used
    assert again["id"][:] == rows["id"][:]


def test_random_splits_depend_on_the_seed_contain_every_speaker_and_keep_their_fractions(described, tmp_path):
    lines = [f"monday/0001.wav,{number:02d},f,cross,4,2,{number}" for number in range(20)]
    (tmp_path / "clips.csv").write_text("file,who,sex,label,arousal,val,key\n" + "\n".join(lines))

    def random_splits(seed: int) -> dict:
        fractions = {"train": 0.7, "validation": 0.1, "test": 0.2}
        return splits_of(described(columns={"id": "key"}, splits={"fractions": fractions, "seed": seed}))

    splits = random_splits(0)
    assert {split: len(speakers) for split, speakers in splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert len({speaker for speakers in splits.values() for speaker in speakers}) == 20
    assert random_splits(0) == splits != random_splits(1)


def test_a_folder_is_read_by_its_file_names_or_by_its_metadata(tmp_path):
    for name in ("anna/cross/1.wav", "ben/flat/1.wav", "ben/flat/notes.txt"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(clip())
    values = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "audiofolder", "path": "data"}
    values |= {"emotions": ["cross", "flat"]}
    file = tmp_path / "own.yaml"
    columns = {"audio": "file_name", "speaker": "folder_1", "emotion": "label"}
    file.write_text(yaml.safe_dump(values | {"columns": columns}))
    rows = list(rows_of(str(file)))

    assert [(row["id"], row["speaker"], row["emotion"]) for row in rows] == [
        ("own/anna/cross/1", "own/anna", "cross"),
        ("own/ben/flat/1", "own/ben", "flat"),
    ]
    assert (info_of(str(file)).dimensions, info_of(str(file)).dimensions_source) == ((), "none")

    lines = [{"file_name": "ben/flat/1.wav", "who": "ben", "what": "cross"}]
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file.write_text(yaml.safe_dump(values | {"columns": {"audio": "file_name", "speaker": "who", "emotion": "what"}}))
    (row,) = rows_of(str(file))
    assert (row["speaker"], row["emotion"]) == ("own/ben", "cross")
    assert row["audio"]["path"] == str(tmp_path / "data" / "ben" / "flat" / "1.wav")


def test_the_audio_of_videos_in_a_folder_is_read_and_skipped_files_are_logged(tmp_path, caplog):
    sound, _ = random_audio(0.5)
    made = {"flv": "flv", "avi": "avi", "mkv": "mkv", "mov": "mp4", "MP4": "mp4", "webm": "webm"}  # suffix: format
    (tmp_path / "data" / "folder.txt").mkdir(parents=True)
    for number, (suffix, form) in enumerate(made.items()):
        (tmp_path / "data" / "folder.txt" / f"{number}.{suffix}").write_bytes(encode(form, None, sound, 0.5))
    for name in ("notes.txt", "more.TXT", "README", ".hidden.doc", "1.xyz"):
        (tmp_path / "data" / name).write_bytes(b"x")
    values = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "audiofolder", "path": "data"}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(values | {"columns": {"audio": "file_name", "speaker": "folder_1"}}))

    with caplog.at_level(logging.WARNING):
        rows = list(rows_of(str(file)))

    assert [Path(row["audio"]["path"]).suffix for row in rows] == [f".{suffix}" for suffix in made]
    for row in rows:
        assert len(read_audio(row["audio"]["path"]).waveform) == pytest.approx(8000, abs=2500)  # a codec's padding
    (message,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert "skipped 1 without a suffix, 2 .txt, 1 .xyz in `data`" in message


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
def test_audio_inside_parquet_is_referred_to_by_shard_and_row(tmp_path, source):
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
    rows, shards = list(rows_of(str(file))), load_custom_corpus(str(file)).shards

    assert [row["emotion"] for row in rows[:5]] == ["cross", "flat", "cross", None, "cross"]
    assert all(row["audio"] == {"bytes": None, "path": None} for row in rows)
    audio = [[clip["audio"]["bytes"] for clip in read_shard(shard)] for shard in shards]
    assert [audio[row["shard"]][row["row"]] for row in rows] == [clip(n) for n in range(len(rows))]
    if source == "hub":
        assert splits_of(str(file))["test"] == ("own/5", "own/6")
        file.write_text(yaml.safe_dump(values | {"split": "test", "splits": None}))
        assert [row["speaker"] for row in rows_of(str(file))] == ["own/5", "own/6"]

    file.write_text(yaml.safe_dump(values | {"columns": {"audio": "who", "emotion": "label"}}))
    if source == "hub":
        with pytest.raises(ValueError, match="got it in `speech`"):
            list(rows_of(str(file)))
    else:  # a column of text is one of paths
        with pytest.raises(FileNotFoundError, match="data/data/0"):
            list(rows_of(str(file)))


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
        list(rows_of(str(file)))

    values["columns"]["audio"] = "audio"
    file.write_text(yaml.safe_dump(values | {"dimensions_source": "rated"}))
    rows = list(rows_of(str(file)))
    assert [(row["id"], row["speaker"], row["valence"]) for row in rows[:2]] == [
        ("own/day/0", "own/s0", 0.0),
        ("own/day/1", "own/s1", 0.25),
    ]
    audio = [each["audio"] for each in read_shard(load_custom_corpus(str(file)).shards[0])]
    assert [each["bytes"] for each in audio] == [clip(n, "flac" if n % 2 else "wav") for n in range(4)]
    assert [each["path"] for each in audio] == ["day/0.wav", "day/1.flac", "day/2.wav", "day/3.flac"]


def test_commands_of_the_docs_page_use_flags_of_the_recipes():
    commands = " ".join(blocks("bash")).replace("\\\n", " ").splitlines()
    found = 0
    for command in commands:
        if recipe := re.search(r"recipes/\w+\.py", command):
            namespace = runpy.run_path(str(PAGE.parents[1] / recipe[0]))
            own = [each for each in namespace.values() if getattr(each, "__module__", "") == namespace["__name__"]]
            known = {each.name for arguments in own if is_dataclass(arguments) for each in fields(arguments)}
            for flag in re.findall(r" --(\w+)", command):
                assert flag in known, (recipe[0], flag)
                found += 1
    assert found > 10


def test_a_description_is_parsed_once_until_its_text_changes(described, monkeypatch):
    parsed = []
    load = yaml.safe_load
    monkeypatch.setattr(yaml, "safe_load", lambda text: parsed.append(text) or load(text))
    file = described()
    parsed.clear()

    rows, _ = apply_protocol(file, corpus_table(file))
    assert (len(rows), info_of(file).name, load_custom_corpus(file).shards) == (6, "callcenter", [])
    assert len(parsed) == 1

    Path(file).write_text(Path(file).read_text().replace("name: callcenter", "name: other"))
    assert info_of(file).name == "other"
    assert len(parsed) == 2
