"""Any audio classifier, ours or not, behind the one output of every model, in the emotions of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

from audio_emotion.configuration_emotion import EmotionConfig
from audio_emotion.configuration_fused_emotion import FusedEmotionConfig
from audio_emotion.evaluation.class_names import ClassMatch, dimension_columns, match_classes
from audio_emotion.outputs import EmotionOutput


class Judge(nn.Module):
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
        ValueError: where the checkpoint lacks weights, naming them, or names have no partner.
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
        """Judge clips `(B, S)` at 16 kHz."""
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
