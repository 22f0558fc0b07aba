"""Imports between the packages run in one direction, and files in a checkpoint import only what they find there."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "modeling" / "audio_emotion"

# A file imports from its own layer and from earlier ones. The files directly in the package are the model's.
LAYERS = ("model", "data", "evaluation", "teachers", "training", "hub")
ABOVE_THE_PACKAGE = {"recipes", "audio_emotion_cli", "audio_emotion_command"}
NOT_CARRIED = {
    "__init__.py",
    "diarization.py",
    "runtime.py",
    "long_audio.py",
}  # files beside the model that no checkpoint needs
# transformers itself depends on huggingface_hub, whose `strict` checks every configuration of transformers, ours too.
CARRIED_IMPORTS = {"torch", "numpy", "transformers", "huggingface_hub"}
CARRIED_AUDIO_IMPORTS = CARRIED_IMPORTS | {"soundfile", "soxr"}  # only in pipeline_*.py, live_*.py and audio_*.py
VAGUE_NAMES = {"utils", "helpers", "misc", "common"}

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
    """The files directly in the package that published checkpoints carry."""
    return [path for path in sorted(package.glob("*.py")) if path.name not in NOT_CARRIED]


def import_nodes(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import of one file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def absolute_roots(path: Path) -> set[str]:
    """Top-level names of the absolute imports of one file."""
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
    """The first import cycle, if there is one."""
    files = files_of(package)
    graph = {name: own_imports(path, package, set(files)) for name, path in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def imports_of_later_layers(package: Path) -> list[str]:
    """Imports against the order of `LAYERS`; the façade `__init__` counts as the model's."""
    files = files_of(package)
    found = []
    for name, path in files.items():
        for imported in sorted(own_imports(path, package, set(files)) - {package.name}):
            if layer_of(imported) > layer_of(name):
                found.append(f"{name} imports {imported}")
    return found


def layer_of(module: str) -> int:
    """Position in `LAYERS` of a module given by its dotted name; an unknown folder is an error."""
    _, *path = module.split(".")
    is_in_a_folder = len(path) > 1 or (path[:1] and path[0] in LAYERS)
    return LAYERS.index(path[0]) if is_in_a_folder else 0


def vague_names(package: Path) -> list[str]:
    """Modules and folders whose name does not describe their content."""
    return [name for name in files_of(package) if VAGUE_NAMES & set(name.split("."))]


def bare_relative_imports(package: Path) -> list[str]:
    """`from . import x`: a checkpoint with it saves, and fails to load elsewhere."""
    return [
        f"{path.name}:{node.lineno}"
        for path in files_of(package).values()
        for node in import_nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level and not node.module
    ]


def imports_of_callers(package: Path) -> list[str]:
    """Recipes and the command line import the package, never the reverse."""
    return [path.name for path in files_of(package).values() if ABOVE_THE_PACKAGE & absolute_roots(path)]


def imports_missing_from_a_checkpoint(package: Path) -> list[str]:
    """Relative imports of a carried file that are not carried with it."""
    siblings = {path.stem for path in carried_files(package)}
    return [
        f"{path.name}:{node.lineno} imports {'.' * node.level}{node.module or ''}"
        for path in carried_files(package)
        for node in import_nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level and (node.level > 1 or (node.module or "") not in siblings)
    ]


def undeclared_imports(package: Path) -> list[str]:
    """Absolute imports of a carried file that a bare transformers installation may lack."""
    found = []
    for path in carried_files(package):
        reads_audio = path.name.startswith(("pipeline_", "live_", "audio_"))
        allowed = (CARRIED_AUDIO_IMPORTS if reads_audio else CARRIED_IMPORTS) | sys.stdlib_module_names
        found += [f"{path.name} imports {root}" for root in sorted(absolute_roots(path) - allowed)]
    return found


def imports_in_docstrings(package: Path) -> list[str]:
    """Relative imports inside a docstring: transformers takes them for real ones, and saving fails."""
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
        imports_of_later_layers,
        imports_of_callers,
        vague_names,
        bare_relative_imports,
        imports_missing_from_a_checkpoint,
        undeclared_imports,
        imports_in_docstrings,
    ],
)
def test_the_package_follows_the_rule(rule: Callable[[Path], list[str]]):
    assert rule(PACKAGE) == []


@pytest.mark.parametrize(
    ("rule", "file", "line"),
    [
        (cycles, "heads.py", "from .modeling_toy import head"),
        (cycles, "training/loop.py", "def late():\n    from audio_emotion.training import optim"),
        (imports_of_later_layers, "heads.py", "from .training.loop import step"),
        (imports_of_later_layers, "__init__.py", "from audio_emotion.hub.publish import publish"),
        (imports_of_later_layers, "__init__.py", "from .hub.publish import publish"),
        (imports_of_later_layers, "evaluation/metrics.py", "def late():\n    from audio_emotion.training import loop"),
        (imports_of_later_layers, "data/__init__.py", "import audio_emotion.evaluation.metrics"),
        (imports_of_later_layers, "training/loop.py", "from audio_emotion.hub.publish import publish"),
        (imports_of_callers, "training/loop.py", "from recipes.distill import main"),
        (imports_of_callers, "hub/publish.py", "from audio_emotion_cli import main"),
        (vague_names, "training/utils.py", ""),
        (vague_names, "helpers/files.py", ""),
        (bare_relative_imports, "heads.py", "from . import losses"),
        (bare_relative_imports, "training/loop.py", "from .. import losses"),
        (imports_missing_from_a_checkpoint, "heads.py", "from .training.loop import step"),
        (imports_missing_from_a_checkpoint, "heads.py", "from .diarization import read_rttm"),
        (undeclared_imports, "heads.py", "from audio_emotion.training import loop"),
        (undeclared_imports, "heads.py", "def late():\n    import scipy.signal"),
        (undeclared_imports, "heads.py", "import soundfile"),
        (undeclared_imports, "pipeline_toy.py", "import torchaudio"),
        (imports_in_docstrings, "heads.py", '"""Use it so:\n\n    from .losses import ccc\n"""'),
    ],
)
def test_a_violation_of_the_rule_is_found(rule: Callable[[Path], list[str]], file: str, line: str, tmp_path: Path):
    package = tmp_path / "audio_emotion"
    valid = {
        "__init__.py": "from .modeling_toy import Toy",
        "losses.py": "import torch",
        "heads.py": "import math\nimport torch.nn.functional as F\nfrom .losses import ccc",
        "modeling_toy.py": "from transformers import PreTrainedModel\nfrom .heads import head",
        "pipeline_toy.py": "import soundfile\nimport soxr\nfrom .modeling_toy import Toy",
        "diarization.py": "import pyannote",
        "data/__init__.py": "",
        "evaluation/__init__.py": "",
        "evaluation/metrics.py": "from audio_emotion.losses import ccc",
        "training/__init__.py": "",
        "training/loop.py": "from audio_emotion import Toy\nfrom audio_emotion.evaluation.metrics import uar",
        "training/optim.py": "from audio_emotion.training.loop import step",
        "hub/publish.py": "from audio_emotion.training.loop import step",
    }
    for name, text in valid.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert rule(package) == []

    changed = package / file
    changed.parent.mkdir(exist_ok=True)
    changed.write_text(f"{valid.get(file, '')}\n{line}\n")

    assert len(rule(package)) == 1
