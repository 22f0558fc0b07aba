"""Inputs of the pipeline: forms of clips and data sets, and the iterator over their predictions."""

# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.pipelines.pt_utils import KeyDataset


class PredictionIterator:
    """An iterator over predictions with the length of its clips.

    A loop continues where the last one, or `next`, stopped. After the end, a new loop predicts the clips once more, if
    they can be iterated again, as a dataset can and a generator cannot.

    Args:
        predict: starts a run over the clips.
        clips: the inputs.
    """

    def __init__(self, predict: Callable[[], Iterable[dict[str, Any]]], clips: Any):
        self._predict = predict
        self._clips = clips
        self._predictions = iter(predict())
        self._is_finished = False

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._is_finished:
            self._predictions, self._is_finished = iter(self._predict()), False
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self._predictions)
        except StopIteration:
            self._is_finished = True
            raise


def is_stream_of_clips(inputs: Any) -> bool:
    """Whether the clips come one by one: a dataset of `datasets`, a column of one, or an iterator but not a file."""
    if _is_of_datasets(inputs):
        return isinstance(inputs, Iterable) and not isinstance(inputs, Mapping)  # a row is a mapping
    return isinstance(inputs, Iterator) and not callable(getattr(inputs, "read", None))


def _is_of_datasets(inputs: Any) -> bool:
    return type(inputs).__module__.partition(".")[0] == "datasets"  # which need not be installed


def as_clips(inputs: Any, rate: int) -> Any:
    """Tuples and arrays of clips as lists, and datasets whose audio this package reads; anything else unchanged.

    Raises:
        ValueError: on a loader of batches, and an array of paths with several axes.
    """
    if isinstance(inputs, DataLoader):
        raise ValueError(
            "Expected clips, got a DataLoader, which yields batches. Pass its data set, `loader.dataset`, and "
            "`batch_size`."
        )
    if _is_array_of_objects(inputs) and inputs.ndim:
        if inputs.ndim > 1:
            raise ValueError(f"Expected an array of paths with one axis, got shape {inputs.shape}.")
        return inputs.tolist()
    if isinstance(inputs, tuple):
        return list(inputs) if _array_with_rate(inputs) is None else inputs
    return _without_decoding(inputs, rate)


def as_clip(clip: Any) -> Any:
    """A clip in a form that [`read_audio`] takes, where it is in one of a few others."""
    if isinstance(clip, tuple):
        return _array_with_rate(clip) or clip
    if _is_array_of_objects(clip) and not clip.ndim:
        return as_clip(clip.item())
    if isinstance(clip, os.PathLike) and not isinstance(clip, Path):
        return os.fsdecode(clip)
    if _is_of_datasets(clip) and hasattr(clip, "pa_table"):  # a row in `Dataset.map`, which decodes on access
        return clip.pa_table.to_pylist()[0]
    return clip


def _is_array_of_objects(inputs: Any) -> bool:
    """Whether the inputs are a numpy array of strings or of Python's objects."""
    return isinstance(inputs, np.ndarray) and inputs.dtype.kind in "UO"


def _array_with_rate(clip: tuple) -> dict[str, Any] | None:
    """The clip for `(rate, array)` or `(array, rate)`; None for another tuple."""
    for rate, array in (clip, clip[::-1]) if len(clip) == 2 else ():
        if isinstance(rate, Real) and isinstance(array, (np.ndarray, torch.Tensor)):
            return {"array": array, "sampling_rate": rate}
    return None


def _without_decoding(clips: Any, rate: int) -> Any:
    """A dataset of `datasets`, or a column of one, that leaves decoding to this package and so needs no torchcodec.

    Unless another rate than the model's was requested, or the rows are transformed by a function of the user.
    """
    if isinstance(clips, KeyDataset):
        return KeyDataset(_without_decoding(clips.dataset, rate), clips.key)
    if not _is_of_datasets(clips):
        return clips
    if hasattr(clips, "column_name"):
        return _without_decoding(clips.source, rate)[clips.column_name]
    features = getattr(clips, "features", None)
    if not features or getattr(clips, "format", {}).get("type") == "custom":
        return clips
    for name, feature in features.items():
        if type(feature).__name__ == "Audio" and feature.decode and feature.sampling_rate in (None, rate):
            clips = clips.cast_column(name, replace(feature, decode=False))
    return clips
