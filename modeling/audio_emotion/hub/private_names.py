"""What is published of a run names neither local paths nor speakers of private recordings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.evaluation.provenance import hashed_speaker

PATH = r"/|[A-Za-z]:[/\\]|(?:~|\.\.?)[/\\]|[^/:=]*\\"  # how a path begins, or else, with FILE, how it ends
FILE = r"\.(?:ya?ml|json|csv|tsv|txt|parquet|onnx|tflite|safetensors|wav)(?:=|$)"


def without_private_names(value: Any, own: Mapping[str, CorpusInfo] | None = None) -> Any:
    """The same nested value with paths cut to their last part, and the speakers of private recordings hashed.

    Paths after a name or kind (`second=speech:PATH`) are cut as well; URLs, Hub ids and names of corpora stay.

    Args:
        value: of JSON or YAML, with names of speakers in lists `speakers`; they are replaced everywhere.
        own: corpora of the run, by name: one that a file describes can have the name of a public one.
    """
    from audio_emotion.data.registry import CORPORA  # slow: imports `datasets`

    known = {name: corpus.info.citation for name, corpus in CORPORA.items()}
    described = {name for name, info in (own or {}).items() if info.citation != known.get(name)}
    public = known.keys() - described
    speakers = {name: name if name.split("/")[0] in public else hashed_speaker(name) for name in _speakers(value)}
    return _replace_names(value, speakers)


def _speakers(value: Any) -> Iterator[str]:
    """Every name in a list `speakers`, at any depth."""
    if isinstance(value, dict):
        yield from value.get("speakers") or ()
        value = list(value.values())
    for each in value if isinstance(value, list | tuple) else ():
        yield from _speakers(each)


def _replace_names(value: Any, speakers: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_replace_names(key, speakers): _replace_names(item, speakers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_names(item, speakers) for item in value]
    return (speakers.get(value) or _without_path(value)) if isinstance(value, str) else value


def _without_path(text: str) -> str:
    """The last part of a path, also of one after `name=` or `kind:`."""
    from audio_emotion.data.registry import CORPORA  # slow: imports `datasets`

    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    if re.match(PATH, text):
        return last
    if prefix := re.match(r"[^=:/\\]*[=:]", text):
        rest = text[prefix.end() :]
        is_url = prefix[0].endswith(":") and rest.startswith("//") and prefix[0] != "file:"  # https://..., hf://...
        return text if is_url else prefix[0] + _without_path(rest)
    is_long = text.count("/") > 1 and text.split("/")[0] not in CORPORA  # unlike a Hub id, and a variant of a corpus
    return last if is_long or re.search(FILE, last) or ("/" in text and Path(text).exists()) else text
