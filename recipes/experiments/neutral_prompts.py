"""Telephone prompts, which are neutral: a corpus of them to train on, and how often a model calls them neutral.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-g722 asterisk-prompt-it-menardi-wav
    for package in asterisk-*.deb; do dpkg-deb -x $package unpacked; done
    python recipes/experiments/neutral_prompts.py --sounds unpacked/usr/share/asterisk/sounds
    python recipes/experiments/neutral_prompts.py --models lite=modeling/audio_emotion/embedded/lite

The third line writes clips of 1 to 12 seconds as FLAC at 16 kHz, and a description of each speaker, such as
`runs/prompts/allison.yaml`, which recipes take as `--mix`. The last one writes `recipes/results/prompts.json`: the
fraction of the clips of each language and speaker that a model calls neutral (calm with it), and its mean confidence.
That prompts are neutral is our reading: nobody has rated them.
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
import yaml
from tqdm.auto import tqdm
from transformers import pipeline

import audio_emotion  # noqa: F401 - registers the pipeline
from audio_emotion.evaluation.provenance import training_speakers
from audio_emotion.training.arguments import argument_group, option, parse_arguments

RESULTS = Path(__file__).parents[1] / "results" / "prompts.json"
RATE = 16000
SHORTEST, LONGEST = 1.0, 12.0  # seconds
EMOTIONS = [
    "neutral",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
]  # no clip has another than the first
NO_SPEECH = re.compile(r"silence|beep|tone|monkey|scream|weasel")
LICENSES = {"ivrvoiceru": "CC-BY-3.0"}  # of the others: CC-BY-SA-3.0
CITATION = (
    "Asterisk core sounds and Italian prompts by M. Menardi and P. Dal Zot (http://www.voip.ammdomus.it), Debian."
)


@argument_group()
class PromptArguments:
    """Telephone prompts as a corpus, and how often models call them neutral."""

    sounds: str = option(
        "", "Folder of the unpacked sounds, with folders such as `en_US_f_Allison`: write the corpus."
    )
    corpus: str = option("runs/prompts", "Folder of the corpus.")
    models: list[str] = option([], "`name=folder` of each model: measure them.")
    results: str = option(str(RESULTS), "File of the measurements; those of other models in it are kept.")


def main(args: PromptArguments) -> None:
    """Write the corpus, or measure models."""
    if args.sounds:
        write_corpus(Path(args.sounds), Path(args.corpus))
    if args.models:
        file = Path(args.results)
        known = json.loads(file.read_text())["models"] if file.exists() else {}
        for name, folder in (each.split("=", 1) for each in args.models):
            known[name] = measure(folder, Path(args.corpus))
        results = {"source": "recipes/experiments/neutral_prompts.py", "models": known}
        file.write_text(json.dumps(results, indent=2) + "\n")


def write_corpus(sounds: Path, corpus: Path) -> None:
    """Decode the prompts of every speaker, and write a table and a description of each."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for folder in sorted(sounds.iterdir()):
        named = re.fullmatch(r"([a-z]{2})_[A-Z]{2}_([fm])_(\w+)", folder.name)
        if named is None:
            continue
        language, gender, speaker = named[1], named[2], named[3].lower()
        for name, waveform in tqdm(prompts(folder), folder.name):
            file = corpus / "clips" / speaker / language / f"{name}.flac"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, waveform, RATE)
            row = {"file": file.relative_to(corpus).as_posix(), "speaker": speaker, "gender": gender}
            rows[speaker].append(row | {"language": language, "emotion": "neutral"})
    if not rows:
        raise FileNotFoundError(
            f"Expected folders such as `en_US_f_Allison` in `{sounds}`, got none. Unpack packages."
        )
    for speaker, clips in rows.items():
        with (corpus / f"{speaker}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, clips[0])
            writer.writeheader()
            writer.writerows(clips)
        described = {
            "name": f"prompts-{speaker}",
            "license": LICENSES.get(speaker, "CC-BY-SA-3.0"),
            "citation": CITATION,
            "language": sorted({row["language"] for row in clips}),
            "source": "csv",
            "path": f"{speaker}.csv",
            "columns": {"audio": "file", "speaker": "speaker", "gender": "gender", "emotion": "emotion"},
            "emotions": EMOTIONS,
        }
        (corpus / f"{speaker}.yaml").write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
        print(f"{speaker}: {len(clips)} clips")


def prompts(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and waveform `(S,)` at 16 kHz of every prompt of a speaker that is long enough."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).with_suffix("").as_posix().replace("/", "_")
        if file.suffix not in (".g722", ".wav") or file.is_symlink() or NO_SPEECH.search(name):
            continue
        waveform = decode(file)
        if SHORTEST <= len(waveform) / RATE <= LONGEST:
            yield name, waveform


def decode(file: Path) -> np.ndarray:
    """Waveform `(S,)` at 16 kHz of a WAV file or of raw G.722, which the package's reader does not accept."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(str(file), format="g722" if file.suffix == ".g722" else None) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts).clip(-1, 1) if parts else np.zeros(0, np.float32)


def measure(model: str, corpus: Path) -> dict:
    """By language and speaker: clips, the fraction called neutral or calm, and the mean confidence.

    Speakers that the model was trained on are left out.
    """
    torch.set_num_threads(1)
    predict = pipeline("audio-emotion", model=model)
    seen = training_speakers(predict.model.config.training_data)
    found = {}
    for table in sorted(corpus.glob("*.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if f"prompts-{table.stem}/{row['speaker']}" not in seen]
        for language in sorted({row["language"] for row in rows}):
            files = [str(corpus / row["file"]) for row in rows if row["language"] == language]
            first = [answer["emotions"][0] for answer in predict(files, batch_size=16)]
            found[f"{language} {table.stem}"] = {
                "clips": len(files),
                "neutral": float(np.mean([each["label"] in ("neutral", "calm") for each in first])),
                "confidence": float(np.mean([each["score"] for each in first])),
            }
            print(f"{model}, {language} {table.stem}: {found[f'{language} {table.stem}']}")
    return found


if __name__ == "__main__":
    main(parse_arguments(PromptArguments))
