"""Feature extractor: checks waveforms and pads them to a batch with a mask."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

from .audio_sources import scale_to_unit_range


class EmotionFeatureExtractor(SequenceFeatureExtractor):
    """Pads clips to a batch, the input of teacher and student.

    Normalization and spectral features are computed inside the model.

    Args:
        feature_size: values per sample; 1.
        sampling_rate: expected rate, in hertz.
        padding_value: value after the end of shorter clips.
        **kwargs: passed on.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - transformers reads a class attribute

    def __init__(self, feature_size: int = 1, sampling_rate: int = 16000, padding_value: float = 0.0, **kwargs):
        if (padded := kwargs.get("padding_side", "right")) != "right":
            raise ValueError(
                f'Expected `padding_side` "right", got {padded!r}, which changes the outputs. Remove it from '
                "`preprocessor_config.json`."
            )
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            **{"padding_side": "right", "return_attention_mask": True, **kwargs},
        )

    def __call__(
        self,
        raw_speech,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Check and pad one clip or a list of clips.

        Args:
            raw_speech: mono samples, `(S,)`, or a list of such. Floats are in ±1, and integers are scaled to it by
                their type, as `read_audio` does.
            sampling_rate: of the samples, in hertz; required, since a wrong rate would silently give wrong outputs.
            padding: as in transformers; by default to the longest clip.
            max_length: with `padding="max_length"` or `truncation`, in samples.
            truncation: whether to cut at `max_length`.
            pad_to_multiple_of: round the padded length up to a multiple of this.
            return_tensors: `"pt"`, `"np"` or None.
            **kwargs: refused, except those that the pipelines of transformers pass (such as `return_attention_mask`).

        Returns:
            `input_values` `(B, S)` in float32 and `attention_mask` `(B, S)`.

        Raises:
            ValueError: on a missing or wrong rate, several channels, an empty or a non-finite clip.
            TypeError: on an unknown keyword.
        """
        if unknown := set(kwargs) - {"return_attention_mask", "device", "do_normalize"}:
            raise TypeError(f"Unknown keywords {sorted(unknown)}.")
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"Expected audio at {self.sampling_rate} Hz, got {sampling_rate} Hz. Resample it first, or let "
                '`pipeline("audio-emotion")` do it: pass {"array": ..., "sampling_rate": ...}.'
            )
        several = isinstance(raw_speech, (list, tuple)) and len(raw_speech) > 0 and not np.isscalar(raw_speech[0])
        clips = [np.asarray(clip) for clip in (raw_speech if several else [raw_speech])]
        clips = [scale_to_unit_range(clip, f"clip {number}") for number, clip in enumerate(clips)]
        if not several and clips[0].ndim == 2 and isinstance(raw_speech, np.ndarray):
            raise ValueError(
                f"Expected one clip of shape (samples,), got an array of shape {clips[0].shape}. Average its "
                "channels, or pass several clips as a list."
            )
        for number, clip in enumerate(clips):
            if clip.ndim != 1 or clip.size == 0 or not np.isfinite(clip).all():
                raise ValueError(
                    f"Clip {number} must be one channel of at least one finite sample, got shape {clip.shape}"
                    f"{'' if np.isfinite(clip).all() else ' with NaN or infinite samples'}."
                )
        return self.pad(
            BatchFeature({"input_values": clips}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
