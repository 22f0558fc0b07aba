"""Match the classes of any model with the emotions of a corpus, by name and never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

from audio_emotion.checkpoint_loading import loading_options
from audio_emotion.configuration_emotion import EmotionConfig, FusedEmotionConfig
from audio_emotion.data.training_set import NEAREST
from audio_emotion.evaluation.external_models import ExternalModel, external_model
from audio_emotion.layers import EmotionOutput

SYNONYMS: dict[str, tuple[str, ...]] = {
    # names of one emotion in corpora and public models, in any case
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
    "other": ("oth", "others", "<unk>", "unknown"),
}
MATCHING_RULE = (
    "Classes and emotions are matched by name or synonym. Calm counts as neutral, and neutral as calm, where the "
    "model or the corpus has one of the two only. An emotion that the model or the corpus does not have is left out: "
    "its clips are not scored, its class is never predicted, and the prediction is the most probable scored emotion."
)
DIMENSION_SYNONYMS: dict[str, tuple[str, ...]] = {"activation": ("arousal",), "valence": (), "dominance": ()}


@dataclass(frozen=True)
class ClassMatch:
    """Mapping from the classes of a model to the emotions of a corpus.

    Attributes:
        emotions: of the corpus that are scored, in its order.
        sources: for each of them, the indices of the matching classes.
        left_out: emotions of the corpus whose clips count as unlabeled.
        ignored: classes of the model that are never predicted.
        merged: from an emotion of the corpus to the scored one that its clips count as.
    """

    emotions: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]
    left_out: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)

    def logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Logits `(B, C)` of the model to `(B, K)` of the scored emotions; probabilities of one emotion are added."""
        return torch.stack([scores[:, list(places)].logsumexp(-1) for places in self.sources], dim=-1)

    def labels(self, emotions: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Class numbers in the corpus's `emotions` to class numbers in the scored ones, -100 where left out."""
        number = {name: index for index, name in enumerate(self.emotions)}
        table = np.array([number.get(self.merged.get(name, name), -100) for name in emotions] + [-100])
        return table[np.where(labels >= 0, labels, len(emotions))]


def match_classes(
    classes: Sequence[str], emotions: Sequence[str], label_map: Mapping[str, str | None] | None = None
) -> ClassMatch:
    """Match classes of a model with emotions of a corpus by name, else by `SYNONYMS`; see `MATCHING_RULE`.

    Args:
        classes: of the model, in the order of its logits.
        emotions: of the corpus.
        label_map: for names that do not match: from a class to an emotion of the corpus, or to None to ignore the
            class; and from an emotion that the model does not have to None, to leave its clips out. `calm: null` keeps
            calm and neutral apart.

    Raises:
        ValueError: naming classes and emotions without a match that are not in `SYNONYMS`, or are other words for one
            that is matched; unknown names in `label_map`; fewer than two emotions to score.
    """
    given = dict(label_map or {})
    wrong = sorted({*given} - {*classes, *emotions}) + sorted({*filter(None, given.values())} - {*emotions})
    if wrong:
        raise ValueError(
            f"Expected a label map from classes {list(classes)} or emotions {list(emotions)} to emotions or null, got "
            f"{wrong} in it. Correct these names."
        )
    target = {name: given[name] if name in given else matching_label(name, emotions) for name in classes}
    for name in classes:
        if target[name] is None and name not in given:
            target[name] = _nearest(name, emotions)
    matched = {name for name in target.values() if name is not None}
    near = {name: _nearest(name, [each for each in emotions if each in matched]) for name in emotions}
    merged = {name: to for name, to in near.items() if to is not None and name not in matched and name not in given}
    unmatched_classes = [name for name in classes if target[name] is None and name not in given]
    unmatched_emotions = [name for name in emotions if name not in {*matched, *merged, *given}]
    known = [canonical_label(name) for name in (*unmatched_classes, *unmatched_emotions)]
    if set(known) - set(SYNONYMS) or set(known) & {canonical_label(name) for name in matched}:
        raise ValueError(
            f"Expected a match for every name, got none for the model's classes {unmatched_classes} (it has "
            f"{list(classes)}) and for the corpus's emotions {unmatched_emotions} (it has {list(emotions)}). Pass "
            "`--label_map FILE`, a YAML file that maps each of these to an emotion, or to null to leave it out."
        )
    scored = tuple(name for name in emotions if name in matched)
    if len(scored) < 2:
        raise ValueError(
            f"Expected at least two emotions that the model (it has {list(classes)}) and the corpus (it has "
            f"{list(emotions)}) both have, got {list(scored)}. Choose another corpus, or pass `--label_map`."
        )
    sources = tuple(tuple(place for place, name in enumerate(classes) if target[name] == each) for each in scored)
    left_out = tuple(name for name in emotions if name not in {*matched, *merged})
    return ClassMatch(scored, sources, left_out, tuple(name for name in classes if target[name] is None), merged)


def _nearest(name: str, others: Sequence[str]) -> str | None:
    """Calm for neutral and neutral for calm, if among others; else None."""
    near = NEAREST.get(canonical_label(name))
    return next((each for each in others if near and canonical_label(each) == near), None)


def matching_label(name: str, emotions: Sequence[str]) -> str | None:
    """The emotion that a class matches: the one of the same name, else a synonym, the canonical one first."""

    def rank(emotion: str) -> tuple[bool, ...]:
        plain = emotion.strip().lower()
        return emotion != name, plain != name.strip().lower(), plain != canonical_label(name)

    return min((each for each in emotions if canonical_label(each) == canonical_label(name)), key=rank, default=None)


def dimension_columns(classes: Sequence[str], dimensions: Sequence[str]) -> list[int] | None:
    """Index of each dimension in the outputs of a regression model; None if its outputs are not dimensions."""
    names = {other: name for name, others in DIMENSION_SYNONYMS.items() for other in (name, *others)}
    found = [names.get(name.lower()) for name in classes]
    if None in found or not set(dimensions) <= set(found):
        return None
    return [found.index(name) for name in dimensions]


def canonical_label(name: str) -> str:
    """The canonical name of a class, `"fearful"` for `"Fear"`; an unknown name in lower case."""
    plain = name.strip().lower()
    return next((word for word, others in SYNONYMS.items() if plain in (word, *others)), plain)


def canonical_labels(names: Sequence[str], where: str) -> list[str]:
    """Canonical names of all classes of a teacher; of several synonyms (`joy`, `happy`), each keeps its name."""
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


def load_complete(auto_class: Any, name: str, **options: Any) -> Any:
    """A model in float32 of which no weight is missing in the checkpoint; the outputs of others would be random."""
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, "dtype": torch.float32}
    model, info = auto_class.from_pretrained(name, **options)
    if absent := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise ValueError(
            f"Expected all weights of {type(model).__name__} in {name!r}, got none for {absent}. Its outputs would be "
            "random: choose a checkpoint that is fine-tuned as a classifier, or load it with the code that wrote it."
        )
    return model


