"""notebooks/quickstart.ipynb: its cells run in order, and it is stored without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parents[1] / "notebooks"
CELLS = json.loads((FOLDER / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_cells_run_in_order(capsys):
    scope: dict = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in CODE:
            exec(compile(cell, "quickstart.ipynb", "exec"), scope)
        lines = plt.gca().get_lines()
        plt.close("all")

    assert [line.get_label() for line in lines] == ["activation", "valence", "dominance"]
    assert len(scope["windows"]) == 5
    assert len(scope["embedding"]) == scope["emotion"].model.config.embedding_size
    printed = capsys.readouterr().out
    assert "license ODbL-1.0 AND MIT" in printed
    assert "missing.wav" in printed


def test_notebook_is_stored_without_outputs():
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if cell["cell_type"] == "code"
    )


def test_links_of_the_notebook_lead_to_files():
    text = "\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\((\.\./[^)#]+)\)", text)

    assert targets
    assert all((FOLDER / target).is_file() for target in targets)
