"""Stored checkpoints give the outputs that they gave when they were stored."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

MAKER = runpy.run_path(str(Path(__file__).parent / "assets" / "make_golden.py"))
# Of the largest value of an output, in float32; at least 1. Processors sum in different orders: outputs of the default
# model differ by up to 1.4e-5 between two of them.
TOLERANCE = 3e-5


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """A nested output as one flat mapping from path to value."""
    if isinstance(value, dict):
        return {key: leaf for name, each in value.items() for key, leaf in leaves(each, f"{path}.{name}").items()}
    if isinstance(value, list):
        items = enumerate(value)
        return {key: leaf for number, each in items for key, leaf in leaves(each, f"{path}[{number}]").items()}
    return {path: value}


@pytest.mark.parametrize("name", MAKER["MODELS"])
def test_outputs_of_a_stored_checkpoint_are_unchanged(name: str):
    stored = load_file(MAKER["FOLDER"] / f"{name}.safetensors")

    outputs = MAKER["outputs"](MAKER["MODELS"][name])

    assert outputs.keys() == stored.keys()
    assert {"dimensions", "logits", "embedding", "frame_dimensions", "frame_logits", "frame_mask"} <= outputs.keys()
    for field, expected in stored.items():
        tolerance = TOLERANCE * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(outputs[field], expected, rtol=0, atol=tolerance, msg=f"{field} differs")


@pytest.mark.parametrize("name", MAKER["MODELS"])
def test_pipeline_outputs_of_a_stored_checkpoint_are_unchanged(name: str):
    stored = leaves(json.loads((MAKER["FOLDER"] / f"{name}.json").read_text()))

    outputs = leaves(MAKER["answers"](MAKER["MODELS"][name]))

    assert outputs.keys() == stored.keys()
    numbers = {path for path, value in stored.items() if isinstance(value, float)}
    assert {path: outputs[path] for path in stored if path not in numbers} == {
        path: stored[path] for path in stored if path not in numbers
    }
    assert max(abs(outputs[path] - stored[path]) for path in numbers) <= 6 * TOLERANCE  # dimensions on 1..7
