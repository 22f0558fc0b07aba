"""The command `audio-emotion`: its arguments and exit codes; what a subcommand needs is imported when it runs.

It stands beside the package `audio_emotion` because importing that imports torch, and `--help` should not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

FINE, SOME_FAILED, USAGE, BROKE_OFF = 0, 1, 2, 3
CODES = """exit codes:
  0  all fine
  1  some inputs failed: each stands with its error in the output, and on stderr unless both are one terminal
  2  nothing was done: the arguments, the model or the output file are not usable
  3  it broke off; with --output, the same command continues where it stopped"""
DEFAULT_MODEL = "the student inside the package"


class UsageError(Exception):
    """Nothing could be done with what the user gave; the message says what to give."""


class ShowVersion(argparse.Action):
    """Prints the version, read from the package's source, because importing the package imports torch."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and end."""
        source = (Path(__file__).parents[1] / "audio_emotion" / "__init__.py").read_text(encoding="utf-8")
        (version,) = re.findall(r'^__version__ = "(.*)"', source, re.MULTILINE)
        print(f"{parser.prog} {version}")
        parser.exit()


def argument_parser() -> argparse.ArgumentParser:
    """All subcommands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="audio-emotion",
        description="Emotion in speech: activation, valence, dominance and categories.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version of this program and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, module: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(module=module)
        return sub

    def which_model(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--model", help=f"a folder or a Hub id (default: {DEFAULT_MODEL})")
        sub.add_argument("--revision", help="branch, tag or commit of a Hub id: pin it")

    def how_to_run(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--batch-size", type=at_least_one, default=8, metavar="N", help="clips at once (default: 8)")
        sub.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the first GPU, else the CPU)")

    predict = command("predict", "judge audio files and folders", "audio_emotion_cli.predict")
    predict.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="audio files, URLs, or folders: searched with their subfolders, sorted by name, hidden files left out",
    )
    which_model(predict)
    predict.add_argument(
        "--format",
        choices=("table", "json", "csv", "rttm"),
        default="table",
        help="table for reading (default), json lines, csv, or rttm with emotions in place of speakers",
    )
    predict.add_argument(
        "--output", metavar="FILE", help="write there, not to stdout; after a kill the same command continues"
    )
    predict.add_argument("--plot", metavar="FILE.png", help="also draw all answers in one picture (needs matplotlib)")
    how_to_run(predict)
    predict.add_argument("--top-k", type=at_least_one, metavar="K", help="only the K most probable emotions")
    predict.add_argument(
        "--scale", type=float, nargs=2, default=(0.0, 1.0), metavar=("LOW", "HIGH"), help="dimensions from LOW to HIGH"
    )
    predict.add_argument("--window", type=float, metavar="SECONDS", help="judge pieces of so many seconds")
    predict.add_argument("--hop", type=float, metavar="SECONDS", help="from one window's start to the next")

    info = command(
        "info", "say what a model is, what it has heard, and whether it is complete", "audio_emotion_cli.info"
    )
    info.add_argument("model", nargs="?", help=f"a folder or a Hub id (default: {DEFAULT_MODEL})")
    info.add_argument("--revision", help="branch, tag or commit of a Hub id")
    info.add_argument("--format", choices=("table", "json"), default="table", help="for reading, or one JSON object")

    compare = command(
        "compare", "compare two folders of clips, such as recordings and synthetic speech", "audio_emotion_cli.compare"
    )
    compare.add_argument("reference", metavar="REFERENCE_FOLDER", help="what the other is measured against")
    compare.add_argument("other", metavar="OTHER_FOLDER", help="clips of the same names are compared one by one")
    which_model(compare)
    compare.add_argument(
        "--format", choices=("table", "json"), default="table", help="for reading, or one JSON object"
    )
    how_to_run(compare)

    publish = command(
        "publish", "put a run, a data set of pseudo-labels or a metric on the Hub", "audio_emotion.hub.publish"
    )
    publish.add_argument(
        "folder",
        metavar="FOLDER",
        help="a run folder, a data set of pseudo-labels, or a folder that --dry-run has written",
    )
    publish.add_argument("--repo", required=True, metavar="ID", help="owner/name on the Hub")
    publish.add_argument(
        "--type", choices=("model", "dataset", "space"), default="model", help="of the repository; a metric is a space"
    )
    publish.add_argument("--which", choices=("best", "last"), default="last", help="checkpoint of the run")
    publish.add_argument(
        "--adapter-only",
        action="store_true",
        help="of a run with LoRA: its adapters and what follows the encoders, without the encoders themselves",
    )
    publish.add_argument("--dry-run", action="store_true", help="write the folder and upload nothing")
    publish.add_argument("--output", metavar="FOLDER", help="where the folder is written (default: in the run folder)")
    publish.add_argument("--private", action="store_true", help="make the repository private if it is new")
    publish.add_argument("--branch", help="upload to this branch, made if missing")
    publish.add_argument("--tag", help="tag what was uploaded; an existing tag is not moved")
    return parser


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    args = argument_parser().parse_args(argv)
    try:
        return import_module(args.module).run(args)
    except UsageError as error:
        print(f"audio-emotion {args.command}: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return BROKE_OFF
