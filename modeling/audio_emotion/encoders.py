"""The teacher's streams: pretrained encoders and the log-mel filterbank, as frames on one 50 Hz grid."""

# SPDX-License-Identifier: Apache-2.0

import math
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, FeatureExtractionMixin
from transformers import initialization as init

from .checkpoint_loading import loading_options
from .layer_fusion import LayerConcatenation, LayerMix
from .log_mel import LogMel, frame_mask, stack_frames
from .whisper_states import whisper_hidden_states, whisper_log_mel

GRID = 50.0  # frames per second of every stream
POSITIONS = r"encoder\.embed_positions\.weight$"  # of Whisper; not in checkpoints in half precision
# Relative to the standard deviation of the hidden states; above it, a family runs one clip at a time. The rounding of
# Whisper reaches 1.4e-4, the leakage through group norm is a hundred times larger.
PADDING_TOLERANCE = 1e-3
# Whether the last layer is followed by a norm; in the family of wav2vec 2.0, `do_stable_layer_norm` is set then.
FINAL_NORM = {"whisper": True, "data2vec-audio": False, "wav2vec2-bert": False}


def encoder_of(model: nn.Module, layers: list[int] | None) -> nn.Module:
    """The encoder of a pretrained model, cut off above the last of `layers`, whose weights would get no gradient.

    Args:
        model: an encoder, or an encoder-decoder model.
        layers: hidden states that are used, 0 being the input of the first layer; None for all.

    Raises:
        ValueError: on a layer that the encoder does not have.
    """
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if layers is None:
        return encoder
    count = encoder.config.num_hidden_layers
    if not layers or min(layers) < 0 or max(layers) > count:
        raise ValueError(
            f"{encoder.config.name_or_path or encoder.config.model_type}: expected layers in 0..{count}, got {layers}."
        )
    # Other families are kept whole: what follows their last layer is not known.
    has_norm = FINAL_NORM.get(encoder.config.model_type, getattr(encoder.config, "do_stable_layer_norm", None))
    if max(layers) < count and has_norm is not None:
        stack = getattr(encoder, "encoder", encoder)
        stack.layers = stack.layers[: max(layers)]
        if has_norm:
            stack.layer_norm = nn.Identity()  # only the last layer's states are normalized
    return encoder


def encoder_configuration(stream: dict):
    """The configuration object of a stream's encoder; layer drop is off, as it would shorten the hidden states."""
    config = AutoConfig.for_model(**stream["config"])
    config.dtype = None  # that of the teacher, not of the encoder's file
    for switch in ("layerdrop", "encoder_layerdrop"):
        if switch in stream["config"]:
            setattr(config, switch, 0.0)
    return config


