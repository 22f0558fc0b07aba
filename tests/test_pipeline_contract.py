"""The pipeline's guarantees: batching, order, streaming and splitting do not change the outputs."""

from __future__ import annotations

import io
import itertools
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from audio_emotion import AudioEmotionPipeline, EmotionFeatureExtractor, audio_resampling
from audio_emotion.diarization import read_rttm
from audio_emotion.hub.checkpoint import write_checkpoint

ROOT = Path(__file__).parents[1]
BFLOAT16 = 0.03  # how far a dimension in 0..1 or a probability may differ from float32


def pipe_of(model) -> AudioEmotionPipeline:
    return AudioEmotionPipeline(
        model=model, feature_extractor=EmotionFeatureExtractor(), task="audio-emotion", device="cpu"
    )


def clip_of(waveform: np.ndarray, rate: int = 16000) -> dict:
    return {"array": waveform, "sampling_rate": rate}


def numbers_of(predictions: list[dict]) -> np.ndarray:
    """Dimensions and probabilities in the order of their labels, `(N, 3 + C)`."""
    return np.array(
        [
            [*each["dimensions"].values(), *(e["score"] for e in sorted(each["emotions"], key=lambda e: e["label"]))]
            for each in predictions
        ]
    )


def clips_between(speech: np.ndarray, shortest: float, longest: float, count: int) -> list[dict]:
    """Clips of different lengths, levels and beginnings, the lengths evenly spaced in their logarithm."""
    random = np.random.default_rng(0)
    endless = np.tile(speech, int(longest) // 2 + 2)
    clips = []
    for seconds in np.geomspace(shortest, longest, count):
        first = random.integers(len(speech))
        clips.append(clip_of(random.uniform(0.2, 1.0) * endless[first : first + round(seconds * 16000)]))
    random.shuffle(clips)
    return clips


def check_batches(model, clips: list[dict]) -> None:
    pipe = pipe_of(model)
    alone = numbers_of([pipe(clip) for clip in clips])
    assert alone.std(axis=0).min() > 0  # the clips do differ
    orders = [list(range(len(clips)))[::-1], list(np.random.default_rng(1).permutation(len(clips)))]
    for batch_size, order in itertools.product((1, 2, 16), orders):
        outputs = numbers_of(pipe([clips[index] for index in order], batch_size=batch_size))
        np.testing.assert_allclose(outputs, alone[order], rtol=0, atol=1e-4)


def test_batch_size_and_order_do_not_change_the_outputs(tiny_model, speech):
    check_batches(tiny_model, clips_between(speech, 0.3, 3.0, 24))


@pytest.mark.slow
def test_batch_size_and_order_do_not_change_the_outputs_for_a_hundred_clips_up_to_half_a_minute(tiny_model, speech):
    check_batches(tiny_model, clips_between(speech, 0.3, 30.0, 100))


@pytest.mark.slow
def test_batch_size_and_order_do_not_change_the_outputs_of_the_default_model(speech):
    check_batches(pipeline("audio-emotion", device="cpu").model, clips_between(speech, 0.3, 30.0, 100))


def test_a_dataset_its_column_and_a_generator_give_the_same_outputs(tiny_student, speech, tmp_path):
    rows = []
    for number, length in enumerate((32000, 20000, 8000)):
        soundfile.write(tmp_path / f"{number}.wav", speech[:length], 16000)
        rows.append({"bytes": (tmp_path / f"{number}.wav").read_bytes(), "path": f"{number}.wav"})
    corpus = Dataset.from_dict({"audio": rows, "emotion": ["sad"] * 3}).cast_column("audio", Audio(decode=False))
    pipe = pipe_of(tiny_student)
    expected = pipe([str(tmp_path / f"{number}.wav") for number in range(3)])

    for stream in (
        corpus,
        KeyDataset(corpus, "audio"),
        corpus.to_iterable_dataset(),
        (row["audio"] for row in corpus),
        iter(corpus),
        corpus["audio"],
        corpus.to_iterable_dataset()["audio"],
    ):
        predictions = list(pipe(stream, batch_size=2))
        assert [each["duration"] for each in predictions] == [2.0, 1.25, 0.5]
        np.testing.assert_allclose(numbers_of(predictions), numbers_of(expected), rtol=0, atol=1e-4)


@pytest.mark.skipif(find_spec("torchcodec") is not None, reason="needs an environment without torchcodec")
def test_a_dataset_that_decodes_its_audio_is_read_by_this_package(tiny_student, speech, tmp_path):
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    row = {"bytes": (tmp_path / "clip.wav").read_bytes(), "path": "clip.wav"}
    undecoded = Dataset.from_dict({"audio": [row] * 2, "emotion": ["sad"] * 2}).cast_column(
        "audio", Audio(decode=False)
    )
    pipe = pipe_of(tiny_student)
    expected = list(pipe(undecoded))

    for corpus in (
        undecoded.cast_column("audio", Audio()),
        undecoded.cast_column("audio", Audio(sampling_rate=16000)),
    ):
        for stream in (
            corpus,
            corpus["audio"],
            KeyDataset(corpus, "audio"),
            corpus.to_iterable_dataset(),
            corpus.to_iterable_dataset()["audio"],
        ):
            found = list(pipe(stream, batch_size=2))
            np.testing.assert_allclose(numbers_of(found), numbers_of(expected), rtol=0, atol=1e-5)
        lazy = corpus.map(lambda row: {"valence": pipe(row)["dimensions"]["valence"]}, load_from_cache_file=False)
        assert lazy.data["valence"].to_pylist() == [each["dimensions"]["valence"] for each in expected]
        assert corpus.features["audio"].decode  # as it was
    with pytest.raises(ImportError, match="torchcodec"):  # at another rate, which was asked for
        list(pipe(undecoded.cast_column("audio", Audio(sampling_rate=8000))))


def test_several_rows_in_one_dict_are_refused_as_such(tiny_student, speech):
    row = {"array": speech.tolist(), "sampling_rate": 16000}
    corpus = Dataset.from_dict({"audio": [row] * 3, "emotion": ["sad"] * 3})

    with pytest.raises(ValueError, match=r"got several rows, 2 .*Iterate over the dataset"):
        pipe_of(tiny_student)(corpus[:2])
    assert pipe_of(tiny_student)(corpus[0])["duration"] == 2.0


def test_predictions_are_read_by_next_and_by_loops_and_have_the_length_of_the_clips(tiny_student, speech):
    clips = [clip_of(speech[: 8000 * number]) for number in (1, 2, 3, 4)]
    expected = [0.5, 1.0, 1.5, 2.0]
    pipe = pipe_of(tiny_student)

    for batch_size in (1, 3):
        stream = pipe((clip for clip in clips), batch_size=batch_size)
        assert next(stream)["duration"] == 0.5
        assert [each["duration"] for each in stream] == expected[1:]
        assert list(stream) == []  # its clips are gone
        with pytest.raises(TypeError, match="no len"):
            len(stream)
        column = pipe(KeyDataset([{"audio": clip} for clip in clips], "audio"), batch_size=batch_size)
        assert len(column) == 4
        assert next(column)["duration"] == 0.5
        assert [each["duration"] for each in column] == expected[1:]
        assert next(column, None) is None
        assert [each["duration"] for each in column] == expected  # and once more


def test_a_generator_is_read_only_as_far_as_predictions_are_requested(tiny_student, speech):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield clip_of(speech[: 8000 + number])

    predictions = pipe_of(tiny_student)(endless(), batch_size=4)
    first = list(itertools.islice(predictions, 3))

    assert len(first) == 3
    assert len(read) <= 2 * 4 + 1  # a batch, the next one, and the first clip that the base class looks at


def test_the_pipeline_takes_bfloat16_and_stays_near_float32(tiny_model, speech, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")
    clips = clips_between(speech, 0.5, 3.0, 8)
    exact = pipeline("audio-emotion", model=folder, device="cpu")(clips)

    pipe = pipeline("audio-emotion", model=folder, device="cpu", dtype=torch.bfloat16)
    rough = pipe(clips, batch_size=4)

    assert pipe.model.dtype == torch.bfloat16
    assert np.abs(numbers_of(rough) - numbers_of(exact)).max() < BFLOAT16


def test_the_default_model_in_bfloat16_stays_near_float32(speech):
    clips = clips_between(speech, 0.5, 6.0, 8)
    exact = pipeline("audio-emotion", device="cpu")(clips)
    rough = pipeline("audio-emotion", device="cpu", dtype=torch.bfloat16)(clips)

    assert np.abs(numbers_of(rough) - numbers_of(exact)).max() < BFLOAT16


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, BFLOAT16)])
def test_a_gpu_gives_the_outputs_of_the_cpu(dtype, tolerance, tiny_model, speech, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")
    clips = clips_between(speech, 0.3, 10.0, 20)
    options = {"return_embedding": True, "window": 1.0, "return_frames": True}
    expected = pipeline("audio-emotion", model=folder, device="cpu")(clips, **options)

    predictions = pipeline("audio-emotion", model=folder, device="cuda", dtype=dtype)(clips, batch_size=8, **options)

    np.testing.assert_allclose(numbers_of(predictions), numbers_of(expected), rtol=0, atol=tolerance)
    for one, other in zip(predictions, expected, strict=True):
        assert [len(one[part]) for part in ("windows", "frames")] == [
            len(other[part]) for part in ("windows", "frames")
        ]
        np.testing.assert_allclose(numbers_of(one["windows"]), numbers_of(other["windows"]), rtol=0, atol=tolerance)


def test_nan_from_the_model_is_an_error(tiny_student, speech):
    with torch.no_grad():
        tiny_student.heads.emotions.bias[0] = float("nan")
    pipe = pipe_of(tiny_student)

    with pytest.raises(ValueError, match="finite numbers from the model"):
        pipe(clip_of(speech))
    skipped = pipe([clip_of(speech)] * 2, on_error="skip", batch_size=2)
    assert [set(each) for each in skipped] == [{"error", "input"}] * 2


SEGMENTS = [
    {"start": 0.0, "end": 0.75, "speaker": "ann"},
    {"start": 0.6, "end": 1.4, "speaker": "bob"},
    {"start": 1.45, "end": 1.6, "speaker": "bob"},
    {"start": 1.5, "end": 2.5, "speaker": "ann"},
    {"start": 3.0, "end": 4.0, "speaker": "eve"},
]


def test_a_segment_has_the_prediction_of_that_part_alone(tiny_model, speech):
    pipe = pipe_of(tiny_model)

    prediction = pipe(clip_of(speech), segments=SEGMENTS)

    ann, bob, short, late, outside = prediction["segments"]
    for segment, (start, end) in ((ann, (0.0, 0.75)), (bob, (0.6, 1.4)), (late, (1.5, 2.0))):
        assert list(segment) == ["start", "end", "speaker", "dimensions", "emotions", "flags"]
        assert (segment["start"], segment["end"]) == (start, end)
        part = pipe(clip_of(speech[round(16000 * start) : round(16000 * end)]))
        np.testing.assert_allclose(numbers_of([segment]), numbers_of([part]), rtol=0, atol=1e-4)
    assert [each["flags"] for each in (ann, bob, late)] == [
        ["short", "overlap"],
        ["short", "overlap"],
        ["short", "overlap", "truncated"],
    ]
    assert short == {**SEGMENTS[2], "error": "expected at least 0.25 s of speech, got 0.15 s"}
    assert outside == {**SEGMENTS[4], "error": "expected a segment inside the clip of 2 s, got one from 3 s on"}


def test_a_segment_outside_the_clip_overlaps_with_none_inside(tiny_student, speech):
    segments = [
        {"start": 1.0, "end": 99.0, "speaker": "ann"},
        {"start": 50.0, "end": 99.0, "speaker": "bob"},
        {"start": 0.1, "end": 0.3500000001, "speaker": "bob"},
    ]

    ann, outside, bob = pipe_of(tiny_student)(clip_of(speech), segments=segments)["segments"]

    assert ann["flags"] == ["truncated"]
    assert "outside" not in bob
    assert bob["flags"] == ["short"]
    assert "inside the clip of 2 s" in outside["error"]


def test_segments_and_windows_have_their_own_embedding_and_uncertainty(tiny_student, speech):
    pipe = pipe_of(tiny_student)
    options = {"return_embedding": True, "return_uncertainty": True, "scale": (1, 7)}
    separate = [pipe(clip_of(speech[:16000]), **options), pipe(clip_of(speech[16000:]), **options)]
    segments = [{"start": 0.0, "end": 1.0, "speaker": "ann"}, {"start": 1.0, "end": 2.0, "speaker": "bob"}]

    predictions = pipe([clip_of(speech)] * 2, window=1.0, batch_size=2, **options)
    prediction = pipe(clip_of(speech), segments=segments, window=1.0, **options)

    for parts in (prediction["windows"], prediction["segments"], *(each["windows"] for each in predictions)):
        for part, expected in zip(parts, separate, strict=True):
            np.testing.assert_allclose(part["embedding"], expected["embedding"], rtol=0, atol=1e-4)
            assert part["uncertainty"] == pytest.approx(expected["uncertainty"], abs=1e-4)
    assert "embedding" not in pipe(clip_of(speech), window=1.0)["windows"][0]


def test_speakers_are_the_means_of_their_segments_weighted_by_duration(tiny_student, speech):
    prediction = pipe_of(tiny_student)(clip_of(speech), segments=SEGMENTS, scale=(1, 7), top_k=2)

    ann, bob, eve = prediction["speakers"]
    first, last = prediction["segments"][0], prediction["segments"][3]
    assert (ann["speaker"], ann["seconds"], ann["turns"]) == ("ann", 1.25, 2)
    for name, value in ann["dimensions"].items():
        assert value == pytest.approx((0.75 * first["dimensions"][name] + 0.5 * last["dimensions"][name]) / 1.25)
    whole = pipe_of(tiny_student)(clip_of(speech), segments=SEGMENTS)
    scores = [{e["label"]: e["score"] for e in whole["segments"][number]["emotions"]} for number in (0, 3)]
    means = {label: (0.75 * scores[0][label] + 0.5 * scores[1][label]) / 1.25 for label in scores[0]}
    assert {e["label"]: e["score"] for e in whole["speakers"][0]["emotions"]} == pytest.approx(means)
    assert [len(each["emotions"]) for each in (ann, bob, first)] == [2, 2, 2]
    assert ann["emotions"] == whole["speakers"][0]["emotions"][:2]
    assert eve == {"speaker": "eve", "error": "every segment of this speaker has an error"}


def write_rttm(path: Path, segments: list[tuple[str, float, float, str]]) -> str:
    lines = [f"SPEAKER {clip} 1 {start} {length} <NA> <NA> {who} <NA> <NA>" for clip, start, length, who in segments]
    path.write_text("\n".join(lines))
    return str(path)


def test_tuples_a_mapping_and_a_list_of_dicts_give_the_same_outputs(tiny_student, speech):
    pipe = pipe_of(tiny_student)
    expected = pipe(clip_of(speech), segments=SEGMENTS)
    tuples = [tuple(each.values()) for each in SEGMENTS]

    for segments in (tuples, tuple(tuples), {"any name": SEGMENTS}, {"any name": tuples}):
        assert pipe(clip_of(speech), segments=segments) == expected


def test_segments_given_to_the_constructor_are_those_of_each_call(tiny_student, speech):
    expected = pipe_of(tiny_student)(clip_of(speech), segments=SEGMENTS)
    options = {"model": tiny_student, "feature_extractor": EmotionFeatureExtractor(), "device": "cpu"}

    assert AudioEmotionPipeline(**options, segments=SEGMENTS)(clip_of(speech)) == expected
    with pytest.raises(ValueError, match="belongs to one clip"):
        AudioEmotionPipeline(**options, segments=SEGMENTS)([clip_of(speech)] * 2)
    one, two = AudioEmotionPipeline(**options, segments={"one": SEGMENTS})(
        [clip_of(speech) | {"path": name} for name in ("one.wav", "two.wav")]
    )
    assert (one, two["segments"]) == (expected, [])
    with pytest.raises(ValueError, match="list of segments or a mapping"):
        AudioEmotionPipeline(**options, segments="talk.rttm")


def test_the_segments_of_an_rttm_file_reach_their_clips_in_a_batch(tiny_model, speech, tmp_path):
    for name, length in (("one", 32000), ("two words", 24000), ("three", 16000), ("four", 16000)):
        soundfile.write(tmp_path / f"{name}.wav", speech[:length], 16000)
    paths = [str(tmp_path / f"{name}.wav") for name in ("one", "two words", "three", "four")]
    lines = [("one", 0.0, 1.0, "ann"), ("two%20words.wav", 0.5, 0.5, "bob"), ("one", 1.0, 1.0, "bob")]
    segments = read_rttm(write_rttm(tmp_path / "talk.rttm", [*lines, ("three", 0.1, 0.1, "eve")]))
    pipe = pipe_of(tiny_model)

    for batch_size in (1, 4):
        one, two, three, four = pipe(paths, segments=segments, on_error="skip", batch_size=batch_size)
        assert [each["speaker"] for each in one["segments"]] == ["ann", "bob"]
        alone = pipe(paths[1], segments=[{"start": 0.5, "end": 1.0, "speaker": "bob"}])
        np.testing.assert_allclose(numbers_of(two["segments"]), numbers_of(alone["segments"]), rtol=0, atol=1e-4)
        assert "error" in three["segments"][0]
        assert (four["segments"], four["speakers"], four["duration"]) == ([], [], 1.0)  # nobody speaks
    unmatched = "expected segments of 'four'.*one, three, two words\\.wav"
    with pytest.raises(ValueError, match=f"four\\.wav: {unmatched}"):
        pipe(paths[3], segments=segments)
    for clips in ([paths[3]] * 2, (path for path in [paths[3]] * 2)):
        with pytest.raises(ValueError, match=r"segments of at least one of 2 clips, got those of one, three, two w"):
            list(pipe(clips, segments=segments))
    with pytest.raises(ValueError, match="belongs to one clip"):
        pipe(paths, segments=SEGMENTS)


def test_the_segments_of_a_stereo_call_are_predicted_from_their_channels(tiny_model, speech, tmp_path):
    left, right = speech, 0.2 * np.roll(speech, 9000)[::-1]
    soundfile.write(tmp_path / "call.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    (tmp_path / "call.rttm").write_text(
        "".join(
            f"SPEAKER call {number} 0.5 1.0 <NA> <NA> {who} <NA> <NA>\n" for number, who in ((1, "ann"), (2, "bob"))
        )
    )
    pipe, segments = pipe_of(tiny_model), read_rttm(tmp_path / "call.rttm")

    file = io.BytesIO((tmp_path / "call.wav").read_bytes())
    file.name = "call.wav"
    for given in (str(tmp_path / "call.wav"), file):
        found = pipe(given, segments=segments)["segments"]
        assert [(each["speaker"], each["channel"], each["flags"]) for each in found] == [
            ("ann", 1, []),
            ("bob", 2, []),
        ]
        alone = pipe([clip_of(each[8000:24000]) for each in (left, right)])
        np.testing.assert_allclose(numbers_of(found), numbers_of(alone), rtol=0, atol=1e-5)
    batch = pipe([str(tmp_path / "call.wav"), clip_of(speech) | {"path": "mono"}], segments=segments, batch_size=2)
    np.testing.assert_allclose(numbers_of(batch[0]["segments"]), numbers_of(alone), rtol=0, atol=1e-5)

    (turn,) = pipe(clip_of(speech), segments=[{"start": 0, "end": 1, "speaker": "ann", "channel": 2}])["segments"]
    assert "expected a channel from 1 to 1, got 2" in turn["error"]


def test_the_segments_of_one_name_for_two_clips_are_ambiguous(tiny_student, speech, tmp_path):
    for folder in ("s1", "s2"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "001.wav", speech, 16000)
    paths = [str(tmp_path / folder / "001.wav") for folder in ("s1", "s2")]
    pipe, turn = pipe_of(tiny_student), [(0.0, 1.0, "ann")]

    for key in ("001", "001.wav"):
        for options in ({}, {"on_error": "skip", "batch_size": 2}):
            with pytest.raises(ValueError, match=rf"'{key}' are those of one clip, got .*s1.*001\.wav.*s2.*folder"):
                pipe(paths, segments={key: turn}, **options)
    for key in ("s1/001", "s1/001.wav", str(tmp_path / "s1" / "001"), paths[0]):
        first, second = pipe(paths, segments={key: turn})
        assert [len(each["segments"]) for each in (first, second)] == [1, 0]
        assert set(first) == set(second)
    assert pipe([paths[0]] * 2, segments={"001": turn}) == [first] * 2  # one clip, twice


def test_names_match_however_their_accents_are_encoded(tiny_student, speech, tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    soundfile.write(tmp_path / f"{decomposed}.wav", speech, 16000)  # as macOS names files
    turn = [(0.0, 1.0, "ann")]

    found = pipe_of(tiny_student)([str(tmp_path / f"{decomposed}.wav")], segments={composed: turn})

    assert len(found[0]["segments"]) == 1
    with pytest.raises(ValueError, match="two entries for"):
        pipe_of(tiny_student)(clip_of(speech), segments={composed: turn, decomposed: turn})


def test_times_far_beyond_a_clip_are_errors_of_that_segment(tiny_student, speech):
    good, late, endless = pipe_of(tiny_student)(
        clip_of(speech), segments=[(0.0, 1.0, "ann"), (1e307, 1e308, "ann"), (0.0, 1e308, "ann")]
    )["segments"]

    assert "error" not in good
    assert "inside the clip of 2 s, got one from 1e+307 s on" in late["error"]
    assert (endless["end"], endless["flags"]) == (2.0, ["truncated"])


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([{**SEGMENTS[0], "chanel": 2}], r"unknown keys \['chanel'\]"),
        ([{**SEGMENTS[0], "channel": 0}], r"segments\[0\].*channel"),
        ([{**SEGMENTS[0], "channel": "left"}], r"segments\[0\].*channel"),
        ("talk.rttm", r"got the path 'talk\.rttm'.*read_rttm\('talk\.rttm'\)"),
        (Path("talk.rttm"), r"read_rttm\('talk\.rttm'\)"),
        (7, "must be a list of .* or a mapping from the name of each clip"),
        ({}, "must be a list of .* or a mapping from the name of each clip"),
        ({"clip": 1}, "must be a list of .* or a mapping from the name of each clip"),
        ({"clip": [SEGMENTS[0], {}]}, r"segments\['clip'\]\[1\]"),
        ([{"start": 0.0, "end": 1.0}], r"segments\[0\]"),
        ([SEGMENTS[0], {"start": 1.0, "end": 1.0, "speaker": "ann"}], r"segments\[1\].*start < end"),
        ([{"start": "soon", "end": 1.0, "speaker": "ann"}], r"segments\[0\]"),
        ([(0.0, 1.0)], r"segments\[0\]"),
        ([(1.0, 0.5, "ann")], r"segments\[0\].*start < end"),
    ],
)
def test_invalid_segments_are_refused(segments, message, tiny_student, speech):
    with pytest.raises(ValueError, match=message):
        pipe_of(tiny_student)(clip_of(speech), segments=segments, on_error="skip")


