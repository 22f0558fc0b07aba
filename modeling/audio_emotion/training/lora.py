"""LoRA adapters in the pretrained encoders of a teacher."""

from __future__ import annotations

from peft import LoraConfig

from audio_emotion.encoders import EncoderStream
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification

RANK, ALPHA = 8, 16
# On WavLM's attention projections LoRA gets no gradient: its layers compute attention from the bare weights.
FEED_FORWARD = r".*\.encoder\..*(intermediate_dense|output_dense|\.fc1|\.fc2)"


def add_lora(model: FusedEmotionForAudioClassification) -> None:
    """Put LoRA into the feed-forward layers of every encoder; what follows the encoders is trained whole.

    Args:
        model: a teacher; its encoders' own weights stop learning. Do not call `freeze_encoders` before: it also stops
            the gradient that adapters need.
    """
    if any(stream.frozen for stream in model.teacher.streams if isinstance(stream, EncoderStream)):
        raise ValueError("Expected encoders that gradients reach, got frozen ones. Add adapters in place of freezing.")
    streams = [f"streams.{number}.{part}" for number in range(len(model.teacher.streams)) for part in PARTS]
    present = {name.removeprefix("teacher.") for name, _ in model.named_modules()}
    whole = [f"teacher.{name}" for name in streams if name in present]
    gate = ["teacher.gate"] if model.teacher.gate is not None else []
    saved = [*whole, *gate, "teacher.trunk", "heads"]
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=FEED_FORWARD, modules_to_save=saved))


# Of a stream, what follows its encoder or stands in its place, with the statistics of the training clips.
PARTS = ("layer_mix", "projection", "log_mel")
