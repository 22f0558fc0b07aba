"""The tables of speed and memory in the documentation are those of the results file."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def speed() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "speed.py"))


@pytest.fixture(scope="module")
def results(speed) -> dict:
    return json.loads(speed["RESULTS"].read_text(encoding="utf-8"))


def test_the_page_holds_the_tables_of_the_results(speed, results):
    assert set(results["ways"]) == set(speed["WAYS"])
    assert speed["tables"](results) in PAGE
    assert speed["render"](PAGE, results) == PAGE


def test_times_real_time_is_the_length_over_the_time(speed, results):
    changed = {**results, "ways": {"pipeline, student": {**results["ways"]["pipeline, student"]}}}
    changed["ways"]["pipeline, student"]["milliseconds"] = {"1": 2.0, "3": 3.0, "10": 4.0, "60": 120.0}
    row = next(line for line in speed["tables"](changed).splitlines() if line.startswith("| pipeline, student |"))

    # 1 s in 2 ms is 500 times real time; an hour at 2,500 times is 1.44 s
    assert row.startswith("| pipeline, student | 500 | 1,000 | 2,500 | 500 | 1.4 |")


def test_a_way_is_measured_in_this_process_with_all_numbers_of_the_tables(speed, monkeypatch):
    measure = speed["measure"]
    monkeypatch.setitem(measure.__globals__, "ENOUGH", 0.0)
    monkeypatch.setitem(measure.__globals__, "LENGTHS", (1,))
    found = measure("runtime, student")

    assert 0 < found["milliseconds"]["1"] < 1000
    assert found["disk_megabytes"] > 1
    assert found["megabytes"]["1"] > 10
