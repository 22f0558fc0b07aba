"""Documented pitfalls of the CCC and its evaluation, each with a test.

Some have more tests elsewhere: the loss of a collapsed batch and of single columns, the padding of every encoder.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from audio_emotion import StudentEmotionForAudioClassification
from audio_emotion.data.corpora import synthetic
from audio_emotion.data.dataset import Batch
from audio_emotion.evaluation import predictions as predictions_module
from audio_emotion.evaluation.bootstrap import bootstrap_interval, compare
from audio_emotion.evaluation.metrics import concordance_correlation, pearson_correlation
from audio_emotion.evaluation.predictions import Predictions, load_predictions, predict, save_predictions
from audio_emotion.evaluation.report import measure, measure_groups
from audio_emotion.layers import EmotionOutput
from audio_emotion.losses import supervised_terms
from audio_emotion.training.optim import gather_output, gather_with_gradient

EMOTIONS, DIMENSIONS = ["neutral", "happy", "sad", "angry"], ["activation", "valence", "dominance"]


def related(count, correlation=0.65, seed=0):
    """Predictions and references, `(N,)` each, of one mean and spread."""
    random = np.random.default_rng(seed)
    true = random.normal(size=count)
    return correlation * true + np.sqrt(1 - correlation**2) * random.normal(size=count), true


def predictions_of(predicted, true, speakers) -> Predictions:
    """Dimensions `(N,)`, the same in all three columns; every category right."""
    count = len(true)
    labels = np.arange(count) % 4
    columns = [np.repeat(each[:, None], 3, axis=1) for each in (predicted, true)]
    names = [f"c{index:05d}" for index in range(count)]
    return Predictions(
        names, np.asarray(speakers), 5.0 * np.eye(4)[labels], columns[0], np.zeros((count, 0)), labels, columns[1]
    )


def batches_of(predicted, true, size, process=0, processes=1):
    """Batches of one process, `size` clips in all of them together; the last is filled with clips of weight 0."""
    count = len(true)
    for begin in range(0, count, size):
        mine = [index for index in range(begin, min(begin + size, count)) if index % processes == process]
        filled = (mine or [0]) + [(mine or [0])[0]] * (size // processes - max(len(mine), 1))
        yield Batch(
            ids=[f"c{index:05d}" for index in filled],
            speakers=[f"s/{index % 5}" for index in filled],
            input_values=torch.tensor(predicted[filled])[:, None].repeat(1, 3),
            attention_mask=torch.ones(len(filled), 8000),
            labels=torch.tensor([index % 4 for index in filled]),
            dimension_labels=torch.tensor(true[filled])[:, None].repeat(1, 3),
            weight=torch.tensor([1.0] * len(mine) + [0.0] * (len(filled) - len(mine))),
        )


def echo(batch: Batch) -> EmotionOutput:
    """A model whose dimensions are its input."""
    logits = torch.nn.functional.one_hot(batch.labels, 4).float()
    return EmotionOutput(logits=logits, dimensions=batch.input_values, embedding=batch.input_values)


def gathered_predictions(monkeypatch, predicted, true, size, processes=1) -> Predictions:
    """What `predict` returns on the first of several processes."""
    if processes == 1:
        return predict(SimpleNamespace(num_processes=1), echo, batches_of(predicted, true, size))
    rows: list = []
    for process in reversed(range(processes)):  # the first process comes last, and gets the rows of all
        monkeypatch.setattr(predictions_module, "gather_object", lambda mine: rows.extend(mine) or rows)
        found = predict(
            SimpleNamespace(num_processes=processes), echo, batches_of(predicted, true, size, process, processes)
        )
    return found


def test_pitfall_1_the_ccc_of_the_set_is_reported_and_not_the_mean_over_batches(monkeypatch):
    predicted, true = related(2000)
    whole = concordance_correlation(predicted, true)
    of_batches = np.mean(
        [concordance_correlation(predicted[at : at + 4], true[at : at + 4]) for at in range(0, 2000, 4)]
    )

    assert of_batches < whole - 0.1  # the number that must not appear
    for size in (4, 32, 2000):
        found = measure(
            gathered_predictions(monkeypatch, predicted, true, size), EMOTIONS, DIMENSIONS, None, repeats=0
        )
        assert found["ccc_valence"] == pytest.approx(whole, abs=1e-6)


def regression() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A model `(B, 6)` to `(B, 3)`, and sixteen clips whose ratings rise: neither half stands for all of them."""
    torch.manual_seed(0)
    rise = torch.linspace(-1, 1, 16)[:, None]
    model = torch.nn.Linear(6, 3)
    torch.nn.init.constant_(model.weight, 0.2)
    return model, rise + 0.3 * torch.randn(16, 6), (0.5 + 0.4 * rise + 0.1 * torch.randn(16, 3)).clamp(0, 1)


