"""The code that a published checkpoint carries is complete: it loads where the package is absent."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForAudioClassification, pipeline
from transformers.dynamic_module_utils import get_relative_import_files

import audio_emotion
from audio_emotion.feature_extraction_emotion import EmotionFeatureExtractor
from audio_emotion.hub.checkpoint import write_checkpoint

PACKAGE = Path(audio_emotion.__file__).parent
NOT_CARRIED = {"__init__.py", "diarization.py", "runtime.py", "long_audio.py"}
SHARED = {
    "audio_containers.py",
    "audio_decoding.py",
    "audio_flags.py",
    "audio_frames.py",
    "audio_io.py",
    "audio_resampling.py",
    "audio_sources.py",
    "checkpoint_loading.py",
    "configuration_emotion.py",
    "feature_extraction_emotion.py",
    "layers.py",
    "speaker_adaptation.py",
    "trunk_layers.py",
    "live_emotion.py",
    "log_mel.py",
    "losses.py",
    "pipeline_audio_emotion.py",
    "pipeline_inputs.py",
    "pipeline_outputs.py",
    "pipeline_parameters.py",
    "pipeline_segments.py",
    "pretrained_emotion.py",
}
OF_MODEL_TYPE = {
    "student-emotion": {"modeling_student_emotion.py", "streaming_emotion.py"},
    "fused-emotion": {"encoders.py", "layer_fusion.py", "modeling_fused_emotion.py", "whisper_states.py"},
}
MOST_FILES = {"student-emotion": 24, "fused-emotion": 26}

# Run where `import audio_emotion` fails: loads each folder in every way and prints the outputs.
WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["audio_emotion"] = None
import numpy, torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline

outputs = {}
for folder in sys.argv[2:]:
    trust = {"trust_remote_code": True}
    AutoConfig.from_pretrained(folder, **trust)
    samples = json.load(open(sys.argv[1]))
    clip = AutoFeatureExtractor.from_pretrained(folder, **trust)(samples, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        base = AutoModel.from_pretrained(folder, **trust)(**clip)
        full = AutoModelForAudioClassification.from_pretrained(folder, **trust)(**clip)
    clip = {"array": samples, "sampling_rate": 16000}
    predict = pipeline("audio-emotion", model=folder, device="cpu", **trust)
    classify = pipeline("audio-classification", model=folder, device="cpu", **trust)
    predict.save_pretrained(f"{folder}_saved")
    saved = pipeline("audio-emotion", model=f"{folder}_saved", device="cpu", **trust)
    outputs[folder] = {
        "base": base.embedding[0].tolist(),
        "dimensions": full.dimensions[0].tolist(),
        "pipeline": predict(clip, return_embedding=True, window=0.5),
        "classification": classify({"array": numpy.array(samples, numpy.float32), "sampling_rate": 16000}),
        "saved": saved(clip, return_embedding=True, window=0.5),
        "module": type(predict).__module__.split(".")[0],
    }
print(json.dumps(outputs))
"""


def code_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.py")}


