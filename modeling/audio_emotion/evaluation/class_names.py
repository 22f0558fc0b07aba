"""Which class of a model is which emotion of a corpus: by name, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

SYNONYMS: dict[str, tuple[str, ...]] = {
    # one emotion under the names that corpora and public models give it; case does not matter
    "neutral": ("neu", "neutrality"),
    "calm": ("cal", "calmness"),
    "happy": ("hap", "happiness", "joy", "joyful"),
    "sad": ("sadness",),
    "angry": ("ang", "anger"),
    "fearful": ("fear", "fea", "afraid", "scared"),
    "disgust": ("dis", "disgusted"),
    "surprised": ("sur", "surprise"),
    "contempt": ("con", "contemptuous"),
    "excited": ("exc", "excitement"),
    "frustrated": ("fru", "frustration"),
    "bored": ("boredom",),
    "other": ("oth", "others"),
}
DIMENSION_SYNONYMS: dict[str, tuple[str, ...]] = {"activation": ("arousal",), "valence": (), "dominance": ()}


@dataclass(frozen=True)
class ClassMatch:
    """How classes of a model answer for emotions of a corpus.

    Attributes:
        emotions: of the corpus that are scored, in its order.
        sources: for each of them, the places of the classes that mean it.
        left_out: emotions of the corpus whose clips count as unlabelled.
    """

    emotions: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]
    left_out: tuple[str, ...]

    def logits(self, scores: torch.Tensor) -> torch.Tensor:
        """From `(B, C)` of the model to `(B, K)` of the scored emotions; classes of one emotion add their shares."""
        return torch.stack([scores[:, list(places)].logsumexp(-1) for places in self.sources], dim=-1)

    def labels(self, emotions: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """From class numbers among the corpus's `emotions` to those among the scored ones, -100 where left out."""
        number = {name: index for index, name in enumerate(self.emotions)}
        table = np.array([number.get(name, -100) for name in emotions] + [-100])
        return table[np.where(labels >= 0, labels, len(emotions))]


def match_classes(
    classes: Sequence[str], emotions: Sequence[str], label_map: Mapping[str, str | None] | None = None
) -> ClassMatch:
    """Match classes of a model with emotions of a corpus by their names, or else by `SYNONYMS`.

    Args:
        classes: of the model, in the order of its logits.
        emotions: of the corpus.
        label_map: what names alone do not say: from a class to an emotion of the corpus, or to None to leave the
            class out; and from an emotion that the model does not have to None, to leave its clips out.

    Raises:
        ValueError: naming the classes and the emotions that have no partner, or a name in `label_map` that nobody has.
    """
    given = dict(label_map or {})
    wrong = sorted({*given} - {*classes, *emotions}) + sorted({*filter(None, given.values())} - {*emotions})
    if wrong:
        raise ValueError(
            f"Expected a label map from classes {list(classes)} or emotions {list(emotions)} to emotions or null, got "
            f"{wrong} in it. Correct these names."
        )
    target = {name: given[name] if name in given else partner(name, emotions) for name in classes}
    lost_classes = [name for name in classes if target[name] is None and name not in given]
    answered = {name for name in target.values() if name is not None}
    lost_emotions = [name for name in emotions if name not in answered and name not in given]
    if lost_classes or lost_emotions:
        raise ValueError(
            f"Expected a partner for every name, got none for the model's classes {lost_classes} (it has "
            f"{list(classes)}) and for the corpus's emotions {lost_emotions} (it has {list(emotions)}). Pass "
            "`--label_map FILE`, a YAML file that says which emotion each of these is, or null to leave it out."
        )
    scored = tuple(name for name in emotions if name in answered)
    if not scored:
        raise ValueError("Expected at least one emotion to score, got none: the label map leaves all of them out.")
    sources = tuple(tuple(place for place, name in enumerate(classes) if target[name] == each) for each in scored)
    return ClassMatch(scored, sources, tuple(name for name in emotions if name not in answered))


def partner(name: str, emotions: Sequence[str]) -> str | None:
    """Which of the emotions a class means: the one of its name, else a synonym, our own word before others."""

    def rank(emotion: str) -> tuple[bool, ...]:
        plain = emotion.strip().lower()
        return emotion != name, plain != name.strip().lower(), plain != our_word(name)

    return min((each for each in emotions if our_word(each) == our_word(name)), key=rank, default=None)


def dimension_columns(classes: Sequence[str], dimensions: Sequence[str]) -> list[int] | None:
    """Place of each dimension among the outputs of a regression model; None if these are no dimensions."""
    names = {other: name for name, others in DIMENSION_SYNONYMS.items() for other in (name, *others)}
    found = [names.get(name.lower()) for name in classes]
    if None in found or not set(dimensions) <= set(found):
        return None
    return [found.index(name) for name in dimensions]


def our_word(name: str) -> str:
    """The word that all corpora here have for a class, `"fearful"` for `"Fear"`; an unknown name in small letters."""
    plain = name.strip().lower()
    return next((word for word, others in SYNONYMS.items() if plain in (word, *others)), plain)


def our_words(names: Sequence[str], where: str) -> list[str]:
    """The same for all classes of a teacher; where several mean the same (`joy` and `happy`), each keeps its name.

    Raises:
        ValueError: where names are numbered places, or two are the same.
    """
    words = [our_word(name) for name in names]
    words = [word if words.count(word) == 1 else name.strip().lower() for name, word in zip(names, words, strict=True)]
    if any(word.startswith("label_") or word.isdigit() for word in words):
        raise ValueError(
            f"{where}: expected names of emotions, got {list(names)}. Name them under `classes` in a YAML file "
            "(docs/pseudo_labels.md)."
        )
    if len(set(words)) < len(words):
        raise ValueError(f"{where}: expected classes that differ, got {list(names)}, which are {words}.")
    return words