def loss_of(accelerator: Accelerator, model: torch.nn.Module, inputs: torch.Tensor, ratings: torch.Tensor):
    """The loss as the recipes take it: this process's clips in, one loss over the clips of all processes out."""
    output = EmotionOutput(dimensions=model(inputs).sigmoid())
    gather_output(accelerator, output)
    weight = torch.ones(len(output.dimensions))
    return supervised_terms(output, None, gather_with_gradient(accelerator, ratings), [1 / 3] * 3, weight)[
        "dimensions"
    ]


def learn_on_half(accelerator, model: torch.nn.Module, inputs: torch.Tensor, ratings: torch.Tensor) -> torch.Tensor:
    """Loss and gradient on one of two processes, before the gradients are averaged."""
    mine = slice(8 * accelerator.process_index, 8 * accelerator.process_index + 8)
    loss = loss_of(accelerator, model, inputs[mine], ratings[mine])
    (loss * accelerator.num_processes).backward()
    return loss.detach()


def in_one_process_of_two(process: int, port: int, folder: Path) -> None:
    """With a true process group, whose model averages the gradients."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(process), "LOCAL_RANK": str(process), "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    accelerator = Accelerator(cpu=True)
    model, *clips = regression()
    loss = learn_on_half(accelerator, accelerator.prepare(model), *clips)
    np.save(folder / f"{process}.npy", flat(loss, model))
    accelerator.end_training()


def flat(loss: torch.Tensor, model: torch.nn.Module) -> np.ndarray:
    """A loss and the gradient of its model, `(1 + 21,)`."""
    return torch.cat([loss.detach()[None], model.weight.grad.flatten(), model.bias.grad]).numpy()


def by_processes(tmp_path: Path) -> np.ndarray:
    """Loss and gradient of two processes, which must agree."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_one_process_of_two, (port, tmp_path), nprocs=2)
    first, second = (np.load(tmp_path / f"{process}.npy") for process in range(2))
    np.testing.assert_array_equal(first, second)
    return first


def by_threads(tmp_path: Path) -> np.ndarray:
    """The same by two threads in place of two processes: what gathers and averages is written out."""
    barrier, given = threading.Barrier(2), {}

    def gather(process: int, tensor: torch.Tensor) -> torch.Tensor:
        given[process] = tensor
        barrier.wait(timeout=60)
        whole = torch.cat([given[0], given[1]])
        barrier.wait(timeout=60)
        return whole

    def learn(process: int) -> np.ndarray:
        accelerator = SimpleNamespace(num_processes=2, process_index=process, gather=partial(gather, process))
        model, *clips = models[process]
        return flat(learn_on_half(accelerator, model, *clips), model)

    models = [regression() for _ in range(2)]  # before the threads, which share one random generator
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(learn, range(2))
    assert first[0] == second[0]
    return (first + second) / 2


