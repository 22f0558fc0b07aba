"""Write the stored checkpoints and outputs that `tests/test_golden.py` compares with.

    python tests/assets/make_golden.py [--outputs-only]

Run it by hand, and only when the numbers of a model are meant to change: the default model was trained anew, or a
layer's formula was corrected. `--outputs-only` keeps the two small teachers and computes their outputs again.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, pipeline

from audio_emotion import EmotionFeatureExtractor, FusedEmotionConfig, FusedEmotionForAudioClassification

FOLDER = Path(__file__).parent / "golden"
EMBEDDED = Path(__file__).parents[2] / "modeling/audio_emotion/embedded"
MODELS = {name: EMBEDDED / name for name in ("lite", "student")}
MODELS |= {"teacher": FOLDER / "teacher", "two_encoders": FOLDER / "two_encoders"}
EMOTIONS = ["happy", "angry", "sad", "calm"]
RATE = 16_000


def clips() -> list[np.ndarray]:
    """Twenty voice-like clips of 0.3 to 1.5 s, `(S,)` float32 at 16 kHz, from formulas without random numbers."""
    made = []
    for number in range(20):
        seconds = np.arange(round((0.3 + 1.2 * number / 19) * RATE)) / RATE
        pitch = 90 + 9 * number + 20 * np.sin(2 * math.pi * (1 + number % 3) * seconds)  # Hz
        phase = 2 * math.pi * np.cumsum(pitch) / RATE
        voice = sum(np.sin(k * phase) / k ** (0.8 + 0.05 * number) for k in range(1, 16))
        hiss = np.modf(43758.5453 * np.sin(np.arange(seconds.size) * 12.9898))[0]
        syllables = 0.5 + 0.5 * np.sin(2 * math.pi * (2 + number % 5) * seconds)
        made.append((10 ** (-number / 20) * (0.2 * voice * syllables + 0.01 * hiss)).astype(np.float32))
    return made


def targets() -> tuple[torch.Tensor, torch.Tensor]:
    """Class numbers `(20,)` and dimensions `(20, 3)` that depend on the clips, so that training is not empty."""
    number = torch.arange(20)
    return number % 4, torch.stack([number / 19, 1 - number / 19, (number % 5) / 4], dim=1)


def encoder(width: int, seed: int) -> dict:
    """A stream of a tiny wav2vec 2.0 encoder at 50 Hz."""
    config = Wav2Vec2Config(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8, 8, 8),
        conv_kernel=(10, 8, 4, 4),
        conv_stride=(5, 4, 4, 4),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    return {
        "name": f"tiny-{seed}",
        "kind": "encoder",
        "source": f"tiny-{seed}",
        "revision": None,
        "config": {**config.to_diff_dict(), "model_type": config.model_type},
        "preprocessing": {"do_normalize": seed == 0, "sampling_rate": RATE},
        "frame_rate": 50.0,
        "layers": None,
        "one_at_a_time": False,
    }


def train(folder: Path, streams: list[dict], fusion: str) -> None:
    """Train a small teacher for forty steps on the clips and write its checkpoint."""
    torch.manual_seed(0)
    model = FusedEmotionForAudioClassification(
        FusedEmotionConfig(
            streams=streams,
            emotions=EMOTIONS,
            fusion=fusion,
            projection_size=8,
            convolution_size=8,
            hidden_size=12,
            embedding_size=10,
            predict_variance=True,
        )
    )
    extractor = EmotionFeatureExtractor()
    batch = extractor(clips(), sampling_rate=RATE, padding=True, return_tensors="pt")
    labels, dimensions = targets()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(40):
        loss = model(**batch, labels=labels, dimension_labels=dimensions).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    for code in folder.glob("*.py"):
        code.unlink()
    for name in ("config.json", "preprocessor_config.json"):
        written = json.loads((folder / name).read_text())
        written.pop("auto_map", None)
        (folder / name).write_text(json.dumps(written, indent=2) + "\n")
    print(f"{folder.name}: loss {loss.item():.3f} after forty steps")


def outputs(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor that the model in a folder outputs for the clips, padded into one batch, float32."""
    from transformers import AutoModelForAudioClassification

    model = AutoModelForAudioClassification.from_pretrained(folder, dtype=torch.float32).eval()
    batch = EmotionFeatureExtractor()(clips(), sampling_rate=RATE, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch, output_frames=True)
    tensors = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
    return {name: value.contiguous() for name, value in tensors.items()}


def answers(folder: Path) -> list[dict]:
    """The pipeline's answers for the clips, with every option that adds to them."""
    options = {"window": 0.4, "hop": 0.2, "return_frames": True, "return_embedding": True, "scale": (1, 7)}
    model = pipeline("audio-emotion", model=str(folder), device="cpu")
    return [model({"array": clip, "sampling_rate": RATE}, **options) for clip in clips()[::5]]


def main(outputs_only: bool) -> None:
    """Write `golden/`."""
    torch.set_num_threads(1)
    if not outputs_only:
        log_mel = {"name": "log-mel", "kind": "log-mel", "num_mel_bins": 20}
        train(FOLDER / "teacher", [encoder(16, 0), log_mel], "concatenate")
        train(FOLDER / "two_encoders", [encoder(16, 0), encoder(12, 1)], "gate")
    for name, folder in MODELS.items():
        save_file(outputs(folder), FOLDER / f"{name}.safetensors")
        (FOLDER / f"{name}.json").write_text(json.dumps(answers(folder)) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs-only", action="store_true", help="keep the teachers' checkpoints")
    main(parser.parse_args().outputs_only)
