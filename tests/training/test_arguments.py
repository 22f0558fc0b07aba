"""Arguments of the recipes are checked against their types."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import pytest

from audio_emotion.training.arguments import parse_arguments

RECIPES = Path(__file__).parents[2] / "recipes"
CLASSES = {
    "distill": "DistillArguments",
    "evaluate": "EvaluateArguments",
    "fine_tune": "FineTuneArguments",
    "pack": "PackArguments",
    "pseudo_label": "PseudoLabelArguments",
    "train_teacher": "TeacherArguments",
}


@pytest.mark.parametrize("recipe", CLASSES)
def test_a_value_of_another_type_is_refused_by_its_name(recipe: str):
    arguments = runpy.run_path(str(RECIPES / f"{recipe}.py"))[CLASSES[recipe]]

    with pytest.raises(Exception, match="corpus_count"):
        arguments(output="runs/x", corpus="synthetic", corpus_count="many")


@pytest.mark.parametrize("recipe", CLASSES)
def test_a_probability_or_fraction_above_1_is_refused_by_its_name(recipe: str):
    arguments = runpy.run_path(str(RECIPES / f"{recipe}.py"))[CLASSES[recipe]]
    helps = {
        each.name: each.metadata["help"]
        for each in dataclasses.fields(arguments)
        if each.type == "float" or each.type is float
    }
    fractions = [name for name, text in helps.items() if "0 to 1" in text or "robability" in text or "raction" in text]
    assert fractions or recipe == "evaluate"

    for name in fractions:
        with pytest.raises(Exception, match=f"'{name}'(.|\n)*0 to 1, got 1.5"):
            arguments(output="runs/x", corpus="synthetic", **{name: 1.5})


def test_a_list_flag_without_values_overrides_that_of_the_file(tmp_path):
    (tmp_path / "arguments.yaml").write_text("output: runs/x\nlayers: [1, 2]\nencoders: log-mel\n")
    arguments = runpy.run_path(str(RECIPES / "train_teacher.py"))["TeacherArguments"]

    given = parse_arguments(arguments, ["--config", str(tmp_path / "arguments.yaml"), "--layers"])

    assert (given.layers, given.encoders) == ([], ["log-mel"])
