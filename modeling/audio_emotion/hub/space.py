"""Spaces of models: a static page that runs a small model in the browser, or a Gradio app for a teacher."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from audio_emotion.hub.browser_page import SPACE_HOSTS, find_or_export_graph, page_files
from audio_emotion.hub.browser_runtime import VERSION, find_runtime
from audio_emotion.hub.card import render_card
from audio_emotion.hub.card_facts import model_kind
from audio_emotion.hub.checks import check_files, load_strictly

APP = Path(__file__).parent / "space_app.py"
GRADIO = "6.31.0"
KEPT_HOURS = 2  # at most, see `KEPT` in the app
REQUIREMENTS = ("torch>=2.11", "transformers>=5.20,<6", "soundfile>=0.13", "soxr>=1", "numpy>=2")
# Hardware of Spaces by the largest number of parameters.
HARDWARE = {150_000_000: "cpu-basic", 500_000_000: "cpu-upgrade", float("inf"): "t4-small"}


def holds_model(source: Path) -> bool:
    """Whether a folder is a checkpoint or a run folder, and not a metric or a Space."""
    return (source / "config.json").is_file() or (source / "checkpoints").is_dir()


def assemble_space(
    source: Path,
    folder: Path,
    repo: str,
    which: str = "last",
    runtime: Path | None = None,
    report: Callable[[str], object] = print,
) -> Path:
    """Write the content of a Space of a model to a folder.

    Args:
        source: a run folder, or a checkpoint.
        folder: exists and is empty.
        repo: `owner/name` of the Space; a Gradio app loads the model of the same id.
        which: `"best"` or `"last"` checkpoint of a run.
        runtime: own copy of the browser's runtime, see `find_runtime`.
        report: called with a message before a download.

    Raises:
        ValueError: where the model is incomplete or has no license, or the runtime cannot be had.
    """
    checkpoint = source / "checkpoints" / which if (source / "checkpoints").is_dir() else source
    if not (checkpoint / "config.json").is_file():
        raise ValueError(f"Expected a model in {checkpoint}, got no config.json.")
    check_files(checkpoint)
    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    if not config.license:
        raise ValueError(f"Expected `license` in the configuration of {checkpoint}, got none. Set it.")
    facts = {"model_name": repo.partition("/")[2], "license": config.license}
    if model_kind(config) == "teacher":
        return _write_app(checkpoint, folder, facts | {"model_id": repo})
    return _write_page(checkpoint, folder, facts, find_runtime(runtime, report=report), report)


def _write_page(
    checkpoint: Path, folder: Path, facts: dict[str, Any], runtime: Path, report: Callable[[str], object]
) -> Path:
    """The static page, with the graph and the runtime in it: a visitor's browser connects to no third party."""
    graph = find_or_export_graph(checkpoint, report)
    for name, content in page_files(checkpoint, graph, runtime, facts["model_name"]).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    page = folder / "index.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("connect-src 'self';", f"connect-src 'self' {SPACE_HOSTS};"), encoding="utf-8")
    for path in checkpoint.glob("LICENSE*"):
        shutil.copyfile(path, folder / path.name)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    facts |= {"megabytes": megabytes, "runtime_version": VERSION}
    (folder / "README.md").write_text(render_card("browser_space", facts), encoding="utf-8")
    return folder


def _write_app(checkpoint: Path, folder: Path, facts: dict[str, Any]) -> Path:
    """The Gradio app, which loads the model from the Hub."""
    parameters = load_strictly(checkpoint).num_parameters()
    hardware = next(name for most, name in HARDWARE.items() if parameters <= most)
    app = re.sub(r'"OWNER/NAME"', json.dumps(facts["model_id"]), APP.read_text(encoding="utf-8"))
    (folder / "app.py").write_text(app, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(REQUIREMENTS) + "\n")
    facts |= {"parameters": parameters, "gigabytes": 4 * parameters / 1e9, "hardware": hardware}
    facts |= {"sdk_version": GRADIO, "kept_hours": KEPT_HOURS}
    (folder / "README.md").write_text(render_card("gradio_space", facts), encoding="utf-8")
    return folder
