"""The supervised losses, against their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audio_emotion.layers import EmotionOutput
from audio_emotion.losses import concordance, dimension_loss, emotion_loss, supervised_terms, variance_loss

THIRDS = [1 / 3, 1 / 3, 1 / 3]


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets `(9, 3)` in 0..1."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(9, 3, generator=generator)
    return (targets * 0.6 + 0.3 * torch.rand(9, 3, generator=generator)).requires_grad_(), targets


def lin(x: np.ndarray, y: np.ndarray) -> float:
    """Lin 1989, with population moments."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_concordance_is_lins_formula_per_column(pairs):
    predictions, targets = pairs

    ours = concordance(predictions, targets, torch.ones(9, 3)).detach().numpy()

    expected = [lin(predictions[:, k].detach().numpy(), targets[:, k].numpy()) for k in range(3)]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_dimension_loss_is_one_minus_the_weighted_mean_ccc(pairs):
    predictions, targets = pairs
    each = concordance(predictions, targets, torch.ones(9, 3))

    loss = dimension_loss(predictions, targets, [0.5, 0.2, 0.3], torch.ones(9))

    assert loss.item() == pytest.approx((1 - (0.5 * each[0] + 0.2 * each[1] + 0.3 * each[2])).item(), abs=1e-6)
    assert dimension_loss(targets, targets, THIRDS, torch.ones(9)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("missing", [float("nan"), float("inf"), float("-inf")])
def test_pairs_with_a_missing_target_are_left_out(pairs, missing):
    predictions, targets = pairs
    holes = targets.clone()
    holes[2, 0] = holes[5, 0] = holes[7, 1] = missing

    loss = dimension_loss(predictions, holes, [1.0, 0.0, 0.0], torch.ones(9))
    loss.backward()

    kept = [0, 1, 3, 4, 6, 7, 8]
    expected = 1 - lin(predictions[kept, 0].detach().numpy(), targets[kept, 0].numpy())
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert predictions.grad.isfinite().all()
    assert not predictions.grad[[2, 5], 0].any()


def test_a_dimension_without_any_target_is_left_out(pairs):
    predictions, targets = pairs
    holes = targets.clone()
    holes[:, 1] = float("nan")

    loss = dimension_loss(predictions, holes, THIRDS, torch.ones(9))

    each = concordance(predictions, targets, torch.ones(9, 3))
    assert loss.item() == pytest.approx((1 - (each[0] + each[2]) / 2).item(), abs=1e-6)


def test_a_batch_without_targets_has_loss_0_and_a_finite_gradient(pairs):
    predictions, targets = pairs

    loss = dimension_loss(predictions, torch.full_like(targets, float("nan")), THIRDS, torch.ones(9))
    loss.backward()

    assert loss.item() == 0
    assert predictions.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_predictions_have_loss_1_and_a_gradient(pairs, value):
    _, targets = pairs
    constant = torch.full((9, 3), value, requires_grad=True)

    loss = dimension_loss(constant, targets, THIRDS, torch.ones(9))
    loss.backward()

    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert constant.grad.isfinite().all()
    assert constant.grad.abs().max() > 0


def test_constant_predictions_of_constant_targets_are_finite():
    constant = torch.full((4, 3), 0.5, requires_grad=True)
    loss = dimension_loss(constant, torch.full((4, 3), 0.5), THIRDS, torch.ones(4))
    loss.backward()

    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert constant.grad.isfinite().all()


def outputs_and_labels(extra: int) -> tuple[EmotionOutput, dict[str, torch.Tensor]]:
    """Six clips, and `extra` ones that pad the batch."""
    generator = torch.Generator().manual_seed(3)
    size = 6 + extra
    output = EmotionOutput(
        dimensions=torch.rand(size, 3, generator=generator),
        logits=torch.randn(size, 4, generator=generator),
        log_variance=torch.randn(size, 3, generator=generator),
        embedding=torch.zeros(size, 2),
    )
    labels = torch.randint(4, (size,), generator=generator)
    targets = torch.rand(size, 3, generator=generator)
    weight = torch.ones(size)
    weight[6:] = 0
    return output, {"labels": labels, "dimension_labels": targets, "weight": weight}


def test_clips_of_weight_0_do_not_change_the_terms():
    output, given = outputs_and_labels(extra=3)
    given["labels"][7] = -100
    given["dimension_labels"][8] = float("nan")

    filled = supervised_terms(output, dimension_weights=THIRDS, **given)
    bare = supervised_terms(
        EmotionOutput(**{name: output[name][:6] for name in ("dimensions", "logits", "log_variance", "embedding")}),
        dimension_weights=THIRDS,
        labels=given["labels"][:6],
        dimension_labels=given["dimension_labels"][:6],
    )

    assert set(filled) == {"dimensions", "emotions", "variance"}
    for name in bare:
        assert filled[name].item() == pytest.approx(bare[name].item(), abs=1e-6)


def test_terms_exist_only_for_heads_with_labels():
    output, given = outputs_and_labels(extra=0)

    assert set(supervised_terms(output, given["labels"], None, THIRDS)) == {"emotions"}
    assert supervised_terms(output, None, None, THIRDS) == {}
    output.logits = None
    assert set(supervised_terms(output, given["labels"], given["dimension_labels"], THIRDS)) == {
        "dimensions",
        "variance",
    }


def test_cross_entropy_is_averaged_over_the_clips_that_have_a_label():
    logits, labels = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]]), torch.tensor([0, -100, 1])

    loss = emotion_loss(logits, labels, torch.ones(3))

    by_hand = [np.log(np.exp(1) + np.exp(2)) - 1, np.log(np.exp(3) + np.exp(0)) - 0]
    assert loss.item() == pytest.approx(np.mean(by_hand), abs=1e-6)


