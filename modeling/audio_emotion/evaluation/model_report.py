"""Evaluate models on several corpora and write one report: `report.json` and a page, `index.html`.

The same clips are used for every model. A clip is read once for all of them, and once for each corruption.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from audio_emotion.data.dataset import ClipStream, batches
from audio_emotion.data.registry import CORPORA, apply_protocol, corpus_info, corpus_table, shard_files
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.evaluation import report_statistics, report_warnings
from audio_emotion.evaluation.bootstrap import compare
from audio_emotion.evaluation.corruptions import Corruption, robustness_tests
from audio_emotion.evaluation.label_matching import MATCHING_RULE, ClassMatch, MatchedClassifier, match_classes
from audio_emotion.evaluation.pooled_regression import (
    CLIPS,
    PooledFeatures,
    PooledRegression,
    cross_fitted,
    fit_on_corpora,
)
from audio_emotion.evaluation.predictions import Predictions, load_predictions, pool_folds, predict
from audio_emotion.evaluation.provenance import require_uncontaminated
from audio_emotion.evaluation.report_page import write_page
from audio_emotion.evaluation.table_predictions import read_table

TABLES = (".csv", ".parquet")
CHECKPOINT_FOLDERS = ("checkpoints", "last", "best")  # of a run, which is named after the run
BASELINE = "baseline"


class ModelReport:
    """Predictions of models on corpora, and the statistics of a report.

    Args:
        model: Hub id or folder of a model, or a table of predictions.
        against: further models, compared with the first on the same clips.
        baseline: encoder whose pooled layers are the input of a logistic regression; empty for none.
        clips: of each corpus, the same random ones for every model; 0 for all.
        robustness_clips: of each corpus that are also corrupted; 0 for none.
        noise_folder: recordings of noise; generated noise if empty.
        rooms_folder: room impulse responses; generated ones if empty.
        contaminated: also evaluate on speakers that a model was trained on; the results are marked.
        repeats: bootstrap samples of each interval.
        batch_size: clips of a batch, over all processes.
        seed: of the sample of clips.
    """

    def __init__(
        self,
        model: str,
        against: Sequence[str] = (),
        *,
        baseline: str = "",
        clips: int = 0,
        robustness_clips: int = 100,
        noise_folder: str = "",
        rooms_folder: str = "",
        contaminated: bool = False,
        repeats: int = 1000,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        self.models = {name_of(each): each for each in [model, *against]}
        if len(self.models) < 1 + len(against):
            raise ValueError(f"Expected models of different names, got {[model, *against]}. Name them `NAME=MODEL`.")
        self.baseline, self.contaminated, self.repeats = baseline, contaminated, repeats
        self.clips, self.robustness_clips, self.seed = clips, robustness_clips, seed
        self.batch_size = batch_size
        self.accelerator = Accelerator()
        self.tests = robustness_tests(noise_folder, rooms_folder) if robustness_clips else {}
        self.warnings: list[str] = []
        self.costs: dict[str, dict[str, float]] = {}
        self.training: dict[str, list[str]] = {}
        self.regressions: dict[tuple[str, ...], PooledRegression | None] = {}

    def evaluate(self, on: Sequence[str]) -> dict[str, Any]:
        """Evaluate on corpora, each `CORPUS`, or `CORPUS=FILES` with predictions of the first model's fold models."""
        corpora = [self._corpus(*each.partition("=")[::2]) for each in on]
        return {
            "models": {
                name: {
                    "source": public(source),
                    "training_corpora": sorted({*self.training.get(name, [])}),
                    **self.costs.get(name, {}),
                }
                for name, source in self.models.items()
            },
            "baseline": self.baseline and public(self.baseline),
            "rule": MATCHING_RULE,
            "clips": self.clips,
            "robustness_clips": self.robustness_clips,
            "repeats": self.repeats,
            "seed": self.seed,
            "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)",
            "warnings": list(dict.fromkeys(self.warnings)),
            "corpora": corpora,
        }

    def _corpus(self, corpus: str, files: str) -> dict[str, Any]:
        """Every statistic of one corpus."""
        info = corpus_info(corpus)
        whole = corpus_table(corpus)
        table = apply_protocol(corpus, whole, "all")[0]
        folds = self._fold_predictions(files, table) if files else None
        table = table if folds is None else _rows_of(table, set(folds[0].ids))
        sample = sample_rows(table, self.clips, self.seed)
        main = next(iter(self.models))
        entry: dict[str, Any] = {
            "name": info.name,
            "license": info.license,
            "speech": info.speech,
            "dimensions_source": info.dimensions_source,
            "clips": len(sample),
            "of_clips": len(whole),
            "speakers": len({*sample["speaker"]} - {None}),
            "within": folds is not None,
            "models": {},
        }
        predictions: dict[str, tuple[Predictions, list[str], list[str]]] = {}
        digests = self._digests(sample)
        for name, source in self.models.items():
            self.accelerator.print(f"{corpus}: {name}")
            if folds is not None and name == main:
                chosen = np.isin(folds[0].ids, sample["id"])
                found, emotions, dimensions = folds[0].take(chosen), folds[1], folds[2]
                facts: dict[str, Any] = {}
                self.training.setdefault(name, []).append(info.name)
            else:
                found, emotions, dimensions, facts = self._predictions(name, source, corpus, sample)
            predictions[name] = found, emotions, dimensions
            entry["models"][name] = self._scores(entry["name"], name, found, emotions, dimensions, info, facts)
        first = predictions[main]
        self.warnings += report_warnings.clip_warnings(info.name, first[0], digests)
        if self.baseline:
            regression = self._baseline(corpus, sample, table, folds is not None, first[1], main)
            if regression is not None:
                predictions[BASELINE] = regression, first[1], []
                entry["models"][BASELINE] = self._scores(info.name, BASELINE, regression, first[1], [], info, {})
        entry["paired"] = {
            name: self._paired(first, other)
            for name, other in predictions.items()
            if name != main and other[1] == first[1]
        }
        entry["agreement"] = self._agreement(corpus, first)
        entry["groups"] = self._groups(corpus, sample, first)
        if self.tests and folds is None and not self._is_table(main):
            entry["robustness"] = self._robustness(main, corpus, sample, first)
        return entry

    def _fold_predictions(self, pattern: str, table: Dataset) -> tuple[Predictions, list[str], list[str]]:
        """Predictions of several test folds as one set; each clip must be in one of them."""
        found = [load_predictions(path) for path in sorted(glob(pattern))]
        if not found:
            raise FileNotFoundError(f"Expected predictions of `evaluate.py` in `{pattern}`, got no such file.")
        folds_of = Counter(name for each, _, _ in found for name in {*each.speakers.tolist()} - {""})
        if several := sorted(name for name, count in folds_of.items() if count > 1):
            raise ValueError(
                f"Expected every speaker in one test fold of `{pattern}`, got {several[:3]} in several: those models "
                "were trained on speakers that they were tested on. Name the folds of one seed and one protocol."
            )
        pooled = pool_folds([each for each, _, _ in found])
        if unknown := sorted(set(pooled.ids) - set(table["id"])):
            raise ValueError(f"Expected clips of the corpus in `{pattern}`, got {unknown[:3]}. Name its corpus.")
        return pooled, found[0][1], found[0][2]

    def _predictions(
        self, name: str, source: str, corpus: str, rows: Dataset
    ) -> tuple[Predictions, list[str], list[str], dict[str, Any]]:
        """Predictions of a model or a table, matched to the corpus, and facts of the evaluation."""
        info = corpus_info(corpus)
        if self._is_table(name):
            predictions, emotions, dimensions = read_table(source, rows, info)
            return predictions, emotions, dimensions, {}
        model = MatchedClassifier(source, info.emotions, info.dimensions).to(self.accelerator.device).eval()
        speakers = {each for each in rows["speaker"] if each}
        contaminated_by = require_uncontaminated(
            source, info.name, speakers, model.training_data, model.public_models, self.contaminated
        )
        self.training[name] = sorted({each["corpus"] for each in model.training_data if each.get("corpus")})
        start = time.process_time()
        predictions = self._predict(model, corpus, rows)
        self._measure_cost(name, source, model, predictions, time.process_time() - start)
        facts: dict[str, Any] = {"contaminated_by": contaminated_by}
        if model.match:
            predictions.labels = model.match.labels(info.emotions, predictions.labels)
            facts["matching"] = matching_facts(model.match)
        return predictions, list(model.emotions), list(model.dimensions), facts

    def _predict(self, model: Any, corpus: str, rows: Dataset, corrupt: Corruption | None = None) -> Predictions:
        info = corpus_info(corpus)
        stream = ClipStream(
            rows,
            shard_files(corpus),
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        sampler = ResumableSampler.in_order(rows, self.batch_size, self.accelerator.num_processes)
        parts = batches(stream, sampler, info.emotions, getattr(model, "dimensions", ()), augment=corrupt)
        predictions = predict(self.accelerator, model, parts)
        predictions.name_genders(dict(zip(rows["id"], rows["gender"], strict=True)))
        return predictions

    def _digests(self, rows: Dataset) -> list[str]:
        """A digest of the samples of every clip that can be read."""
        return [hashlib.sha256(clip["waveform"].tobytes()).hexdigest() for clip in ClipStream(rows).clips()]

    def _scores(
        self,
        corpus: str,
        name: str,
        predictions: Predictions,
        emotions: list[str],
        dimensions: list[str],
        info: Any,
        facts: dict[str, Any],
    ) -> dict[str, Any]:
        source = info.dimensions_source if info.dimensions_source == "rated" else None
        rated = dimensions if source else []
        kept = predictions.take(np.ones(len(predictions.ids), bool))
        kept.dimensions, kept.dimension_labels = (
            each[:, : len(rated)] for each in (predictions.dimensions, predictions.dimension_labels)
        )
        scores = report_statistics.correctness(kept, emotions, rated, source, self.repeats) | facts
        scores["speakers"] = len(scores["speakers"])
        if emotions and (kept.labels >= 0).any():
            scores["calibration"] = report_statistics.calibration(kept, self.repeats)
        title = f"{corpus}, {name}"
        if rated and kept.variances is not None:
            scores["coverage"] = report_statistics.coverage(kept, rated, self.repeats)
            self.warnings += report_warnings.interval_warnings(title, scores["coverage"])
        self.warnings += report_warnings.corpus_warnings(title, scores, emotions, rated)
        self.warnings += report_warnings.range_warnings(title, predictions, dimensions)
        if "calibration" in scores:
            self.warnings += report_warnings.calibration_warnings(title, scores["calibration"])
        return scores | {"emotions": emotions, "dimensions": rated}

    def _baseline(
        self, corpus: str, rows: Dataset, whole: Dataset, within: bool, emotions: list[str], main: str
    ) -> Predictions | None:
        """Predictions of the logistic regression, over the emotions of the first model; None where none is trained.

        Within a corpus it is trained on other speakers of the corpus, else on the corpora of the first model.
        """
        info = corpus_info(corpus)
        if not emotions:
            return None
        if within:
            more = sample_rows(whole, CLIPS, self.seed)
            ids = {*rows["id"], *more["id"]}
            features = PooledFeatures(self.baseline)
            predictions = cross_fitted(self._predict(features, corpus, _rows_of(whole, ids)), list(info.emotions))
            predictions = predictions.take(np.isin(predictions.ids, rows["id"]))
            classes = list(info.emotions)
        else:
            corpora = tuple(each for each in self.training.get(main, []) if each in CORPORA and each != info.name)
            if corpora not in self.regressions:
                self.regressions[corpora] = fit_on_corpora(self.baseline, corpora, self.accelerator.print, self.seed)
            model = self.regressions[corpora]
            if model is None:
                return None
            predictions = self._predict(model, corpus, rows)
            classes = model.classes
        match = match_classes(classes, info.emotions)
        predictions.logits = match.logits(torch.from_numpy(predictions.logits)).numpy()
        predictions.labels = match.labels(info.emotions, predictions.labels)
        return predictions if list(match.emotions) == emotions else None

    def _paired(self, first: tuple, other: tuple) -> dict[str, Any]:
        """The first model minus another one, in UAR and, where both have them, in the dimensions."""
        metrics = ["uar"] if first[1] else []
        if first[2] == other[2] and np.isfinite(first[0].dimension_labels).any():
            metrics += [f"pearson_{name}" for name in first[2]]
        ids = sorted(set(first[0].ids) & set(other[0].ids))
        one, two = (each[0].take(np.isin(each[0].ids, ids)) for each in (first, other))
        repeats = max(self.repeats, 100)
        return {metric: asdict(compare([one], [two], metric, first[2], repeats)) for metric in metrics}

    def _agreement(self, corpus: str, first: tuple) -> dict[str, Any] | None:
        predictions, emotions, _ = first
        reader = None if corpus.endswith(".yaml") else CORPORA[corpus_info(corpus).name].rater_votes
        if reader is None or not emotions:
            return None
        try:
            counts = reader()
        except FileNotFoundError:
            return None
        names = corpus_info(corpus).emotions
        if set(emotions) != set(names):
            return None
        rows = [counts.get(name.rpartition("/")[2], {}) for name in predictions.ids]
        votes = np.array([[row.get(emotion, 0.0) for emotion in emotions] for row in rows])
        return report_statistics.agreement(predictions, votes, self.repeats)

    def _groups(self, corpus: str, rows: Dataset, first: tuple) -> list[dict[str, Any]]:
        predictions, emotions, _ = first
        if not emotions:
            return []
        by_id = {row["id"]: row for row in rows.select_columns(["id", "speaker", "gender"])}
        reader = None if corpus.endswith(".yaml") else CORPORA[corpus_info(corpus).name].attributes
        facts = [
            {"sex": by_id[name]["gender"] or "", **(reader(by_id[name]) if reader else {})} for name in predictions.ids
        ]
        attributes = {key: [each.get(key, "") for each in facts] for key in {key for each in facts for key in each}}
        return report_statistics.groups(predictions, dict(sorted(attributes.items())), self.repeats)

    def _robustness(self, name: str, corpus: str, rows: Dataset, first: tuple) -> dict[str, dict[str, Any]]:
        info = corpus_info(corpus)
        rows = sample_rows(rows, self.robustness_clips, self.seed)
        model = MatchedClassifier(self.models[name], info.emotions, info.dimensions).to(self.accelerator.device).eval()
        if not model.match:
            return {}
        clean = first[0].take(np.isin(first[0].ids, rows["id"]))
        results: dict[str, dict[str, Any]] = {}
        for group, tests in self.tests.items():
            for test, corrupt in tests.items():
                corrupted = self._predict(model, corpus, rows, corrupt)
                corrupted.labels = model.match.labels(info.emotions, corrupted.labels)
                scores = report_statistics.robustness(clean, corrupted, self.repeats)
                results.setdefault(group, {})[test] = scores
            self.accelerator.print(f"{corpus}: {group}")
        self.warnings += report_warnings.robustness_warnings(f"{info.name}, {name}", results)
        return results

    def _measure_cost(self, name: str, source: str, model: Any, predictions: Predictions, seconds: float) -> None:
        """Parameters, size on disk, processor seconds for an hour of audio, and memory, over all corpora so far."""
        hours = float(np.nansum(predictions.durations)) / 3600 if predictions.durations is not None else 0.0
        cost = self.costs.setdefault(name, {"processor_seconds": 0.0, "audio_hours": 0.0})
        cost["processor_seconds"] += seconds
        cost["audio_hours"] += hours
        cost["seconds_per_hour"] = cost["processor_seconds"] / max(cost["audio_hours"], 1e-9)
        cost["parameters"] = int(model.model.num_parameters())
        folder = Path(source)
        if folder.is_dir():
            cost["bytes"] = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        unit = 1 if sys.platform == "darwin" else 1024
        cost["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def _is_table(self, name: str) -> bool:
        return self.models[name].endswith(TABLES)


def name_of(model: str) -> str:
    """Short name of a model: that before `=`, or the last part of its path or id."""
    given, found, _ = model.partition("=")
    parts = [part for part in Path(model.rstrip("/")).parts if part not in CHECKPOINT_FOLDERS] or ["model"]
    return given if found else parts[-1].partition(".csv")[0]


def public(source: str) -> str:
    """A Hub id unchanged, the last two parts of a path; of a checkpoint of a run also the run's."""
    path = Path(source)
    count = 3 if path.parent.name == CHECKPOINT_FOLDERS[0] else 2
    return "/".join(path.parts[-count:]) if path.exists() else source


def matching_facts(match: ClassMatch) -> dict[str, Any]:
    """How classes and emotions were matched."""
    return {
        "scored": list(match.emotions),
        "counted_as": dict(match.merged),
        "emotions_left_out": list(match.left_out),
        "classes_left_out": list(match.ignored),
    }


def sample_rows(table: Dataset, count: int, seed: int) -> Dataset:
    """At most `count` clips in the order of the table, chosen by a hash of their ids; all if 0."""
    if not count or count >= len(table):
        return table
    keys = [zlib.crc32(f"{seed}/{name}".encode()) for name in table["id"]]
    return table.select(sorted(np.argsort(keys, kind="stable")[:count].tolist()))


def _rows_of(table: Dataset, ids: set[str]) -> Dataset:
    return table.select([place for place, name in enumerate(table["id"]) if name in ids])


def write_report(results: dict[str, Any], folder: str | Path) -> Path:
    """Write `report.json` and `index.html`; returns the page."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return write_page(results, folder / "index.html")
