"""Gradio app of a Space: emotion in speech by a model on the Hub. Copied into the Space as `app.py`."""

# SPDX-License-Identifier: Apache-2.0

import os

import gradio as gr  # type: ignore[import-not-found]
from transformers import pipeline

MODEL_ID = os.environ.get("MODEL_ID", "OWNER/NAME")
KEPT = 3600  # seconds; a recording is deleted at most as long again after that
FLAGS = "The recording has problems that make the result less reliable: "
NOTE = (
    "How a voice sounds to the model, not what the speaker feels. Not for people at work or in education, for "
    "decisions about a person, or for speakers who have not agreed."
)

# The code is that of the model's repository, which belongs to the owner of this Space: pin it by MODEL_REVISION.
recognizer = pipeline(
    "audio-emotion", model=MODEL_ID, revision=os.environ.get("MODEL_REVISION"), trust_remote_code=True
)


def predict(recording: str | None) -> tuple[dict[str, float], dict[str, float], str]:
    """Emotions and dimensions of one recording, and its flags as a sentence."""
    if recording is None:
        raise gr.Error("Record or upload a voice first.")
    try:
        result = recognizer(recording)
    except ValueError as error:
        raise gr.Error(str(error)) from error
    emotions = {each["label"]: each["score"] for each in result.get("emotions", [])}
    flags = FLAGS + ", ".join(result["flags"]) + "." if result["flags"] else "No problem was found with the recording."
    return emotions, result.get("dimensions", {}), flags


with gr.Blocks(title="Emotion in speech", delete_cache=(KEPT, KEPT)) as app:
    gr.Markdown(f"# How does a voice sound to the model?\n\n{NOTE}\n\nModel: `{MODEL_ID}`")
    with gr.Row():
        with gr.Column():
            audio = gr.Audio(sources=["microphone", "upload"], type="filepath", label="Recording")
            button = gr.Button("Predict", variant="primary")
        with gr.Column():
            emotions_shown = gr.Label(label="Emotions (probabilities)")
            dimensions_shown = gr.JSON(label="Dimensions, each from 0 to 1")
            flags_shown = gr.Markdown()
    button.click(predict, audio, [emotions_shown, dimensions_shown, flags_shown])

if __name__ == "__main__":
    app.launch()
