"""The command `audio-emotion`: arguments and exit codes.

It is a separate package, and imports a subcommand only to run it: `audio_emotion` imports torch, `--help` need not.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, EXIT_ABORTED = 0, 1, 2, 3
EXIT_CODES = """exit codes:
  0  success
  1  some inputs failed; the output holds an error for each of them
  2  nothing was done: the arguments, the model or the output file are unusable
  3  aborted by an unexpected error; with --output, the same command continues"""
MODEL_HELP = "a folder or a Hub id (default: the model in this package)"


class UsageError(Exception):
    """The user's input is unusable; the message names the remedy."""


def argument_parser() -> argparse.ArgumentParser:
    """All subcommands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="audio-emotion",
        description="Speech emotion recognition: activation, valence, dominance and emotion categories.",
        epilog="`audio-emotion COMMAND --help` lists the arguments of a command.\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('audio-emotion')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _add_predict(commands)
    _add_info(commands)
    _add_compare(commands)
    _add_check(commands)
    _add_timeline(commands)
    _add_listen(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_publish(commands)
    _add_demo(commands)
    _add_serve(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(commands, "predict", "predict the emotion of audio files", "audio_emotion_cli.predict")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="audio file, URL, or folder (searched recursively; hidden files are skipped)",
    )
    _add_model_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=("table", "json", "csv", "rttm"),
        default="table",
        help="table (default), JSON Lines, CSV, or RTTM with emotions in place of speakers",
    )
    output.add_argument(
        "--output", metavar="FILE", help="write to FILE instead of stdout; an interrupted command can be continued"
    )
    output.add_argument("--plot", metavar="FILE", help="also plot all predictions (png, pdf or svg; needs matplotlib)")
    output.add_argument(
        "--abstain", type=float, metavar="P", help="flag `abstained` where no emotion has at least this probability"
    )
    output.add_argument("--top-k", type=positive_int, metavar="K", help="only the K most probable emotions")
    output.add_argument(
        "--scale",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="range of the dimensions (default: 0 1)",
    )
    output.add_argument(
        "--channels",
        default="mix",
        help="mix (default), split: also each channel by itself (json), or a number from 1",
    )
    output.add_argument("--embeddings", action="store_true", help="add the embedding (json)")
    output.add_argument(
        "--segments", metavar="FILE", help="RTTM file of speaker segments, which are predicted, too (json)"
    )
    output.add_argument("--max-duration", type=float, metavar="SECONDS", help="longest clip (default: 4 hours)")
    windows = parser.add_argument_group("windows")
    windows.add_argument("--window", type=float, metavar="SECONDS", help="predict for windows of this length")
    windows.add_argument(
        "--hop", type=float, metavar="SECONDS", help="step between windows (default: the window length)"
    )


def _add_info(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "info", "show a model's outputs, training data and license", "audio_emotion_cli.info"
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="table (default) or JSON")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands,
        "compare",
        "compare two folders, e.g. recordings and synthetic speech",
        "audio_emotion_cli.compare",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="folder of reference clips")
    parser.add_argument("other", metavar="OTHER", help="folder to compare; clips of the same name are paired")
    _add_model_arguments(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table", help="table (default) or JSON")


def _add_timeline(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "timeline", "predict a recording of any length over time", "audio_emotion_cli.timeline"
    )
    parser.add_argument("input", metavar="FILE", help="audio file")
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the graph of the model, on the CPU)")
    parser.add_argument("--window", type=float, default=4.0, metavar="SECONDS", help="length of a window (default: 4)")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="step between windows (default: the length)")
    parser.add_argument(
        "--channels", default="mix", help="mix (default), split: a line for each channel, or a number from 1"
    )
    parser.add_argument("--abstain", type=float, metavar="P", help="name no emotion with a lower probability")
    parser.add_argument(
        "--format", choices=("csv", "json", "rttm", "vtt", "textgrid"), default="csv", help="of the output"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write to FILE instead of stdout; an interrupted command can be continued"
    )
    parser.add_argument("--plot", metavar="FILE", help="also plot the time line (png, pdf or svg; needs matplotlib)")


def _add_listen(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "listen", "predict the emotion of a microphone or of standard input", "audio_emotion_cli.listen"
    )
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--stdin", action="store_true", help="read raw samples from standard input, no microphone")
    parser.add_argument("--rate", type=positive_int, default=16000, help="samples per second (default: 16000)")
    parser.add_argument("--channels", type=positive_int, default=1, help="channels, of which the mean is taken")
    parser.add_argument(
        "--sample-format", choices=("s16le", "s32le", "f32le"), default="s16le", help="of raw samples (default: s16le)"
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="from one line to the next (default: 1)"
    )
    parser.add_argument(
        "--window", type=float, default=4.0, metavar="SECONDS", help="of a model that is no student (default: 4)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="table (default) or JSON Lines")


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(commands, "export", "write the ONNX graphs of a model", "audio_emotion_cli.export")
    parser.add_argument("model", metavar="MODEL", help="a folder or a Hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--output", metavar="FOLDER", help="default: onnx/ in the folder of the model")
    parser.add_argument(
        "--quantize", action="store_true", help="also write model_quantized.onnx with 8-bit matrices, less exact"
    )


def graph_of(model: str | None, revision: str | None = None, device: str | None = None) -> Path | None:
    """The exported graph of a model, if it has one that this machine can run."""
    if revision or device or find_spec("onnxruntime") is None:
        return None
    package = find_spec("audio_emotion")  # without importing it
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "embedded" / "lite" if model is None else Path(model)
    path = folder / "onnx" / "model.onnx"
    return path if path.is_file() else None


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "evaluate", "report what a model can do on several corpora", "audio_emotion_cli.evaluate"
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a folder, a Hub id, funasr:NAME, or a table of predictions (default: the model in this package)",
    )
    parser.add_argument(
        "--on",
        nargs="+",
        required=True,
        metavar="CORPUS",
        help="names or descriptions; CORPUS=FILES: predictions of models of the same recipe, one file per fold",
    )
    parser.add_argument("--report", required=True, metavar="FOLDER", help="written: index.html and report.json")
    parser.add_argument("--against", nargs="+", default=[], metavar="MODEL", help="models to compare with")
    parser.add_argument(
        "--baseline", default="", metavar="ENCODER", help="encoder below a logistic regression to compare with"
    )
    parser.add_argument("--clips", type=int, default=0, metavar="N", help="random clips of each corpus (default: all)")
    parser.add_argument(
        "--robustness-clips",
        type=int,
        default=100,
        metavar="N",
        help="of these also corrupted (default: 100; 0: none)",
    )
    parser.add_argument("--noise", default="", metavar="FOLDER", help="recordings of noise (default: generated)")
    parser.add_argument("--rooms", default="", metavar="FOLDER", help="room impulse responses (default: generated)")
    parser.add_argument("--repeats", type=int, default=1000, metavar="N", help="bootstrap samples (default: 1000)")
    parser.add_argument(
        "--contaminated", action="store_true", help="also on speakers that the model was trained on; marked as such"
    )


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "check", "check the description of a corpus, its table and its clips", "audio_emotion_cli.check"
    )
    parser.add_argument("corpus", metavar="FILE", help="YAML file that describes the corpus")
    parser.add_argument(
        "--no-audio", dest="audio", action="store_false", help="read no audio: neither hours nor unreadable clips"
    )


def _add_publish(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "publish", "publish a model, pseudo-labels or a metric on the Hub", "audio_emotion_cli.publish"
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="run folder, data set of pseudo-labels, or output folder of a dry run"
    )
    parser.add_argument("--repo", required=True, metavar="ID", help="repository on the Hub, as owner/name")
    parser.add_argument(
        "--type",
        choices=("model", "dataset", "space"),
        default="model",
        help="repository type (default: model); a space is a metric, or of a run or checkpoint a page that runs it",
    )
    parser.add_argument(
        "--which", choices=("best", "last"), default="last", help="checkpoint of the run (default: last)"
    )
    parser.add_argument(
        "--adapter-only",
        action="store_true",
        help="of a teacher trained with LoRA, leave the pretrained encoders out",
    )
    parser.add_argument(
        "--report", metavar="DIR", help="folder of `evaluate --report` of this model: its scores go into the card"
    )
    parser.add_argument(
        "--benchmark",
        default="",
        metavar="OWNER/NAME",
        help="data set of recipes/benchmark.py to which the score on the test split is reported, in .eval_results/",
    )
    parser.add_argument("--dry-run", action="store_true", help="write the folder and upload nothing")
    parser.add_argument(
        "--output", metavar="FOLDER", help="output folder of a dry run (default: published/ in the run folder)"
    )
    _add_runtime_folder(parser)
    parser.add_argument("--private", action="store_true", help="create the repository as private")
    parser.add_argument("--branch", help="upload to this branch, created if missing")
    parser.add_argument("--tag", help="tag the commit; an existing tag is not moved")


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(
        commands, "demo", "open a page that runs the model in the browser, on this machine", "audio_emotion_cli.demo"
    )
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--port", type=int, help="port on 127.0.0.1 (default: 8765, or a free one)")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="print the address, open nothing")
    _add_runtime_folder(parser)


def _add_runtime_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime-folder",
        metavar="PATH",
        help="own copy of onnxruntime-web for the page: a folder or an npm package (default: downloaded once)",
    )


def _add_serve(commands: argparse._SubParsersAction) -> None:
    parser = _add_command(commands, "serve", "serve predictions over HTTP and WebSocket", "audio_emotion_cli.serve")
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cpu, from the model's graph if it has one)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--workers", type=positive_int, default=1, metavar="N", help="clips predicted at once (default: 1)"
    )
    limits.add_argument(
        "--max-megabytes", type=positive_int, default=32, metavar="N", help="of one upload (default: 32)"
    )
    limits.add_argument(
        "--max-seconds", type=positive_int, default=600, metavar="N", help="of one clip (default: 600)"
    )
    limits.add_argument(
        "--max-clips", type=positive_int, default=64, metavar="N", help="waiting; more get status 503 (default: 64)"
    )
    limits.add_argument("--max-streams", type=positive_int, default=64, metavar="N", help="at once (default: 64)")


def _add_command(
    commands: argparse._SubParsersAction, name: str, summary: str, module: str
) -> argparse.ArgumentParser:
    """Add a subcommand, which `main` runs by calling `run` of its module."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=module)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", help=MODEL_HELP)
    group.add_argument("--revision", help="branch, tag or commit of a Hub id")
    group.add_argument("--batch-size", type=positive_int, default=8, metavar="N", help="clips in a batch (default: 8)")
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the first GPU if there is one)")


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def printable(text: object, keep: str = "") -> str:
    """Text for a terminal, without control characters: names of files and labels of models can hold escapes.

    Args:
        text: any; a file name need not be valid UTF-8.
        keep: control characters to leave, such as a line feed.
    """
    valid = str(text).encode(errors="backslashreplace").decode()
    return "".join(each if each.isprintable() or each in keep else "?" for each in valid)


def _import_package(without_torch: bool) -> None:
    """Import the package, without torch and transformers where a graph needs neither: these take seconds."""
    before = os.environ.get("AUDIO_EMOTION_RUNTIME")
    try:
        if without_torch:
            os.environ["AUDIO_EMOTION_RUNTIME"] = "1"
        import_module("audio_emotion")
    finally:
        if before is None:
            os.environ.pop("AUDIO_EMOTION_RUNTIME", None)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    args = argument_parser().parse_args(argv)
    if args.command in ("predict", "timeline", "listen", "serve", "demo"):
        _import_package(graph_of(args.model, vars(args).get("revision"), vars(args).get("device")) is not None)
    try:
        return import_module(args.module).run(args)
    except UsageError as error:
        message = printable(error, keep="\n")
        print(f"audio-emotion {args.command}: {message}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # the reader of stdout, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    except Exception:
        print(printable(traceback.format_exc(), keep="\n"), file=sys.stderr)
        return EXIT_ABORTED
