"""Published to a Hub on loopback by the real client, and loaded from there in fresh processes."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from loopback_hub import TOKEN, LoopbackHub
from safetensors.torch import load, save
from transformers import pipeline

import audio_emotion
from audio_emotion.hub.publish import assemble
from audio_emotion.teachers.outputs import TeacherOutputs

PACKAGE_ROOT = Path(audio_emotion.__file__).parents[1]
METRICS = Path(audio_emotion.__file__).parent / "evaluation" / "metric_modules"

pytestmark = pytest.mark.slow  # every claim needs a fresh process, and that a fresh torch


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def clip(tmp_path, speech) -> str:
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    return str(tmp_path / "clip.wav")


@pytest.fixture
def run_fresh(hub, tmp_path):
    """Run code or a command in a process that knows the Hub, with the package or without it."""

    def run(
        *arguments: str, package: bool = True, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = {**kept, **hub.environment(tmp_path / "home"), "OMP_NUM_THREADS": "1", **variables}
        if package:
            environment["PYTHONPATH"] = str(PACKAGE_ROOT)
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(done.stderr[-3000:])
        return done

    return run


@pytest.fixture
def publish(run_fresh):
    """`audio-emotion publish` in a fresh process."""

    def publish(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        return run_fresh("-m", "audio_emotion_cli", "publish", *arguments, check=check)

    return publish


PREDICT = """
import json, sys
if sys.argv[1] == "without":
    sys.modules["audio_emotion"] = None  # a package that may be installed beside this test
else:
    import audio_emotion
from transformers import AutoFeatureExtractor, AutoModel, pipeline

