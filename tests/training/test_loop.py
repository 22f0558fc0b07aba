"""The training step that all recipes share: it stops at the first number that is not finite."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.training.loop import TrainingLoop


@pytest.fixture
def loop(tmp_path) -> TrainingLoop:
    """Eight synthetic clips in batches of four, a state every step, and a model of one layer."""
    accelerator = Accelerator(cpu=True)
    info = corpus_info("synthetic")
    data = SimpleNamespace(
        accelerator=accelerator,
        run=SimpleNamespace(path=tmp_path),
        emotions=list(info.emotions),
        dimensions=list(info.dimensions),
        gather_quarantine=lambda stream: None,
    )
    model = torch.nn.Linear(1, 1)
    table = corpus_table("synthetic", count=8)
    args = SimpleNamespace(epochs=2, save_every=1, weight_decay=0.0, seed=0)
    groups = [{"params": model.parameters(), "lr": 0.1}]
    return TrainingLoop(args, data, model, groups, ClipStream(table), ResumableSampler.from_table(table, 4), "test")


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_the_first_number_that_is_not_finite_stops_the_run_and_saves_no_state(loop, kind, tmp_path):
    for batch in loop.batches(waveforms=False):  # noqa: B007 (used below)
        term = loop.model(torch.ones(1, 1)).square().sum()
        if loop.step_number == 2:
            break
        loop.step({"emotions": term}, {"emotions": 1.0})
        loop.save_state()
    ids, before = batch.ids, copy.deepcopy(loop.model.state_dict())
    term = term * torch.nan if kind == "loss" else (term * 0).sqrt()  # whose derivative at 0 is infinite

    with pytest.raises(FloatingPointError, match=r"step 3 \(epoch 2\)") as error:
        loop.step({"emotions": term}, {"emotions": 1.0})

    assert all(name in str(error.value) for name in ids)
    assert max(path.name for path in (tmp_path / "state").rglob("step-*")) == "step-000000002"
    assert all(torch.equal(value, before[name]) for name, value in loop.model.state_dict().items())
