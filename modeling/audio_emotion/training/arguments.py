"""Command-line arguments of the recipes: a YAML file and flags into one checked dataclass."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from huggingface_hub.dataclasses import strict
from transformers import HfArgumentParser

Arguments = TypeVar("Arguments")


def parse_arguments(cls: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Read `--config FILE`, then the flags that override single values of it.

    Args:
        cls: a `@strict` dataclass, so that a value of the wrong type (PyYAML reads `1e-4` as a string) is an error
            that names the field. Fields inherited from a class with a `group` are listed under that name by `--help`.
        argv: flags; `sys.argv` if None.

    Raises:
        SystemExit: on an unknown key or flag, or if a required one is missing.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config")
    known, flags = first.parse_known_args(argv)
    usage = "%(prog)s [--config FILE] [--flag VALUE ...]"
    parser = HfArgumentParser(cls, description=cls.__doc__, usage=usage)  # type: ignore[arg-type]
    fields = {action.dest: action for action in parser._actions if not action.option_strings[0].startswith("--no_")}
    _group_actions(parser, cls)
    file_help = "YAML file of arguments; flags override its values."
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=file_help)
    values = yaml.safe_load(Path(known.config).read_text()) if known.config else {}
    if unknown := sorted(set(values) - set(fields)):
        parser.error(f"{known.config}: unknown keys {unknown}. {cls.__name__} has {sorted(set(fields) - {'help'})}.")
    for name, value in values.items():
        fields[name].required = False
        if fields[name].nargs == "+" and isinstance(value, str):  # a single name for a list of names
            values[name] = [value]
    parser.set_defaults(**values)
    return cls(**vars(parser.parse_args(flags)))


def _group_actions(parser: argparse.ArgumentParser, cls: type) -> None:
    """Move every flag to the argument group of the class that declares it first, for `--help`."""
    options = parser._optionals
    for action in options._group_actions:
        if action.option_strings[0].startswith("--no_"):
            action.help = argparse.SUPPRESS  # `--flag false` is the same
    groups: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        title = vars(parent).get("group")
        if title is None:
            continue
        for name in vars(parent).get("__annotations__", {}):
            actions = [action for action in options._group_actions if action.dest == name]
            if actions and title not in groups:
                groups[title] = parser.add_argument_group(title)
            for action in actions:
                options._group_actions.remove(action)
                groups[title]._group_actions.append(action)


def tracker_values(arguments: Any) -> dict[str, bool | int | float | str]:
    """The fields of a dataclass as experiment trackers accept them: TensorBoard refuses lists."""
    plain = (bool, int, float, str)
    values = dataclasses.asdict(arguments).items()
    return {name: value if isinstance(value, plain) else str(value) for name, value in values}


@strict
@dataclass(kw_only=True)
class RunArguments:
    """The run: its folder, seed, precision and checkpoints."""

    group: ClassVar[str] = "run"

    output: str = field(metadata={"help": "Run folder: configuration, metrics, checkpoints, results."})
    restart: bool = field(
        default=False, metadata={"help": "Delete the state and results of another run in `--output` and start anew."}
    )
    save_every: int = field(
        default=200, metadata={"help": "Steps between two saved training states, from which a killed run resumes."}
    )
    seed: int = field(default=0, metadata={"help": "Random seed."})
    mixed_precision: str = field(
        default="", metadata={"help": "Mixed precision: no or bf16. Empty: as set by `accelerate launch`."}
    )
    trackers: list[str] = field(
        default_factory=list, metadata={"help": "Experiment trackers to log to: tensorboard, trackio."}
    )


@strict
@dataclass(kw_only=True)
class DataArguments:
    """The corpus, its protocol, and how its clips are read."""

    group: ClassVar[str] = "data"

    corpus: str = field(
        default="synthetic", metadata={"help": "Name of a corpus, or path of the YAML file that describes one."}
    )
    corpus_path: str = field(
        default="", metadata={"help": "Folder of the corpus. Empty: the folder in $AUDIO_EMOTION_DATA named after it."}
    )
    corpus_count: int = field(default=600, metadata={"help": "Number of clips of the synthetic corpus."})
    protocol: str = field(
        default="",
        metadata={"help": "Name of the protocol, which assigns speakers to splits. Empty: the corpus's default."},
    )
    train_on_validation: bool = field(
        default=False, metadata={"help": "Add the validation speakers to the training speakers; no validation."}
    )
    balance_emotions: bool = field(
        default=False, metadata={"help": "Sample the emotions of each corpus equally often in training."}
    )
    max_bad_fraction: float = field(
        default=0.05, metadata={"help": "Fraction of unreadable clips, 0 to 1, above which the run stops."}
    )
    num_workers: int = field(default=0, metadata={"help": "Worker processes that load batches, per training process."})


@strict
@dataclass(kw_only=True)
class OptimizationArguments:
    """The optimizer, its schedule and regularization."""

    group: ClassVar[str] = "optimization"

    epochs: int = field(default=20, metadata={"help": "Number of training epochs."})
    batch_size: int = field(
        default=32, metadata={"help": "Clips per optimizer step, over all processes; the CCC loss is taken over them."}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of the one-cycle schedule."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout probability in the trunk and the heads."})


@strict
@dataclass(kw_only=True)
class LossArguments:
    """The supervised loss."""

    group: ClassVar[str] = "supervised loss"

    dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC loss with rated dimensions."})
    emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy with emotion labels."})
    label_smoothing: float = field(
        default=0.1, metadata={"help": "Label smoothing of the cross-entropy, 0 (none) to 1."}
    )


@strict
@dataclass(kw_only=True)
class TrainingArguments(LossArguments, OptimizationArguments, DataArguments, RunArguments):
    """Arguments that all training recipes share."""
