"""The clips of a described corpus as they are stored: tables of paths, folders, parquet files, tars, Hub data sets."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from audio_emotion.audio_sources import AUDIO_SUFFIXES
from audio_emotion.data.shards import NO_FILE, audio_column, hub_files, parquet_features, read_labels
from audio_emotion.data.tables import read_table

logger = logging.getLogger(__name__)

TEXT_TYPES = ("string", "large_string", "string_view")

Record = tuple[str, dict[str, Any], dict[str, Any]]  # location for messages, columns, `audio` (and `shard`, `row`)


@dataclass(frozen=True)
class Source:
    """Where the clips of a description are.

    Attributes:
        description: YAML file, for messages.
        base: folder or URL from which relative paths start.
        columns: source column of each column of ours.
        values: keys of the description; of them `source`, `path`, `audio_folder`, `config`, `split`, `revision` and,
            of a packed corpus, `shards`.
    """

    description: str
    base: str
    columns: Mapping[str, str]
    values: Mapping[str, Any]

    def resolve(self, path: str) -> str:
        """A path of the description as one that can be opened."""
        if "://" in path or Path(path).is_absolute():
            return path
        return f"{self.base}/{path}" if "://" in self.base else str(Path(self.base) / path)

    @cached_property
    def shards(self) -> list[tuple[str, str | None]]:
        """Files that contain the audio, each with its split on the Hub; empty where clips are single files."""
        kind = self.values["source"]
        if kind == "packed":
            return [(self.resolve(name), None) for name in self.values["shards"]]
        if kind == "webdataset":
            return [(file, None) for file in self._files(".tar")]
        if kind == "parquet":
            files = self._files(".parquet")
            types = parquet_features(files[0])
            self._check_columns(files[0], types)
            is_path = getattr(types[self.columns["audio"]], "dtype", None) in TEXT_TYPES
            return [] if is_path else [(file, None) for file in files]
        return self._hub_shards() if kind == "hub" else []

    def records(self) -> Iterator[Record]:
        """Every clip, in the order of the source; `__id__` and `__partition__` are columns that follow from its place.

        Raises:
            FileNotFoundError: for a table or folder that does not exist.
            ValueError: for missing columns, and for a path that leads out of the folder of the clips.
        """
        if self.shards:
            yield from self._shard_records()
        elif self.values["source"] == "audiofolder":
            yield from self._folder_records()
        else:
            is_csv = self.values["source"] == "csv"
            for file in [self.resolve(self.values["path"])] if is_csv else self._files(".parquet"):
                yield from self._table_records(file)

    def _files(self, suffix: str) -> list[str]:
        """Files of `path`, which may be one file, a folder, or a pattern; sorted."""
        path = self.resolve(self.values["path"])
        if "://" in path:
            return [path]
        found = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob(f"*{suffix}"))
        found = found or sorted(Path(path).parent.glob(Path(path).name))
        if not found:
            raise FileNotFoundError(
                f"{self.description}: expected `{suffix}` files in `{path}`, got none. Correct `path`: a file, a "
                "folder or a pattern such as `part-*.parquet`."
            )
        return [str(file) for file in found]

    def _hub_shards(self) -> list[tuple[str, str | None]]:
        name, local = self.values["path"], self.resolve(self.values["path"])
        source = local if Path(local).is_dir() else name  # a folder of the same layout is read without a network
        files = hub_files(source, self.values.get("config"), self.values.get("revision"))
        if (only := self.values.get("split")) is not None:
            if only not in files:
                raise ValueError(f"{self.description}: expected `split` among {list(files)}, got {only!r}.")
            files = {only: files[only]}
        shards: list[tuple[str, str | None]] = [(file, split) for split, each in files.items() for file in each]
        if unreadable := [file for file, _ in shards if not file.endswith((".parquet", ".tar"))]:
            raise ValueError(
                f"{self.description}: expected the Hub data set `{name}` in parquet files or tars, got "
                f"{some(unreadable)}. Try `revision: refs/convert/parquet`, where the Hub keeps a converted copy, or "
                "download it and describe the files."
            )
        return shards

    def _table_records(self, file: str) -> Iterator[Record]:
        """Rows of a CSV, JSON Lines or parquet table with paths of audio files."""
        if not Path(file).is_file():
            raise FileNotFoundError(
                f"{self.description}: expected the table of clips in `{file}`, got no such file. Correct `path`."
            )
        audio_folder = self.values.get("audio_folder")
        folder = Path(file).parent if audio_folder is None else Path(self.resolve(audio_folder))
        columns, rows = read_table(file)
        self._check_columns(file, columns)
        for place, record in rows:
            where = f"{file}, {place}"
            audio = str(record[self.columns["audio"]] or "").strip()
            if not audio:
                raise ValueError(f"{where}: expected the path of a clip, got none. Fill it in, or remove the row.")
            if not Path(os.path.abspath(folder / audio)).is_relative_to(os.path.abspath(folder)):
                raise ValueError(
                    f"{where}: expected a path inside `{folder}`, got `{audio}`. Correct it, or name a folder that "
                    f"contains all clips as `audio_folder` in `{self.description}`, with `source: csv` or `parquet`."
                )
            record["__id__"] = Path(audio).with_suffix("").as_posix()
            yield where, record, {"audio": {"bytes": None, "path": str(folder / audio)}}

    def _folder_records(self) -> Iterator[Record]:
        """Clips of a folder, labeled by its `metadata.csv` or `metadata.jsonl`, or by the names of their folders."""
        root = Path(self.resolve(self.values["path"]))
        if (table := _metadata_file(root)) is not None:
            yield from self._table_records(str(table))
            return
        if not root.is_dir():
            raise FileNotFoundError(f"{self.description}: expected a folder of clips in `{root}`, got none there.")
        numbered = [re.fullmatch(r"folder_(\d+)", column) for column in self.columns.values()]
        depth = max((int(match[1]) for match in numbered if match), default=0)
        self._check_columns(str(root), ["file_name", "label", *(f"folder_{level}" for level in range(1, depth + 1))])
        for path in _visible_files(root):
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            relative = path.relative_to(root)
            folders = relative.parent.parts
            if len(folders) < depth:
                raise ValueError(
                    f"{path}: expected at least {depth} folders below `{root}`, got fewer. Move the file."
                )
            record = {"file_name": relative.as_posix(), "label": path.parent.name}
            record |= {f"folder_{level}": name for level, name in enumerate(folders, start=1)}
            record["__id__"] = relative.with_suffix("").as_posix()
            yield str(path), record, {"audio": {"bytes": None, "path": str(path)}}

    def warn_of_skipped_files(self) -> None:
        """Log the files of an audio folder that are no clips."""
        root = Path(self.resolve(self.values["path"]))
        if self.values["source"] != "audiofolder" or _metadata_file(root) is not None:
            return
        suffixes = Counter(path.suffix.lower() for path in _visible_files(root))
        if skipped := [
            f"{suffixes[name]} {name or 'without a suffix'}" for name in sorted({*suffixes} - AUDIO_SUFFIXES)
        ]:
            logger.warning(
                "%s: skipped %s in `%s`; clips are files of %s.",
                self.description,
                ", ".join(skipped),
                self.values["path"],
                ", ".join(sorted(AUDIO_SUFFIXES)),
            )

    def _shard_records(self) -> Iterator[Record]:
        """Clips of parquet files or tars that contain the audio, which stays there."""
        label_columns = [column for name, column in self.columns.items() if name != "audio"]
        for number, (shard, split) in enumerate(self.shards):
            tar = shard.endswith(".tar")
            if not tar:
                self._check_columns(shard, parquet_features(shard))
                if (audio := audio_column(shard)) != self.columns["audio"]:
                    raise ValueError(
                        f"{shard}: expected the audio in the column `{self.columns['audio']}`, got it in `{audio}`. "
                        "Correct `columns: {audio: ...}`, or name the column that you mean `audio`."
                    )
            for index, record in enumerate(read_labels(shard, None if tar else label_columns)):
                where = f"{shard}, row {index + 1}"
                if tar:
                    self._check_columns(where, [*record, record["audio"] or "no audio"])
                record["__id__"] = record["__key__"] if tar else f"{number:05d}-{index:06d}"
                record["__partition__"] = split
                yield where, record, {"audio": NO_FILE, "shard": number, "row": index}

    def _check_columns(self, where: str, present: Iterable[str]) -> None:
        present, wanted = list(present), sorted(set(self.columns.values()))
        if wrong := [name for name in wanted if present.count(name) != 1]:
            repeated = "several" if wrong[0] in present else "none"
            raise ValueError(
                f"{where}: expected the columns {wanted}, got {repeated} called {wrong} among "
                f"{[name for name in present if name]}. Correct `columns` in `{self.description}`."
            )


def some(names: list[str], most: int = 5) -> str:
    """The first few names, and the number of others."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _metadata_file(root: Path) -> Path | None:
    return next((root / name for name in ("metadata.csv", "metadata.jsonl") if (root / name).is_file()), None)


def _visible_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.name.startswith(".") and path.is_file())