def test_soft_labels_are_the_cross_entropy_with_a_distribution():
    logits = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    soft = torch.tensor([[0.3, 0.7], [float("nan"), float("nan")], [0.0, 1.0]])

    loss = emotion_loss(logits, soft, torch.ones(3))

    logarithms = logits.double().log_softmax(-1).numpy()
    by_hand = [-(0.3 * logarithms[0, 0] + 0.7 * logarithms[0, 1]), -logarithms[2, 1]]
    assert loss.item() == pytest.approx(np.mean(by_hand), abs=1e-6)
    one_hot = torch.nn.functional.one_hot(torch.tensor([0, 1, 1]), 2).float()
    hard = emotion_loss(logits, torch.tensor([0, 1, 1]), torch.ones(3))
    assert emotion_loss(logits, one_hot, torch.ones(3)).item() == pytest.approx(hard.item(), abs=1e-6)


def test_label_smoothing_spreads_its_fraction_over_all_classes():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0])
    smoothed = 0.9 * torch.nn.functional.one_hot(labels, 4).float() + 0.1 / 4

    loss = emotion_loss(logits, labels, torch.ones(5), label_smoothing=0.1)

    assert loss.item() == pytest.approx(emotion_loss(logits, smoothed, torch.ones(5)).item(), abs=1e-6)


def test_a_batch_without_labels_has_loss_0():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = emotion_loss(logits, torch.tensor([-100, -100]), torch.ones(2))
    loss.backward()

    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("missing", [float("nan"), float("inf")])
def test_variance_loss_is_the_gaussian_likelihood_with_a_detached_prediction(missing):
    dimensions = torch.tensor([[0.2, 0.5], [0.7, 0.1]], requires_grad=True)
    log_variance = torch.tensor([[-1.0, 0.5], [-2.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[0.4, missing], [0.6, 0.9]])

    loss = variance_loss(dimensions, log_variance, targets, torch.ones(2))
    loss.backward()

    terms = [(-1.0, 0.2**2), (-2.0, 0.1**2), (0.0, 0.8**2)]
    by_hand = np.mean([0.5 * (s + error * np.exp(-s)) for s, error in terms])
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)
    assert dimensions.grad is None
    assert log_variance.grad.isfinite().all()
    assert log_variance.grad[0, 1] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_corpus_that_lacks_a_label_is_no_evidence_against_it(smoothing):
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    possible = torch.tensor([[True, True, False, True], [True, True, True, True]])
    labels, weight = torch.tensor([3, 2]), torch.ones(2)

    loss = emotion_loss(logits, labels, weight, smoothing, possible)
    loss.backward()

    without = emotion_loss(logits[:1, [0, 1, 3]], torch.tensor([2]), weight[:1], smoothing)
    whole = emotion_loss(logits[1:], labels[1:], weight[1:], smoothing)
    torch.testing.assert_close(loss, (without + whole) / 2)
    assert logits.grad[0, 2] == 0
