"""Adapt models to unseen speakers with a few unlabeled clips, and compare them with the same models as they are.

    python recipes/experiments/speaker_adaptation.py --models lite=modeling/audio_emotion/embedded/lite

The clips of each speaker are divided into two random halves; the clips of one are predicted after an adaptation to
some of the other, so that no clip adapts the model for itself. Speakers that a model was trained on are left out. A
name may be that of several models, each for the speakers that it has not seen: `--models fused=runs/a fused=runs/b`.
Scored over angry, happy, neutral (calm with it) and sad, or over all emotions of model and corpus with
`--all_emotions true`. Writes `recipes/results/speaker_adaptation.json`.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from elsewhere import FOUR, TITLES, class_scores
from torch import Tensor
from transformers import AutoModelForAudioClassification

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table, select_speakers, shard_files
from audio_emotion.evaluation.bootstrap import aggregate, compare
from audio_emotion.evaluation.predictions import Predictions, pool_folds
from audio_emotion.evaluation.provenance import training_speakers
from audio_emotion.hub.card_sections import markdown_table
from audio_emotion.speaker_adaptation import adapted_model
from audio_emotion.training.arguments import argument_group, option, parse_arguments
from audio_emotion.training.feature_cache import EncoderStateCache

MEANS = ("uar", "accuracy", "ece", "over_confidence", "surest_half_accuracy")  # over seeds


@argument_group()
class AdaptationArguments:
    """Adapt models to unseen speakers with a few unlabeled clips."""

    models: list[str] = option([], "`name=folder` of each model; several folders of a name share the speakers.")
    corpora: list[str] = option(list(TITLES), "Names of the corpora.")
    clips: list[int] = option([1, 5, 10, 20], "Numbers of clips that a model is adapted with.")
    seeds: list[int] = option([0, 1, 2], "Of the halves and of the clips.")
    all_emotions: bool = option(False, "Score all emotions that model and corpus have, not four.")
    cache: str = option("runs/cache", "Cache folder for the states of the encoders.")
    results: str = option("recipes/results/speaker_adaptation.json", "File that is written; other rows are kept.")
    repeats: int = option(1000, "Bootstrap samples of each interval.")


def main(args: AdaptationArguments) -> dict:
    """Measure every model on every corpus and write the results."""
    folders: dict[str, list[str]] = {}
    for each in args.models:
        name, folder = each.split("=", 1)
        folders.setdefault(name, []).append(folder)
    file = Path(args.results)
    models = json.loads(file.read_text())["models"] if file.exists() else {}
    for name, group in folders.items():
        loaded = [AutoModelForAudioClassification.from_pretrained(folder).eval() for folder in group]
        for corpus in args.corpora:
            found = measure_corpus(loaded, corpus, args)
            if found:
                models.setdefault(name, {})[corpus] = found
                print(name, corpus, *(f"{kind} {row['uar']:.3f}" for kind, row in found.items()), sep=", ", flush=True)
    results = {"source": "recipes/experiments/speaker_adaptation.py", "models": models}
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(adaptation_table(results))
    return results


def measure_corpus(models: Sequence[Any], corpus: str, args: AdaptationArguments) -> dict[str, Any]:
    """Scores without and with adaptation, by kind of clips; empty where the models know all speakers."""
    table = corpus_table(corpus)
    table = table.select([row for row, emotion in enumerate(table["emotion"]) if emotion is not None])
    parts: list[Unseen] = []
    left = {name for name in table["speaker"] if name}
    for model in models:
        unseen = left - training_speakers(model.config.training_data)
        if unseen:
            parts.append(Unseen(model, corpus, select_speakers(table, sorted(unseen)), args))
            left -= unseen
    if not parts:
        return {}
    plain = pool_folds([part.predict(part.model, part.ids) for part in parts])
    found: dict[str, Any] = {"none": class_scores(plain, parts[0].emotions, args.repeats)}
    kinds: dict[str, tuple[int, str | None]] = {
        ("1 clip" if count == 1 else f"{count} clips"): (count, None) for count in args.clips
    }
    for kind, (count, emotion) in (kinds | {"10 neutral clips": (10, "neutral")}).items():
        runs = [pool_folds([part.predict_adapted(count, emotion, seed) for part in parts]) for seed in args.seeds]
        each = [class_scores(run, parts[0].emotions, 0) for run in runs]
        difference = compare(runs, [plain] * len(runs), "uar", [], args.repeats)
        row = {name: float(np.mean([one[name] for one in each])) for name in MEANS}
        row["interval"] = list(aggregate(runs, "uar", [], args.repeats)[1])
        row |= {"difference": difference.difference, "difference_interval": list(difference.interval)}
        found[kind] = row | {"p": difference.p_value}
    return found


class Unseen:
    """The clips of a corpus whose speakers a model was not trained on, encoded once.

    Args:
        model: in evaluation mode.
        corpus: name of the corpus.
        rows: of its table.
        args: of the recipe.
    """

    def __init__(self, model: Any, corpus: str, rows: Dataset, args: AdaptationArguments) -> None:
        self.model = model
        clips = ClipStream(rows, shard_files(corpus, None))
        if isinstance(model, FusedEmotionForAudioClassification):
            states = EncoderStateCache(args.cache, model)
            states.fill(clips)
            self.read = lambda name: features_of(states[name])
            self.ids = sorted(name for name in rows["id"] if name in states)
        else:
            samples = {row["id"]: torch.as_tensor(row["waveform"])[None] for row in clips.clips()}
            self.read = lambda name: {"input_values": samples[name]}
            self.ids = sorted(samples)
        self.title = str if args.all_emotions else as_one_of_four
        known = {self.title(name) for name in corpus_info(corpus).emotions}
        scored = model.config.emotions if args.all_emotions else FOUR
        self.emotions = [name for name in scored if name in known]
        self.emotion = {name: self.title(emotion) for name, emotion in zip(rows["id"], rows["emotion"], strict=True)}
        self.speaker = dict(zip(rows["id"], rows["speaker"], strict=True))

    @torch.no_grad()
    def predict(self, model: Any, ids: Sequence[str]) -> Predictions:
        """Predictions over the emotions that are scored, probabilities of calm added to those of neutral."""
        outputs = [model(**self.read(name)) for name in ids]
        names = [self.title(name) for name in model.config.emotions]
        logits = torch.cat([each.logits.float() for each in outputs]).numpy()
        columns = [np.logaddexp.reduce(logits[:, [n == each for n in names]], axis=1) for each in self.emotions]
        numbers = {name: number for number, name in enumerate(self.emotions)}
        return Predictions(
            ids=list(ids),
            speakers=np.array([self.speaker[name] for name in ids]),
            logits=np.stack(columns, axis=1),
            dimensions=torch.cat([each.dimensions.float() for each in outputs]).numpy(),
            embedding=torch.cat([each.embedding.float() for each in outputs]).numpy(),
            labels=np.array([numbers.get(self.emotion[name], -100) for name in ids]),
            dimension_labels=np.full((len(ids), len(model.config.dimensions)), np.nan),
        )

    def predict_adapted(self, count: int, emotion: str | None, seed: int) -> Predictions:
        """Predictions after an adaptation to `count` clips of each speaker, of one emotion or of any."""
        halves: dict[tuple[str, int], list[str]] = {}
        shuffled = random.Random(seed).sample(self.ids, len(self.ids))
        for name in shuffled:
            first, second = (halves.setdefault((self.speaker[name], half), []) for half in (0, 1))
            (first if len(first) <= len(second) else second).append(name)
        predicted = []
        for (speaker, half), ids in halves.items():
            others = [each for each in halves[speaker, 1 - half] if emotion is None or self.emotion[each] == emotion]
            enrolled = [self.read(name) for name in others[:count]]
            model = adapted_model(self.model, enrolled) if enrolled else self.model
            if ids:
                predicted.append(self.predict(model, ids))
        return pool_folds(predicted)


def as_one_of_four(emotion: str) -> str:
    """The emotion, or neutral for calm."""
    return emotion.replace("calm", "neutral")


def features_of(states: Sequence[Tensor]) -> dict[str, Any]:
    """Cached states of one clip, per stream `(L, T, H)`, as arguments of a forward pass."""
    time = min(each.shape[1] for each in states)
    return {"features": [each[None, :, :time].float() for each in states], "lengths": torch.tensor([time])}


def kind_order(kind: str) -> tuple[bool, int]:
    """Key by which the columns of the table are sorted: none, numbers of any clips, then those of one emotion."""
    return kind.endswith(" neutral clips"), 0 if kind == "none" else int(kind.split()[0])


def adaptation_table(results: dict[str, Any]) -> str:
    """UAR of every model and corpus, a column for each number of clips, in Markdown."""
    kinds = [kind for model in results["models"].values() for row in model.values() for kind in row]
    columns = sorted(dict.fromkeys(kinds), key=kind_order)
    lines = []
    for corpus in TITLES:
        for name, row in ((name, corpora[corpus]) for name, corpora in results["models"].items() if corpus in corpora):
            cells = [f"{row[kind]['uar']:.3f}" if kind in row else "" for kind in columns]
            best = row.get("10 clips", {})
            low, high = best.get("difference_interval", (np.nan, np.nan))
            gain = f"{best['difference']:+.3f} ({low:+.3f} to {high:+.3f})" if best else ""
            over = f"{row['none']['over_confidence']:+.2f}, {best['over_confidence']:+.2f}" if best else ""
            chance = f"{row['none']['chance']:.2f}"
            lines.append([TITLES.get(corpus, corpus), name, chance, *cells, gain, over])
    header = [
        "tested on",
        "model",
        "chance",
        *columns,
        "10 clips, difference",
        "confidence minus accuracy, none and 10 clips",
    ]
    return markdown_table(header, lines)


if __name__ == "__main__":
    main(parse_arguments(AdaptationArguments))
