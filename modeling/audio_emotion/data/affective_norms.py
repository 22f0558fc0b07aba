"""Norm-derived activation, valence and dominance for corpora that label speech with an emotion word only.

RAVDESS says which emotion an actor played and how strongly, but nobody rated its clips for activation, valence or
dominance. What stands in for ratings here is how readers rated the *word*. Such targets are always called
"norm-derived", never "ratings": they take one value per (emotion, intensity) and know nothing of the voice.

Source: Warriner, Kuperman & Brysbaert (2013), Norms of valence, arousal, and dominance for 13,915 English lemmas,
Behavior Research Methods 45:1191-1207, doi 10.3758/s13428-012-0314-x. Their supplementary table
(`Ratings_Warriner_et_al.csv`, also distributed as `BRM-emot-submit.csv`), columns `A.Mean.Sum`, `V.Mean.Sum` and
`D.Mean.Sum`: means over all raters, scale 1..9. The eight RAVDESS labels stand in the table exactly as spelled there,
so the word form is always the label itself.

How the numbers were read: from two public copies of the table, in the GitHub repository `JULIELab/XANEW` and in the
`labMTsimple` 2.8.8 source distribution; they agree on all 24 values. What disagrees are other words and other tables:

- the nouns differ from the labels: `anger` has dominance 5.14 where `angry` has 4.11, `surprise` has valence 7.44
  where `surprised` has 6.57, and `sadness` has arousal 2.81 where `sad` has 3.49;
- the older ANEW (Bradley & Lang 1999; the copy in the same `labMTsimple` distribution) rates the same words otherwise,
  above all in arousal (`angry` 7.17, `surprised` 7.47), and has no `neutral`, `calm` or `disgust`.

What a reader of results should know: `surprised` is a pleasant word (valence 6.57), though surprise played in RAVDESS
need not be; `calm` is the extreme of activation, far below `neutral`. The table itself is published under
CC BY-NC-ND 3.0 and is not part of this project: eight of its 13,915 entries are quoted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

DIMENSIONS = ("activation", "valence", "dominance")

NORMS: dict[str, tuple[float, float, float]] = {
    # word: (activation, valence, dominance), published means, 1..9; activation is the table's arousal
    "neutral": (3.45, 5.50, 5.81),
    "calm": (1.67, 6.89, 7.44),
    "happy": (6.05, 8.47, 7.21),
    "sad": (3.49, 2.10, 3.84),
    "angry": (6.20, 2.53, 4.11),
    "fearful": (5.45, 2.66, 3.12),
    "disgust": (5.00, 3.32, 4.84),
    "surprised": (5.95, 6.57, 4.72),
}

# Our choice, not a published figure: strong intensity takes activation this fraction of its remaining way to 1.
# A fraction of what remains, and not an added constant, keeps the result within 0..1 and the order of the emotions.
ACTIVATION_GAIN: dict[str, float] = {"normal": 0.0, "strong": 0.25}


def norm_derived_dimensions(emotion: str, intensity: str = "normal") -> tuple[float, float, float]:
    """Map an emotion word and its played intensity to norm-derived dimensions.

    The published 1..9 means are mapped by (x - 1) / 8. Intensity "strong" then raises activation by a rule of our own
    (`ACTIVATION_GAIN`); valence and dominance do not depend on intensity.

    Args:
        emotion: one of the words in `NORMS`, spelled as there.
        intensity: "normal" or "strong".

    Returns:
        (activation, valence, dominance), each in 0..1 (0 calm / negative / weak, 1 excited / positive / strong).

    Raises:
        ValueError: the emotion or the intensity is not known; the message names the known ones.
    """
    if emotion not in NORMS:
        raise ValueError(
            f"No affective norm for emotion {emotion!r}: expected one of {', '.join(NORMS)}. "
            "Rename the label, or leave the dimensions of this row empty."
        )
    if intensity not in ACTIVATION_GAIN:
        raise ValueError(f"Unknown intensity {intensity!r}: expected one of {', '.join(ACTIVATION_GAIN)}.")
    activation, valence, dominance = ((mean - 1.0) / 8.0 for mean in NORMS[emotion])
    activation += ACTIVATION_GAIN[intensity] * (1.0 - activation)
    return activation, valence, dominance


def point_of_word(word: str) -> dict[str, float]:
    """Where readers place an emotion word.

    Args:
        word: one of those in `NORMS`.

    Returns:
        activation, valence and dominance by name, each in 0..1, as the pipeline names them.

    Raises:
        ValueError: the word is not known; the message names the known ones.
    """
    return dict(zip(DIMENSIONS, norm_derived_dimensions(word), strict=True))


def words_near(dimensions: Mapping[str, float], scale: tuple[float, float] = (0.0, 1.0)) -> list[tuple[str, float]]:
    """Emotion words by their distance from a point, the nearest first.

    The distance is Euclid's over the dimensions that are given, in units of 0..1: all three weigh the same. That is a
    choice of ours; the norms say where words lie, not how far apart two points feel.

    Args:
        dimensions: values of at least one of activation (or arousal), valence and dominance, by name; what a pipeline
            answers under `"dimensions"`.
        scale: ends of the scale that the values are on; what a pipeline answers under `"scale"`.

    Returns:
        every word of `NORMS` with its distance.

    Raises:
        ValueError: a name is not known, a value is not finite, there is none, or the scale has no length.
    """
    low, high = scale
    named = {"activation" if name == "arousal" else name: value for name, value in dimensions.items()}
    if not named or set(named) - set(DIMENSIONS) or not all(map(math.isfinite, named.values())) or not low < high:
        raise ValueError(
            f"Expected finite values of {', '.join(DIMENSIONS)} by name, on a scale whose lower end comes first, got "
            f"{dict(dimensions)} on {scale}."
        )
    point = {name: (value - low) / (high - low) for name, value in named.items()}

    def distance(word: str) -> float:
        place = point_of_word(word)
        return math.dist(list(point.values()), [place[name] for name in point])

    return sorted(((word, distance(word)) for word in NORMS), key=lambda pair: pair[1])