class EncoderStream(nn.Module):
    """A pretrained encoder, its layer mix and its projection.

    Args:
        stream: the stream's dict, see `FusedEmotionConfig`.
        projection_size: width `P` of the projected frames; 0 for no projection.
        layer_fusion: `"mix"` or `"concatenate"`.
    """

    def __init__(self, stream: dict, projection_size: int, layer_fusion: str = "mix"):
        super().__init__()
        config = encoder_configuration(stream)
        self.stream = stream
        self.encoder = encoder_of(AutoModel.from_config(config), stream["layers"])
        self.frozen = False
        self.num_layers = len(stream["layers"]) if stream["layers"] is not None else config.num_hidden_layers + 1
        layers = LayerConcatenation if layer_fusion == "concatenate" else LayerMix
        self.layer_mix = layers(self.num_layers, config.hidden_size)
        self.output_size = projection_size or self.layer_mix.output_size
        self.projection = nn.Linear(self.layer_mix.output_size, projection_size) if projection_size else nn.Identity()

    def reset_positions(self) -> None:
        """Fill the positions of Whisper by their formula (Vaswani et al. 2017), unless a checkpoint had them."""
        if self.encoder.config.model_type == "whisper":
            weight = self.encoder.embed_positions.weight  # (1500, H)
            half = weight.shape[1] // 2
            frequencies = torch.exp(torch.arange(half, device="cpu") * (-math.log(10000) / (half - 1)))
            angles = torch.arange(len(weight), device="cpu")[:, None] * frequencies  # (1500, H / 2)
            init.copy_(weight, torch.cat([angles.sin(), angles.cos()], dim=1))

    def train(self, mode: bool = True):
        """Switch dropout on or off; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def freeze(self) -> None:
        """Freeze the encoder; layer mix and projection remain trainable."""
        self.frozen = True
        self.encoder.requires_grad_(False).eval()

    def encode(self, waveform: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the encoder.

        Args:
            waveform (`torch.Tensor` of shape `(B, S)`): 16 kHz samples.
            mask (`torch.Tensor` of shape `(B, S)`): 1 for true samples.

        Returns:
            the selected hidden states `(B, L, T, H)` on the 50 Hz grid and the number of true frames `(B,)`.
        """
        lengths = mask.sum(-1).long()  # (B,)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.stream["one_at_a_time"]:
                clips = zip(waveform, lengths, strict=True)
                alone = [self._hidden_states(clip[None, :length], length[None]) for clip, length in clips]
                time = max(states.shape[2] for states, _ in alone)
                states = torch.cat([nn.functional.pad(s, (0, 0, 0, time - s.shape[2])) for s, _ in alone])
                return states, torch.cat([frames for _, frames in alone])
            return self._hidden_states(waveform, lengths)

    def _hidden_states(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the encoder on a batch, padded as it is."""
        mask = frame_mask(lengths, waveform.shape[1])  # (B, S)
        if self.encoder.config.model_type == "whisper":
            features, frames = whisper_log_mel(waveform.float() * mask, lengths, self.encoder.config.num_mel_bins)
            states, frames = whisper_hidden_states(self.encoder, features, frames)
        elif self.encoder.main_input_name == "input_values":
            if self.stream["preprocessing"].get("do_normalize", True):
                waveform = normalize_waveform(waveform.float(), mask)
            # Families that run one clip at a time were pretrained without a mask.
            attention_mask = None if self.stream["one_at_a_time"] else mask.long()
            output = self.encoder(
                (waveform * mask).to(self.encoder.dtype), attention_mask=attention_mask, output_hidden_states=True
            )
            # With pre-norm layers, the last of `hidden_states` lacks the final normalization.
            states = [*output.hidden_states[:-1], output.last_hidden_state]
            frames = self.encoder._get_feat_extract_output_lengths(lengths)
        else:
            states, frames = self._hidden_states_of_features(waveform, lengths)
        if self.stream["layers"] is not None:
            states = [states[layer] for layer in self.stream["layers"]]
        return resample_to_grid(torch.stack(list(states), dim=1), frames.clamp(min=1), self.stream["frame_rate"])

    def _hidden_states_of_features(self, waveform: torch.Tensor, lengths: torch.Tensor):
        """Hidden states of a family whose input is computed by its feature extractor (w2v-BERT)."""
        settings = self.stream["preprocessing"]
        extractor = getattr(transformers, settings["feature_extractor_type"]).from_dict(settings)
        clips = [clip[:length].float().cpu().numpy() for clip, length in zip(waveform, lengths, strict=True)]
        inputs = extractor(clips, sampling_rate=settings["sampling_rate"], padding=True, return_tensors="pt")
        inputs = inputs.to(waveform.device)
        output = self.encoder(
            inputs["input_features"].to(self.encoder.dtype),
            attention_mask=inputs["attention_mask"],
            output_hidden_states=True,
        )
        return output.hidden_states or [output.last_hidden_state], inputs["attention_mask"].sum(-1)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mix the hidden states `(B, L, T, H)` and project them to `(B, T, P)`, 0 where `mask (B, T)` is 0."""
        mixed = self.layer_mix(states).to(mask.dtype)  # (B, T, H)
        return self.projection(mixed) * mask.unsqueeze(-1)


class LogMelStream(nn.Module):
    """The log-mel filterbank as a stream, with pairs of 10 ms frames stacked to the 50 Hz grid.

    Args:
        stream: the stream's dict, see `FusedEmotionConfig`.
        projection_size: width `P` of the projected frames.
        sampling_rate: of the waveform, in hertz.
    """

    def __init__(self, stream: dict, projection_size: int, sampling_rate: int):
        super().__init__()
        self.log_mel = LogMel(stream["num_mel_bins"], sampling_rate, stream.get("level", "absolute"))
        self.output_size = projection_size or 2 * stream["num_mel_bins"]
        self.projection = nn.Linear(2 * stream["num_mel_bins"], projection_size) if projection_size else nn.Identity()

    def encode(self, waveform: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `(B, 1, T, 2 M)`, shaped as one hidden state, and their number `(B,)`."""
        frames, lengths = self.log_mel(waveform, mask)
        pairs, lengths = stack_frames(frames, lengths, per_step=2)
        return pairs.unsqueeze(1), lengths

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Project `(B, 1, T, 2 M)` to `(B, T, P)`, 0 where `mask (B, T)` is 0."""
        return self.projection(states.squeeze(1).to(mask.dtype)) * mask.unsqueeze(-1)


def normalize_waveform(waveform: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over each clip's true samples, `(B, S)`, as wav2vec 2.0's feature extractor."""
    count = mask.sum(-1, keepdim=True)  # (B, 1)
    mean = (waveform * mask).sum(-1, keepdim=True) / count
    variance = ((waveform - mean).square() * mask).sum(-1, keepdim=True) / count
    return (waveform - mean) / (variance + 1e-7).sqrt()


def resample_to_grid(
    states: torch.Tensor, frames: torch.Tensor, frame_rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select the nearest earlier frame for each step of the 50 Hz grid.

    Args:
        states (`torch.Tensor` of shape `(B, L, T, H)`): hidden states.
        frames (`torch.Tensor` of shape `(B,)`): true frames.
        frame_rate: of the states, in hertz.

    Returns:
        states `(B, L, T', H)` and true frames `(B,)` at 50 Hz.
    """
    if frame_rate == GRID:
        return states, frames
    steps = int(states.shape[2] * GRID / frame_rate)
    nearest = (torch.arange(steps, device=states.device) * frame_rate / GRID).long()  # (T',)
    return states[:, :, nearest], (frames * GRID / frame_rate).long().clamp(min=1)


def average_steps(states: torch.Tensor, lengths: torch.Tensor, per_step: int) -> torch.Tensor:
    """Average `per_step` frames into one step; an incomplete last step is left out unless it is the only one.

    Args:
        states (`torch.Tensor` of shape `(B, L, T, H)`): hidden states.
        lengths (`torch.Tensor` of shape `(B,)`): true frames; the others are excluded from the averages.
        per_step: frames in a step.

    Returns:
        steps `(B, L, max(T // per_step, 1), H)`.
    """
    if per_step == 1:
        return states
    time = states.shape[2]
    steps = max(time // per_step, 1)
    states = nn.functional.pad(states, (0, 0, 0, max(steps * per_step - time, 0)))[:, :, : steps * per_step]
    mask = frame_mask(lengths, steps * per_step).to(states.dtype)  # (B, T)
    batch, layers, _, width = states.shape
    count = mask.reshape(batch, -1, per_step).sum(2).clamp(min=1)  # (B, T')
    total = (states * mask[:, None, :, None]).reshape(batch, layers, -1, per_step, width).sum(3)  # (B, L, T', H)
    return total / count[:, None, :, None]


def load_encoder(source: str, layers: list[int] | None = None, revision: str | None = None) -> tuple[dict, nn.Module]:
    """Load a pretrained encoder in float32 and describe it as a stream.

    Frame rate and the effect of padding are measured, so that a new family needs no code: in group-norm wav2vec 2.0
    and HuBERT, and in data2vec's stacked positional convolutions, padding changes true frames; these are run one clip
    at a time.

    Args:
        source: Hub id or folder, with a `preprocessor_config.json`.
        layers: hidden states to use, 0 being the input of the first layer; None for all.
        revision: of the Hub repository.

    Returns:
        the stream's dict, see `FusedEmotionConfig`, and the encoder.

    Raises:
        OSError: where the checkpoint or its `preprocessor_config.json` does not exist.
        ValueError: on a layer that the encoder does not have.
    """
    preprocessing, _ = FeatureExtractionMixin.get_feature_extractor_dict(source, revision=revision)
    model = AutoModel.from_pretrained(source, revision=revision, dtype=torch.float32, **loading_options(source))
    encoder = encoder_of(model, layers)
    stream = {
        "name": Path(source).name,
        "kind": "encoder",
        "source": source if not Path(source).exists() else Path(source).name,
        "revision": revision,
        "config": {**model.config.to_diff_dict(), "model_type": model.config.model_type},
        "preprocessing": preprocessing,
        "frame_rate": GRID,
        "layers": layers,
        "one_at_a_time": False,
    }
    probe = EncoderStream(stream, projection_size=1)
    probe.encoder = encoder
    probe.eval()
    noise = 0.1 * torch.randn(2, 64000, generator=torch.Generator().manual_seed(0))  # 4 s
    mask = torch.ones(2, 64000)
    mask[0, 32000:] = 0
    with torch.no_grad():
        states, frames = probe.encode(noise * mask, mask)
        alone, _ = probe.encode(noise[:1, :32000], mask[:1, :32000])
    stream["frame_rate"] = (frames[1] - frames[0]).item() / 2  # frames lost at the edges cancel
    difference = (states[:1, :, : alone.shape[2]] - alone)[:, :, : frames[0]].abs().max()
    stream["one_at_a_time"] = bool(difference > PADDING_TOLERANCE * alone.std())
    return stream, encoder
