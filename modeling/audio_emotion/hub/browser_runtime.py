"""The runtime of the browser page: two files of `onnxruntime-web`, of a pinned version, checked by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

VERSION = "1.30.0"
FILES = {  # of the package's folder dist/, with their SHA-256
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SCRIPT, WASM = FILES
SOURCE = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist"
MEGABYTES = 14
TIMEOUT = 30.0  # seconds without any data


def find_runtime(given: Path | None = None, source: str = SOURCE, report: Callable[[str], object] = print) -> Path:
    """The folder with the runtime's files, which are downloaded once into a cache.

    Where the download fails and the command `npm` is there, the package comes from the registry that npm is set to.

    Args:
        given: an own copy, which needs no network: a folder with the files, the unpacked npm package, or its `.tgz`.
        source: address of the folder of the files.
        report: called with a message before a download.

    Raises:
        ValueError: where a file is missing, differs from the pinned version, or cannot be downloaded.
    """
    folder = cache_folder()
    if given is not None:
        if not given.is_file():
            return _checked_folder(given)
        with tempfile.TemporaryDirectory() as temporary:
            _unpack(given, Path(temporary))
            _store(Path(temporary), folder)
    elif not all(_is_intact(folder / name) for name in FILES):
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
            raise ValueError(
                f"the runtime onnxruntime-web {VERSION} is not in {folder}, and HF_HUB_OFFLINE is set. {_remedy()}"
            )
        report(f"Downloading onnxruntime-web {VERSION} ({MEGABYTES} MB, once) from {source}")
        with tempfile.TemporaryDirectory() as temporary:
            try:
                _download(source, Path(temporary))
            except OSError as error:  # URLError is one
                _pack_with_npm(Path(temporary), error, report)
            _store(Path(temporary), folder)
    return folder


def cache_folder() -> Path:
    """Where the downloaded files are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return Path(base or Path.home() / ".cache") / "audio-emotion" / f"onnxruntime-web-{VERSION}"


def _remedy() -> str:
    return (
        f"On a machine with npm, `npm pack onnxruntime-web@{VERSION}` writes it to a file: pass that with "
        "`--runtime-folder`."
    )


def _checked_folder(given: Path) -> Path:
    """The folder of the files in a copy."""
    candidates: Iterator[Path] = iter((given, given / "dist", given / "package" / "dist"))
    folder = next((each for each in candidates if (each / WASM).is_file()), None)
    if folder is None:
        raise ValueError(f"expected {' and '.join(FILES)} in {given}, got neither. {_remedy()}")
    for name in FILES:
        _check(folder / name)
    return folder


def _is_intact(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == FILES[path.name]


def _check(path: Path) -> None:
    if not path.is_file() or not _is_intact(path):
        found = f"a file with SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else "none"
        raise ValueError(
            f"expected {path.name} of onnxruntime-web {VERSION} (SHA-256 {FILES[path.name]}), got {found}. {_remedy()}"
        )


def _download(source: str, folder: Path) -> None:
    for name in FILES:
        request = urllib.request.Request(f"{source}/{name}", headers={"User-Agent": "audio-emotion"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response, (folder / name).open("wb") as file:
            shutil.copyfileobj(response, file)


def _pack_with_npm(folder: Path, error: OSError, report: Callable[[str], object]) -> None:
    """Download the package with npm, which knows the registry of this machine."""
    npm = shutil.which("npm")
    reason = f"onnxruntime-web {VERSION} could not be downloaded: {error}."
    if npm is None:
        raise ValueError(f"{reason} {_remedy()}") from error
    report(f"{reason} Trying npm")
    command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = next(folder.glob("*.tgz"), None)
    if done.returncode or archive is None:
        raise ValueError(f"{reason} npm failed as well: {done.stderr.strip()[-300:]}. {_remedy()}")
    _unpack(archive, folder)


def _unpack(archive: Path, folder: Path) -> None:
    """Take the files out of the npm package; nothing else of it is read."""
    try:
        with tarfile.open(archive) as package:
            for name in FILES:
                member = package.extractfile(f"package/dist/{name}")
                if member is None:
                    raise KeyError(name)
                (folder / name).write_bytes(member.read())
    except (OSError, tarfile.TarError, KeyError) as error:
        raise ValueError(f"expected the npm package of onnxruntime-web {VERSION}, got {archive}: {error}.") from error


def _store(source: Path, folder: Path) -> None:
    """Check the files and move them into the cache; a half-written file never has a final name."""
    for name in FILES:
        _check(source / name)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        partial = folder / f".{name}.{os.getpid()}"
        shutil.copyfile(source / name, partial)
        partial.replace(folder / name)
