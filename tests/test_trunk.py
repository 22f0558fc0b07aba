"""The trunks and pooling, against a second implementation by their formulas."""

from __future__ import annotations

import pytest
import torch

from audio_emotion.configuration_emotion import EmotionConfig
from audio_emotion.layers import SCORE_BOUND, EmotionTrunk, Pooling

FEATURES = 5
LENGTHS = [7, 3, 1]


def trunk(**fields) -> EmotionTrunk:
    torch.manual_seed(0)
    config = EmotionConfig(**{"convolution_size": 4, "hidden_size": 6, "embedding_size": 3, **fields})
    return EmotionTrunk(FEATURES, config).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three sequences of different lengths, 0 beyond each."""
    features = torch.randn(3, 7, FEATURES, generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(LENGTHS):
        features[row, length:] = 0
    return features, torch.tensor(LENGTHS)


def gru_by_hand(gru: torch.nn.GRU, layer: int, steps: list[torch.Tensor]) -> list[torch.Tensor]:
    """One layer: reset, update and new gate (Cho et al. 2014, in PyTorch's form)."""
    weight_ih, weight_hh = getattr(gru, f"weight_ih_l{layer}"), getattr(gru, f"weight_hh_l{layer}")
    bias_ih, bias_hh = getattr(gru, f"bias_ih_l{layer}"), getattr(gru, f"bias_hh_l{layer}")
    state, states = torch.zeros(weight_hh.shape[1]), []
    for step in steps:
        reset_in, update_in, new_in = (weight_ih @ step + bias_ih).chunk(3)
        reset_state, update_state, new_state = (weight_hh @ state + bias_hh).chunk(3)
        reset, update = torch.sigmoid(reset_in + reset_state), torch.sigmoid(update_in + update_state)
        new = torch.tanh(new_in + reset * new_state)
        state = (1 - update) * new + update * state
        states.append(state)
    return states


def embedding_by_hand(model: EmotionTrunk, features: torch.Tensor, look_ahead: int) -> torch.Tensor:
    """Figure 1 of Mitra et al. 2022 for one sequence `(T, F)`, frame by frame, pooled at the last one."""
    recurrence, steps = model.recurrence, []
    for t in range(len(features)):
        step = features[t]
        if recurrence.convolution is not None:  # (B): a convolution beside the features themselves
            weight, bias = recurrence.convolution.weight, recurrence.convolution.bias  # (K, F, width), (K,)
            convolved = bias.clone()
            for tap in range(weight.shape[2]):
                source = t + tap - (weight.shape[2] - 1) + look_ahead
                if 0 <= source < len(features):
                    convolved = convolved + weight[:, :, tap] @ features[source]
            step = torch.cat([convolved.clamp(min=0), step])
        steps.append(step)
    for layer in range(recurrence.gru.num_layers):
        steps = gru_by_hand(recurrence.gru, layer, steps)
    return torch.tanh(model.embedding.weight @ steps[-1] + model.embedding.bias)


@pytest.mark.parametrize("look_ahead", [0, 1, 2])
@torch.no_grad()
def test_figure_1_b_has_a_convolution_in_parallel_to_the_identity_two_grus_and_the_embedding(look_ahead):
    model = trunk(look_ahead=look_ahead)
    features, lengths = batch()

    embedding, frames, mask = model(features, lengths)

    assert frames is None
    assert mask.sum(1).tolist() == LENGTHS
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(embedding[row], embedding_by_hand(model, features[row, :length], look_ahead))


@torch.no_grad()
def test_figure_1_a_has_no_convolution_before_the_gru():
    model = trunk(convolution_size=0)
    features, lengths = batch()

    embedding, _, _ = model(features, lengths)

    assert model.recurrence.convolution is None
    assert model.recurrence.gru.weight_ih_l0.shape == (18, FEATURES)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(embedding[row], embedding_by_hand(model, features[row, :length], 0))


def separable_by_hand(model: EmotionTrunk, features: torch.Tensor) -> torch.Tensor:
    """The convolutional trunk for one sequence `(T, F)`, frame by frame and tap by tap, pooled at the last one."""
    layers = model.recurrence
    steps = [layers.input.weight @ step + layers.input.bias for step in features]
    for number, block in enumerate(layers.blocks):
        dilation, weight = (1, 2, 4, 8)[number % 4], block.depthwise.weight[:, 0]  # (C, K): each channel its own taps
        widened = []
        for t, step in enumerate(steps):
            near = block.depthwise.bias.clone()
            for back in range(weight.shape[1]):  # `back` dilations before t; before the clip there is nothing
                if t - back * dilation >= 0:
                    near = near + weight[:, weight.shape[1] - 1 - back] * steps[t - back * dilation]
            near = (near - near.mean()) / (near.var(correction=0) + block.normalisation.eps).sqrt()
            near = near * block.normalisation.weight + block.normalisation.bias
            wide = block.widen.weight @ near + block.widen.bias
            wide = 0.5 * wide * (1 + torch.erf(wide / 2**0.5))  # GELU (Hendrycks & Gimpel 2016)
            widened.append(step + block.narrow.weight @ wide + block.narrow.bias)
        steps = widened
    return torch.tanh(model.embedding.weight @ torch.tanh(steps[-1]) + model.embedding.bias)


@torch.no_grad()
def test_the_convolutional_trunk_is_residual_blocks_of_dilated_depthwise_and_pointwise_layers():
    model = trunk(trunk="convolutional", convolution_kernel=2, num_convolution_blocks=5)
    for parameter in model.parameters():  # norms and biases too, which start at 1 and 0
        parameter.copy_(0.5 * torch.randn(parameter.shape))
    features, lengths = batch()

    embedding, _, _ = model(features, lengths)

    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(embedding[row], separable_by_hand(model, features[row, :length]))


@torch.no_grad()
def test_pooling_by_the_last_frame_is_the_frame_itself():
    frames = torch.randn(2, 4, 3)

    assert torch.equal(Pooling(3, "last")(frames, torch.ones(2, 4)), frames)


@pytest.mark.parametrize("mode", ["statistics", "attentive"])
@torch.no_grad()
def test_statistics_at_a_frame_are_those_of_all_frames_up_to_it(mode):
    torch.manual_seed(0)
    pooling = Pooling(3, mode)
    frames, mask = torch.randn(2, 6, 3), torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2])

    read = pooling(frames, mask)

    for row, length in enumerate([6, 4]):
        for t in range(length):
            weights, values = [], frames[row, : t + 1].double()
            for value in frames[row, : t + 1]:
                score = 0.0
                if mode == "attentive":
                    score = (pooling.score.weight[0] @ value + pooling.score.bias[0]).item()
                    score = SCORE_BOUND * torch.tanh(torch.tensor(score / SCORE_BOUND)).item()
                weights.append(torch.tensor(score).exp().item())
            weights = torch.tensor(weights).double() / sum(weights)
            mean = (weights[:, None] * values).sum(0)
            variance = (weights[:, None] * (values - mean).square()).sum(0)
            deviation = variance.clamp(min=1e-5).sqrt()
            torch.testing.assert_close(read[row, t].double(), torch.cat([mean, deviation]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["statistics", "attentive"])
@torch.no_grad()
def test_cumulative_statistics_are_accurate_after_half_an_hour(mode):
    torch.manual_seed(0)
    pooling = Pooling(4, mode)
    # Frames of a GRU are in -1..1; sums of squares lose precision where the mean is large and the deviation small.
    frames = 0.9 + 0.05 * torch.randn(1, 30 * 60 * 25, 4)  # 25 Hz

    read = pooling(frames, torch.ones(1, frames.shape[1]))[0, -1]

    weight = torch.ones(frames.shape[1], 1).double()
    if mode == "attentive":
        weight = (SCORE_BOUND * torch.tanh(pooling.score(frames[0]) / SCORE_BOUND)).double().exp()
    weight = weight / weight.sum()
    mean = (weight * frames[0].double()).sum(0)
    deviation = (weight * (frames[0].double() - mean).square()).sum(0).sqrt()
    torch.testing.assert_close(read.double(), torch.cat([mean, deviation]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize("kind", ["tc-gru", "convolutional", "linear"])
@torch.no_grad()
def test_the_embedding_at_a_frame_is_that_of_a_clip_cut_there(pooling, kind):
    model = trunk(pooling=pooling, trunk=kind)
    features, lengths = batch()

    embedding, frames, _ = model(features, lengths, output_frames=True)

    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(frames[row, length - 1], embedding[row])
        for t in range(length):
            cut, _, _ = model(features[row : row + 1, : t + 1], torch.tensor([t + 1]))
            torch.testing.assert_close(frames[row, t], cut[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_with_a_look_ahead_a_frame_depends_on_that_many_later_frames():
    model = trunk(look_ahead=1)
    features, _ = batch()
    _, whole, _ = model(features[:1], torch.tensor([7]), output_frames=True)

    _, cut, _ = model(features[:1, :5], torch.tensor([5]), output_frames=True)

    torch.testing.assert_close(cut[0, :4], whole[0, :4])
    assert not torch.allclose(cut[0, 4], whole[0, 4])


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize(
    "fields",
    [{"look_ahead": 1}, {"look_ahead": 1, "bidirectional": True}, {"trunk": "convolutional"}, {"trunk": "linear"}],
    ids=str,
)
@torch.no_grad()
def test_padding_and_order_do_not_change_the_embedding(pooling, fields):
    model = trunk(pooling=pooling, **fields)
    features, lengths = batch()
    embedding, _, _ = model(features, lengths)

    for row, length in enumerate(LENGTHS):
        alone, _, _ = model(features[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(embedding[row], alone[0])
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(features[order], lengths[order])[0], embedding[order])


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize("kind", ["tc-gru", "convolutional", "linear"])
def test_silence_and_single_frames_give_finite_gradients(pooling, kind):
    model = trunk(pooling=pooling, trunk=kind).train()
    features = torch.zeros(2, 7, FEATURES, requires_grad=True)

    model(features, torch.tensor([7, 1]))[0].sum().backward()

    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert features.grad.isfinite().all()


@torch.no_grad()
def test_each_head_of_attentive_pooling_has_statistics_of_its_own():
    torch.manual_seed(0)
    model = trunk(trunk="linear", pooling="attentive", pooling_heads=2)
    features, lengths = batch()

    embedding, _, _ = model(features, lengths)

    linear, score = model.recurrence.linear, model.read_out.score
    for row, length in enumerate(LENGTHS):
        frames = torch.nn.functional.gelu(features[row, :length] @ linear.weight.T + linear.bias)  # (T, 6)
        scores = SCORE_BOUND * torch.tanh((frames @ score.weight.T + score.bias) / SCORE_BOUND)  # (T, 2)
        pooled = []
        for head in range(2):
            weight = scores[:, head].softmax(0)[:, None]
            mean = (weight * frames).sum(0)
            pooled += [mean, (weight * (frames - mean).square()).sum(0).clamp(min=1e-5).sqrt()]
        expected = torch.tanh(model.embedding.weight @ torch.cat(pooled) + model.embedding.bias)
        torch.testing.assert_close(embedding[row], expected, atol=1e-5, rtol=1e-4)
