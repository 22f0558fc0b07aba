"""`audio-emotion evaluate`: a report of what a model can do on several corpora."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from audio_emotion_cli import EXIT_OK, UsageError


def run(args: argparse.Namespace) -> int:
    """Evaluate on every corpus, and write `report.json` and `index.html`."""
    try:
        from audio_emotion.evaluation.model_report import ModelReport, write_report
    except ImportError as error:
        raise UsageError(
            f'{error}. `evaluate` needs the training extra: pip install "audio-emotion[train]"'
        ) from error
    import audio_emotion

    model = args.model or str(audio_emotion._DEFAULT_MODEL)
    try:
        report = ModelReport(
            model,
            args.against,
            baseline=args.baseline,
            clips=args.clips,
            robustness_clips=args.robustness_clips,
            noise_folder=args.noise,
            rooms_folder=args.rooms,
            contaminated=args.contaminated,
            repeats=args.repeats,
        )
        results = report.evaluate(args.on)
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(str(error)) from error
    results["command"] = command(args)
    if report.accelerator.is_main_process:
        print(write_report(results, Path(args.report)))
    report.accelerator.end_training()
    return EXIT_OK


def command(args: argparse.Namespace) -> str:
    """The command that repeats the report, without paths of this machine above the last two parts."""
    parts = ["audio-emotion", "evaluate", *([args.model] if args.model else []), "--on", *args.on]
    for name in ("against", "baseline", "clips", "robustness_clips", "noise", "rooms", "repeats"):
        value = getattr(args, name)
        if value:
            parts += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [str(value)])]
    parts += ["--contaminated"] * args.contaminated + ["--report", args.report]
    return shlex.join(_short(part) for part in parts)


def _short(part: str) -> str:
    """An absolute path as its last two parts."""
    name, found, path = part.rpartition("=")
    return f"{name}{found}{'/'.join(Path(path).parts[-2:])}" if Path(path).is_absolute() else part
