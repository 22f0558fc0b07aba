"""README, documentation site, workflows and issue forms: links lead somewhere, examples run, commands exist."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import pipeline

import audio_emotion
from audio_emotion.data import registry
from audio_emotion.data.registry import corpus_rows
from audio_emotion.layers import TRUNKS
from audio_emotion.losses import SUPERVISED_TERMS
from audio_emotion_cli import main as command_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIP = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"
PAGES = [page for pattern in ("*.md", "docs/*.md", "recipes/*.md", ".github/*.md") for page in ROOT.glob(pattern)]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files_and_headings(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_paths_in_the_pages_exist():
    package = ROOT / "modeling" / "audio_emotion"
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    paths = set(re.findall(r"`((?:modeling|recipes|tests|docs|hub_cards|benchmarks)/[\w/.]+)`", text))
    modules = {f"{name}.py" for name in re.findall(r"`((?:data|evaluation|teachers|training|hub)/\w+)`", text)}
    missing = {path for path in paths if not (ROOT / path).exists()}
    missing |= {path for path in modules if not ((package / path).exists() or (package / path[:-3]).is_dir())}

    # A corpus of the reader's, and a folder that a set of runs writes.
    assert {path for path in missing if "my_corpus" not in path} == {"recipes/results/msp_podcast/"}


def test_readme_is_short():
    words = [word for line in README.splitlines() for word in line.replace("|", " ").split()]
    assert len(README.splitlines()) <= 130
    assert len(words) <= 1100


def test_readme_shows_what_the_default_model_outputs():
    (code,) = [block for block in blocks(README, "python") if "sense_and_sensibility" in block]
    (shown,) = [json.loads(block) for block in blocks(README, "json")]
    scope: dict = {}
    *setup, call = code.strip().splitlines()
    exec("\n".join(setup), scope)
    output = eval(call.replace("modeling/audio_emotion", (ROOT / "modeling" / "audio_emotion").as_posix()), scope)

    assert output.keys() == shown.keys()
    assert shown["dimensions"] == pytest.approx(output["dimensions"], abs=0.006)
    assert [each["label"] for each in shown["emotions"]] == [each["label"] for each in output["emotions"]]
    assert [each["score"] for each in shown["emotions"]] == pytest.approx(
        [each["score"] for each in output["emotions"]], abs=0.006
    )
    assert {key: shown[key] for key in ("scale", "duration", "flags")} == {
        key: output[key] for key in ("scale", "duration", "flags")
    }


def test_readme_example_fine_tunes_and_publishes(tmp_path, monkeypatch):
    (description,) = blocks(README, "yaml")
    emotions = yaml.safe_load(description)["emotions"]
    (tmp_path / "my_clips.yaml").write_text(description, encoding="utf-8")
    rows = iter(corpus_rows("synthetic", count=24))
    for speaker, emotion, _ in product("abcd", emotions, range(2)):
        folder = tmp_path / "clips" / speaker / emotion
        folder.mkdir(parents=True, exist_ok=True)
        row = next(rows)
        (folder / f"{row['id'].rsplit('/', 1)[-1]}.wav").write_bytes(row["audio"]["bytes"])
    commands = "\n".join(blocks(README, "bash"))
    corpus, output = re.search(r"recipes/fine_tune\.py --corpus (\S+) --output (\S+)", commands).groups()
    publish = re.search(r"^audio-emotion (publish .*)$", commands, re.MULTILINE)[1].split()
    monkeypatch.chdir(tmp_path)

    recipe = runpy.run_path(str(ROOT / "recipes" / "fine_tune.py"))
    recipe["main"](recipe["FineTuneArguments"](corpus=corpus, output=output, epochs=1, tuning="frozen"))
    assert command_line([*publish, "--dry-run"]) == 0

    answer = pipeline("audio-emotion", model=f"{output}/checkpoints/last")(str(CLIP))
    assert {each["label"] for each in answer["emotions"]} == set(emotions)


def test_contributing_adds_a_corpus_a_trunk_and_a_loss_term(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIO_EMOTION_DATA", str(tmp_path))
    (tmp_path / "my-corpus").mkdir()
    for name in ("anna_angry_7.0", "ben_neutral_1.0"):
        soundfile.write(tmp_path / "my-corpus" / f"{name}.wav", np.zeros(16_000), 16_000)
    scope: dict = {}
    code = blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python")
    try:
        for block in code:
            exec(compile(block, "CONTRIBUTING.md", "exec"), scope)
        clip = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
        model = scope["model"].eval()
        with torch.no_grad():
            loss = model(clip, labels=torch.tensor([0])).loss
            logits = model(clip).logits
    finally:
        for entries, name in ((registry.CORPORA, "my-corpus"), (TRUNKS, "frame"), (SUPERVISED_TERMS, "entropy")):
            entries.pop(name, None)

    assert scope["table"]["activation"][:] == [1.0, 0.0]
    assert scope["table"]["speaker"][:] == ["my-corpus/anna", "my-corpus/ben"]
    assert isinstance(model.student.trunk.recurrence, scope["FrameLayers"])
    probabilities = logits.softmax(-1)[0]
    expected = -probabilities[0].log() + (probabilities * probabilities.log()).sum()
    torch.testing.assert_close(loss, expected)


def test_site_builds_without_warnings_and_loads_nothing_from_other_hosts(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    build = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )

    assert build.returncode == 0, build.stdout + build.stderr
    loaded = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\"\s>]+")
    found = {page.name: loaded.findall(page.read_text(encoding="utf-8")) for page in tmp_path.glob("*.html")}
    assert len(found) > 15
    assert {name: links for name, links in found.items() if links} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_existing_targets_with_pinned_actions(path: Path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    commands = "\n".join(step.get("run", "") for step in steps)
    named = " ".join(re.findall(r"\bmake ([a-z -]+)", commands)).split()
    assert named
    assert set(named) <= targets
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"]) for step in steps if "uses" in step)
    assert workflow["permissions"] == {"contents": "read"}


def test_tests_run_on_three_systems_and_every_supported_python():
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    matrix = tests["jobs"]["tests"]["strategy"]["matrix"]
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert matrix["python"] == re.findall(r"Programming Language :: Python :: (3\.\d+)", classifiers)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_valid(path: Path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    questions = [item for item in form["body"] if item["type"] != "markdown"]

    assert form["name"]
    assert form["description"]
    assert {item["type"] for item in form["body"]} <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert all(item["attributes"]["label"] for item in questions)
    assert len({item["id"] for item in questions}) == len(questions)


def test_pre_commit_hooks_are_those_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (local,) = hooks
    assert local["repo"] == "local"
    entries = [hook["entry"] for hook in local["hooks"]]
    check = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck:")[2].partition("\n\n")[0]

    assert len(entries) == 2
    for entry in entries:
        assert " ".join(entry.removeprefix(".venv/bin/").split()[:2]) in check


def test_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == audio_emotion.__version__