def randomized(model):
    """LoRA starts at zero, where merging would prove nothing."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_a_checkpoint_carries_exactly_the_code_of_its_model(tiny_model, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")

    carried = code_in(folder)

    assert carried == SHARED | OF_MODEL_TYPE[tiny_model.config.model_type]
    assert len(carried) <= MOST_FILES[tiny_model.config.model_type]
    roots = [sys.modules[cls.__module__].__file__ for cls in (type(tiny_model), type(tiny_model.config))]
    roots += [PACKAGE / "pipeline_audio_emotion.py", PACKAGE / "feature_extraction_emotion.py"]
    closure = {Path(name).name for root in roots for name in [root, *get_relative_import_files(root)]}
    assert carried == closure
    for name in carried:
        assert (folder / name).read_bytes() == (PACKAGE / name).read_bytes()


def test_every_file_beside_the_models_is_carried_by_one_of_them():
    files = {path.name for path in PACKAGE.glob("*.py")} - NOT_CARRIED

    assert files == SHARED.union(*OF_MODEL_TYPE.values())


def test_the_configuration_names_the_carried_classes_and_no_local_path(tiny_model, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")
    text = (folder / "config.json").read_text()
    written = json.loads(text)
    front_end = json.loads((folder / "preprocessor_config.json").read_text())

    configuration, base, full = type(tiny_model.config), type(tiny_model.base_model), type(tiny_model)
    assert written["auto_map"] == {
        "AutoConfig": f"{configuration.__module__.split('.')[-1]}.{configuration.__name__}",
        "AutoModel": f"{base.__module__.split('.')[-1]}.{base.__name__}",
        "AutoModelForAudioClassification": f"{full.__module__.split('.')[-1]}.{full.__name__}",
    }
    assert front_end["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_emotion.EmotionFeatureExtractor"}
    assert written["custom_pipelines"] == {
        "audio-emotion": {
            "impl": "pipeline_audio_emotion.AudioEmotionPipeline",
            "pt": ["AutoModelForAudioClassification"],
            "type": "audio",
        }
    }
    assert str(tmp_path) not in text
    assert str(PACKAGE) not in text
    others = {path.name for path in folder.iterdir()} - code_in(folder)
    assert others == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_a_local_path_in_the_configuration_is_refused(tiny_student, tmp_path):
    tiny_student.config.training_data = [{"corpus": str(tmp_path), "speakers": ["01"]}]

    with pytest.raises(ValueError, match=r"training_data\[0\]\.corpus"):
        write_checkpoint(tiny_student, tmp_path / "checkpoint")


def test_a_model_without_heads_is_refused(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="with its heads"):
        write_checkpoint(tiny_model.base_model, tmp_path / "checkpoint")


def test_writing_a_checkpoint_leaves_the_model_in_training_mode(tiny_student, tmp_path):
    tiny_student.train()

    write_checkpoint(tiny_student, tmp_path / "checkpoint")

    assert tiny_student.training
    assert tiny_student.student.trunk.training


@pytest.mark.parametrize("method", ["get_peft_model", "add_adapter"])
def test_adapters_are_merged_into_the_checkpoint(tiny_teacher, speech, method, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(
        r=2, target_modules=r".*feed_forward\.(intermediate|output)_dense", modules_to_save=["emotions"]
    )
    plain = copy.deepcopy(tiny_teacher)
    if method == "get_peft_model":
        tuned = peft.get_peft_model(tiny_teacher, lora)
    else:
        tiny_teacher.add_adapter(lora)
        tuned = tiny_teacher
    clip = EmotionFeatureExtractor()(speech, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = randomized(tuned)(**clip)

        folder = write_checkpoint(tuned, tmp_path / "checkpoint")

        merged = AutoModelForAudioClassification.from_pretrained(folder)
        assert set(merged.state_dict()) == set(plain.state_dict())
        torch.testing.assert_close(merged(**clip).dimensions, expected.dimensions, rtol=0, atol=1e-5)
        torch.testing.assert_close(merged(**clip).logits, expected.logits, rtol=0, atol=1e-5)
        assert (merged(**clip).dimensions - plain(**clip).dimensions).abs().max() > 1e-4
        assert torch.equal(tuned(**clip).dimensions, expected.dimensions)  # the given model is unchanged


def test_checkpoints_load_and_predict_where_the_package_is_absent(tiny_student, tiny_teacher, speech, tmp_path):
    student = write_checkpoint(tiny_student, tmp_path / "student")
    teacher = write_checkpoint(tiny_teacher, tmp_path / "teacher")
    again = tmp_path / "again"  # loaded and saved again, as after fine-tuning
    AutoModelForAudioClassification.from_pretrained(student).save_pretrained(again)
    EmotionFeatureExtractor.from_pretrained(student).save_pretrained(again)
    assert code_in(again) == code_in(student)
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps(speech.tolist()))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, samples, student, teacher, again],
        env=environment | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    outputs = json.loads(finished.stdout)
    clip = {"array": speech, "sampling_rate": 16000}
    for folder, model in ((student, tiny_student), (teacher, tiny_teacher), (again, tiny_student)):
        elsewhere = outputs[str(folder)]
        here = pipeline("audio-emotion", model=str(folder), device="cpu")(clip, return_embedding=True, window=0.5)
        with torch.no_grad():
            output = model(torch.from_numpy(speech)[None])
        assert elsewhere["module"] == "transformers_modules"
        assert elsewhere["pipeline"] == here
        assert elsewhere["saved"] == here
        assert code_in(folder.with_name(f"{folder.name}_saved")) == code_in(folder)
        assert elsewhere["dimensions"] == output.dimensions[0].tolist()
        assert elsewhere["base"] == output.embedding[0].tolist()
        assert [each["label"] for each in elsewhere["classification"]] == [each["label"] for each in here["emotions"]]
