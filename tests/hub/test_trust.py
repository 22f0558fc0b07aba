"""Hostile folders: nothing of them is run, nothing outside of them is opened, and no network is used unrequested."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification

import audio_emotion
from audio_emotion.evaluation.label_matching import MatchedClassifier
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.teachers.outputs import Clip
from audio_emotion.teachers.speech import SpeechTeacher
from audio_emotion_cli import EXIT_USAGE, main

DIMENSIONS, EMOTIONS = ["activation", "valence", "dominance"], ["happy", "sad"]


@pytest.fixture
def checkpoint(tiny_student, tmp_path) -> Path:
    return write_checkpoint(tiny_student, tmp_path / "checkpoint")


def write_hostile_code(folder: Path, proof: Path) -> None:
    """A model type that nobody knows, with code that would leave a proof that it ran."""
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(proof)!r}, 'w')\nclass Config: pass\n")
    code = dict.fromkeys(("AutoConfig", "AutoModelForAudioClassification"), "evil.Config")
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}))


def split_off(folder: Path, shard: str) -> None:
    """Replace the weights of a checkpoint by an index that names `shard`, relative to the folder."""
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / shard)


def test_code_of_a_folder_is_neither_run_nor_offered_to_run(tmp_path, monkeypatch, capsys):
    folder, proof = tmp_path / "folder", tmp_path / "proof"
    write_hostile_code(folder, proof)
    questions = []
    monkeypatch.setattr(builtins, "input", lambda text="": (questions.append(text), "y")[1])

    codes = [main(["info", str(folder)]), main(["predict", str(folder), "--model", str(folder)])]
    message = capsys.readouterr().err
    with pytest.raises(ValueError, match="trust_remote_code"):
        MatchedClassifier(str(folder), EMOTIONS, DIMENSIONS)
    with pytest.raises(ValueError, match="trust_remote_code"):
        SpeechTeacher("speech", str(folder))

    assert questions == []
    assert not proof.exists()
    assert codes[0] == EXIT_USAGE
    assert "never runs" in message


def test_shards_outside_of_the_folder_are_not_opened(checkpoint, make_external_model, tmp_path, capsys):
    split_off(checkpoint, "../stolen.safetensors")
    external = Path(make_external_model(tmp_path / "external", EMOTIONS))
    split_off(external, "../other.safetensors")

    assert main(["info", str(checkpoint)]) == EXIT_USAGE
    assert "'../stolen.safetensors'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        MatchedClassifier(str(external), EMOTIONS, DIMENSIONS)


def test_an_adapter_alone_does_not_fetch_its_base_unless_requested(checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/base", "peft_type": "LORA"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    looked_up = []

    def refuse(*arguments, **_) -> None:
        looked_up.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert main(["info", str(folder)]) == EXIT_USAGE
    assert "hf download somebody/base" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"somebody/base.*local_files_only=False"):
        audio_emotion.StudentEmotionForAudioClassification.from_pretrained(folder)
    assert looked_up == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_complete(value, checkpoint, capsys):
    weights = load_file(checkpoint / "model.safetensors")
    weights["heads.dimensions.bias"][1] = value
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})

    assert main(["info", str(checkpoint)]) == EXIT_USAGE
    assert re.search(r"NaN or infinite.*heads\.dimensions\.bias", capsys.readouterr().err)
    with pytest.raises(ValueError, match=r"heads\.dimensions\.bias"):
        AutoModelForAudioClassification.from_pretrained(checkpoint)


def test_a_teacher_without_dimensions_and_a_public_one_predict(
    tiny_student_config, make_external_model, tmp_path, speech
):
    tiny_student_config.dimensions, tiny_student_config.dimension_weights = [], []
    tiny_student_config.predict_variance = False
    student = audio_emotion.StudentEmotionForAudioClassification(tiny_student_config)
    folder = write_checkpoint(student, tmp_path / "no_dimensions")

    for source in (str(folder), make_external_model(tmp_path / "external", EMOTIONS)):
        prediction = SpeechTeacher("speech", source).predict(Clip("a", speech))
        assert prediction.dimensions is None
        assert prediction.logits.ndim == 1


STRACED = """
import sys
import audio_emotion
from transformers import pipeline
from audio_emotion_cli import main
for folder in sys.argv[2:]:
    assert main(["info", folder]) == 2, folder
assert pipeline("audio-emotion")(sys.argv[1])["emotions"]
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_import_inference_and_info_of_hostile_folders_open_no_socket_and_no_other_file(checkpoint, tmp_path, speech):
    clip, secret, proof = tmp_path / "clip.wav", tmp_path / "secret.safetensors", tmp_path / "proof"
    soundfile.write(clip, speech, 16000)
    shutil.copytree(checkpoint, tmp_path / "index")
    split_off(tmp_path / "index", "../secret.safetensors")
    (tmp_path / "adapter").mkdir()
    adapter = {"base_model_name_or_path": "somebody/base", "peft_type": "LORA"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    write_hostile_code(tmp_path / "code", proof)
    folders = [tmp_path / name for name in ("code", "index", "adapter")]
    log = tmp_path / "strace.log"
    begin = ["strace", "-f", "-qq", "-e", "trace=network,open,openat", "-e", "signal=none", "-o", str(log)]
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment |= {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["USER"] = "somebody"  # which the C library would otherwise look up
    environment["PYTHONPATH"] = str(Path(audio_emotion.__file__).parents[1])

    if subprocess.run([*begin, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system does not allow strace")
    command = [*begin, sys.executable, "-c", STRACED, str(clip), *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert done.returncode == 0, done.stderr
    calls = log.read_text(errors="replace").splitlines()
    assert [line for line in calls if re.search(r"\bsocket\(|AF_INET|connect\(|bind\(", line)] == []
    opened = [re.search(r'open(?:at)?\(.*?"(.*?)"', line) for line in calls if " = -1 " not in line]
    here = {Path(os.path.normpath(each[1])) for each in opened if each and each[1].startswith(str(tmp_path))}
    named = (clip, *folders, tmp_path / "home")
    assert clip in here
    assert [path for path in here if not any(map(path.is_relative_to, named))] == []
    assert secret.exists()
    assert not proof.exists()
