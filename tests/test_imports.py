"""Imports inside the package point one way, and what travels in a checkpoint imports only what it finds there."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "modeling" / "audio_emotion"

NOT_CARRIED = {"__init__.py", "runtime.py"}  # the façade, and the ONNX runtime that lives without torch
# transformers itself depends on huggingface_hub, whose `strict` checks every configuration of transformers, ours too.
CARRIED_IMPORTS = {"torch", "numpy", "transformers", "huggingface_hub"}
CARRIED_AUDIO_IMPORTS = CARRIED_IMPORTS | {"soundfile", "soxr"}  # only in pipeline_*.py and audio_input*.py
DRAWERS = {"utils", "helpers", "misc", "common"}

# How transformers finds the files that a checkpoint must carry: by lines of text, docstrings included.
RELATIVE_IMPORT_LINE = re.compile(r"^\s*(?:from\s+\.\S*\s+import\b|import\s+\.\S+\s*$)", flags=re.MULTILINE)


def files_of(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name, without the copies inside embedded checkpoints."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] not in {"embedded", "hub_cards"}:
            files[".".join([package.name, *(part for part in parts if part != "__init__")])] = path
    return files


def carried_files(package: Path) -> list[Path]:
    """The checkpoint room: files beside the model, which travel in every published checkpoint."""
    return [path for path in sorted(package.glob("*.py")) if path.name not in NOT_CARRIED]


def import_nodes(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import of one file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def absolute_roots(path: Path) -> set[str]:
    """Top-level names of everything that one file imports absolutely."""
    roots = set()
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def own_imports(path: Path, package: Path, modules: set[str]) -> set[str]:
    """Dotted names of the package's own modules that one file imports."""
    home = [package.name, *path.relative_to(package).parent.parts]
    names = set()
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        prefix = home[: len(home) - node.level + 1] if node.level else []
        source = ".".join([*prefix, *filter(None, [node.module])])
        for alias in node.names:  # `from package import module` means the module, not the package
            names.add(f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source)
    return names & modules


def cycles(package: Path) -> list[str]:
    """The first circle of imports, if there is one."""
    files = files_of(package)
    graph = {name: own_imports(path, package, set(files)) for name, path in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def drawers(package: Path) -> list[str]:
    """Modules and folders whose name says nothing of what is in them."""
    return [name for name in files_of(package) if DRAWERS & set(name.split("."))]


def bare_relative_imports(package: Path) -> list[str]:
    """`from . import x`: a checkpoint with it saves, and fails to load elsewhere."""
    return [
        f"{path.name}:{node.lineno}"
        for path in files_of(package).values()
        for node in import_nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level and not node.module
    ]


def imports_of_recipes(package: Path) -> list[str]:
    """A recipe imports the package, never the other way."""
    return [path.name for path in files_of(package).values() if "recipes" in absolute_roots(path)]


def room_leaves(package: Path) -> list[str]:
    """Relative imports of a carried file that are no sibling in the room: they would be missing from a checkpoint."""
    room = {path.stem for path in carried_files(package)}
    return [
        f"{path.name}:{node.lineno} imports {'.' * node.level}{node.module or ''}"
        for path in carried_files(package)
        for node in import_nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level and (node.level > 1 or (node.module or "") not in room)
    ]


def strangers(package: Path) -> list[str]:
    """Absolute imports of a carried file that a bare transformers installation may lack."""
    found = []
    for path in carried_files(package):
        reads_audio = path.name.startswith(("pipeline_", "audio_input"))
        allowed = (CARRIED_AUDIO_IMPORTS if reads_audio else CARRIED_IMPORTS) | sys.stdlib_module_names
        found += [f"{path.name} imports {root}" for root in sorted(absolute_roots(path) - allowed)]
    return found


def imports_in_prose(package: Path) -> list[str]:
    """Relative imports that stand only in a docstring: transformers takes them for real ones and the save breaks."""
    found = []
    for path in carried_files(package):
        text = path.read_text(encoding="utf-8")
        read_as_text = sum(1 for _ in RELATIVE_IMPORT_LINE.finditer(text))
        real = sum(1 for node in import_nodes(path) if isinstance(node, ast.ImportFrom) and node.level)
        if read_as_text != real:
            found.append(f"{path.name}: {read_as_text} lines look like relative imports, {real} are")
    return found


def test_package_has_modules_to_look_at():
    assert len(carried_files(PACKAGE)) > 5
    assert len(files_of(PACKAGE)) > len(carried_files(PACKAGE))


@pytest.mark.parametrize(
    "rule",
    [
        cycles,
        drawers,
        bare_relative_imports,
        imports_of_recipes,
        room_leaves,
        strangers,
        imports_in_prose,
    ],
)
def test_package_keeps(rule: Callable[[Path], list[str]]):
    assert rule(PACKAGE) == []


@pytest.mark.parametrize(
    ("rule", "file", "line"),
    [
        (cycles, "heads.py", "from .modeling_toy import head"),
        (cycles, "training/loop.py", "def late():\n    from audio_emotion.evaluation import metrics"),
        (drawers, "training/utils.py", ""),
        (drawers, "helpers/files.py", ""),
        (bare_relative_imports, "heads.py", "from . import losses"),
        (bare_relative_imports, "training/loop.py", "from .. import losses"),
        (imports_of_recipes, "training/loop.py", "from recipes.distill import main"),
        (room_leaves, "heads.py", "from .training.loop import step"),
        (room_leaves, "heads.py", "from .runtime import run"),
        (strangers, "heads.py", "from audio_emotion.training import loop"),
        (strangers, "heads.py", "def late():\n    import scipy.signal"),
        (strangers, "heads.py", "import soundfile"),
        (strangers, "pipeline_toy.py", "import torchaudio"),
        (imports_in_prose, "heads.py", '"""Use it so:\n\n    from .losses import ccc\n"""'),
    ],
)
def test_rule_sees_a_violation(rule: Callable[[Path], list[str]], file: str, line: str, tmp_path: Path):
    package = tmp_path / "audio_emotion"
    sound = {
        "__init__.py": "from .modeling_toy import Toy",
        "losses.py": "import torch",
        "heads.py": "import math\nimport torch.nn.functional as F\nfrom .losses import ccc",
        "modeling_toy.py": "from transformers import PreTrainedModel\nfrom .heads import head",
        "pipeline_toy.py": "import soundfile\nimport soxr\nfrom .modeling_toy import Toy",
        "runtime.py": "import onnxruntime",
        "training/__init__.py": "",
        "training/loop.py": "from audio_emotion import Toy\nfrom audio_emotion.losses import ccc",
        "evaluation/__init__.py": "",
        "evaluation/metrics.py": "from audio_emotion.training import loop",
    }
    for name, text in sound.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert rule(package) == []

    changed = package / file
    changed.parent.mkdir(exist_ok=True)
    changed.write_text(f"{sound.get(file, '')}\n{line}\n")

    assert len(rule(package)) == 1
