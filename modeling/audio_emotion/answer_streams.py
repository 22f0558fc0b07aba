"""Answers to a stream of clips: made as they are asked for, by `next` or by a loop."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class AnswerStream:
    """An iterator over answers, as long as its clips.

    A loop goes on where the last one, or `next`, has stopped. After the end, a new loop judges the clips once more:
    those of a data set are still there, those of an iterator are gone.

    Args:
        judge: begins to judge, and gives the answers.
        clips: what is judged.
    """

    def __init__(self, judge: Callable[[], Iterable[dict[str, Any]]], clips: Any):
        self._judge = judge
        self._clips = clips
        self._answers = iter(judge())
        self._ended = False

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._ended:
            self._answers, self._ended = iter(self._judge()), False
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self._answers)
        except StopIteration:
            self._ended = True
            raise
