"""A YAML file and flags into one checked dataclass."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import yaml
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
