"""The teacher: pretrained encoders and the log-mel filterbank, fused into one trunk with heads."""

# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .configuration_emotion import FusedEmotionConfig
from .encoders import POSITIONS, EncoderStream, LogMelStream, average_steps, load_encoder
from .layer_fusion import LayerStatistics
from .layers import EmotionTrunk
from .log_mel import frame_mask
from .pretrained_emotion import EmotionBaseModel, EmotionForAudioClassification, EmotionPreTrainedModel, check_batch


class FusedEmotionPreTrainedModel(EmotionPreTrainedModel):
    """Base class of the teacher."""

    config_class = FusedEmotionConfig
    base_model_prefix = "teacher"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module; the layers of an encoder get equal weights (SUPERB, https://arxiv.org/abs/2105.01051)."""
        if isinstance(module, LayerStatistics):
            module.reset()
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Load a checkpoint, maybe without Whisper's positions; see [`EmotionPreTrainedModel.from_pretrained`]."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for stream in model.base_model.streams:
            if isinstance(stream, EncoderStream):
                stream.reset_positions()
        return loaded

    def num_parameters(self, *args, **kwargs) -> int:
        """Number of parameters, as in transformers, but without Whisper's positions, which are a formula."""
        fixed = (each for name, each in self.named_parameters() if re.search(POSITIONS, name))
        computed = 0 if (args and args[0]) or kwargs.get("only_trainable") else sum(each.numel() for each in fixed)
        return super().num_parameters(*args, **kwargs) - computed

    @classmethod
    def from_encoders(
        cls,
        sources: Sequence[str],
        layers: dict[str, list[int]] | None = None,
        revisions: dict[str, str] | None = None,
        **fields,
    ):
        """Build a teacher from pretrained encoders; fusion, trunk and heads are initialized at random.

        Args:
            sources: Hub ids or folders, and `"log-mel"` for the filterbank, in fusion order; `"log-mel-relative"` for
                one that is independent of the recording's gain.
            layers: by source, the hidden states to use (0 is the input of the first layer); all by default.
            revisions: by source, the revision of its Hub repository.
            **fields: of [`FusedEmotionConfig`].

        Raises:
            OSError: where a source or its `preprocessor_config.json` does not exist.
        """
        streams: list[dict] = []
        encoders: list[nn.Module | None] = []
        for source in sources:
            if source in ("log-mel", "log-mel-relative"):
                level = {} if source == "log-mel" else {"level": "relative"}
                streams.append({"name": "log-mel", "kind": "log-mel", "num_mel_bins": 40} | level)
                encoders.append(None)
                continue
            stream, encoder = load_encoder(source, (layers or {}).get(source), (revisions or {}).get(source))
            streams.append(stream)
            encoders.append(encoder)
        model = cls(FusedEmotionConfig(streams=streams, **fields))
        for stream, encoder in zip(model.base_model.streams, encoders, strict=True):
            if encoder is not None:
                stream.encoder.load_state_dict(encoder.state_dict())
        return model


class FusedEmotionModel(EmotionBaseModel, FusedEmotionPreTrainedModel):
    """The teacher without heads: waveform to embedding.

    Args:
        config: a `FusedEmotionConfig`.
    """

    def __init__(self, config: FusedEmotionConfig):
        super().__init__(config)
        self.streams = nn.ModuleList(
            LogMelStream(stream, config.projection_size, config.sampling_rate)
            if stream["kind"] == "log-mel"
            else EncoderStream(stream, config.projection_size, config.layer_fusion)
            for stream in config.streams
        )
        self.dropped: set[str] = set()
        count = len(config.streams)
        self.gate = nn.Linear(count * config.projection_size, count) if config.fusion == "gate" else None
        fused_size = config.projection_size if config.fusion == "gate" else sum(s.output_size for s in self.streams)
        self.trunk = EmotionTrunk(fused_size, config)
        if any(each.get("config", {}).get("model_type") == "whisper" for each in config.streams):
            self._keys_to_ignore_on_load_missing = [POSITIONS]
        self.post_init()

    def freeze_encoders(self) -> None:
        """Freeze every pretrained encoder, as in the paper."""
        for stream in self.streams:
            if isinstance(stream, EncoderStream):
                stream.freeze()

    def drop_streams(self, names: Iterable[str]) -> None:
        """Leave out some streams at inference; their encoders are not run.

        Raises:
            ValueError: on an unknown name, if no stream would remain, or if the model was trained without
                `stream_dropout`.
        """
        known = {stream["name"] for stream in self.config.streams}
        names = set(names)
        if not names <= known or names >= known:
            raise ValueError(f"Expected some, not all, of the streams {sorted(known)}, got {sorted(names)}.")
        if not self.config.stream_dropout:
            raise ValueError(
                "Expected a teacher trained with `stream_dropout` above 0, got 0. Train one with it, or "
                "keep all streams."
            )
        self.dropped = names

    def encode(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor | None], torch.Tensor]:
        """Run every stream's encoder; the result can be cached while the encoders are frozen.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): 16 kHz mono samples in ±1.
            attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*): 1 for true samples, 0 for the padding after.

        Returns:
            one `(B, L_e, T, H_e)` per stream, None for a dropped one, and the number of true steps `(B,)`.

        Raises:
            ValueError: for a waveform without a batch axis, or with channels.
        """
        input_values, attention_mask = check_batch(input_values, attention_mask)
        encoded = [
            None if fields["name"] in self.dropped else stream.encode(input_values, attention_mask)
            for fields, stream in zip(self.config.streams, self.streams, strict=True)
        ]
        lengths = torch.stack([each[1] for each in encoded if each is not None]).amin(0)  # (B,)
        time = min(each[0].shape[2] for each in encoded if each is not None)
        per_step = self.config.frames_per_step
        states = [None if each is None else average_steps(each[0][:, :, :time], lengths, per_step) for each in encoded]
        return states, (lengths // per_step).clamp(min=1)

    def fuse(self, states: list[torch.Tensor | None], lengths: torch.Tensor) -> torch.Tensor:
        """Mix, project and fuse the streams per frame: `(B, T, E * P)`, or `(B, T, P)` with a gate."""
        first = next(each for each in states if each is not None)
        batch, time = first.shape[0], first.shape[2]
        mask = frame_mask(lengths, time).to(self.trunk.embedding.weight.dtype)  # (B, T)
        projected = [
            mask.new_zeros(batch, time, self.config.projection_size) if each is None else stream(each, mask)
            for stream, each in zip(self.streams, states, strict=True)
        ]
        present = torch.tensor([each is not None for each in states], device=mask.device).expand(batch, -1)  # (B, E)
        if self.training and self.config.stream_dropout:
            present = self._drop_at_random(present)
        views = torch.stack(projected, dim=2) * present[:, None, :, None]  # (B, T, E, P)
        if self.gate is not None:
            scores = self.gate(views.flatten(2)).masked_fill(~present[:, None], float("-inf"))  # (B, T, E)
            return (scores.softmax(-1).unsqueeze(-1) * views).sum(2) * mask.unsqueeze(-1)  # (B, T, P)
        scale = present.shape[1] / present.sum(-1, keepdim=True).to(views.dtype)  # (B, 1)
        return views.flatten(2) * scale.unsqueeze(-1)  # (B, T, E * P)

    def _drop_at_random(self, present: torch.Tensor) -> torch.Tensor:
        """Drop streams of each clip at random, `(B, E)`; a clip that would lose all of them keeps all of them."""
        kept = present & (torch.rand(present.shape, device=present.device) >= self.config.stream_dropout)
        return torch.where(kept.any(-1, keepdim=True), kept, present)

    def embed(
        self, features: list[torch.Tensor | None], lengths: torch.Tensor, output_frames: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Fuse the streams and run the trunk, see [`EmotionBaseModel`]."""
        return self.trunk(self.fuse(features, lengths), lengths, output_frames)


class FusedEmotionForAudioClassification(EmotionForAudioClassification, FusedEmotionPreTrainedModel):
    """The teacher with its heads: dimensions and categories.

    Args:
        config: a `FusedEmotionConfig`.
    """

    base_class = FusedEmotionModel
