"""LoRA adapters in the pretrained encoders of a teacher."""

from __future__ import annotations

from peft import LoraConfig

from audio_emotion.encoders import EncoderStream
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification

RANK, ALPHA = 8, 16
# WavLM reads the weights of its attention projections directly, so that adapters there would get no gradient.
FEED_FORWARD = r".*\.encoder\..*(intermediate_dense|output_dense|\.fc1|\.fc2)"
TRAINED_PARTS = ("layer_mix", "projection", "log_mel")  # of a stream, beside the encoder


def add_lora(model: FusedEmotionForAudioClassification) -> None:
    """Add LoRA adapters to the feed-forward layers of every encoder, and freeze the encoders' own weights.

    All layers after the encoders are trained in full. `freeze_encoders` would stop the gradient of the adapters, too.
    """
    if any(stream.frozen for stream in model.teacher.streams if isinstance(stream, EncoderStream)):
        raise ValueError("Expected encoders that are not frozen, got frozen ones. Add adapters instead of freezing.")
    parts = [f"streams.{number}.{part}" for number in range(len(model.teacher.streams)) for part in TRAINED_PARTS]
    present = {name.removeprefix("teacher.") for name, _ in model.named_modules()}
    trained = [f"teacher.{name}" for name in parts if name in present]
    gate = ["teacher.gate"] if model.teacher.gate is not None else []
    saved = [*trained, *gate, "teacher.trunk", "heads"]
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=FEED_FORWARD, modules_to_save=saved))
