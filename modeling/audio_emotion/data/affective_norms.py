"""Norm-derived activation, valence and dominance: ratings of emotion terms, for corpora without ratings of the speech.

RAVDESS labels the emotion and intensity of its clips, but has no ratings of activation, valence or dominance.
Published ratings of the emotion *word* replace them. Such targets are called "norm-derived", never "ratings": they
have one value per (emotion, intensity) and do not depend on the voice.

Two sets of norms (`NORM_SETS`), by the name of their `dimensions_source`:

**"norm-derived": words.** Source: Warriner, Kuperman & Brysbaert (2013), Norms of valence, arousal, and dominance for
13,915 English lemmas, Behavior Research Methods 45:1191-1207, doi 10.3758/s13428-012-0314-x. Their supplementary table
(`Ratings_Warriner_et_al.csv`, also distributed as `BRM-emot-submit.csv`), columns `A.Mean.Sum`, `V.Mean.Sum` and
`D.Mean.Sum`: means over all raters, scale 1..9. The table has all eight RAVDESS labels in the same spelling.

The numbers were read from two public copies of the table, in the GitHub repository `JULIELab/XANEW` and in the
`labMTsimple` 2.8.8 source distribution; they agree on all 24 values. Other words and tables differ:

- the nouns differ from the labels: `anger` has dominance 5.14, `angry` 4.11; `surprise` has valence 7.44, `surprised`
  6.57; `sadness` has arousal 2.81, `sad` 3.49;
- the older ANEW (Bradley & Lang 1999; the copy in the same `labMTsimple` distribution) differs mostly in arousal
  (`angry` 7.17, `surprised` 7.47), and has no `neutral`, `calm` or `disgust`.

For the interpretation of results: `surprised` is a pleasant word (valence 6.57), although surprise acted in RAVDESS
need not be; `calm` has the lowest activation, far below `neutral`. The table is published under CC BY-NC-ND 3.0 and is
not part of this project: eight of its 13,915 entries are quoted.

**"norm-derived-pad": states.** Source: Russell & Mehrabian (1977), Evidence for a three-factor theory of emotions,
Journal of Research in Personality 11(3):273-294, doi 10.1016/0092-6566(77)90037-X, table 4: 151 terms, rated as states
that a person feels, on pleasure, arousal and dominance, scale -1..1; rows 31 (happy), 52 (surprised), 75 (disgusted),
82 (angry), 101 (fearful), 151 (sad), bored, and relaxed for `calm`. The table was not seen in print. Independent
transcriptions agree on all values: that with row numbers in the GitHub repository `GamSeong-HwaBaek/GamSeong-HwaBaek`
(`Emotion-PAD.md`), and the emotions of `preke/PELD` (`emo_transition_src/utils.py`; its fear is the term "terrified").
The table has no `neutral` and no `calm`: 0 on each scale, the middle, and the values of "relaxed" are our choice.

Of speech that listeners rated, dominance correlates with the second set only (docs/dimensions.md): the word "angry" is
rated weak, the state strong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

DIMENSIONS = ("activation", "valence", "dominance")

NORMS: dict[str, tuple[float, float, float]] = {
    # emotion: (activation, valence, dominance), published means, 1..9; activation is the table's arousal
    "neutral": (3.45, 5.50, 5.81),
    "calm": (1.67, 6.89, 7.44),
    "happy": (6.05, 8.47, 7.21),
    "sad": (3.49, 2.10, 3.84),
    "angry": (6.20, 2.53, 4.11),
    "fearful": (5.45, 2.66, 3.12),
    "disgust": (5.00, 3.32, 4.84),
    "surprised": (5.95, 6.57, 4.72),
}

PAD_NORMS: dict[str, tuple[float, float, float]] = {
    # emotion: (activation, valence, dominance), published means, -1..1; activation is arousal, valence pleasure
    "neutral": (0.0, 0.0, 0.0),  # our choice
    "calm": (-0.46, 0.68, 0.06),  # "relaxed"
    "happy": (0.51, 0.81, 0.46),
    "sad": (-0.27, -0.63, -0.33),
    "angry": (0.59, -0.51, 0.25),
    "fearful": (0.60, -0.64, -0.43),
    "disgust": (0.35, -0.60, 0.11),  # "disgusted"
    "surprised": (0.67, 0.40, -0.13),
    "bored": (-0.62, -0.65, -0.33),
}

Norms = dict[str, tuple[float, float, float]]
NORM_SETS: dict[str, tuple[Norms, float, float]] = {  # norms, and the ends of their scale
    "norm-derived": (NORMS, 1.0, 9.0),
    "norm-derived-pad": (PAD_NORMS, -1.0, 1.0),
}

# Our choice, not a published figure: strong intensity takes activation this fraction of its remaining way to 1.
# A fraction of what remains, and not an added constant, keeps the result within 0..1 and the order of the emotions.
ACTIVATION_GAIN: dict[str, float] = {"normal": 0.0, "strong": 0.25}


def norm_derived_dimensions(
    emotion: str, intensity: str = "normal", source: str = "norm-derived"
) -> tuple[float, float, float]:
    """Norm-derived dimensions of an emotion and its acted intensity.

    The published means are mapped from their scale to 0..1. Intensity "strong" then raises activation by
    `ACTIVATION_GAIN` (our choice); valence and dominance do not depend on intensity.

    Args:
        emotion: one of the norms.
        intensity: "normal" or "strong".
        source: of the norms, a key of `NORM_SETS`.

    Returns:
        (activation, valence, dominance), each in 0..1 (0 calm / negative / weak, 1 excited / positive / strong).

    Raises:
        ValueError: for an unknown emotion, intensity or source; the message lists the known ones.
    """
    if source not in NORM_SETS:
        raise ValueError(f"Expected norms among {', '.join(NORM_SETS)}, got {source!r}.")
    norms, low, high = NORM_SETS[source]
    if emotion not in norms:
        raise ValueError(
            f"No affective norm for emotion {emotion!r}: expected one of {', '.join(norms)}. "
            "Rename the label, or leave the dimensions of this row empty."
        )
    if intensity not in ACTIVATION_GAIN:
        raise ValueError(f"Unknown intensity {intensity!r}: expected one of {', '.join(ACTIVATION_GAIN)}.")
    activation, valence, dominance = ((mean - low) / (high - low) for mean in norms[emotion])
    activation += ACTIVATION_GAIN[intensity] * (1.0 - activation)
    return activation, valence, dominance


def dimensions_of_emotion(emotion: str, source: str = "norm-derived") -> dict[str, float]:
    """Norms of an emotion by the name of the dimension, as in the output of the pipeline, each in 0..1.

    Raises:
        ValueError: for an emotion that has no norm, or unknown norms; the message lists the known ones.
    """
    return dict(zip(DIMENSIONS, norm_derived_dimensions(emotion, source=source), strict=True))


def nearest_emotions(
    dimensions: Mapping[str, float], scale: tuple[float, float] = (0.0, 1.0)
) -> list[tuple[str, float]]:
    """Emotions sorted by the distance of their norms.

    The distance is Euclidean over the given dimensions, in units of 0..1, with equal weights (our choice: the norms do
    not define a distance).

    Args:
        dimensions: at least one of activation (or arousal), valence and dominance by name, such as `"dimensions"` of a
            pipeline output.
        scale: lowest and highest value, such as `"scale"` of a pipeline output.

    Returns:
        every emotion in `NORMS` with its distance.

    Raises:
        ValueError: for an unknown name, a value that is not finite, no value, or an empty scale.
    """
    low, high = scale
    named = {"activation" if name == "arousal" else name: value for name, value in dimensions.items()}
    if not named or set(named) - set(DIMENSIONS) or not all(map(math.isfinite, named.values())) or not low < high:
        raise ValueError(
            f"Expected finite values of {', '.join(DIMENSIONS)} by name, on a scale whose lower end comes first, got "
            f"{dict(dimensions)} on {scale}."
        )
    point = {name: (value - low) / (high - low) for name, value in named.items()}

    def distance(emotion: str) -> float:
        norms = dimensions_of_emotion(emotion)
        return math.dist(list(point.values()), [norms[name] for name in point])

    return sorted(((emotion, distance(emotion)) for emotion in NORMS), key=lambda pair: pair[1])
