"""The `handler.py` of a published model, as Inference Endpoints expect it. It needs no file of this package."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from transformers import pipeline

LONGEST = 1800.0  # seconds


class EndpointHandler:
    """Predicts the emotion of one clip per request.

    Args:
        path: the folder of the model; its own code is run.
    """

    def __init__(self, path: str = ""):
        self.pipeline = pipeline("audio-emotion", model=path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Predict.

        Args:
            data: `"inputs"`: the bytes of an audio file, or in JSON their base64, `{"array", "sampling_rate"}`, or a
                list of samples with `"sampling_rate"` among the parameters. `"parameters"`: of the pipeline, such as
                `top_k`, `window` and `return_embedding`. A string is never a path or an address.

        Returns:
            The output of the pipeline.

        Raises:
            ValueError: for a clip or a parameter that cannot be used, with the reason.
        """
        parameters = dict(data.get("parameters") or {})
        rate = parameters.pop("sampling_rate", None)
        clip = _clip(data.get("inputs"), rate)
        try:
            parameters["max_duration"] = min(parameters.get("max_duration", LONGEST), LONGEST)
            return self.pipeline(clip, **parameters)
        except TypeError as error:  # an unknown parameter, or one of another type
            raise ValueError(str(error)) from error


def _clip(inputs: Any, rate: Any) -> dict[str, Any]:
    """The clip in a request, in a form that the pipeline cannot take for a path."""
    if isinstance(inputs, dict) and set(inputs) == {"array", "sampling_rate"}:
        inputs, rate = inputs["array"], inputs["sampling_rate"]
    if isinstance(inputs, list):
        if rate is None:
            raise ValueError("Expected `sampling_rate` among the parameters beside a list of samples, got none.")
        return {"array": inputs, "sampling_rate": rate}
    if isinstance(inputs, str):
        try:
            inputs = base64.b64decode(inputs, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"Expected a string in base64, got another one ({error}).") from error
    if not isinstance(inputs, (bytes, bytearray)):
        raise ValueError(
            "Expected `inputs` with the bytes of an audio file, their base64, samples, or an object of `array` and "
            f"`sampling_rate`, got {type(inputs).__name__}."
        )
    return {"bytes": bytes(inputs), "path": None}
