"""Which class of a model is which emotion of a corpus: by name, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

from audio_emotion.configuration_emotion import EmotionConfig
from audio_emotion.configuration_fused_emotion import FusedEmotionConfig
from audio_emotion.layers import EmotionOutput

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
        left_out: emotions of the corpus whose clips count as unlabeled.
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
        ValueError: naming the classes and the emotions that have no matching_label, or a name in `label_map` that nobody has.
    """
    given = dict(label_map or {})
    wrong = sorted({*given} - {*classes, *emotions}) + sorted({*filter(None, given.values())} - {*emotions})
    if wrong:
        raise ValueError(
            f"Expected a label map from classes {list(classes)} or emotions {list(emotions)} to emotions or null, got "
            f"{wrong} in it. Correct these names."
        )
    target = {name: given[name] if name in given else matching_label(name, emotions) for name in classes}
    lost_classes = [name for name in classes if target[name] is None and name not in given]
    answered = {name for name in target.values() if name is not None}
    lost_emotions = [name for name in emotions if name not in answered and name not in given]
    if lost_classes or lost_emotions:
        raise ValueError(
            f"Expected a matching_label for every name, got none for the model's classes {lost_classes} (it has "
            f"{list(classes)}) and for the corpus's emotions {lost_emotions} (it has {list(emotions)}). Pass "
            "`--label_map FILE`, a YAML file that says which emotion each of these is, or null to leave it out."
        )
    scored = tuple(name for name in emotions if name in answered)
    if not scored:
        raise ValueError("Expected at least one emotion to score, got none: the label map leaves all of them out.")
    sources = tuple(tuple(place for place, name in enumerate(classes) if target[name] == each) for each in scored)
    return ClassMatch(scored, sources, tuple(name for name in emotions if name not in answered))


def matching_label(name: str, emotions: Sequence[str]) -> str | None:
    """Which of the emotions a class means: the one of its name, else a synonym, our own word before others."""

    def rank(emotion: str) -> tuple[bool, ...]:
        plain = emotion.strip().lower()
        return emotion != name, plain != name.strip().lower(), plain != canonical_label(name)

    return min((each for each in emotions if canonical_label(each) == canonical_label(name)), key=rank, default=None)


def dimension_columns(classes: Sequence[str], dimensions: Sequence[str]) -> list[int] | None:
    """Place of each dimension among the outputs of a regression model; None if these are no dimensions."""
    names = {other: name for name, others in DIMENSION_SYNONYMS.items() for other in (name, *others)}
    found = [names.get(name.lower()) for name in classes]
    if None in found or not set(dimensions) <= set(found):
        return None
    return [found.index(name) for name in dimensions]


def canonical_label(name: str) -> str:
    """The word that all corpora here have for a class, `"fearful"` for `"Fear"`; an unknown name in small letters."""
    plain = name.strip().lower()
    return next((word for word, others in SYNONYMS.items() if plain in (word, *others)), plain)


def canonical_labels(names: Sequence[str], where: str) -> list[str]:
    """The same for all classes of a teacher; where several mean the same (`joy` and `happy`), each keeps its name.

    Raises:
        ValueError: where names are numbered places, or two are the same.
    """
    words = [canonical_label(name) for name in names]
    words = [word if words.count(word) == 1 else name.strip().lower() for name, word in zip(names, words, strict=True)]
    if any(word.startswith("label_") or word.isdigit() for word in words):
        raise ValueError(
            f"{where}: expected names of emotions, got {list(names)}. Name them under `classes` in a YAML file "
            "(docs/pseudo_labels.md)."
        )
    if len(set(words)) < len(words):
        raise ValueError(f"{where}: expected classes that differ, got {list(names)}, which are {words}.")
    return words


class MatchedClassifier(nn.Module):
    """A checkpoint that is to be evaluated on a corpus; its classes are matched with the corpus's emotions by name.

    A foreign model whose classes are all dimensions (`arousal`, `valence`, `dominance`) is taken for a regression onto
    0..1.

    Args:
        name: Hub id or folder.
        emotions: of the corpus.
        dimensions: of the corpus.
        label_map: see `match_classes`.

    Attributes:
        model: the model itself.
        match: of classes and emotions; None for a model without categories.
        emotions: that are scored, in the order of the logits.
        dimensions: that are scored, in column order.
        training_data: of the checkpoint; empty for a foreign model, of which only `public_models` may tell.
        public_models: names of the model itself and of the encoders in it.

    Raises:
        ValueError: where the checkpoint lacks weights, naming them, or names have no matching_label.
    """

    def __init__(
        self,
        name: str,
        emotions: Sequence[str],
        dimensions: Sequence[str],
        label_map: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__()
        config = AutoConfig.from_pretrained(name)
        self.public_models = [name]
        self.training_data: list[dict] = []
        self.extractor: Any = None  # of a foreign model
        if isinstance(config, EmotionConfig):
            self.model = AutoModelForAudioClassification.from_pretrained(name)
            self.training_data = list(config.training_data)
            if isinstance(config, FusedEmotionConfig):
                self.public_models += [stream["source"] for stream in config.streams if stream["kind"] == "encoder"]
            classes = list(config.emotions)
            self.dimensions = [each for each in config.dimensions if each in dimensions]
            self.columns = [list(config.dimensions).index(each) for each in self.dimensions]
        else:
            self.model, info = AutoModelForAudioClassification.from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True
            )
            if absent := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
                raise ValueError(
                    f"Expected all weights of {type(self.model).__name__} in {name!r}, got none for {absent}. Its "
                    "answers would be random: it was made for another architecture. Load it with the code it was made "
                    "for."
                )
            self.extractor = AutoFeatureExtractor.from_pretrained(name)
            classes = [config.id2label[place] for place in range(config.num_labels)]
            self.columns = dimension_columns(classes, dimensions) or []
            self.dimensions = list(dimensions) if self.columns else []
            classes = [] if self.columns else classes
        self.match: ClassMatch | None = match_classes(classes, emotions, label_map) if classes else None
        self.emotions = list(self.match.emotions) if self.match else []

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> EmotionOutput:
        """MatchedClassifier clips `(B, S)` at 16 kHz."""
        judge: Any = self._foreign if self.extractor else self.model
        said = judge(input_values, attention_mask)
        nothing = input_values.new_zeros(len(input_values), 0)
        return EmotionOutput(
            logits=self.match.logits(said.logits) if self.match else nothing,  # (B, K)
            dimensions=said.dimensions[:, self.columns] if self.columns else nothing,  # (B, A)
            embedding=nothing,
        )

    def _foreign(self, input_values: Tensor, attention_mask: Tensor) -> EmotionOutput:
        """One clip at a time: many public models hear the padding of a batch."""
        scores = []
        for samples, mask in zip(input_values, attention_mask, strict=True):
            clip = samples[: int(mask.sum())].cpu().numpy()  # (S,)
            features = self.extractor(clip, sampling_rate=16000, return_tensors="pt")
            scores.append(self.model(**features.to(input_values.device)).logits.float()[0])
        outputs = torch.stack(scores)  # (B, C)
        return EmotionOutput(logits=outputs, dimensions=outputs)
