"""The pipeline's output: its format, its numbers, its parts, and the validation of parameters."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import audio_emotion
from audio_emotion import AudioEmotionPipeline, EmotionFeatureExtractor, StudentEmotionForAudioClassification
from audio_emotion.pipeline_segments import window_bounds


def pipe_of(model) -> AudioEmotionPipeline:
    return AudioEmotionPipeline(
        model=model, feature_extractor=EmotionFeatureExtractor(), task="audio-emotion", device="cpu"
    )


def clip_of(waveform: np.ndarray, rate: int = 16000) -> dict:
    return {"array": waveform, "sampling_rate": rate}


def numbers_of(output) -> list[float]:
    """Every number of a nested output, in order; fails on anything that plain JSON does not have."""
    if isinstance(output, dict):
        return [number for item in output.values() for number in numbers_of(item)]
    if isinstance(output, list):
        return [number for item in output for number in numbers_of(item)]
    assert type(output) in (float, str), f"expected plain Python, got {type(output)}"
    return [output] if isinstance(output, float) else []


@pytest.fixture
def clips(speech) -> list[dict]:
    return [clip_of(speech), clip_of(speech[:17321]), clip_of(0.5 * speech[3000:31000]), clip_of(speech[:5000])]


def test_the_output_is_that_of_the_model(tiny_model, speech):
    output = pipe_of(tiny_model)(clip_of(speech))

    with torch.no_grad():
        expected = tiny_model(torch.from_numpy(speech)[None])
    assert list(output) == ["dimensions", "scale", "emotions", "duration", "flags"]
    assert list(output["dimensions"]) == ["activation", "valence", "dominance"]
    np.testing.assert_allclose(list(output["dimensions"].values()), expected.dimensions[0], atol=1e-6)
    scores = {each["label"]: each["score"] for each in output["emotions"]}
    np.testing.assert_allclose(
        [scores[name] for name in tiny_model.config.emotions], expected.logits[0].softmax(-1), atol=1e-6
    )
    assert sorted(scores.values(), reverse=True) == list(scores.values())
    assert (output["scale"], output["duration"], output["flags"]) == ([0.0, 1.0], 2.0, [])
    assert json.loads(json.dumps(output)) == output


def test_batching_does_not_change_the_outputs(tiny_model, clips):
    pipe = pipe_of(tiny_model)
    options = {"return_embedding": True, "return_frames": True, "window": 0.5, "hop": 0.3}

    alone = [pipe(clip, **options) for clip in clips]

    for batched in (
        pipe(clips, batch_size=3, **options),
        pipe(clips, **options),
        pipe(clips[::-1], batch_size=4, **options)[::-1],
    ):
        for one, other in zip(alone, batched, strict=True):
            assert [list(each) for each in (one, one["windows"][0])] == [
                list(each) for each in (other, other["windows"][0])
            ]
            np.testing.assert_allclose(numbers_of(other), numbers_of(one), atol=1e-4)


def test_scale_and_top_k_change_the_format_only(tiny_student, speech):
    plain = pipe_of(tiny_student)(clip_of(speech), return_uncertainty=True)
    scaled = pipe_of(tiny_student)(clip_of(speech), scale=(1, 7), top_k=2, return_uncertainty=True)

    assert scaled["scale"] == [1.0, 7.0]
    assert scaled["emotions"] == plain["emotions"][:2]
    for name, value in plain["dimensions"].items():
        assert scaled["dimensions"][name] == pytest.approx(1 + 6 * value, abs=1e-5)
        assert scaled["uncertainty"][name] == pytest.approx(6 * plain["uncertainty"][name], abs=1e-5)


def test_uncertainty_is_the_standard_deviation(tiny_student, speech):
    output = pipe_of(tiny_student)(clip_of(speech), return_uncertainty=True)

    with torch.no_grad():
        variance = tiny_student(torch.from_numpy(speech)[None]).log_variance[0].exp()
    np.testing.assert_allclose(list(output["uncertainty"].values()), variance.sqrt(), rtol=1e-5)


def test_a_frame_has_the_prediction_of_the_clip_cut_at_its_end(tiny_student, speech):
    pipe = pipe_of(tiny_student)

    frames = pipe(clip_of(speech), return_frames=True)["frames"]

    assert [frame["start"] for frame in frames] == [0.0, *[frame["end"] for frame in frames[:-1]]]
    for number in (10, 30, len(frames) - 1):
        cut = pipe(clip_of(speech[: round(16000 * frames[number]["end"])]))
        np.testing.assert_allclose(numbers_of(frames[number]["dimensions"]), numbers_of(cut["dimensions"]), atol=1e-4)
        assert [each["label"] for each in frames[number]["emotions"]] == [each["label"] for each in cut["emotions"]]


def test_a_window_has_the_prediction_of_that_part_alone(tiny_model, speech):
    pipe = pipe_of(tiny_model)

    windows = pipe(clip_of(speech), window=0.75)["windows"]

    assert [(each["start"], each["end"]) for each in windows] == [(0.0, 0.75), (0.75, 1.5), (1.5, 2.0)]
    for window in windows:
        part = pipe(clip_of(speech[round(16000 * window["start"]) : round(16000 * window["end"])]))
        np.testing.assert_allclose(numbers_of(window["dimensions"]), numbers_of(part["dimensions"]), atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "window", "hop", "expected"),
    [
        (100, 1.0, None, [(0, 100)]),
        (250, 1.0, None, [(0, 100), (100, 200), (200, 250)]),
        (210, 1.0, None, [(0, 100), (100, 200)]),  # a tenth of a second is too short for a window
        (250, 1.0, 0.5, [(0, 100), (50, 150), (100, 200), (150, 250)]),
        (60, 1.0, 0.1, [(0, 60)]),
        (300, 0.5, 2.0, [(0, 50), (200, 250)]),
    ],
)
def test_window_bounds_cover_the_clip(samples, window, hop, expected):
    assert window_bounds(samples, window, hop, rate=100) == expected


def test_iterators_and_datasets_give_iterators(tiny_student, clips):
    pipe = pipe_of(tiny_student)
    durations = [output["duration"] for output in pipe(clips)]
    rows = [{"audio": clip} for clip in clips]

    for stream in ((clip for clip in clips), iter(clips), KeyDataset(rows, "audio")):
        outputs = pipe(stream, batch_size=2)
        assert not isinstance(outputs, list)
        assert [output["duration"] for output in outputs] == durations
    assert pipe([]) == []


def test_paths_in_any_form_and_arrays_with_their_rate_are_clips(tiny_student, speech, tmp_path):
    pcm = (speech * 32767).astype(np.int16)
    soundfile.write(tmp_path / "clip.wav", pcm, 16000)
    path = str(tmp_path / "clip.wav")
    pipe = pipe_of(tiny_student)
    expected = pipe(path)

    class PathLike:
        def __fspath__(self):
            return path

    (entry,) = os.scandir(tmp_path)
    # (rate, array) is a recording in Gradio, (array, rate) in soundfile.
    for clip in (
        PathLike(),
        entry,
        Path(path),
        np.array(path),
        (16000, pcm),
        (pcm, 16000),
        (16000, torch.tensor(pcm)),
    ):
        assert pipe(clip) == expected
        assert pipe([clip] * 2) == [expected] * 2
    for several in (np.array([path] * 2), np.array([Path(path)] * 2), (path, path)):
        assert pipe(several) == [expected] * 2
    stereo = pipe((16000, np.stack([pcm, pcm], axis=1)))  # Gradio puts the channels last
    assert stereo["dimensions"] == pytest.approx(expected["dimensions"], abs=1e-5)
    assert pipe([PathLike(), tmp_path / "no.wav"], on_error="skip")[1]["input"] == str(tmp_path / "no.wav")


def test_what_is_no_clip_is_refused_with_what_to_pass_instead(tiny_student, speech):
    pipe = pipe_of(tiny_student)

    with pytest.raises(ValueError, match=r"got a DataLoader, which yields batches. Pass its data set, .*`batch_size`"):
        pipe(DataLoader(["a.wav", "b.wav"]))
    with pytest.raises(ValueError, match=r"bare array of shape \(32000,\): expected its sampling rate beside it"):
        pipe(speech)
    with pytest.raises(ValueError, match=r"array of paths.*one axis, got shape \(1, 2\)"):
        pipe(np.array([["a.wav", "b.wav"]]))
    for nothing in (None, {"a.wav"}, range(3)):
        with pytest.raises(ValueError, match=r"object: expected audio, got something else. Pass a path"):
            pipe(nothing)


def test_invalid_clips_are_skipped_only_on_request(tiny_student, clips):
    pipe = pipe_of(tiny_student)
    mixed = [clips[0], "missing.wav", clips[1], b""]

    with pytest.raises(ValueError, match=r"missing\.wav"):
        pipe(mixed)
    for batch_size in (1, 2):
        good, missing, other, empty = pipe(mixed, on_error="skip", batch_size=batch_size)
        assert good["duration"] == 2.0
        assert other["emotions"]
        assert missing["input"] == "missing.wav"
        assert "No such file" in missing["error"]
        assert empty == {"error": empty["error"], "input": "audio of 0 bytes"}


def test_a_skipped_clip_keeps_its_name(tiny_student):
    named = [Path("take: one.wav"), "take: one.wav", {"path": "take: one.wav"}, {"bytes": b"x", "path": "take: one"}]

    skipped = pipe_of(tiny_student)(named, on_error="skip")

    assert [each["input"] for each in skipped] == ["take: one.wav"] * 3 + ["take: one"]


def test_a_window_has_the_flags_of_that_part_alone(tiny_student, speech):
    pipe = pipe_of(tiny_student)
    waveform = np.concatenate([np.zeros(16000), 4 * speech[:16000], speech[:8000]]).astype(np.float32)

    for batch_size in (1, 2):
        for output in pipe([clip_of(waveform)] * 2, window=1.0, batch_size=batch_size):
            windows = [(each["start"], each["end"], each["flags"]) for each in output["windows"]]
            assert windows == [
                (start, end, pipe(clip_of(waveform[round(16000 * start) : round(16000 * end)]))["flags"])
                for start, end in ((0.0, 1.0), (1.0, 2.0), (2.0, 2.5))
            ]
            assert [flags for *_, flags in windows] == [["silence"], ["out_of_range"], ["short"]]


def test_no_window_ends_after_its_clip(tiny_student, speech):
    for length in range(30001, 30012):
        output = pipe_of(tiny_student)(clip_of(speech[:length], rate=11025), window=1.0)
        assert output["windows"][-1]["end"] <= output["duration"]
        assert output["windows"][-1]["end"] == pytest.approx(output["duration"], abs=1e-4)


def test_parameters_may_be_numpy_numbers(tiny_student, speech):
    pipe = pipe_of(tiny_student)
    expected = pipe(clip_of(speech), top_k=2, window=1.0, hop=0.5, scale=(1, 7))

    for window, scale in ((np.float32(1.0), np.array([1, 7])), (np.int32(1), (np.int8(1), np.float64(7)))):
        parameters = {"top_k": np.int64(2), "window": window, "hop": np.float16(0.5), "scale": scale}
        assert pipe([clip_of(speech)], batch_size=np.int64(1), **parameters) == [expected]


def test_flags_are_in_the_output(tiny_student):
    assert pipe_of(tiny_student)(clip_of(np.zeros(8000)))["flags"] == ["silence", "short"]


@pytest.mark.parametrize(("field", "absent"), [("emotions", "emotions"), ("dimensions", "dimensions")])
def test_the_output_of_a_missing_head_is_left_out(tiny_student_config, speech, field, absent):
    fields = tiny_student_config.to_dict() | {field: [], "id2label": None, "label2id": None, "predict_variance": False}
    fields["dimension_weights"] = None
    model = StudentEmotionForAudioClassification(type(tiny_student_config)(**fields))

    output = pipe_of(model)(clip_of(speech), return_frames=True, window=1.0)

    for part in (output, output["frames"][0], output["windows"][0]):
        assert absent not in part
        assert {"emotions", "dimensions"} & set(part)
    assert ("scale" in output) == (absent != "dimensions")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"top_n": 3}, TypeError, "top_n.*top_k"),
        ({"top_k": 0}, ValueError, "at least 1"),
        ({"scale": (7, 1)}, ValueError, "lower one first"),
        ({"window": 0.1}, ValueError, r"at least 0\.25 seconds"),
        ({"hop": 1.0}, ValueError, "needs `window`"),
        ({"window": 1.0, "hop": 1e-6}, ValueError, r"at least 0\.01 seconds"),
        ({"window": float("inf")}, ValueError, r"at least 0\.25 seconds"),
        ({"scale": (0, float("inf"))}, ValueError, "two numbers"),
        ({"scale": 7}, ValueError, "two numbers"),
        ({"top_k": "all"}, ValueError, "whole number of emotions"),
        ({"batch_size": 0}, ValueError, "whole number of clips"),
        ({"batch_size": np.bool_(True)}, ValueError, "whole number of clips"),
        ({"top_k": np.float32(2)}, ValueError, "whole number of emotions"),
        ({"window": np.bool_(True)}, ValueError, r"at least 0\.25 seconds"),
        ({"scale": np.array(7)}, ValueError, "two numbers"),
        ({"scale": np.array([[1, 7]])}, ValueError, "two numbers"),
        ({"scale": np.array([np.nan, 7])}, ValueError, "two numbers"),
        ({"on_error": "ignore"}, ValueError, "raise.*skip"),
        ({"return_uncertainty": True}, ValueError, "predict_variance"),
    ],
)
def test_an_invalid_parameter_is_refused(tiny_teacher, speech, parameters, error, message):
    with pytest.raises(error, match=message):
        pipe_of(tiny_teacher)(clip_of(speech), **parameters)


def test_a_feature_extractor_of_another_rate_and_another_type_of_model_are_refused(tiny_student):
    with pytest.raises(ValueError, match=r"16000 Hz.*8000 Hz"):
        AudioEmotionPipeline(model=tiny_student, feature_extractor=EmotionFeatureExtractor(sampling_rate=8000))
    other = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    with pytest.raises(ValueError, match="'wav2vec2', which has no heads for emotion"):
        AudioEmotionPipeline(model=other, feature_extractor=EmotionFeatureExtractor())


def test_a_model_without_heads_is_refused(tiny_model):
    with pytest.raises(ValueError, match=r"Model, which only embeds. Load it with AutoModelForAudioClassification"):
        pipe_of(tiny_model.base_model)


def test_a_tuple_of_clips_is_a_list(tiny_student, clips):
    pipe = pipe_of(tiny_student)

    assert pipe(tuple(clips[:2])) == pipe(clips[:2])
    assert pipe(()) == []


def test_a_model_in_half_precision_gives_floats(tiny_model, speech):
    exact = pipe_of(tiny_model)(clip_of(speech))
    rough = pipe_of(tiny_model.to(torch.bfloat16))(clip_of(speech), return_embedding=True)

    difference = np.subtract(numbers_of(rough["dimensions"]), numbers_of(exact["dimensions"]))
    assert np.abs(difference).max() < 0.02
    assert all(type(number) is float for number in rough["embedding"])


def test_a_model_in_training_mode_predicts_without_dropout(tiny_student, speech):
    expected = pipe_of(tiny_student)(clip_of(speech))

    assert pipe_of(tiny_student.train())(clip_of(speech)) == expected


def test_ten_minutes_of_audio_are_accepted(tiny_student, speech):
    output = pipe_of(tiny_student)(clip_of(np.tile(speech, 300)), window=30.0)

    assert output["duration"] == 600.0
    assert len(output["windows"]) == 20


def test_without_a_model_the_task_uses_the_default_model(caplog):
    audio_emotion._log_license_of_default_model.cache_clear()
    if not (audio_emotion._DEFAULT_MODEL / "config.json").exists():
        with pytest.raises(ValueError, match="Pass `model`"):
            pipeline("audio-emotion")
        return

    with caplog.at_level("WARNING", logger="audio_emotion"):
        pipes = [pipeline("audio-emotion", device="cpu") for _ in range(2)]

    lines = [record.getMessage() for record in caplog.records if record.name == "audio_emotion"]
    assert len(lines) == 1
    assert pipes[0].model.config.license in lines[0]
