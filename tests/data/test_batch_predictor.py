"""Tables of clips become tables of predictions: every row once, also where a worker dies."""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import audio_emotion
from audio_emotion.data.batch_predictor import BatchPredictor
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.runtime import EmotionRuntime

ROOT = Path(__file__).parents[2]
SPEECH = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """What `recipes/pack.py` writes."""
    folder = tmp_path_factory.mktemp("shards")
    recipe = runpy.run_path(str(ROOT / "recipes" / "pack.py"))
    recipe["main"](recipe["PackArguments"](output=str(folder), corpus_count=60, shard_mb=1))
    return folder


def test_packed_clips_have_the_predictions_of_the_runtime(shards):
    table = pq.read_table(next(shards.glob("*.parquet"))).slice(0, 4)
    found = BatchPredictor(scale=(1, 7))(table)
    expected = EmotionRuntime(scale=(1, 7))([each["bytes"] for each in table["audio"].to_pylist()])

    assert found["id"] == table["id"]
    assert found["emotion"] == table["emotion"]  # the label, which stays
    assert "audio" not in found.column_names
    for row, each in zip(found.to_pylist(), expected, strict=True):
        for name, value in each["dimensions"].items():
            assert row[f"predicted_{name}"] == pytest.approx(value)
        assert row["predicted_emotion"] == each["emotions"][0]["label"]
        assert row["predicted_probabilities"] == {one["label"]: one["score"] for one in each["emotions"]}
        assert row["predicted_flags"] == each["flags"]
        assert row["predicted_error"] is None


def test_pytorch_and_the_graph_predict_the_same(tiny_student, shards, tmp_path):
    from audio_emotion.hub.onnx_export import export_onnx

    folder = write_checkpoint(tiny_student, tmp_path / "model")
    table = pq.read_table(next(shards.glob("*.parquet"))).slice(0, 3)
    with_torch = BatchPredictor(str(folder))(table).to_pylist()
    export_onnx(tiny_student, folder / "onnx")
    with_graph = BatchPredictor(str(folder))(table).to_pylist()

    for one, other in zip(with_torch, with_graph, strict=True):
        assert one["predicted_activation"] == pytest.approx(other["predicted_activation"], abs=1e-4)


def test_a_row_that_cannot_be_read_has_an_error_and_no_path_is_opened():
    clips = [{"bytes": b"no audio", "path": "a.wav"}, {"bytes": None, "path": str(SPEECH)}, None]
    clips.append({"bytes": SPEECH.read_bytes(), "path": "b.flac"})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    found = BatchPredictor()(pa.table({"audio": pa.array(clips, kind), "id": [1, 2, 3, 4]})).to_pylist()

    assert [each["id"] for each in found] == [1, 2, 3, 4]
    assert "a.wav" in found[0]["predicted_error"]
    assert all("empty" in each["predicted_error"] for each in found[1:3])
    assert all(each["predicted_activation"] is None for each in found[:3])
    assert found[3]["predicted_error"] is None


def test_data_frames_as_of_spark_are_predicted():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"audio": [SPEECH.read_bytes()], "id": ["a"]})
    (found,) = BatchPredictor().pandas(iter([frame]))

    assert found["predicted_duration"][0] == pytest.approx(5.28, abs=0.1)
    assert found["id"][0] == "a"


@pytest.mark.parametrize(
    ("columns", "reason"), [({"id": [1]}, "column 'audio'"), ({"audio": [b"1"], "predicted_error": [""]}, "Drop")]
)
def test_a_table_of_another_form_is_refused(columns, reason):
    with pytest.raises(ValueError, match=reason):
        BatchPredictor()(pa.table(columns))


class DiesOnce(BatchPredictor):
    """A predictor in whose process the first one that gets to its second batch is killed, as by a lack of memory."""

    def __init__(self, marker: str):
        super().__init__()
        self.marker, self.batches = marker, 0

    def __call__(self, table):
        self.batches += 1
        if self.batches == 2:
            try:
                os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(table)


@pytest.mark.slow
def test_every_row_is_predicted_once_where_a_worker_of_ray_is_killed(shards, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    marker = tmp_path / "killed"
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT / "modeling"), str(Path(__file__).parent)])}
    environment |= {"AUDIO_EMOTION_RUNTIME": "1", "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=3,  # two workers, and one that reads
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        runtime_env={"env_vars": environment},
        _temp_dir=str(Path("/tmp") / f"ray{os.getpid()}"),
    )
    try:
        clips = ray.data.read_parquet(sorted(str(each) for each in shards.glob("*.parquet")))
        predictions = clips.repartition(12).map_batches(
            DiesOnce,
            fn_constructor_kwargs={"marker": str(marker)},
            batch_format="pyarrow",
            batch_size=5,
            concurrency=2,
        )
        predictions.write_parquet(str(tmp_path / "predictions"))
    finally:
        ray.shutdown()
    written = pq.read_table(tmp_path / "predictions").to_pylist()
    packed = [each for file in shards.glob("*.parquet") for each in pq.read_table(file)["id"].to_pylist()]

    assert marker.exists()
    assert sorted(each["id"] for each in written) == sorted(packed)
    assert len(set(packed)) == 60
    assert all(each["predicted_error"] is None for each in written)
