"""What teacher and student share: trunks, pooling, heads, and the model output."""

# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .log_mel import frame_mask
from .trunk_layers import LinearFrames, SeparableConvolutions, TemporalConvolutionGRU

SCORE_BOUND = 6.0  # attention scores are within +-6, so that cumulative sums of exp(score) need no future maximum


@dataclass
class EmotionOutput(ModelOutput):
    """Output of every model, for `B` clips.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): returned when labels are given.
        logits (`torch.Tensor` of shape `(B, C)`, *optional*): one score per emotion, before the softmax.
        dimensions (`torch.Tensor` of shape `(B, 3)`, *optional*): in the order of `config.dimensions`, each in 0..1.
        log_variance (`torch.Tensor` of shape `(B, 3)`, *optional*): of the dimensions, natural logarithm.
        embedding (`torch.Tensor` of shape `(B, D)`): of the clip; the target of distillation.
        frame_dimensions (`torch.Tensor` of shape `(B, T, 3)`, *optional*): at `t`, the output for the clip cut after
            frame `t` and `config.look_ahead` more.
        frame_logits (`torch.Tensor` of shape `(B, T, C)`, *optional*): the same for the emotions.
        frame_mask (`torch.Tensor` of shape `(B, T)`): 1 for true frames, 0 for padding.
        teacher_logits (`dict[str, torch.Tensor]`, *optional*): one `(B, C_k)` per teacher, in the teacher's classes.
        distance (`torch.Tensor` of shape `(B,)`, *optional*): of the embedding from those of the training clips; above
            1 for a recording unlike them, see [`EmbeddingDistance`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    dimensions: torch.Tensor | None = None
    log_variance: torch.Tensor | None = None
    embedding: torch.Tensor | None = None
    frame_dimensions: torch.Tensor | None = None
    frame_logits: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    teacher_logits: dict[str, torch.Tensor] | None = None
    distance: torch.Tensor | None = None


class Pooling(nn.Module):
    """Pooling over time, cumulative: at each frame, the frame itself or statistics of all frames up to it.

    Args:
        input_size: width `G` of the frames.
        mode: `"last"`, `"statistics"` or `"attentive"` (attentive statistics: Okabe et al. 2018,
            https://arxiv.org/abs/1803.10963, here cumulative, with a bounded score).
        heads: scores `N` of attentive pooling.
    """

    def __init__(self, input_size: int, mode: str, heads: int = 1):
        super().__init__()
        self.mode = mode
        self.input_size, self.heads = input_size, heads if mode == "attentive" else 1
        self.score = nn.Linear(input_size, heads) if mode == "attentive" else None
        self.output_size = input_size if mode == "last" else 2 * input_size * (heads if self.score else 1)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor, cumulative: bool = True) -> torch.Tensor:
        """Pool `(B, T, G)` with a mask `(B, T)` to `(B, T, output_size)`; not cumulative, only over all: `T` is 1."""
        if self.mode == "last":
            return frames
        weight = self._weight(frames, mask)  # (B, T, N)
        if cumulative:
            return self._statistics(*(each.cumsum(1) for each in self._sums(weight, frames)))
        fraction = weight / weight.sum(1, keepdim=True)  # (B, T, N)
        mean = torch.einsum("btn,btg->bng", fraction, frames.float()).unsqueeze(1)  # (B, 1, N, G)
        square = torch.einsum("btn,btg->bng", fraction, frames.float().square()).unsqueeze(1)  # (B, 1, N, G)
        return self._statistics(torch.ones_like(mean[..., :1]), mean, square)

    def _weight(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weights of the frames, `(B, T, N)`."""
        weight = mask.unsqueeze(-1)  # (B, T, 1)
        if self.score is None:
            return weight
        return weight * torch.exp(SCORE_BOUND * torch.tanh(self.score(frames).float() / SCORE_BOUND))

    def _sums(self, weight: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weights `(B, T, N, 1)`, weighted frames and weighted squares `(B, T, N, G)`, which are summed over time."""
        weight, frames = weight.unsqueeze(-1), frames.float().unsqueeze(2)  # (B, T, N, 1) and (B, T, 1, G)
        return weight, weight * frames, weight * frames.square()

    def _statistics(self, total: torch.Tensor, mean: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
        """Means and standard deviations `(B, T, 2NG)` from sums of weights, of frames and of squares."""
        mean, square = mean / total.clamp(min=1e-6), square / total.clamp(min=1e-6)  # (B, T, N, G)
        std = (square - mean.square()).clamp(min=1e-5).sqrt()  # (B, T, N, G)
        return torch.cat([mean, std], dim=-1).flatten(2)  # (B, T, 2NG)

    def initial_state(self, like: torch.Tensor, batch_size: int) -> dict[str, torch.Tensor]:
        """State before the first frame of `batch_size` streams, on the device of `like`."""
        if self.mode == "last":
            return {}
        sizes = {"pooled_weight": 1, "pooled_sum": self.input_size, "pooled_square": self.input_size}
        return {
            name: like.new_zeros(batch_size, self.heads, size, dtype=torch.float32) for name, size in sizes.items()
        }

    def step(
        self, frames: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Pool the next frames `(B, T, G)`, cumulatively, to `(B, T, output_size)`; and the new state."""
        if self.mode == "last":
            return frames, state
        names = ("pooled_weight", "pooled_sum", "pooled_square")
        weight = self._weight(frames, torch.ones_like(frames[..., 0], dtype=torch.float32))
        sums = [
            state[name].unsqueeze(1) + each.cumsum(1)
            for name, each in zip(names, self._sums(weight, frames), strict=True)
        ]
        following = {name: each[:, -1] for name, each in zip(names, sums, strict=True)}
        return self._statistics(*sums), {**state, **following}


class Trunk(NamedTuple):
    """An entry of `TRUNKS`.

    Attributes:
        layers: module class, built as `layers(input_size, config)`; maps features `(B, T, F)` and lengths `(B,)` to
            frames `(B, T, output_size)` and has the attribute `output_size`.
        sizes: for each name of a size (`"nano"`, `"small"`, `"base"`), fields of the student's configuration.
        is_causal: whether a frame never depends on later ones; then `look_ahead` and `bidirectional` are refused.
    """

    layers: type[nn.Module]
    sizes: dict[str, dict[str, Any]]
    is_causal: bool


# Trunks by the name that `config.trunk` has. To add one from outside the package, assign an entry before the first
# configuration that names it: `TRUNKS["mine"] = Trunk(MyLayers, sizes={...}, is_causal=True)`. A checkpoint with it
# loads only where the entry exists. Limits of the sizes in parameters: nano 75 k, small 0.5 M, base 2 M.
TRUNKS = {
    "tc-gru": Trunk(
        TemporalConvolutionGRU,
        sizes={
            "nano": {"convolution_size": 32, "hidden_size": 48, "embedding_size": 48},
            "small": {"convolution_size": 128, "hidden_size": 128, "embedding_size": 128},
            "base": {"convolution_size": 256, "hidden_size": 288, "embedding_size": 256},
        },
        is_causal=False,
    ),
    "convolutional": Trunk(
        SeparableConvolutions,
        sizes={
            "nano": {"convolution_kernel": 5, "hidden_size": 48, "num_convolution_blocks": 4, "embedding_size": 48},
            "small": {"convolution_kernel": 5, "hidden_size": 128, "num_convolution_blocks": 6, "embedding_size": 128},
            "base": {"convolution_kernel": 5, "hidden_size": 256, "num_convolution_blocks": 6, "embedding_size": 256},
        },
        is_causal=True,
    ),
    "linear": Trunk(
        LinearFrames,
        sizes={
            "nano": {"hidden_size": 48, "embedding_size": 48},
            "small": {"hidden_size": 128, "embedding_size": 128},
            "base": {"hidden_size": 256, "embedding_size": 256},
        },
        is_causal=True,
    ),
}


def get_trunk(name: str) -> Trunk:
    """The entry of `TRUNKS`.

    Raises:
        ValueError: on an unknown name.
    """
    if name not in TRUNKS:
        raise ValueError(
            f"`trunk` must be one of {sorted(TRUNKS)}, got {name!r}. Add another one to `audio_emotion.layers.TRUNKS`."
        )
    return TRUNKS[name]


class EmotionTrunk(nn.Module):
    """The layers named by `config.trunk`, pooling, and the embedding layer.

    Args:
        input_size: width `F` of the features.
        config: an `EmotionConfig`.
    """

    def __init__(self, input_size: int, config):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        # `recurrence` and `read_out` are the names in published checkpoints, whatever the trunk.
        self.recurrence = get_trunk(config.trunk).layers(input_size, config)
        self.read_out = Pooling(self.recurrence.output_size, config.pooling, config.pooling_heads)
        self.embedding = nn.Linear(self.read_out.output_size, config.embedding_size)
        self.pools_heads = config.pooling_heads > 1  # whose cumulative sums are large

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor, output_frames: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Embed clips, and on request each of their frames.

        Args:
            features (`torch.Tensor` of shape `(B, T, F)`): 0 beyond each clip.
            lengths (`torch.Tensor` of shape `(B,)`): true frames, at least 1.
            output_frames: whether to embed each frame, too.

        Returns:
            embedding `(B, D)`, frame embeddings `(B, T, D)` or None, and the frame mask `(B, T)`.
        """
        mask = frame_mask(lengths, features.shape[1])  # (B, T)
        frames = self.recurrence(self.dropout(features), lengths)  # (B, T, G)
        pooled = self.read_out(frames, mask, cumulative=output_frames or not self.pools_heads).to(frames.dtype)
        last = (lengths - 1).clamp(max=pooled.shape[1] - 1).view(-1, 1, 1).expand(-1, 1, pooled.shape[-1])
        embedding = torch.tanh(self.embedding(pooled.gather(1, last).squeeze(1)))  # (B, D)
        return embedding, torch.tanh(self.embedding(pooled)) if output_frames else None, mask

    def initial_state(self, batch_size: int) -> dict[str, torch.Tensor]:
        """State before the first frame of `batch_size` streams: tensors with the batch first."""
        state = self.recurrence.initial_state(batch_size)
        return {**state, **self.read_out.initial_state(self.embedding.weight, batch_size)}

    def step(
        self, features: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embeddings `(B, T', D)` at the frames that the next features `(B, T, F)` complete, and the new state."""
        frames, state = self.recurrence.step(features, state)  # (B, T', G)
        if not frames.shape[1]:
            return frames.new_zeros(frames.shape[0], 0, self.embedding.out_features), state
        pooled, state = self.read_out.step(frames, state)
        return torch.tanh(self.embedding(pooled.to(frames.dtype))), state


class EmbeddingDistance(nn.Module):
    """Mahalanobis distance of embeddings from those of the training clips, in units of a limit.

    The distance of Lee et al. 2018 (https://arxiv.org/abs/1807.03888) with one Gaussian for all classes; the limit is
    our choice, see `training/embedding_distance.py`.

    Args:
        size: width `D` of the embedding.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whitening", torch.zeros(size, size))  # divided by the limit; 0 until it is fitted

    def reset(self) -> None:
        """Set the statistics to 0: no recording is unlike the training clips."""
        init.zeros_(self.mean)
        init.zeros_(self.whitening)

    @torch.no_grad()
    def set_statistics(self, mean: torch.Tensor, covariance: torch.Tensor, limit: float) -> None:
        """Set the mean `(D,)` and covariance `(D, D)` of the training clips' embeddings, and the limit."""
        factor = torch.linalg.cholesky(torch.linalg.inv(covariance.double()))  # (D, D)
        self.mean.copy_(mean)
        self.whitening.copy_(factor / limit)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """`(..., D)` to `(...)`, 1 at the limit."""
        return ((embedding.float() - self.mean) @ self.whitening).square().sum(-1).sqrt()


class VarianceHead(nn.Linear):
    """Linear head of the log-variances, for which a model with it draws no other random weights than one without."""

    def reset_parameters(self) -> None:
        """Initialize without random numbers; the model does it again after the other heads, with another bias."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class EmotionHeads(nn.Module):
    """Linear heads on the embedding: dimensions, emotions, variances and, while distilling, teachers' classes.

    Args:
        config: an `EmotionConfig`.
        teacher_emotions: class names of each teacher that has a separate head while distilling.
    """

    def __init__(self, config, teacher_emotions: dict[str, list[str]] | None = None):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.dimensions = nn.Linear(config.embedding_size, len(config.dimensions)) if config.dimensions else None
        self.emotions = nn.Linear(config.embedding_size, len(config.emotions)) if config.emotions else None
        self.log_variance = (
            VarianceHead(config.embedding_size, len(config.dimensions)) if config.predict_variance else None
        )
        self.training_distance = EmbeddingDistance(config.embedding_size) if config.measure_distance else None
        self.teachers = nn.ModuleDict(
            {name: nn.Linear(config.embedding_size, len(labels)) for name, labels in (teacher_emotions or {}).items()}
        )

    def drop_teacher_heads(self) -> None:
        """Remove the teachers' heads, which are needed for distillation only."""
        self.teachers = nn.ModuleDict()

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor | dict[str, torch.Tensor] | None]:
        """Apply the heads to `(..., D)`.

        Returns:
            `dimensions (..., 3)` in 0..1, `logits (..., C)`, `log_variance (..., 3)`, `distance (...)` and
            `teacher_logits`, a dict of `(..., C_k)`; None for a head that the model does not have.
        """
        distance = self.training_distance(embedding) if self.training_distance else None
        embedding = self.dropout(embedding)
        return {
            "distance": distance,
            "dimensions": self.dimensions(embedding).float().sigmoid() if self.dimensions else None,  # (..., 3)
            "logits": self.emotions(embedding) if self.emotions else None,  # (..., C)
            # detached: its loss must not change the embedding, from which the means are predicted
            "log_variance": self.log_variance(embedding.detach()) if self.log_variance else None,  # (..., 3)
            "teacher_logits": {name: head(embedding) for name, head in self.teachers.items()} or None,
        }
