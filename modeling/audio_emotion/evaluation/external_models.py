"""Models of other projects that no Auto class loads: a waveform in, class scores and dimensions out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, Wav2Vec2Config, Wav2Vec2Model

FUNASR = "funasr:"  # prefix of the name of a model that FunASR loads
REGRESSION_HEAD = "Wav2Vec2ForSpeechClassification"  # audEERING's class, as in its published configuration
SAMPLING_RATE = 16_000


class ExternalModel(nn.Module):
    """A model of another project.

    Attributes:
        classes: names of the class scores; empty if it has none.
        dimensions: names of the dimensions; empty if it has none.
    """

    classes: Sequence[str] = ()
    dimensions: Sequence[str] = ()

    def score(self, waveform: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits `(C,)` and dimensions `(A,)` in 0..1 of one clip `(S,)` at 16 kHz."""
        raise NotImplementedError

    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(each.numel() for each in self.parameters())


class FunASREmotion(ExternalModel):
    """A model with the interface of emotion2vec in FunASR: `funasr:iic/emotion2vec_plus_base`.

    Its labels are Chinese and English, `生气/angry`; the English part is kept. `<unk>` is a class like others.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from funasr import AutoModel
        except ImportError as error:
            raise ImportError(f"`{name}` needs FunASR: `pip install funasr`.") from error
        self.recognizer = AutoModel(model=name.removeprefix(FUNASR), disable_update=True)
        network = getattr(self.recognizer, "model", None)
        if isinstance(network, nn.Module):
            self.network = network
        self.classes, _ = self._generate(np.zeros(SAMPLING_RATE, np.float32))

    def score(self, waveform: np.ndarray) -> tuple[Tensor, Tensor]:
        """See [`ExternalModel.score`]; the logits are log probabilities."""
        classes, probabilities = self._generate(waveform)
        if list(classes) != list(self.classes):
            raise ValueError(f"Expected the classes {list(self.classes)} for every clip, got {classes}.")
        return torch.tensor(probabilities).clamp(min=1e-9).log(), torch.zeros(0)

    def _generate(self, waveform: np.ndarray) -> tuple[list[str], list[float]]:
        (result,) = self.recognizer.generate(
            waveform, granularity="utterance", extract_embedding=False, disable_pbar=True
        )
        return [name.rpartition("/")[2] for name in result["labels"]], [float(each) for each in result["scores"]]


class RegressionHead(nn.Module):
    """Dense, tanh, linear; the names are those of the published weights."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """`(B, H)` to `(B, A)`."""
        scores: Tensor = self.out_proj(self.dense(pooled).tanh())
        return scores


class Wav2Vec2Regression(ExternalModel):
    """audEERING's wav2vec 2.0 with a regression head on the mean over time: arousal, dominance, valence in 0..1.

    Source:
        Wagner et al. 2023, Dawn of the transformer era in speech emotion recognition,
        https://doi.org/10.1109/TPAMI.2023.3263585, and the card of `wav2vec2-large-robust-12-ft-emotion-msp-dim`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        config = Wav2Vec2Config.from_pretrained(name)
        self.wav2vec2, self.classifier = Wav2Vec2Model(config), RegressionHead(config)
        self.extractor = AutoFeatureExtractor.from_pretrained(name)
        names = {"arousal": "activation"}
        self.dimensions = [names.get(config.id2label[i], config.id2label[i]) for i in range(config.num_labels)]
        weights = _weights(name)
        for old, new in (
            ("weight_g", "parametrizations.weight.original0"),
            ("weight_v", "parametrizations.weight.original1"),
        ):
            place = "wav2vec2.encoder.pos_conv_embed.conv."
            if place + old in weights:
                weights[place + new] = weights.pop(place + old)
        missing = set(self.state_dict()) - set(weights) - {"wav2vec2.masked_spec_embed"}
        if missing:
            raise ValueError(f"Expected all weights of {REGRESSION_HEAD} in {name!r}, got none for {sorted(missing)}.")
        self.load_state_dict(weights, strict=False)

    def score(self, waveform: np.ndarray) -> tuple[Tensor, Tensor]:
        """See [`ExternalModel.score`]."""
        features = self.extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        states = self.wav2vec2(features["input_values"].to(self.classifier.dense.weight.device)).last_hidden_state
        scores: Tensor = self.classifier(states.mean(1))[0]
        return torch.zeros(0), scores.float().cpu()


def external_model(name: str) -> ExternalModel | None:
    """The model of a name, or None where an Auto class loads it.

    Args:
        name: `funasr:NAME`, a Hub id or a folder.
    """
    if name.startswith(FUNASR):
        return FunASREmotion(name)
    file = Path(name) / "config.json"
    if not file.is_file():
        if Path(name).exists():
            return None
        file = Path(hf_hub_download(name, "config.json"))
    architectures = json.loads(file.read_text(encoding="utf-8")).get("architectures") or []
    return Wav2Vec2Regression(name) if REGRESSION_HEAD in architectures else None


def _weights(name: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint in safetensors, or in PyTorch's format, of which only tensors are read."""
    for file in ("model.safetensors", "pytorch_model.bin"):
        path = Path(name) / file
        try:
            path = path if Path(name).exists() else Path(hf_hub_download(name, file))
        except OSError:
            continue
        if path.is_file():
            return load_file(path) if file.endswith("safetensors") else torch.load(path, weights_only=True)
    raise FileNotFoundError(f"Expected `model.safetensors` or `pytorch_model.bin` in {name!r}, got neither.")
