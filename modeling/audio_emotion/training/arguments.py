"""A YAML file and flags into one checked dataclass."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from huggingface_hub.dataclasses import strict
from transformers import HfArgumentParser

Arguments = TypeVar("Arguments")


def parse_arguments(cls: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Read `--config FILE`, then the flags that replace single values of it.

    Args:
        cls: a `@strict` dataclass, so that a wrong type (PyYAML reads `1e-4` as a string) is refused by name.
        argv: flags; `sys.argv` if None.

    Raises:
        SystemExit: on a key or a flag that `cls` does not have, or a required one left out.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config")
    known, flags = first.parse_known_args(argv)
    parser = HfArgumentParser(cls, description=cls.__doc__)  # type: ignore[arg-type]
    fields = {action.dest: action for action in parser._actions}
    values = yaml.safe_load(Path(known.config).read_text()) if known.config else {}
    if unknown := sorted(set(values) - set(fields)):
        parser.error(f"{known.config}: unknown keys {unknown}. {cls.__name__} has {sorted(set(fields) - {'help'})}.")
    for name, value in values.items():
        fields[name].required = False
        if fields[name].nargs == "+" and isinstance(value, str):  # one name where several may stand
            values[name] = [value]
    parser.set_defaults(**values)
    (arguments,) = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    return arguments


def flat(arguments: Any) -> dict[str, bool | int | float | str]:
    """The fields of a dataclass as trackers take them: TensorBoard refuses lists."""
    plain = (bool, int, float, str)
    values = dataclasses.asdict(arguments).items()
    return {name: value if isinstance(value, plain) else str(value) for name, value in values}


@strict
@dataclass(kw_only=True)
class RunArguments:
    """Where a training's clips come from, how it runs and where it writes."""

    output: str = field(metadata={"help": "Run folder."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name, or the .yaml that describes it."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    split: str = field(default="", metadata={"help": "Speaker split by name; else the corpus's own."})
    train_on_validation: bool = field(default=False, metadata={"help": "Train on the validation speakers too."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout of trunk and heads."})
    batch_size: int = field(default=32, metadata={"help": "Clips of a global batch, over which the CCC is taken."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's."})
    label_smoothing: float = field(default=0.1, metadata={"help": "Of the cross-entropy with labels."})
    dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC with labels."})
    emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy with labels."})
    mixed_precision: str = field(default="", metadata={"help": "no or bf16; else as launched."})
    trackers: list[str] = field(default_factory=list, metadata={"help": "tensorboard, trackio."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read ahead, of each training process."})
    max_bad_fraction: float = field(default=0.05, metadata={"help": "More undecodable clips than this stop the run."})
    save_every: int = field(default=200, metadata={"help": "Steps between states from which a killed run goes on."})
    restart: bool = field(default=False, metadata={"help": "Write over what another run has left in `output`."})
    seed: int = field(default=0, metadata={"help": "Of everything."})