class MatchedClassifier(nn.Module):
    """Any audio classifier with its outputs matched to the emotions and dimensions of a corpus, by name.

    An external model whose classes are all dimensions (`arousal`, `valence`, `dominance`) is treated as a regression
    with outputs in 0..1. Models that no Auto class loads are in `external_models.py`.

    Args:
        name: Hub id or folder, or `funasr:NAME`.
        emotions: of the corpus; the attribute has those that are scored, in the order of the logits.
        dimensions: of the corpus; the attribute has those that are scored, in column order.
        label_map: see `match_classes`.
    """

    def __init__(
        self,
        name: str,
        emotions: Sequence[str],
        dimensions: Sequence[str],
        label_map: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__()
        options = loading_options(name)
        self.public_models = [name.rpartition(":")[2]]  # and its encoders, to be looked up in `PUBLIC_MODELS`
        self.training_data: list[dict] = []  # empty for an external model
        self.extractor: Any = None  # of an external model
        self.model: Any = external_model(name)
        config: Any = None if self.model is not None else AutoConfig.from_pretrained(name, **options)
        if isinstance(self.model, ExternalModel):
            classes = list(self.model.classes)
            self.dimensions = [each for each in dimensions if each in self.model.dimensions]
            self.columns = [list(self.model.dimensions).index(each) for each in self.dimensions]
        elif isinstance(config, EmotionConfig):
            self.model = AutoModelForAudioClassification.from_pretrained(name, dtype=torch.float32, **options)
            self.training_data = list(config.training_data)
            if isinstance(config, FusedEmotionConfig):
                self.public_models += [stream["source"] for stream in config.streams if stream["kind"] == "encoder"]
            classes = list(config.emotions)
            self.dimensions = [each for each in config.dimensions if each in dimensions]
            self.columns = [list(config.dimensions).index(each) for each in self.dimensions]
        else:
            self.model = load_complete(AutoModelForAudioClassification, name, **options)
            self.extractor = AutoFeatureExtractor.from_pretrained(name, **options)
            classes = [config.id2label[place] for place in range(config.num_labels)]
            self.columns = dimension_columns(classes, dimensions) or []
            self.dimensions = list(dimensions) if self.columns else []
            classes = [] if self.columns else classes
        self.match: ClassMatch | None = match_classes(classes, emotions, label_map) if classes else None
        self.emotions = list(self.match.emotions) if self.match else []

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> EmotionOutput:
        """Predict for clips `(B, S)` at 16 kHz."""
        model: Any = self._external if self.extractor or isinstance(self.model, ExternalModel) else self.model
        output = model(input_values, attention_mask)
        absent, variance = input_values.new_zeros(len(input_values), 0), output.log_variance
        return EmotionOutput(
            logits=self.match.logits(output.logits) if self.match else absent,  # (B, K)
            dimensions=output.dimensions[:, self.columns] if self.columns else absent,  # (B, A)
            log_variance=variance[:, self.columns] if self.columns and variance is not None else None,
            embedding=absent,
        )

    def _external(self, input_values: Tensor, attention_mask: Tensor) -> EmotionOutput:
        """One clip at a time: the outputs of many public models depend on padding."""
        clips = [
            samples[: int(mask.sum())].cpu().numpy()
            for samples, mask in zip(input_values, attention_mask, strict=True)
        ]
        if isinstance(self.model, ExternalModel):
            logits, dimensions = zip(*map(self.model.score, clips), strict=True)
            return EmotionOutput(logits=torch.stack(logits), dimensions=torch.stack(dimensions))
        scores = []
        for clip in clips:  # (S,)
            features = self.extractor(clip, sampling_rate=16000, return_tensors="pt")
            scores.append(self.model(**features.to(input_values.device)).logits.float()[0])
        outputs = torch.stack(scores)  # (B, C)
        return EmotionOutput(logits=outputs, dimensions=outputs)