model, revision, clip, trust = sys.argv[2:6]
options = {"revision": revision, **({"trust_remote_code": True} if trust == "trust" else {})}
recognizer = pipeline("audio-emotion", model=model, device="cpu", **options)
AutoModel.from_pretrained(model, **options)
AutoFeatureExtractor.from_pretrained(model, **options)
print(json.dumps({"prediction": recognizer(clip), "from": type(recognizer.model).__module__.partition(".")[0]}))
"""


def changed(model):
    """The same model with other weights, as after more training."""
    with torch.no_grad():
        model.heads.dimensions.bias += 0.5
    return model


def test_a_published_student_loads_from_two_revisions(hub, publish, run_fresh, tiny_student, make_run, clip, tmp_path):
    old = pipeline("audio-emotion", model=str(make_run(tiny_student) / "checkpoints" / "last"), device="cpu")(clip)
    publish("run", "--repo", "somebody/mouse", "--tag", "v1")
    make_run(changed(tiny_student))
    commit = publish("run", "--repo", "somebody/mouse", "--tag", "v2").stdout.split()[-1]
    new = pipeline("audio-emotion", model=str(tmp_path / "run" / "checkpoints" / "last"), device="cpu")(clip)
    expected = {"v1": old, "v2": new, commit: new, "main": new}
    assert abs(old["dimensions"]["valence"] - new["dimensions"]["valence"]) > 0.01

    for package, trust in (("with", "no"), ("without", "trust")):
        for revision, prediction in expected.items():
            if package == "without" and revision in ("main", commit):
                continue  # another name of v2
            done = run_fresh(
                "-c", PREDICT, package, "somebody/mouse", revision, clip, trust, package=package == "with"
            )
            got = json.loads(done.stdout.splitlines()[-1])
            assert got["prediction"]["dimensions"] == pytest.approx(prediction["dimensions"], abs=1e-5), (
                package,
                revision,
            )
            assert got["from"] == ("audio_emotion" if package == "with" else "transformers_modules")

    # What was loaded once is there without a network; code is not run without consent.
    asked = len(hub.requests)
    done = run_fresh("-c", PREDICT, "with", "somebody/mouse", "v1", clip, "no", HF_HUB_OFFLINE="1")
    assert json.loads(done.stdout.splitlines()[-1])["prediction"]["dimensions"] == pytest.approx(
        old["dimensions"], abs=1e-5
    )
    assert len(hub.requests) == asked
    refused = run_fresh("-c", PREDICT, "without", "somebody/mouse", "v1", clip, "no", package=False, check=False)
    assert refused.returncode != 0
    assert "trust_remote_code" in refused.stderr


def test_a_second_publication_updates_and_leaves_nothing_behind(hub, publish, tiny_student, make_run):
    run = make_run(tiny_student)
    publish("run", "--repo", "somebody/mouse")
    (run / "pictures" / "confusion_matrix.png").rename(run / "pictures" / "scatter.png")
    publish("run", "--repo", "somebody/mouse", "--branch", "next", "--which", "best")
    repository = hub.repositories["models", "somebody/mouse"]
    first, second = (repository.commits[repository.branches[name]] for name in ("main", "next"))
    sent = [request for request in hub.requests if request.startswith("PUT")]

    assert set(first) - set(second) == {"plots/confusion_matrix.png"}
    assert set(second) - set(first) == {"plots/scatter.png"}
    assert len(sent) == 2  # weights and one picture: what the Hub has already is not sent again


def test_an_interrupted_upload_continues(hub, publish, tiny_student, make_run, monkeypatch):
    make_run(tiny_student)
    commit = hub.server.RequestHandlerClass._commit
    monkeypatch.setattr(hub.server.RequestHandlerClass, "_commit", lambda self, *_: self._error(400, "Broken"))
    broken = publish("run", "--repo", "somebody/mouse", check=False)
    stored = dict(hub.large)
    hub.requests.clear()
    monkeypatch.setattr(hub.server.RequestHandlerClass, "_commit", commit)

    publish("run", "--repo", "somebody/mouse")

    assert broken.returncode == 2
    assert len(stored) == 2
    assert [request for request in hub.requests if request.startswith("PUT")] == []
    repository = hub.repositories["models", "somebody/mouse"]
    assert "model.safetensors" in repository.commits[repository.branches["main"]]


def test_a_published_adapter_loads_its_encoder_from_the_hub(
    hub, publish, run_fresh, make_encoder, make_lora_run, clip, tmp_path
):
    encoder = make_encoder(tmp_path / "tiny-wav2vec2")
    files = {path.name: path.read_bytes() for path in encoder.iterdir()}
    pinned = hub.put("maker/tiny-wav2vec2", files)
    run = make_lora_run(encoder, source="maker/tiny-wav2vec2")
    expected = pipeline("audio-emotion", model=str(run / "checkpoints" / "last"), device="cpu")(clip)
    publish("run", "--repo", "somebody/elephant", "--adapter-only", "--tag", "v1")
    changed_since = {**files, "model.safetensors": (run / "checkpoints/last/model.safetensors").read_bytes()}
    assert hub.put("maker/tiny-wav2vec2", changed_since) != pinned

    for package, trust in (("with", "no"), ("without", "trust")):
        done = run_fresh("-c", PREDICT, package, "somebody/elephant", "v1", clip, trust, package=package == "with")
        got = json.loads(done.stdout.splitlines()[-1])
        assert got["prediction"]["dimensions"] == pytest.approx(expected["dimensions"], abs=1e-5)
        assert got["from"] == ("audio_emotion" if package == "with" else "transformers_modules")

    repository = hub.repositories["models", "somebody/elephant"]
    tree = repository.commits[repository.branches["main"]]
    assert "model.safetensors" not in tree
    assert json.loads(tree["config.json"])["streams"][0]["revision"] == pinned
    assert f"| tiny-wav2vec2 | maker/tiny-wav2vec2 | {pinned} |" in tree["README.md"].decode()


def test_private_means_private_and_tags_do_not_move(hub, publish, run_fresh, tiny_student, make_run, clip):
    make_run(tiny_student)
    publish("run", "--repo", "somebody/secret", "--private", "--tag", "v1")
    publish("run", "--repo", "somebody/open")
    before = dict(hub.repositories["models", "somebody/secret"].tags)

    moved = publish("run", "--repo", "somebody/secret", "--tag", "v1", check=False)
    bared = publish("run", "--repo", "somebody/open", "--private", check=False)
    stranger = run_fresh("-c", PREDICT, "with", "somebody/secret", "v1", clip, "no", check=False, HF_TOKEN="hf_other")
    owner = run_fresh("-c", PREDICT, "with", "somebody/secret", "v1", clip, "no", HF_TOKEN=TOKEN)
    nobody = run_fresh("-m", "audio_emotion_cli", "publish", "run", "--repo", "a/b", check=False, HF_TOKEN="hf_other")

    assert (moved.returncode, bared.returncode, nobody.returncode) == (2, 2, 2)
    assert "Tags do not move" in moved.stderr
    assert "to be private" in bared.stderr
    assert hub.repositories["models", "somebody/secret"].tags == before
    assert stranger.returncode != 0
    assert '"prediction"' in owner.stdout


def test_a_data_set_streams_and_a_metric_computes(hub, publish, run_fresh, tiny_teacher, make_run):
    run = make_run(tiny_teacher)
    outputs = TeacherOutputs(
        ["ravdess/a", "ravdess/b"],
        torch.zeros(2, 4),
        torch.full((2, 3), 0.25),
        torch.zeros(2, 5),
        torch.tensor([0, 1]),
        ["neutral", "happy", "sad", "angry"],
        [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}],
    )
    outputs.save(run / "teacher_outputs")
    publish("run", "--repo", "somebody/labels", "--type", "dataset", "--private")
    publish(str(METRICS / "ccc"), "--repo", "somebody/agreement", "--type", "space")
    tree = hub.repositories["datasets", "somebody/labels"]
    card = tree.commits[tree.branches["main"]]["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)  # the code that the card tells readers to run

    streamed = run_fresh("-c", code + 'print(row["id"], row["valence"], row["probabilities"]["sad"], len(list(rows)))')
    measured = run_fresh(
        "-c",
        'import evaluate\nmetric = evaluate.load("somebody/agreement")\n'
        "print(metric.compute(predictions=[1, 2, 3], references=[2, 3, 4]))",
    )

    assert streamed.stdout.split() == ["ravdess/a", "0.25", "0.25", "2"]
    assert "0.5714285714285715" in measured.stdout  # 2 * 2/3 / (2/3 + 2/3 + 1)


LOAD_ALL = """
import json, sys
if sys.argv[1] == "without":
    sys.modules["audio_emotion"] = None
