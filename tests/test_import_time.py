"""Importing the package: cheap, possible without torch, and a remedy for a broken torchaudio."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import audio_emotion

ROOT = Path(__file__).parents[1]
PACKAGE_ROOT = Path(audio_emotion.__file__).parents[1]


def run(code: str) -> str:
    """What a fresh process prints, with the package importable."""
    preamble = f"import sys; sys.path.insert(0, {str(PACKAGE_ROOT)!r}); "
    return subprocess.run(
        [sys.executable, "-c", preamble + code], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.slow
def test_import_adds_at_most_a_tenth_to_that_of_transformers_pipeline():
    # Both are timed in one process: processes differ more from each other than the budget allows.
    code = (
        "from time import perf_counter as now; start = now(); from transformers import pipeline; middle = now(); "
        "known = set(sys.modules); import audio_emotion; print((now() - middle) / (middle - start)); "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - known}))"
    )

    ratios, added = zip(*(run(code).split("\n") for _ in range(3)), strict=True)

    assert min(map(float, ratios)) < 0.1
    # No other library is imported, which could be slow elsewhere.
    assert set(" ".join(added).split()) <= {"audio_emotion", "transformers", "soundfile", "soxr", "cffi"}


def test_without_torch_the_package_imports_and_names_what_is_missing():
    code = (
        "sys.modules['torch'] = None\n"
        "import audio_emotion\n"
        "print(audio_emotion.__version__, 'transformers' in sys.modules)\n"
        "try:\n    audio_emotion.AudioEmotionPipeline\nexcept ImportError as error:\n    print(error)"
    )

    version, message = run(code).split("\n")

    assert version == f"{audio_emotion.__version__} False"
    assert "AudioEmotionPipeline needs torch" in message


def test_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert audio_emotion.__version__ == project["version"]


def test_every_public_name_exists():
    assert [name for name in audio_emotion.__all__ if getattr(audio_emotion, name, None) is None] == []
    with pytest.raises(AttributeError, match="Emotions"):
        audio_emotion.Emotions  # noqa: B018


@pytest.mark.parametrize("error", ["OSError('libc10_cuda.so')", "RuntimeError('different CUDA versions')"])
def test_a_broken_torchaudio_is_hidden_from_transformers(error, monkeypatch, tmp_path):
    (tmp_path / "torchaudio.py").write_text(f"raise {error}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchaudio.left_over", sys)  # and is put back as it was afterwards
    monkeypatch.syspath_prepend(tmp_path)

    audio_emotion._hide_broken_torchaudio()

    assert importlib.util.find_spec("torchaudio") is None
    assert "torchaudio.left_over" not in sys.modules
    monkeypatch.delitem(sys.modules, "torchaudio")
