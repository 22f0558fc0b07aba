"""What every file of the repository keeps, whatever it holds."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "recipes" / "configs"

MACHINE_PATH = re.compile(r"(?<![\w.~/:$})-])/(?:work|home|root|Users|opt|mnt|srv|tmp)/\w")
# Addresses of package indexes: an index is whichever one the reader's client is set to.
INDEX_HOST = re.compile(r"(?:pypi|test\.pypi|pythonhosted|npmjs|debian)\.(?:org|com)\b|download\.pytorch\.org\b")


def repository_files() -> list[Path]:
    """What git tracks or would track; without git, whatever lies in the checkout except hidden and built things."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        kept = [path for path in ROOT.iterdir() if path.name not in {"build", "dist", "runs"}]
        kept = [path for path in kept if path.name == ".ci" or not path.name.startswith(".")]
        paths = [path for top in kept for path in (top.rglob("*") if top.is_dir() else [top])]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    """`file:line` of every match in a file that is text."""
    found = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        lines = content.decode("utf-8", errors="replace").splitlines()
        found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, start=1) if pattern.search(line)]
    return found


def strings_in(value: object) -> list[str]:
    """Every string value in a nested YAML document."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def direct_dependencies() -> set[str]:
    """Names of what pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    requirements = [*project["dependencies"], *extras]
    names = {re.split(r"[<>=\[ ]", requirement)[0].lower() for requirement in requirements}
    return names - {project["name"]}


def test_no_file_names_a_path_of_one_machine():
    assert lines_that_match(MACHINE_PATH) == []


def test_no_file_names_the_host_of_a_package_index():
    assert lines_that_match(INDEX_HOST) == []


@pytest.mark.parametrize(
    ("pattern", "bad", "good"),
    [
        (MACHINE_PATH, "data: /" + "home/me/ravdess", "https://host.example/home/page"),
        (MACHINE_PATH, 'Path("/' + 'opt/data")', 'Path("runs/opt/data")'),
        (INDEX_HOST, "--index-url https://" + "pypi" + ".org/simple", "packages.example.org/simple"),
    ],
)
def test_pattern_sees_a_violation_and_nothing_else(pattern: re.Pattern[str], bad: str, good: str):
    assert pattern.search(bad)
    assert not pattern.search(good)


def test_every_config_parses_and_opens_with_its_command():
    configs = sorted(CONFIGS.rglob("*.yaml"))
    assert configs, f"Expected YAML files under {CONFIGS}, found none."

    for config in configs:
        text = config.read_text(encoding="utf-8")
        assert isinstance(yaml.safe_load(text), dict), config
        recipe = re.match(r"# .*\b(recipes/(?:experiments/)?\w+\.py)\b.*", text)
        assert recipe, f"{config}: expected its command in the first line, got {text.splitlines()[0]!r}"
        assert (ROOT / recipe[1]).is_file(), f"{config} names {recipe[1]}, which is not there"


def test_every_config_has_arguments_that_its_recipe_accepts():
    arguments = {}
    for name in ("distill", "fine_tune", "pack", "pretrain_student", "pseudo_label", "train_teacher"):
        recipe = runpy.run_path(str(ROOT / "recipes" / f"{name}.py"))
        annotation = recipe["main"].__annotations__["args"]
        arguments[name] = recipe[annotation] if isinstance(annotation, str) else annotation
    checked = 0
    for config in CONFIGS.rglob("*.yaml"):
        command = re.match(r"# .*\brecipes/(\w+)\.py --config", config.read_text(encoding="utf-8"))
        if command:
            arguments[command[1]](**yaml.safe_load(config.read_text(encoding="utf-8")))  # checks names and types
            checked += 1
        for name, run in yaml.safe_load(config.read_text(encoding="utf-8")).get("runs", {}).items():
            if run["recipe"] in arguments:
                known = {field.name for field in fields(arguments[run["recipe"]])}
                assert set(run.get("arguments", {})) <= known, (config.name, name)
                checked += 1
    assert checked > 30


def test_no_config_writes_a_number_that_yaml_reads_as_a_string():
    # YAML wants a point in the mantissa: `1e-4` is the string "1e-4", `1.0e-4` is a number.
    wrong = {
        str(path.relative_to(ROOT)): text
        for path in CONFIGS.rglob("*.yaml")
        for text in strings_in(yaml.safe_load(path.read_text(encoding="utf-8")))
        if is_number(text)
    }
    assert wrong == {}


def test_constraints_give_one_exact_version_for_each_direct_dependency():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pin) for pin in pins), pins
    assert {pin.split("==")[0] for pin in pins} == direct_dependencies()


def test_cards_are_found_beside_the_package():
    beside = ROOT / "modeling" / "audio_emotion" / "hub_cards"
    names = sorted(path.name for path in (ROOT / "hub_cards").glob("*.md"))

    assert names
    assert sorted(path.name for path in beside.glob("*.md")) == names


def test_no_weights_are_tracked_that_would_have_to_be_unpickled():
    pickled = {".bin", ".ckpt", ".joblib", ".pkl", ".pt", ".pth"}
    assert [path.name for path in repository_files() if path.suffix in pickled] == []
