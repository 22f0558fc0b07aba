"""A corpus's splits and labels as a benchmark data set of the Hub, without audio.

A data set with `eval.yaml` collects the scores that model repositories hold in `.eval_results/`
(https://huggingface.co/docs/hub/eval-results). The Hub lists it as a benchmark only after its owners registered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.protocols import SPLITS
from audio_emotion.hub.card import render_card

FRAMEWORK = "audio-emotion"
COLUMNS = ("file", "id", "speaker", "emotion")


def write_benchmark(
    folder: Path, info: CorpusInfo, rows: Sequence[Mapping[str, Any]], repo: str, protocols: Sequence[str] = ()
) -> Path:
    """Write `data/<protocol>-<split>.parquet`, `eval.yaml` and the card.

    Args:
        folder: output folder.
        info: of the corpus; a protocol is a task of the benchmark, and a configuration of the data set.
        rows: of all its clips.
        repo: `owner/name` on the Hub.
        protocols: names of the protocols; by default, all by speaker that have a test split.

    Raises:
        ValueError: for an unknown protocol, or one that has no test split.
    """
    from datasets import Dataset  # slow to import, and not needed for scores

    scored = {name: each for name, each in info.protocols.items() if each.test and each.by == "speaker"}
    if unknown := sorted({*protocols} - {*scored}):
        raise ValueError(f"Expected protocols of {info.name} with a test split, {sorted(scored)}, got {unknown}.")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    by_speaker: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        audio = row["audio"].get("path") if isinstance(row["audio"], dict) else row["audio"]
        named = {"file": Path(audio).stem if audio else row["id"].rpartition("/")[2], **row}
        by_speaker.setdefault(row["speaker"], []).append({name: named[name] for name in COLUMNS})
    configs, tasks = [], []
    for name in protocols or scored:
        protocol = scored[name]
        files = []
        for split in SPLITS:
            clips = [
                clip
                for speaker in getattr(protocol, split)
                for clip in by_speaker.get(speaker, [])
                if clip["id"] not in protocol.left_out
            ]
            if clips:
                path = f"data/{name}-{split}.parquet"
                Dataset.from_list(clips).to_parquet(folder / path)
                files.append({"split": split, "path": path})
        configs.append({"config_name": name, "data_files": files})
        tasks.append({"id": name, "config": name, "split": "test"})
    description = (
        f"Emotion of speech: speaker-independent splits of {info.name}. The score of a task is the unweighted average "
        f"recall of {len(info.emotions)} emotions on the test split, 0 to 1."
    )
    about = {"name": repo.partition("/")[2], "description": description, "evaluation_framework": FRAMEWORK}
    (folder / "eval.yaml").write_text(yaml.safe_dump({**about, "tasks": tasks}, sort_keys=False), encoding="utf-8")
    facts = {
        "dataset_name": repo.partition("/")[2],
        "dataset_id": repo,
        "license": info.license,
        "clips": len(rows),
        "corpus": info.name,
        "speech": info.speech,
        "citation": info.citation,
        "emotions": list(info.emotions),
        "protocols": [each["config_name"] for each in configs],
        "configs": configs,
        "languages": list(info.languages),
    }
    (folder / "README.md").write_text(render_card("benchmark", facts), encoding="utf-8")
    return folder