else:
    import audio_emotion
from huggingface_hub import snapshot_download
from transformers import AutoModelForAudioClassification

trust = {"trust_remote_code": True} if sys.argv[1] == "without" else {}
status = {}
for model in sys.argv[2].split(","):
    try:
        AutoModelForAudioClassification.from_pretrained(model, **trust)
        status[model] = "loaded"
    except Exception as error:
        status[model] = f"{type(error).__name__}: {error}"
for folder in (None, "below/local"):
    try:
        snapshot_download("bad/climbing", local_dir=folder)
        status[f"snapshot {folder}"] = "loaded"
    except ValueError as error:
        status[f"snapshot {folder}"] = str(error)
print(json.dumps(status))
"""


@pytest.mark.parametrize("package", ["with", "without"])
def test_bad_checkpoints_are_refused_on_download(package, hub, run_fresh, tiny_student, make_run, tmp_path):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse")
    tree = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    weights = load(tree["model.safetensors"])
    without_weights = {name: content for name, content in tree.items() if name != "model.safetensors"}
    headless = save({name: each for name, each in weights.items() if not name.startswith("heads.")}, {"format": "pt"})
    pickled = io.BytesIO()
    torch.save(weights, pickled)
    config = json.loads(tree["config.json"])
    other_code = {name: re.sub(r"^\w+", "../evil", each) for name, each in config["auto_map"].items()}
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../../outside.safetensors")}
    bad = {
        "good": tree,
        "headless": {**tree, "model.safetensors": headless},
        "pickled": {**without_weights, "pytorch_model.bin": pickled.getvalue()},
        "disguised": {**tree, "model.safetensors": pickled.getvalue()},
        "unfit": {**tree, "config.json": json.dumps({**config, "hidden_size": 24}).encode()},
        "climbing": {**tree, "../../../climbed.txt": b"evil"},
        "climbing-code": {**tree, "config.json": json.dumps({**config, "auto_map": other_code}).encode()},
        "climbing-shard": {**without_weights, "model.safetensors.index.json": json.dumps(index).encode()},
    }
    for name, each in bad.items():
        hub.put(f"bad/{name}", each)

    models = ",".join(f"bad/{name}" for name in bad if name != "climbing")
    done = run_fresh("-c", LOAD_ALL, package, models, package=package == "with")

    status = json.loads(done.stdout.splitlines()[-1])
    assert status["bad/good"] == "loaded"
    assert "heads.dimensions.weight" in status["bad/headless"]
    assert "model.safetensors" in status["bad/pickled"]
    assert "safetensors in 'bad/disguised', got a broken file" in status["bad/disguised"]
    assert "student.trunk" in status["bad/unfit"]
    assert "'..'" in status["bad/climbing-shard"]
    if package == "without":
        assert status["bad/climbing-code"] != "loaded"  # with the package, code from the Hub is not even looked at
    assert "'..'" in status["snapshot None"]
    assert "'..'" in status["snapshot below/local"]
    assert list(tmp_path.rglob("*climbed*")) == []


def test_every_example_of_the_publishing_page_runs(
    hub, run_fresh, tiny_student, tiny_teacher, make_run, make_encoder, make_lora_run, clip, tmp_path
):
    page = (PACKAGE_ROOT.parent / "docs" / "publishing.md").read_text()
    (tmp_path / "runs").mkdir()
    for name, model in (("student", tiny_student), ("teacher", tiny_teacher)):
        make_run(model, f"runs/{name}")
    make_lora_run(make_encoder(tmp_path / "encoders" / "wavlm-base-plus"), "runs/tuned_teacher")
    zeros = TeacherOutputs(
        ["ravdess/a"],
        torch.zeros(1, 4),
        torch.zeros(1, 3),
        torch.zeros(1, 5),
        torch.zeros(1, dtype=torch.long),
        ["neutral", "happy", "sad", "angry"],
        [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}],
    )
    zeros.save(tmp_path / "runs" / "teacher" / "teacher_outputs")
    talk = tmp_path / "runs" / "talk_labels" / "dataset"
    talk.mkdir(parents=True)
    (talk / "README.md").write_text('load_dataset("runs/talk_labels/dataset")\n\nComputed by `audio-emotion` 0.1.0.\n')
    (tmp_path / "modeling").symlink_to(PACKAGE_ROOT)

    printed = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            printed += run_fresh("-c", block).stdout.splitlines()[-1:]
        elif block.startswith("audio-emotion"):
            for line in block.splitlines():
                run_fresh("-m", "audio_emotion_cli", *shlex.split(line)[1:])

    assert printed[0].startswith("{'activation': ")
    assert printed[1] == "ravdess/a"
    assert printed[2] == "{'ccc': 0.5714285714285715}"
    assert printed[3].startswith("{'activation': ")
    repository = hub.repositories["models", "somebody/student"]
    assert (repository.private, set(repository.tags), set(repository.branches)) == (True, {"v1"}, {"main", "reviewed"})
    repository = hub.repositories["datasets", "somebody/talk"]
    assert b'load_dataset("somebody/talk")' in repository.commits[repository.branches["main"]]["README.md"]
