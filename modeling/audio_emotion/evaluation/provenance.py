"""Speakers and corpora that a model, its teachers and public models were trained on: checks for leakage."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PublicModel:
    """What is known about the training data of a public model."""

    name: str  # "owner/name" on the Hub; also matches longer names that begin with it
    corpora: tuple[str, ...]  # it was trained on, entirely or in part
    source: str  # of this information
    speakers: tuple[str, ...] = ()  # it was trained on; all speakers of the corpora if unknown


HASHED = "sha256-"  # of a speaker whose name is not published

EMOBOX = "the emotion2vec README: fine-tuned on EmoBox, whose README lists both"
PUBLIC_MODELS = (
    PublicModel("emotion2vec/emotion2vec_plus", ("ravdess", "crema-d"), EMOBOX),  # seed, base and large
    PublicModel("ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition", ("ravdess",), "its model card"),
    PublicModel("Yassmen/Wav2Vec2_Fine_tuned_on_CremaD", ("crema-d",), "its model card"),
    PublicModel("amiriparian/ExHuBERT", ("crema-d",), "its model card: EmoSet includes it"),
    PublicModel(
        "amir0907/student-v2",
        ("ravdess",),
        "its model card: actors 1 to 18",
        tuple(f"ravdess/{actor:02d}" for actor in range(1, 19)),
    ),
    PublicModel(
        "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", ("msp-podcast",), "its model card: release 1.7"
    ),
    PublicModel("3loi/SER-Odyssey-Baseline-WavLM", ("msp-podcast",), "its model card"),
    PublicModel("dkounadis/wav2small", ("msp-podcast",), "its model card and arXiv 2408.13920"),
)


def training_speakers(training_data: Iterable[dict]) -> set[str]:
    """All speakers in `config.training_data`, including those of the teachers, recursively."""
    return {name for seen in _with_teachers(training_data) for name in seen.get("speakers") or ()}


def hashed_speaker(name: str) -> str:
    """A speaker as published if the recordings are not public: `corpus/sha256-...`; a hashed one is unchanged.

    The hash does not hold the name, but for a known name one can check whether it is in the training data.
    """
    if re.fullmatch(rf"(?:[^/]*/)?{HASHED}[0-9a-f]{{16}}", name):
        return name
    corpus = name[: name.find("/") + 1]
    return f"{corpus}{HASHED}{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def public_model(name: str) -> PublicModel | None:
    """The entry of a model by its Hub id, or by a folder with its name."""
    here, folder = _plain(name), _plain(re.split(r"[/\\]", name.rstrip("/\\"))[-1])
    for known in PUBLIC_MODELS:
        if _plain(known.name) in here or folder.startswith(_plain(known.name.split("/")[1])):
            return known
    return None


def contamination(
    corpus: str, speakers: Collection[str], training_data: Iterable[dict] = (), models: Iterable[str] = ()
) -> list[str]:
    """Parts of an evaluation set that a model, or a teacher of it, was trained on.

    Args:
        corpus: name of the evaluation corpus.
        speakers: of the evaluation set.
        training_data: `config.training_data`: per corpus a dict of `corpus`, `speakers` and `teachers`, each of these
            such a dict again. Without speakers, the whole corpus counts. A public teacher is
            `{"model": "owner/name"}`.
        models: names of public models that are part of it: itself, its encoders.

    Returns:
        Sorted names of speakers, and public models with corpus and source in brackets; empty if there is no leakage.
    """
    trained_on, public = set(), set(models)
    for seen in _with_teachers(training_data):
        public |= {seen["model"]} if seen.get("model") else set()
        is_same = _plain(seen.get("corpus") or "") == _plain(corpus)
        trained_on |= set(seen.get("speakers") or (speakers if is_same else ()))
    hashed = set(map(hashed_speaker, trained_on))
    found = sorted(name for name in set(speakers) if hashed_speaker(name) in hashed)
    for name in sorted(public):
        known = public_model(name)
        if known is not None and _plain(corpus) in {_plain(each) for each in known.corpora}:
            both = set(known.speakers or speakers) & set(speakers)
            if both:
                found.append(f"{name} ({corpus}; {known.source})")
    return found


def require_uncontaminated(
    model: str,
    corpus: str,
    speakers: Collection[str],
    training_data: Iterable[dict] = (),
    models: Iterable[str] = (),
    contaminated: bool = False,
) -> list[str]:
    """Raise an error if a model, or a teacher of it, was trained on the evaluation set; see `contamination`.

    With `contaminated`, return the list of `contamination` instead, with which the results must be marked.
    """
    found = contamination(corpus, speakers, training_data, models)
    if found and not contaminated:
        raise ValueError(
            f"Expected speakers that {model} and its teachers were not trained on, got {', '.join(found)}. Evaluate "
            "on other speakers, or pass `--contaminated true` for a result that is marked as contaminated."
        )
    return found


def _with_teachers(training_data: Iterable[dict]) -> list[dict]:
    """Every entry, and those of its teachers, recursively."""
    return [each for seen in training_data for each in [seen, *_with_teachers(seen.get("teachers") or ())]]


def _plain(name: str) -> str:
    """Lower-case letters and digits only, so that `CREMA-D`, `crema_d` and `cremad` are equal."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
