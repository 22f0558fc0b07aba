"""Named speaker splits: who trains, who validates, who is tested.

`ravdess-20` is RAVDESS actors 01 to 20. `ravdess-20-fixed` is for quick work; a result on it is a hint. A claim takes
the five folds `ravdess-20-fold-1` .. `-5`, in which every actor is tested once; each fold validates on the test actors
of the next. Fold 2 tests women only: report it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """Names of speakers ("ravdess/01"), no one on two sides."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


FOLDS = ((1, 11, 17, 20), (4, 10, 12, 14), (8, 9, 15, 19), (3, 5, 7, 18), (2, 6, 13, 16))
SPLIT_NAMES = (
    "synthetic-10",
    "ravdess-20-all",
    "ravdess-20-fixed",
    *(f"ravdess-20-fold-{number}" for number in range(1, len(FOLDS) + 1)),
)


def split(name: str) -> Split:
    """Split with one of `SPLIT_NAMES`.

    Raises:
        ValueError: for another name.
    """
    if name not in SPLIT_NAMES:
        raise ValueError(f"Expected a split among {list(SPLIT_NAMES)}, got `{name}`.")
    if name == "synthetic-10":
        voices = [f"synthetic/{number:02d}" for number in range(1, 11)]
        return Split(train=tuple(voices[:6]), validation=tuple(voices[6:8]), test=tuple(voices[8:]))
    if name == "ravdess-20-all":  # for weights that are shipped, never for a number
        return Split(train=_speakers(range(1, 21)), validation=(), test=())
    if name == "ravdess-20-fixed":
        return Split(train=_speakers(range(1, 13)), validation=_speakers(range(13, 17)), test=_speakers(range(17, 21)))
    fold = int(name.rsplit("-", 1)[1]) - 1
    test, validation = FOLDS[fold], FOLDS[(fold + 1) % len(FOLDS)]
    train = [actor for actor in range(1, 21) if actor not in test + validation]
    return Split(train=_speakers(train), validation=_speakers(validation), test=_speakers(test))


def assert_disjoint(split: Split) -> None:
    """Stop if somebody is on two sides.

    Raises:
        ValueError: naming the speakers and both sides.
    """
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if both := sorted(set(sides[first]) & set(sides[second])):
            raise ValueError(
                f"Expected every speaker on one side, got {', '.join(both)} in `{first}` and in `{second}`. Take them "
                f"out of one: a model is not tested on voices that it knows."
            )


def _speakers(actors: range | list[int] | tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"ravdess/{actor:02d}" for actor in actors)
