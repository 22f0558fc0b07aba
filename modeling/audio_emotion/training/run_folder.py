"""One folder a run: the resolved configuration, the metrics as they come, the results, the checkpoints."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import yaml


class RunFolder:
    """Writes a run's files; on other processes than the first it writes nothing.

    Args:
        path: the folder, made if missing.
        arguments: the recipe's dataclass, written to `config.yaml` as resolved.
        writes: whether this process is the first.
    """

    def __init__(self, path: str | Path, arguments: Any, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes
        self.begin = time.monotonic()
        if writes:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            (self.path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(arguments), sort_keys=False))
            (self.path / "metrics.jsonl").write_text("")

    def log(self, **values: Any) -> None:
        """Append one line to `metrics.jsonl`, with the seconds since the run began."""
        if self.writes:
            line = {**values, "seconds": round(time.monotonic() - self.begin, 1)}
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def quarantine(self, bad: dict[str, str]) -> None:
        """Write `quarantine.jsonl`: clip id and reason of every clip that was left out."""
        if self.writes:
            lines = [json.dumps({"id": name, "reason": reason}) + "\n" for name, reason in sorted(bad.items())]
            (self.path / "quarantine.jsonl").write_text("".join(lines))

    def results(self, values: dict[str, Any]) -> None:
        """Write `results.json`."""
        if self.writes:
            (self.path / "results.json").write_text(json.dumps(values, indent=2) + "\n")
