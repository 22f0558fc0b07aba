"""SHA-256 of states and cache files, so that a damaged file is found before its content is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

SUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` of the files of a folder, as `sha256sum --check` reads it."""
    (folder / SUMS).write_text("".join(_checksums(folder)))


def damaged_files(folder: Path) -> list[str]:
    """Names of the files that are missing, changed or new since [`write_checksums`]."""
    if not (folder / SUMS).exists():
        return [SUMS]
    stored = (folder / SUMS).read_text(errors="replace").splitlines(keepends=True)
    return sorted({line.split("  ")[-1].strip() for line in {*stored} ^ {*_checksums(folder)}})


def _checksums(folder: Path) -> list[str]:
    return [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != SUMS]


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write `<file>.<its checksum>.safetensors`, atomically; returns the path."""
    partial = file.with_suffix(f".{os.getpid()}.partial")  # another run may be writing the same file
    save_file(dict(tensors), partial, metadata)
    return partial.rename(file.with_suffix(f".{_sha256(partial)}.safetensors"))


@cache
def check_tensors(file: Path) -> None:
    """Compare a file of [`save_tensors`] with its name, once per process.

    Raises:
        ValueError: if it differs.
    """
    if (found := _sha256(file)) != file.name.split(".")[-2]:
        raise ValueError(
            f"Expected the content of `{file}` to have the SHA-256 in its name, got {found}: the file is damaged. "
            "Delete it and start the same command again, which computes it anew."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:32]
