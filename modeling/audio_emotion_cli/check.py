"""`audio-emotion check`: what the description of a corpus describes, and the checks that training makes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from audio_emotion_cli import EXIT_OK, EXIT_SOME_FAILED, UsageError, printable
from audio_emotion_cli.inputs import allow_any_file_name, progress_bar, report_failure

try:
    import datasets

    from audio_emotion.data.custom import load_custom_corpus
    from audio_emotion.data.dataset import MAX_BAD_FRACTION, ClipStream
    from audio_emotion.data.protocols import SPLITS
    from audio_emotion.data.registry import apply_protocol, corpus_table, select_speakers, shard_files
    from audio_emotion.data.training_set import require_training_labels
except ImportError as error:
    raise UsageError(
        f"expected what training needs, got {error}. Install it: `pip install 'audio-emotion[train]'`."
    ) from error

SAMPLING_RATE = 16000  # hertz


def run(args: argparse.Namespace) -> int:
    """Check a description, its table and its clips, and print what each split contains."""
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs the errors that it raises
    allow_any_file_name()
    try:
        return _check(args.corpus, args.audio)
    except Exception as error:  # whatever it is, its user can correct the corpus
        message = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        raise UsageError(" ".join(message.split())) from error


def _check(file: str, with_audio: bool) -> int:
    corpus, table = load_custom_corpus(file), corpus_table(file)
    info, splits = corpus.info, {"all": table}
    if corpus.splits is not None:
        table, protocol = apply_protocol(file, table)
        splits = {name: select_speakers(table, each) for name in SPLITS if (each := getattr(protocol, name))}
    _print_row("corpus", info.name)
    _print_row("license", info.license)
    _print_row("language", ", ".join(info.languages) or "not stated; for example `language: en`")
    _print_row("", splits)
    _print_row("clips", map(len, splits.values()))
    _print_row("speakers", (len(set(rows["speaker"])) for rows in splits.values()))
    emotions = [Counter(rows["emotion"]) for rows in splits.values()]
    for name in info.emotions:
        _print_row(f"emotion {name}", (counts[name] for counts in emotions))
    for name in info.dimensions:
        _print_row(f"rated {name}", (sum(value is not None for value in rows[name]) for rows in splits.values()))
    if "train" in splits:
        require_training_labels(splits["train"], info.emotions, info.dimensions)
    if not with_audio:
        return EXIT_OK

    streams = [ClipStream(rows, shard_files(file), max_bad_fraction=1.0, memory=0.0) for rows in splits.values()]
    samples = [0] * len(streams)
    numbered = ((number, row) for number, stream in enumerate(streams) for row in range(len(stream)))
    for number, row in progress_bar(list(numbered)):
        samples[number] += sum(len(clip["waveform"]) for clip in streams[number].clips([row]))
    for name, reason in chain.from_iterable(stream.quarantine.items() for stream in streams):
        report_failure(name, reason)
    _print_row("hours", (f"{count / SAMPLING_RATE / 3600:.2f}" for count in samples))
    _print_row("unreadable clips", (len(stream.quarantine) for stream in streams))
    for stream in streams:
        stream.max_bad_fraction = MAX_BAD_FRACTION
        stream.add_to_quarantine({})
    return EXIT_SOME_FAILED if any(stream.quarantine for stream in streams) else EXIT_OK


def _print_row(name: str, values: str | Iterable[Any]) -> None:
    """Print a line of the report: a name, and a text or one value per split."""
    text = values if isinstance(values, str) else "".join(f"{value:>12}" for value in values)
    print(printable(f"{name:<24}{text}"))
