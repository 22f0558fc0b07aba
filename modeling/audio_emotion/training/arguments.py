"""Command-line arguments of the recipes: a YAML file and flags into one checked dataclass."""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import yaml
from huggingface_hub.dataclasses import strict
from transformers import HfArgumentParser

Arguments = TypeVar("Arguments")

FRACTION = "0..1"  # shown by `--help`, and the mark of a field that is checked


def option(default: Any, help: str) -> Any:
    """A field of a class of arguments with its default, which is copied if it is a list, and its text for `--help`."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help})
    return field(default=default, metadata={"help": help})


def fraction(default: float, help: str) -> Any:
    """A field like [`option`] for a probability or another fraction: a value outside 0 to 1 is an error."""
    return field(default=default, metadata={"help": help, "metavar": FRACTION})


def _require_fraction(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"Expected 0 to 1, got {value:g}.")


@dataclass_transform(kw_only_default=True, field_specifiers=(field, option, fraction))
def argument_group(title: str = "") -> Callable[[type[Arguments]], type[Arguments]]:
    """Make a class a dataclass that checks types and fractions, and list its flags by `--help` under a title."""

    def decorate(cls: type) -> Any:
        if title:
            cls.group = title  # type: ignore[attr-defined]
        checked: Any = strict(dataclass(kw_only=True)(cls))
        for each in dataclasses.fields(checked):
            if each.metadata.get("metavar") == FRACTION:  # argparse refuses a key `validator` beside it
                checked.__validators__[each.name].append(_require_fraction)
        return checked

    return decorate


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in ("", [], None) else super()._get_help_string(action)


def parse_arguments(cls: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Read `--config FILE`, then the flags that override single values of it.

    Args:
        cls: a `@strict` dataclass, so that a value of the wrong type (PyYAML reads `1e-4` as a string) is an error
            that names the field; see [`argument_group`].
        argv: flags; `sys.argv` if None.

    Raises:
        SystemExit: on an unknown key or flag, or if a required one is missing.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config")
    known, flags = first.parse_known_args(argv)
    usage = "%(prog)s [--config FILE] [--flag VALUE ...]"
    parser = HfArgumentParser(cls, description=cls.__doc__, usage=usage, formatter_class=_HelpFormatter)
    fields = {action.dest: action for action in parser._actions if not action.option_strings[0].startswith("--no_")}
    for action in fields.values():
        if action.nargs == "+":
            action.nargs = "*"  # a flag without values is an empty list
    _group_actions(parser, cls)
    file_help = "YAML file of arguments; flags override its values."
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=file_help)
    values = yaml.safe_load(Path(known.config).read_text()) if known.config else {}
    if unknown := sorted(set(values) - set(fields)):
        parser.error(f"{known.config}: unknown keys {unknown}. {cls.__name__} has {sorted(set(fields) - {'help'})}.")
    for name, value in values.items():
        fields[name].required = False
        if fields[name].nargs == "*" and isinstance(value, str):  # a single name for a list of names
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


@argument_group("run")
class RunArguments:
    """The run: its folder, seed, precision and checkpoints."""

    output: str = field(metadata={"help": "Run folder: configuration, metrics, checkpoints, results."})
    restart: bool = option(False, "Delete the state and results of another run in `--output` and start anew.")
    save_every: int = option(200, "Steps between two saved training states, from which a killed run resumes.")
    seed: int = option(0, "Random seed.")
    mixed_precision: str = option("", "Mixed precision: no or bf16. Empty: as set by `accelerate launch`.")
    trackers: list[str] = option([], "Experiment trackers to log to: tensorboard, trackio.")


@argument_group("data")
class CorpusArguments:
    """The corpus."""

    corpus: str = option("synthetic", "Name of a corpus, or path of the YAML file that describes one.")
    corpus_path: str = option("", "Folder of the corpus. Empty: the folder in $AUDIO_EMOTION_DATA named after it.")
    corpus_count: int = option(600, "Number of clips of the synthetic corpus.")


@argument_group("data")
class DataArguments(CorpusArguments):
    """The corpus, its protocol, and how its clips are read."""

    protocol: str = option("", "Name of the protocol, which assigns speakers to splits. Empty: the corpus's default.")
    train_on_validation: bool = option(False, "Add the validation speakers to the training speakers; no validation.")
    balance_classes: bool = option(False, "Sample every class equally often per epoch; otherwise every clip.")
    max_bad_fraction: float = fraction(0.05, "Fraction of unreadable clips, 0 to 1, above which the run stops.")
    num_workers: int = option(0, "Worker processes that load batches, per training process.")


@argument_group("optimization")
class OptimizationArguments:
    """The optimizer, its schedule and regularization."""

    epochs: int = option(20, "Number of training epochs.")
    batch_size: int = option(32, "Clips per optimizer step, over all processes; the CCC loss is taken over them.")
    learning_rate: float = option(1e-3, "Peak learning rate of the one-cycle schedule.")
    weight_decay: float = option(0.01, "Weight decay of AdamW.")
    dropout: float = fraction(0.2, "Dropout probability in the trunk and the heads.")


@argument_group("supervised loss")
class LossArguments:
    """The supervised loss."""

    dimensions_weight: float = option(1.0, "Weight of the CCC loss with rated dimensions.")
    emotions_weight: float = option(1.0, "Weight of the cross-entropy with emotion labels.")
    label_smoothing: float = fraction(0.1, "Label smoothing of the cross-entropy, 0 (none) to 1.")


@argument_group()
class TrainingArguments(LossArguments, OptimizationArguments, DataArguments, RunArguments):
    """Arguments that all training recipes share."""


@argument_group("augmentation")
class WaveformAugmentationArguments:
    """Augmentation of waveforms, in cached versions of each clip."""

    augment: float = fraction(0.0, "Probability of noise, reverberation, speed and gain, each, in augmented versions.")
    telephone: float = fraction(0.0, "Probability of telephone bandwidth, 0 to 1.")
    pauses: float = fraction(0.0, "Probability of silence before or after the clip, 0 to 1.")
    gain: list[float] = option([-15.0, 10.0], "Lowest and highest gain of augmented versions, in dB.")
    noise_folder: str = option("", "Folder of recorded noise, maybe in $AUDIO_EMOTION_DATA, beside simulated noise.")
    rooms_folder: str = option("", "Folder of room impulse responses, in the same way, beside simulated ones.")
    augment_versions: int = option(
        2, "Versions of a clip whose states are cached, one of them clean; steps alternate among them."
    )
