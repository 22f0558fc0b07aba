"""Who a model has heard, its teachers included, and what public models are known to have heard."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PublicModel:
    """What is known of the training of a public model.

    Attributes:
        name: "owner/name" on the Hub; longer names that begin so are meant too.
        corpora: it has heard, wholly or in part.
        source: who says so.
        speakers: the ones it has heard, if that is known; else all of them count as heard.
    """

    name: str
    corpora: tuple[str, ...]
    source: str
    speakers: tuple[str, ...] = ()


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
    """Names of all speakers in `config.training_data`, and in that of the teachers, and of theirs."""
    return {name for seen in _with_teachers(training_data) for name in seen.get("speakers") or ()}


def public_model(name: str) -> PublicModel | None:
    """What is known of a model by its Hub id, or by a folder that is named like it."""
    here, folder = _plain(name), _plain(re.split(r"[/\\]", name.rstrip("/\\"))[-1])
    for known in PUBLIC_MODELS:
        if _plain(known.name) in here or folder.startswith(_plain(known.name.split("/")[1])):
            return known
    return None


def contamination(
    corpus: str, speakers: Collection[str], training_data: Iterable[dict] = (), models: Iterable[str] = ()
) -> list[str]:
    """What of an evaluation set a model, or a teacher of it, has heard in training.

    Args:
        corpus: name of the corpus that is to be evaluated on.
        speakers: those that are to be evaluated on.
        training_data: `config.training_data`: per corpus a dict of `corpus`, `speakers` and `teachers`, each of these
            such a dict again. One without speakers has heard the whole corpus. A public teacher stands as
            `{"model": "owner/name"}`.
        models: further names of public models that went into it: itself, its encoders.

    Returns:
        Sorted names of speakers, and of public models with the corpus and the source in brackets; empty if clean.
    """
    heard, public = set(), set(models)
    for seen in _with_teachers(training_data):
        public |= {seen["model"]} if seen.get("model") else set()
        if _plain(seen.get("corpus") or "") == _plain(corpus):
            heard |= set(seen.get("speakers") or speakers)
        heard |= set(seen.get("speakers") or ())
    found = sorted(heard & set(speakers))
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
    """Stop where a model, or a teacher of it, has heard what it is to be evaluated on.

    Args:
        model: name for the message.
        corpus: as in `contamination`, like the next three.
        speakers: see there.
        training_data: see there.
        models: see there.
        contaminated: go on all the same; the results must then be marked with what is returned.

    Returns:
        What it has heard, for `contaminated_by` in the results.

    Raises:
        ValueError: naming the speakers and public models.
    """
    found = contamination(corpus, speakers, training_data, models)
    if found and not contaminated:
        raise ValueError(
            f"Expected speakers whom {model} and its teachers have never heard, got {', '.join(found)}. Evaluate on "
            "others, or pass `--contaminated true` for a result that is marked so."
        )
    return found


def _with_teachers(training_data: Iterable[dict]) -> list[dict]:
    """Every entry, and those of its teachers, however deep."""
    return [each for seen in training_data for each in [seen, *_with_teachers(seen.get("teachers") or ())]]


def _plain(name: str) -> str:
    """Lower case letters and digits only, so that `CREMA-D`, `crema_d` and `cremad` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
