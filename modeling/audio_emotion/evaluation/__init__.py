"""Evaluation: metrics, bootstrap intervals, comparison of models, plots, checks for training data leakage."""

from __future__ import annotations

from pathlib import Path

METRIC_MODULES = Path(__file__).parent / "metric_modules"


def metric_module(name: str) -> str:
    """Folder of one of our metrics as an `evaluate` module: `evaluate.load(metric_module("ccc"))`, without network."""
    known = sorted(path.name for path in METRIC_MODULES.iterdir() if (path / f"{path.name}.py").is_file())
    if name not in known:
        raise ValueError(f"Expected a metric among {known}, got `{name}`.")
    return str(METRIC_MODULES / name)
