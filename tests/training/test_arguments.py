"""Arguments of the recipes are checked against their types."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

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
