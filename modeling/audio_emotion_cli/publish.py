"""`audio-emotion publish`: assemble a folder from a run, check it, and upload it."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client
from transformers.utils import logging

from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.publish import assemble, encoder_folders, is_complete, upload
from audio_emotion.hub.space import holds_model
from audio_emotion_cli import EXIT_OK, UsageError


def run(args: argparse.Namespace) -> int:
    """Assemble and check a folder; upload it, unless it is a dry run."""
    logging.disable_progress_bar()
    source = Path(args.folder)
    if not source.is_dir():
        raise UsageError(f"expected a folder, got {source}.")
    if args.output and not args.dry_run:
        raise UsageError("--output is the folder that a dry run writes: add --dry-run.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.output) if args.output else Path(temporary) / "published"
        if args.dry_run and not args.output:
            is_space = args.type == "space" and holds_model(source)  # beside the model, which is published as well
            name = "space" if is_space else "published"
            is_run = (source / "checkpoints").is_dir() if is_space else not is_complete(source)
            folder = source / name if is_run else source.with_name(f"{source.name}_{name}")
        runtime = Path(args.runtime_folder) if args.runtime_folder else None
        try:
            options = {"runtime": runtime, "benchmark": args.benchmark, "report": args.report and Path(args.report)}
            folder = assemble(source, folder, args.repo, args.type, args.which, args.adapter_only, **options)
            check_folder(folder, args.type, encoder_folders(source))
            if args.dry_run:
                print(folder)
                return EXIT_OK
            commit = upload(folder, args.repo, args.type, args.private, args.branch, args.tag)
        except ImportError as error:
            raise UsageError(f"publishing needs `pip install audio-emotion[train]`: {error}") from error
        except (ValueError, OSError) as error:  # what the Hub refuses is an OSError
            raise UsageError(str(error)) from error
        except HTTPError as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"cannot reach the Hub: {reason}. Check the network; the same command sends only what is missing."
            ) from error
    print(commit)
    return EXIT_OK
