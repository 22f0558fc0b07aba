"""A trunk and a loss term from outside the package are registered by one entry each, and train."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn

from audio_emotion import FusedEmotionConfig, StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.layers import TRUNKS, Trunk
from audio_emotion.losses import SUPERVISED_TERMS


class ToyLayers(nn.Module):
    """One linear layer per frame."""

    def __init__(self, input_size: int, config):
        super().__init__()
        self.linear = nn.Linear(input_size, config.hidden_size)
        self.output_size = config.hidden_size

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(features))


@pytest.fixture
def toy_trunk(monkeypatch) -> str:
    monkeypatch.setitem(TRUNKS, "toy", Trunk(ToyLayers, sizes={"small": {"hidden_size": 6}}, is_causal=True))
    return "toy"


def train_one_step(model: StudentEmotionForAudioClassification, speech) -> dict[str, torch.Tensor]:
    """The change of every parameter in one step of gradient descent."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batch = torch.from_numpy(speech).view(2, -1)
    loss = model(batch, labels=torch.tensor([0, 1]), dimension_labels=torch.rand(2, 3)).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def test_a_registered_trunk_is_trained_saved_and_loaded(toy_trunk, speech, tmp_path):
    config = StudentEmotionConfig.of_size("small", trunk=toy_trunk, emotions=["calm", "angry"])
    model = StudentEmotionForAudioClassification(config)

    changes = train_one_step(model, speech)
    model.save_pretrained(tmp_path)
    loaded = StudentEmotionForAudioClassification.from_pretrained(tmp_path)

    assert isinstance(model.student.trunk.recurrence, ToyLayers)
    assert config.hidden_size == 6
    assert changes["student.trunk.recurrence.linear.weight"].any()
    assert torch.equal(loaded.student.trunk.recurrence.linear.weight, model.student.trunk.recurrence.linear.weight)


def test_configurations_accept_registered_trunks_only(toy_trunk, monkeypatch):
    StudentEmotionConfig(trunk=toy_trunk)
    with pytest.raises(StrictDataclassClassValidationError, match="toy trunk is causal"):
        StudentEmotionConfig(trunk=toy_trunk, look_ahead=1)
    with pytest.raises(ValueError, match=r"`size` must be one of \['small'\], got 'nano'"):
        StudentEmotionConfig.of_size("nano", trunk=toy_trunk)

    monkeypatch.delitem(TRUNKS, toy_trunk)

    for kind in (StudentEmotionConfig, FusedEmotionConfig):
        with pytest.raises(
            StrictDataclassClassValidationError, match=r"\['convolutional', 'linear', 'tc-gru'\], got 'toy'"
        ):
            kind(trunk=toy_trunk)


def test_a_registered_loss_term_is_added_to_the_loss(tiny_student, speech, monkeypatch):
    batch, labels = torch.from_numpy(speech)[None], torch.tensor([0])
    with torch.no_grad():
        without = tiny_student(batch, labels=labels)
    norm = without.embedding.square().sum()

    monkeypatch.setitem(SUPERVISED_TERMS, "norm", lambda outputs, targets: outputs.embedding.square().sum())
    monkeypatch.setitem(SUPERVISED_TERMS, "absent", lambda outputs, targets: None)

    with torch.no_grad():
        loss = tiny_student(batch, labels=labels).loss
    assert norm > 0.01
    torch.testing.assert_close(loss, without.loss + norm)


def test_a_registered_loss_term_trains_alone(tiny_student, speech, monkeypatch):
    for name in list(SUPERVISED_TERMS):
        monkeypatch.delitem(SUPERVISED_TERMS, name)
    monkeypatch.setitem(SUPERVISED_TERMS, "norm", lambda outputs, targets: outputs.embedding.square().sum())

    changes = train_one_step(tiny_student, speech)

    assert changes["student.trunk.embedding.weight"].any()
    assert not changes["heads.emotions.weight"].any()