@pytest.mark.parametrize("divided", [by_threads, pytest.param(by_processes, marks=pytest.mark.slow)])
def test_pitfall_2_loss_and_gradient_do_not_depend_on_the_number_of_processes(divided, tmp_path):
    alone = SimpleNamespace(num_processes=1)

    def learned(*batches: slice) -> np.ndarray:
        model, inputs, ratings = regression()
        loss = torch.stack([loss_of(alone, model, inputs[rows], ratings[rows]) for rows in batches]).mean()
        loss.backward()
        return flat(loss, model)

    whole = learned(slice(0, 16))
    np.testing.assert_allclose(divided(tmp_path), whole, atol=1e-6)
    halves = learned(slice(0, 8), slice(8, 16))  # what accumulation, or a loss of each process's own, would give
    assert halves[0] - whole[0] > 0.05
    assert np.abs(halves - whole)[1:].max() > 0.2 * np.abs(whole[1:]).max()


@pytest.mark.parametrize("count", [50, 51, 53])
def test_pitfall_3_scores_do_not_depend_on_the_number_of_processes_or_the_last_batch(monkeypatch, count):
    predicted, true = related(count)
    one, two = (gathered_predictions(monkeypatch, predicted, true, 8, processes) for processes in (1, 2))

    assert two.ids == one.ids
    assert len(two.ids) == len(set(two.ids)) == count  # no clip that only fills a batch
    first, second = (measure(each, EMOTIONS, DIMENSIONS, None, repeats=100) for each in (one, two))
    assert first.keys() == second.keys()
    for name in (name for name, value in first.items() if isinstance(value, float)):
        assert second[name] == pytest.approx(first[name], abs=1e-6), name
    assert second["intervals"] == first["intervals"]
    per_process = np.mean([concordance_correlation(predicted[at::2], true[at::2]) for at in range(2)])
    assert abs(per_process - first["ccc_valence"]) > 1e-4  # the mean of the processes' CCCs is another number


def test_pitfall_4_a_collapsed_model_scores_zero_in_the_results():
    _, true = related(40)
    found = measure(
        predictions_of(np.full(40, 0.5), true, np.repeat(["a", "b"], 20)), EMOTIONS, DIMENSIONS, None, repeats=20
    )

    assert found["ccc_valence"] == found["pearson_valence"] == 0.0
    assert found["intervals"]["ccc_valence"] == [0.0, 0.0]


def test_pitfall_5_the_ccc_of_a_dimension_does_not_depend_on_the_others():
    predicted, true = related(100)
    both = predictions_of(predicted, true, ["a"] * 100)
    both.dimensions = np.stack([predicted, predicted + 3.0, -predicted], axis=1)
    both.dimension_labels = np.stack([true, true, true + 1.0], axis=1)

    found = measure(both, EMOTIONS, DIMENSIONS, None, repeats=0)
    for column, name in enumerate(DIMENSIONS):
        alone = concordance_correlation(both.dimensions[:, column], both.dimension_labels[:, column])
        assert found[f"ccc_{name}"] == pytest.approx(alone, abs=1e-12)
    mixed = concordance_correlation(both.dimensions.ravel(), both.dimension_labels.ravel())
    assert all(abs(found[f"ccc_{name}"] - mixed) > 0.05 for name in DIMENSIONS)


def test_pitfall_6_the_ccc_is_global_and_separate_from_that_of_speakers():
    random = np.random.default_rng(0)
    level = np.repeat(random.normal(size=20), 30)  # speakers differ more than the clips of one
    true = level + 0.4 * random.normal(size=600)
    predicted = level + 0.4 * random.normal(size=600)
    predictions = predictions_of(predicted, true, [f"s/{number:02d}" for number in np.repeat(np.arange(20), 30)])

    whole = measure(predictions, EMOTIONS, DIMENSIONS, None, repeats=0)["ccc_valence"]
    groups = measure_groups(predictions, EMOTIONS, DIMENSIONS, None, repeats=0)["speaker"]
    assert whole == pytest.approx(concordance_correlation(predicted, true), abs=1e-12)
    assert np.mean([scores["ccc_valence"] for scores in groups.values()]) < whole - 0.3


