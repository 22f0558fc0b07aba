"""What a user may trust blindly: batches, orders, streams, precisions and turns change no number."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from audio_emotion import AudioEmotionPipeline, EmotionFeatureExtractor
from audio_emotion.hub.checkpoint import write_checkpoint

ROOT = Path(__file__).parents[1]
BFLOAT16 = 0.03  # how far a dimension in 0..1 or a probability may lie from float32


def judge_of(model) -> AudioEmotionPipeline:
    return AudioEmotionPipeline(
        model=model, feature_extractor=EmotionFeatureExtractor(), task="audio-emotion", device="cpu"
    )


def clip_of(waveform: np.ndarray, rate: int = 16000) -> dict:
    return {"array": waveform, "sampling_rate": rate}


def numbers_of(answers: list[dict]) -> np.ndarray:
    """Dimensions and probabilities in the order of their labels, `(N, 3 + C)`."""
    return np.array(
        [
            [*each["dimensions"].values(), *(e["score"] for e in sorted(each["emotions"], key=lambda e: e["label"]))]
            for each in answers
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
    judge = judge_of(model)
    alone = numbers_of([judge(clip) for clip in clips])
    assert alone.std(axis=0).min() > 0  # the clips do differ
    orders = [list(range(len(clips)))[::-1], list(np.random.default_rng(1).permutation(len(clips)))]
    for batch_size, order in itertools.product((1, 2, 16), orders):
        said = numbers_of(judge([clips[index] for index in order], batch_size=batch_size))
        np.testing.assert_allclose(said, alone[order], rtol=0, atol=1e-4)


def test_batch_size_and_order_change_no_number(tiny_model, speech):
    check_batches(tiny_model, clips_between(speech, 0.3, 3.0, 24))


@pytest.mark.slow
def test_batch_size_and_order_change_no_number_of_a_hundred_clips_up_to_half_a_minute(tiny_model, speech):
    check_batches(tiny_model, clips_between(speech, 0.3, 30.0, 100))


@pytest.mark.slow
def test_batch_size_and_order_change_no_number_of_the_default_model(speech):
    check_batches(pipeline("audio-emotion", device="cpu").model, clips_between(speech, 0.3, 30.0, 100))


def test_a_data_set_its_column_and_a_generator_say_the_same(tiny_student, speech, tmp_path):
    rows = []
    for number, length in enumerate((32000, 20000, 8000)):
        soundfile.write(tmp_path / f"{number}.wav", speech[:length], 16000)
        rows.append({"bytes": (tmp_path / f"{number}.wav").read_bytes(), "path": f"{number}.wav"})
    corpus = Dataset.from_dict({"audio": rows, "emotion": ["sad"] * 3}).cast_column("audio", Audio(decode=False))
    judge = judge_of(tiny_student)
    expected = judge([str(tmp_path / f"{number}.wav") for number in range(3)])

    for stream in (
        corpus,
        KeyDataset(corpus, "audio"),
        corpus.to_iterable_dataset(),
        (row["audio"] for row in corpus),
        iter(corpus),
        corpus["audio"],
        corpus.to_iterable_dataset()["audio"],
    ):
        answers = list(judge(stream, batch_size=2))
        assert [each["duration"] for each in answers] == [2.0, 1.25, 0.5]
        np.testing.assert_allclose(numbers_of(answers), numbers_of(expected), rtol=0, atol=1e-4)


def test_several_rows_in_one_dict_are_refused_as_such(tiny_student, speech):
    row = {"array": speech.tolist(), "sampling_rate": 16000}
    corpus = Dataset.from_dict({"audio": [row] * 3, "emotion": ["sad"] * 3})

    with pytest.raises(ValueError, match=r"got several rows, 2 .*Iterate over the data set"):
        judge_of(tiny_student)(corpus[:2])
    assert judge_of(tiny_student)(corpus[0])["duration"] == 2.0


def test_answers_come_by_next_and_by_loops_and_are_as_many_as_their_clips(tiny_student, speech):
    clips = [clip_of(speech[: 8000 * number]) for number in (1, 2, 3, 4)]
    expected = [0.5, 1.0, 1.5, 2.0]
    judge = judge_of(tiny_student)

    for batch_size in (1, 3):
        stream = judge((clip for clip in clips), batch_size=batch_size)
        assert next(stream)["duration"] == 0.5
        assert [each["duration"] for each in stream] == expected[1:]
        assert list(stream) == []  # its clips are gone
        with pytest.raises(TypeError, match="no len"):
            len(stream)
        column = judge(KeyDataset([{"audio": clip} for clip in clips], "audio"), batch_size=batch_size)
        assert len(column) == 4
        assert next(column)["duration"] == 0.5
        assert [each["duration"] for each in column] == expected[1:]
        assert next(column, None) is None
        assert [each["duration"] for each in column] == expected  # and once more


def test_a_generator_is_read_as_answers_are_asked_for(tiny_student, speech):
    asked = []

    def endless():
        for number in itertools.count():
            asked.append(number)
            yield clip_of(speech[: 8000 + number])

    answers = judge_of(tiny_student)(endless(), batch_size=4)
    first = list(itertools.islice(answers, 3))

    assert len(first) == 3
    assert len(asked) <= 2 * 4 + 1  # a batch, the next one, and the first clip that the base class looks at


def test_the_pipeline_takes_bfloat16_and_stays_near_float32(tiny_model, speech, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")
    clips = clips_between(speech, 0.5, 3.0, 8)
    exact = pipeline("audio-emotion", model=folder, device="cpu")(clips)

    judge = pipeline("audio-emotion", model=folder, device="cpu", dtype=torch.bfloat16)
    rough = judge(clips, batch_size=4)

    assert judge.model.dtype == torch.bfloat16
    assert np.abs(numbers_of(rough) - numbers_of(exact)).max() < BFLOAT16


def test_the_default_model_in_bfloat16_stays_near_float32(speech):
    clips = clips_between(speech, 0.5, 6.0, 8)
    exact = pipeline("audio-emotion", device="cpu")(clips)
    rough = pipeline("audio-emotion", device="cpu", dtype=torch.bfloat16)(clips)

    assert np.abs(numbers_of(rough) - numbers_of(exact)).max() < BFLOAT16


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, BFLOAT16)])
def test_a_gpu_says_what_the_cpu_says(dtype, tolerance, tiny_model, speech, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")
    clips = clips_between(speech, 0.3, 10.0, 20)
    asked = {"return_embedding": True, "window": 1.0, "return_frames": True}
    expected = pipeline("audio-emotion", model=folder, device="cpu")(clips, **asked)

    answers = pipeline("audio-emotion", model=folder, device="cuda", dtype=dtype)(clips, batch_size=8, **asked)

    np.testing.assert_allclose(numbers_of(answers), numbers_of(expected), rtol=0, atol=tolerance)
    for one, other in zip(answers, expected, strict=True):
        assert [len(one[part]) for part in ("windows", "frames")] == [
            len(other[part]) for part in ("windows", "frames")
        ]
        np.testing.assert_allclose(numbers_of(one["windows"]), numbers_of(other["windows"]), rtol=0, atol=tolerance)


def test_a_model_that_says_nan_is_an_error_and_no_answer(tiny_student, speech):
    with torch.no_grad():
        tiny_student.heads.emotions.bias[0] = float("nan")
    judge = judge_of(tiny_student)

    with pytest.raises(ValueError, match="finite numbers from the model"):
        judge(clip_of(speech))
    skipped = judge([clip_of(speech)] * 2, on_error="skip", batch_size=2)
    assert [set(each) for each in skipped] == [{"error", "input"}] * 2


TURNS = [
    {"start": 0.0, "end": 0.75, "speaker": "ann"},
    {"start": 0.6, "end": 1.4, "speaker": "bob"},
    {"start": 1.45, "end": 1.6, "speaker": "bob"},
    {"start": 1.5, "end": 2.5, "speaker": "ann"},
    {"start": 3.0, "end": 4.0, "speaker": "eve"},
]


def test_a_segment_is_what_that_piece_alone_would_give(tiny_model, speech):
    judge = judge_of(tiny_model)

    answer = judge(clip_of(speech), segments=TURNS)

    ann, bob, short, late, outside = answer["segments"]
    for segment, (start, end) in ((ann, (0.0, 0.75)), (bob, (0.6, 1.4)), (late, (1.5, 2.0))):
        assert list(segment) == ["start", "end", "speaker", "dimensions", "emotions", "flags"]
        assert (segment["start"], segment["end"]) == (start, end)
        piece = judge(clip_of(speech[round(16000 * start) : round(16000 * end)]))
        np.testing.assert_allclose(numbers_of([segment]), numbers_of([piece]), rtol=0, atol=1e-4)
    assert [each["flags"] for each in (ann, bob, late)] == [
        ["short", "overlap"],
        ["short", "overlap"],
        ["short", "overlap", "truncated"],
    ]
    assert short == {**TURNS[2], "error": "expected at least 0.25 s of speech, got 0.15 s"}
    assert outside == {**TURNS[4], "error": "expected a turn inside the clip of 2 s, got one from 3 s on"}


def test_a_turn_outside_the_clip_overlaps_with_none_inside(tiny_student, speech):
    turns = [
        {"start": 1.0, "end": 99.0, "speaker": "ann"},
        {"start": 50.0, "end": 99.0, "speaker": "bob"},
        {"start": 0.1, "end": 0.3500000001, "speaker": "bob"},
    ]

    ann, outside, bob = judge_of(tiny_student)(clip_of(speech), segments=turns)["segments"]

    assert ann["flags"] == ["truncated"]
    assert "outside" not in bob
    assert bob["flags"] == ["short"]
    assert "inside the clip of 2 s" in outside["error"]


def test_segments_and_windows_have_embedding_and_uncertainty_of_their_own(tiny_student, speech):
    judge = judge_of(tiny_student)
    asked = {"return_embedding": True, "return_uncertainty": True, "scale": (1, 7)}
    pieces = [judge(clip_of(speech[:16000]), **asked), judge(clip_of(speech[16000:]), **asked)]
    turns = [{"start": 0.0, "end": 1.0, "speaker": "ann"}, {"start": 1.0, "end": 2.0, "speaker": "bob"}]

    answers = judge([clip_of(speech)] * 2, window=1.0, batch_size=2, **asked)
    answer = judge(clip_of(speech), segments=turns, window=1.0, **asked)

    for parts in (answer["windows"], answer["segments"], *(each["windows"] for each in answers)):
        for part, piece in zip(parts, pieces, strict=True):
            np.testing.assert_allclose(part["embedding"], piece["embedding"], rtol=0, atol=1e-4)
            assert part["uncertainty"] == pytest.approx(piece["uncertainty"], abs=1e-4)
    assert "embedding" not in judge(clip_of(speech), window=1.0)["windows"][0]


def test_speakers_are_the_means_of_their_turns_weighted_by_seconds(tiny_student, speech):
    answer = judge_of(tiny_student)(clip_of(speech), segments=TURNS, scale=(1, 7), top_k=2)

    ann, bob, eve = answer["speakers"]
    first, last = answer["segments"][0], answer["segments"][3]
    assert (ann["speaker"], ann["seconds"], ann["turns"]) == ("ann", 1.25, 2)
    for name, value in ann["dimensions"].items():
        assert value == pytest.approx((0.75 * first["dimensions"][name] + 0.5 * last["dimensions"][name]) / 1.25)
    whole = judge_of(tiny_student)(clip_of(speech), segments=TURNS)
    scores = [{e["label"]: e["score"] for e in whole["segments"][number]["emotions"]} for number in (0, 3)]
    means = {label: (0.75 * scores[0][label] + 0.5 * scores[1][label]) / 1.25 for label in scores[0]}
    assert {e["label"]: e["score"] for e in whole["speakers"][0]["emotions"]} == pytest.approx(means)
    assert [len(each["emotions"]) for each in (ann, bob, first)] == [2, 2, 2]
    assert ann["emotions"] == whole["speakers"][0]["emotions"][:2]
    assert eve == {"speaker": "eve", "error": "none of the speaker's turns can be judged"}


def rttm_of(path: Path, turns: list[tuple[str, float, float, str]], more: str = "") -> str:
    lines = [f"SPEAKER {file} 1 {start} {length} <NA> <NA> {who} <NA> <NA>" for file, start, length, who in turns]
    path.write_text("\n".join([*lines, more]))
    return str(path)


def test_rttm_says_the_same_as_a_list(tiny_student, speech, tmp_path):
    judge = judge_of(tiny_student)
    more = ";; made by hand\n\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA>\n"
    rttm = rttm_of(tmp_path / "turns.rttm", [("talk", 0.0, 0.75, "ann"), ("talk", 0.75, 1.0, "bob")], more)
    turns = [{"start": 0.0, "end": 0.75, "speaker": "ann"}, {"start": 0.75, "end": 1.75, "speaker": "bob"}]

    for given in (rttm, Path(rttm)):
        assert judge(clip_of(speech), segments=given) == judge(clip_of(speech), segments=turns)


def test_rttm_tells_clips_of_a_batch_apart(tiny_model, speech, tmp_path):
    for name, length in (("one", 32000), ("two words", 24000), ("three", 16000), ("four", 16000)):
        soundfile.write(tmp_path / f"{name}.wav", speech[:length], 16000)
    paths = [str(tmp_path / f"{name}.wav") for name in ("one", "two words", "three", "four")]
    turns = [("one", 0.0, 1.0, "ann"), ("two%20words.wav", 0.5, 0.5, "bob"), ("one", 1.0, 1.0, "bob")]
    rttm = rttm_of(tmp_path / "turns.rttm", [*turns, ("three", 0.1, 0.1, "eve")])
    judge = judge_of(tiny_model)

    for batch_size in (1, 4):
        one, two, three, four = judge(paths, segments=rttm, on_error="skip", batch_size=batch_size)
        assert [each["speaker"] for each in one["segments"]] == ["ann", "bob"]
        alone = judge(paths[1], segments=[{"start": 0.5, "end": 1.0, "speaker": "bob"}])
        np.testing.assert_allclose(numbers_of(two["segments"]), numbers_of(alone["segments"]), rtol=0, atol=1e-4)
        assert "error" in three["segments"][0]
        assert (four["segments"], four["speakers"], four["duration"]) == ([], [], 1.0)  # nobody speaks
    stranger = "expected turns of 'four'.*one, three, two words\\.wav"
    with pytest.raises(ValueError, match=f"four\\.wav: {stranger}"):
        judge(paths[3], segments=rttm)
    for clips in ([paths[3]] * 2, (path for path in [paths[3]] * 2)):
        with pytest.raises(ValueError, match=r"turns of at least one of 2 clips, got those of one, three, two words"):
            list(judge(clips, segments=rttm))
    with pytest.raises(ValueError, match="belongs to one clip"):
        judge(paths, segments=TURNS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER talk 1 0.0", "line 2: expected `SPEAKER file"),
        ("TALKER talk 1 0.0 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected `SPEAKER file"),
        ("SPEAKER talk 1 soon 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected start and length"),
        ("SPEAKER talk 1 nan 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),
        ("SPEAKER talk 1 -1 1.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),
        ("SPEAKER talk 1 0.0 0.0 <NA> <NA> ann <NA> <NA>", "line 2: expected a start"),
    ],
)
def test_a_line_of_rttm_that_is_wrong_is_named(line, message, tiny_student, speech, tmp_path):
    rttm = rttm_of(tmp_path / "turns.rttm", [("talk", 0.0, 1.0, "ann")], line)

    with pytest.raises(ValueError, match=re.escape(f"{rttm}, ") + message):
        judge_of(tiny_student)(clip_of(speech), segments=rttm, on_error="skip")


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ("missing.rttm", r"missing\.rttm: expected an RTTM file"),
        (7, "path of an RTTM file or a list"),
        ([{"start": 0.0, "end": 1.0}], r"segments\[0\]"),
        ([TURNS[0], {"start": 1.0, "end": 1.0, "speaker": "ann"}], r"segments\[1\].*start < end"),
        ([{"start": "soon", "end": 1.0, "speaker": "ann"}], r"segments\[0\]"),
        ([(0.0, 1.0, "ann")], r"segments\[0\]"),
    ],
)
def test_segments_that_make_no_sense_are_refused(segments, message, tiny_student, speech):
    with pytest.raises(ValueError, match=message):
        judge_of(tiny_student)(clip_of(speech), segments=segments)


def test_a_file_of_rttm_without_turns_is_refused(tiny_student, speech, tmp_path):
    (tmp_path / "empty.rttm").write_text(";; nothing\n")

    with pytest.raises(ValueError, match=r"empty\.rttm: expected .* turns of speakers, got none"):
        judge_of(tiny_student)(clip_of(speech), segments=str(tmp_path / "empty.rttm"))


@pytest.mark.parametrize(("page", "count"), [("using.md", 7), ("dimensions.md", 2)])
def test_every_example_of_its_page_runs(page, count, tiny_student, speech, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    rttm_of(tmp_path / "turns.rttm", [("clip", 0.0, 1.0, "ann")])
    write_checkpoint(tiny_student, tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)

    said: dict = {}
    for block in blocks:
        exec(block, said)

    assert len(blocks) == count
    assert set(said["answer"]["dimensions"]) == {"activation", "valence", "dominance"}
    if page == "using.md":
        assert said["bad"]["input"] == "missing.wav"
        assert [each["speaker"] for each in said["answers"][0]["segments"]] == ["ann"]
        assert set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)) >= {
            *said["good"],
            "silence",
            "clipped",
            "short",
        }