@pytest.mark.parametrize(("page", "count"), [("using.md", 8), ("dimensions.md", 2)])
def test_every_example_of_the_page_runs(page, count, tiny_student, speech, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    write_rttm(tmp_path / "talk.rttm", [("clip", 0.0, 1.0, "ann")])
    write_checkpoint(tiny_student, tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)

    names: dict = {}
    for block in blocks:
        exec(block, names)

    assert len(blocks) == count
    assert set(names["result"]["dimensions"]) == {"activation", "valence", "dominance"}
    if page == "using.md":
        assert names["bad"]["input"] == "missing.wav"
        assert [each["speaker"] for each in names["results"][0]["segments"]] == ["ann"]
        assert set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)) >= {
            *names["good"],
            "silence",
            "clipped",
            "short",
        }


def test_a_clip_over_the_limit_or_the_memory_is_an_entry_when_skipped(tiny_student, speech, monkeypatch):
    pipe, clips = pipe_of(tiny_student), [clip_of(speech[:16000]), clip_of(speech)]

    kept, long = pipe(clips, max_duration=1.5, on_error="skip")
    assert "error" not in kept
    assert "at most 1.5 s" in long["error"]
    with pytest.raises(ValueError, match=r"at most 1\.5 s"):
        pipe(clips, max_duration=1.5)
    with pytest.raises(ValueError, match="`max_duration` must be at least"):
        pipe(clips, max_duration=0)

    def fail(*_, **__):
        raise MemoryError("no 10 GB")

    monkeypatch.setattr(audio_resampling.soxr, "resample", fail)
    monkeypatch.setattr(audio_resampling.soxr, "ResampleStream", fail)
    kept, large = pipe([clip_of(speech), clip_of(speech, 8000)], on_error="skip")
    assert "error" not in kept
    assert "MemoryError" in large["error"]


def test_a_skipped_url_is_named_without_its_signature(tiny_student):
    (skipped,) = pipe_of(tiny_student)(["http://user:SECRET@127.0.0.1:1/clip.wav?key=SECRET"], on_error="skip")

    assert skipped["input"] == "http://127.0.0.1:1/clip.wav"
    assert "SECRET" not in str(skipped)