def test_pitfall_7_predictions_are_not_rescaled_on_the_test_set():
    predicted, true = related(5000)
    shrunk = 0.65 * predicted  # as a model trained on squared errors predicts
    found = measure(predictions_of(shrunk, true, ["a"] * 5000), EMOTIONS, DIMENSIONS, None, repeats=0)

    assert found["pearson_valence"] == pytest.approx(pearson_correlation(predicted, true), abs=1e-9)
    assert found["ccc_valence"] < found["pearson_valence"] - 0.03
    jointly = concordance_correlation(1 + 6 * shrunk, 1 + 6 * true)  # 1..7 and 0..1 are the same CCC
    assert found["ccc_valence"] == pytest.approx(jointly, abs=1e-9)


def test_pitfall_8_scores_on_different_clips_cannot_be_compared():
    predicted, true = related(4000)
    narrow = np.abs(true) < 1  # the same model, errors and all, on clips of less spread
    assert concordance_correlation(predicted[narrow], true[narrow]) < concordance_correlation(predicted, true) - 0.1

    predictions = predictions_of(predicted, true, np.arange(4000).astype(str))
    with pytest.raises(ValueError, match="different clips"):
        compare([predictions], [predictions.take(narrow)], "ccc_valence", DIMENSIONS, repeats=10)


@pytest.mark.parametrize(("count", "half_width"), [(3200, 0.020), (10124, 0.011)])
def test_pitfall_9_intervals_have_the_known_width(count, half_width):
    low, high = bootstrap_interval(concordance_correlation, *related(count), repeats=400)

    assert (high - low) / 2 == pytest.approx(half_width, rel=0.2)


def test_pitfall_9_intervals_are_over_speakers_where_they_are_known():
    random = np.random.default_rng(1)
    speakers = np.repeat([f"s/{number}" for number in range(10)], 40)
    true = random.normal(size=400)
    predicted = true + np.repeat(random.normal(size=10), 40) + 0.3 * random.normal(size=400)
    predictions = predictions_of(predicted, true, speakers)

    found = measure(predictions, EMOTIONS, DIMENSIONS, None, repeats=300)
    by_hand = bootstrap_interval(concordance_correlation, predicted, true, groups=speakers, repeats=300)
    over_clips = bootstrap_interval(concordance_correlation, predicted, true, repeats=300)
    assert found["intervals_over"] == "speakers"
    assert found["intervals"]["ccc_valence"] == pytest.approx(by_hand, abs=1e-12)
    assert by_hand[1] - by_hand[0] > 1.5 * (over_clips[1] - over_clips[0])
    few = measure(predictions.take(np.arange(120)), EMOTIONS, DIMENSIONS, None, repeats=20)
    assert few["intervals_over"] == "clips"


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
def test_pitfall_10_padding_does_not_change_the_outputs(tiny_student_config, pooling, speech):
    tiny_student_config.pooling = pooling
    torch.manual_seed(0)
    student = StudentEmotionForAudioClassification(tiny_student_config).eval()
    short, long = torch.from_numpy(speech[:12000]), torch.from_numpy(speech)
    padded = torch.stack([torch.nn.functional.pad(short, (0, len(long) - len(short))), long])
    mask = torch.ones(2, len(long))
    mask[0, len(short) :] = 0

    with torch.no_grad():
        alone, beside, unmasked = student(short[None]), student(padded, mask), student(padded)
    torch.testing.assert_close(beside.dimensions[:1], alone.dimensions, atol=1e-4, rtol=0)
    assert (
        unmasked.dimensions[:1] - alone.dimensions
    ).abs().max() > 1e-3  # without a mask, padding changes the outputs


RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = {  # enough for a best epoch that is not the last
    "train_teacher": {"epochs": 4, "hidden_size": 16, "convolution_size": 16, "learning_rate": 2e-2},
    "distill": {
        "epochs": 4,
        "size": "nano",
        "validate_every": 1,
        "teacher": "",
        "labeled": 1.0,
        "learning_rate": 2e-2,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"), [("train_teacher", "TeacherArguments"), ("distill", "DistillArguments")]
)
def test_pitfall_11_the_test_split_does_not_affect_model_selection(name, arguments, monkeypatch, tmp_path):
    original = synthetic.rows

    def with_other_labels_of(*voices: str):
        """The corpus with the labels of these speakers reversed."""
        for row in original(60, 0):
            if row["speaker"].removeprefix("synthetic/") in voices:
                row |= {dimension: 1 - row[dimension] for dimension in DIMENSIONS}
                row["emotion"] = {"happy": "sad", "sad": "happy", "angry": "calm", "calm": "angry"}[row["emotion"]]
            yield row

    recipe = runpy.run_path(str(RECIPES / f"{name}.py"))
    results, best, chosen_by = {}, {}, {}
    for split, voices in (("none", ()), ("test", ("09", "10")), ("validation", ("07", "08"))):
        monkeypatch.setattr(synthetic, "rows", lambda *_, voices=voices: with_other_labels_of(*voices))
        folder = tmp_path / split
        where = {"output": str(folder), "cache": str(tmp_path / "cache"), "corpus_count": 60, "batch_size": 16}
        results[split] = recipe["main"](recipe[arguments](**where, **SHORT[name]))
        best[split] = load_file(folder / "checkpoints" / "best" / "model.safetensors")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        chosen_by[split] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    def same(one: dict, other: dict) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    assert results["test"]["test"]["ccc_valence"] != results["none"]["test"]["ccc_valence"]  # they are other labels
    assert chosen_by["test"] == chosen_by["none"]
    assert same(best["test"], best["none"])
    assert chosen_by["validation"] != chosen_by["none"]
    assert not same(best["validation"], best["none"])  # another epoch is the best, so a choice was made


def test_predictions_loaded_from_a_file_give_the_same_scores(tmp_path):
    predicted, true = (each.astype(np.float32) for each in related(40))
    predictions = predictions_of(predicted, true, np.repeat(["a", "b", "c", "d"], 10))
    predictions.logits = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    predictions.dimension_labels[3, 1] = np.nan
    predictions.labels[5] = -100
    predictions.durations = np.linspace(0.5, 12, 40)
    predictions.name_genders({name: ("female", "male", None)[index % 3] for index, name in enumerate(predictions.ids)})

    save_predictions(predictions, tmp_path / "deep" / "predictions.parquet", EMOTIONS, DIMENSIONS)
    again, emotions, dimensions = load_predictions(tmp_path / "deep" / "predictions.parquet")

    assert (emotions, dimensions) == (EMOTIONS, DIMENSIONS)
    assert measure(again, emotions, dimensions, "rated") == measure(predictions, EMOTIONS, DIMENSIONS, "rated")
    ours, theirs = (measure_groups(each, EMOTIONS, DIMENSIONS, "rated", repeats=0) for each in (predictions, again))
    assert ours == theirs
    assert list(ours["gender"]) == ["female", "male"]
    assert sum(scores["clips"] for scores in ours["length"].values()) == 40
    assert ours["length"]["10 s or more"]["clips"] == 7  # 10.0769 s and longer


def test_any_other_parquet_file_raises(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="save_predictions"):
        load_predictions(tmp_path / "other.parquet")


def test_a_model_without_categories_or_dimensions_is_scored_on_the_other():
    predicted, true = related(40)
    predictions = predictions_of(predicted, true, ["a"] * 40)

    assert "uar" not in measure(predictions, [], DIMENSIONS, "norm-derived", repeats=5)
    assert not any("ccc" in name for name in measure(predictions, EMOTIONS, [], "norm-derived", repeats=5))
    predictions.labels[:] = -100
    assert np.isnan(measure(predictions, EMOTIONS, DIMENSIONS, "rated", repeats=5)["uar"])
