"""Who a model has heard, its teachers included."""

from __future__ import annotations


def heard_speakers(training_data: list[dict]) -> set[str]:
    """Names of all speakers in `config.training_data`, and in that of the teachers, and of theirs."""
    return {
        name for seen in training_data for name in [*seen["speakers"], *heard_speakers(list(seen.get("teachers", [])))]
    }
