"""The page of a model report: one HTML file without scripts or other files, light and dark, for screen and phone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATE = "report_page.html.jinja"
WIDTH = 560  # of a chart, in its own units


def write_page(results: Mapping[str, Any], path: str | Path) -> Path:
    """Render the content of `report.json`; returns the path of the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    environment.globals |= {
        "score_chart": score_chart,
        "reliability": reliability,
        "coverage_chart": coverage_chart,
        "confusion_table": confusion_table,
        "loss_chart": loss_chart,
    }
    environment.filters |= {"number": number, "interval": interval, "signed": signed, "count": count, "size": size}
    main = next(iter(results["models"]))
    outside = [each for each in results["corpora"] if is_outside(each, main)]
    page = environment.get_template(TEMPLATE).render(
        report=results, main=main, verdict=verdict(results), outside=outside, matrix=matrix(results)
    )
    Path(path).write_text(page, encoding="utf-8")
    return Path(path)


def is_outside(corpus: Mapping[str, Any], model: str) -> bool:
    """Whether the scores of a model on a corpus are those of a corpus that it was not trained on."""
    scores = corpus["models"].get(model, {})
    return not corpus["within"] and not scores.get("contaminated_by") and "uar" in scores


def verdict(results: Mapping[str, Any]) -> str:
    """One sentence: what the first model can do on corpora that it was not trained on."""
    main = next(iter(results["models"]))
    outside = [each["models"][main] for each in results["corpora"] if is_outside(each, main)]
    if not outside:
        return "No corpus of this report is new to the model: nothing here shows what it does on other recordings."
    mean = sum(each["skill"] for each in outside) / len(outside)
    low, high = (function(each["uar"] for each in outside) for function in (min, max))
    corpora = "one corpus" if len(outside) == 1 else f"{len(outside)} corpora"
    scores = f"a UAR of {low:.2f}" if len(outside) == 1 else f"a UAR of {low:.2f} to {high:.2f}"
    return (
        f"On {corpora} that it was not trained on, {main} has {scores}: {mean:.0%} of the way from chance to perfect "
        "answers, on average."
    )


def matrix(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """UAR of every model (row) on every corpus (column)."""
    rows = []
    for name in dict.fromkeys(each for corpus in results["corpora"] for each in corpus["models"]):
        cells = []
        for corpus in results["corpora"]:
            scores = corpus["models"].get(name, {})
            kind = "contaminated" if scores.get("contaminated_by") else "within" if corpus["within"] else "outside"
            cells.append({"uar": scores.get("uar"), "chance": scores.get("chance"), "kind": kind})
        rows.append({"model": name, "cells": cells})
    return rows


def score_chart(results: Mapping[str, Any]) -> str:
    """Dots with intervals: UAR of every model on every corpus, with a tick at chance; Markup."""
    names = list(dict.fromkeys(each for corpus in results["corpora"] for each in corpus["models"]))
    left, right, row, gap = 12, 48, 19, 34
    height = sum(gap + row * len(corpus["models"]) for corpus in results["corpora"]) + 34
    parts, y = [], 8.0
    scale = _scale(0.0, 1.0, left, WIDTH - right)
    parts += [
        f'<line class="grid" x1="{scale(t):.1f}" x2="{scale(t):.1f}" y1="4" y2="{height - 26}"/>'
        f'<text class="axis" x="{scale(t):.1f}" y="{height - 8}" text-anchor="middle">{t:.1f}</text>'
        for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    for corpus in results["corpora"]:
        y += 18
        note = " (within: models of other folds)" if corpus["within"] else ""
        parts.append(f'<text class="label" x="{left}" y="{y:.0f}">{escape(corpus["name"] + note)}</text>')
        y += 16
        for name, scores in corpus["models"].items():
            if scores.get("uar") is None or math.isnan(scores["uar"]):
                continue
            series = names.index(name) % 4
            low, high = scores["intervals"].get("uar", [scores["uar"]] * 2)
            title = f"{name}: {scores['uar']:.3f} ({low:.2f} to {high:.2f}), chance {scores['chance']:.2f}"
            faded = " faded" if scores.get("contaminated_by") else ""
            parts.append(
                f'<g class="series{series}{faded}"><title>{escape(title)}</title>'
                f'<line class="chance" x1="{scale(scores["chance"]):.1f}" x2="{scale(scores["chance"]):.1f}" '
                f'y1="{y - 8:.0f}" y2="{y + 8:.0f}"/>'
                f'<line class="range" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{y:.0f}" y2="{y:.0f}"/>'
                f'<circle cx="{scale(scores["uar"]):.1f}" cy="{y:.0f}" r="5"/>'
                f'<text class="value" x="{WIDTH}" y="{y + 4:.0f}" text-anchor="end">{scores["uar"]:.3f}</text></g>'
            )
            y += row
    keys = "".join(
        f'<span class="key series{place % 4}"><i></i>{escape(name)}</span>' for place, name in enumerate(names)
    )
    return f'<div class="keys">{keys}<span class="key"><i class="tick"></i>chance</span></div>' + _svg(
        parts, height, "UAR of every model on every corpus, with 95 % intervals"
    )


def reliability(scores: Mapping[str, Any]) -> str:
    """Reliability diagram: accuracy by confidence; the area of a dot is the number of its clips."""
    size, margin = 210, 30
    scale = _scale(0.0, 1.0, margin, size - 8)
    parts = [
        f'<rect class="frame" x="{margin}" y="8" width="{size - 8 - margin}" height="{size - 8 - margin}"/>',
        f'<line class="chance" x1="{scale(0)}" y1="{size - scale(0)}" x2="{scale(1)}" y2="{size - scale(1)}"/>',
    ]
    most = max(each["clips"] for each in scores["bins"])
    for each in scores["bins"]:
        x, y = scale(each["confidence"]), size - scale(each["accuracy"])
        radius = 2.5 + 7 * math.sqrt(each["clips"] / most)
        title = f"confidence {each['confidence']:.2f}, accuracy {each['accuracy']:.2f}, {each['clips']} clips"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{title}</title></circle>')
    for tick in (0, 0.5, 1):
        parts.append(f'<text class="axis" x="{scale(tick):.0f}" y="{size - 14}" text-anchor="middle">{tick:g}</text>')
        y = size - scale(tick) + 4
        parts.append(f'<text class="axis" x="{margin - 6}" y="{y:.0f}" text-anchor="end">{tick:g}</text>')
    parts.append(
        f'<text class="axis" x="{(size + margin) / 2:.0f}" y="{size - 1}" text-anchor="middle">confidence</text>'
    )
    return _svg(parts, size, "Accuracy by confidence", size, "small")


def coverage_chart(scores: Mapping[str, Any]) -> str:
    """Accuracy where the model answers only for the clips of which it is surest."""
    bars = []
    for coverage, value in scores["selective"].items():
        bars.append(
            f'<div class="bar"><span>surest {float(coverage):.0%}</span><b style="width:{100 * value:.0f}%"></b>'
            f"<em>{value:.2f}</em></div>"
        )
    return f'<div class="bars">{"".join(bars)}</div>'


def confusion_table(scores: Mapping[str, Any]) -> str:
    """Confusion matrix, a row per label, as a table of fractions."""
    names, counts = scores["emotions"], scores["confusion"]
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="--p:{(value / total if total else 0):.2f}">{(f"{value / total:.0%}" if total else "")}</td>'
            for value in row
        )
        rows.append(f'<tr><th scope="row">{escape(name)} <small>({total})</small></th>{cells}</tr>')
    return (
        '<table class="confusion"><caption>Label (clips) by prediction</caption>'
        f"<thead><tr><td></td>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def loss_chart(tests: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Loss of skill over chance by corruption, with intervals, and the fraction of answers that change."""
    entries = [
        (group, name, each) for group, named in tests.items() if group != "control" for name, each in named.items()
    ]
    lowest = min([-0.2, *(each["interval"][0] for _, _, each in entries)])
    highest = max([0.4, *(each["interval"][1] for _, _, each in entries)])
    left, row = 190, 22
    height = row * len(entries) + 44
    scale = _scale(lowest, highest, left, WIDTH - 56)
    ticks = [tick / 10 for tick in range(math.ceil(lowest * 10), math.floor(highest * 10) + 1, 2)]
    parts = [
        f'<line class="{"chance" if tick == 0 else "grid"}" x1="{scale(tick):.1f}" x2="{scale(tick):.1f}" y1="18" '
        f'y2="{height - 24}"/>'
        f'<text class="axis" x="{scale(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks
    ]
    parts.append(f'<text class="axis" x="{WIDTH}" y="12" text-anchor="end">flips</text>')
    for place, (group, name, each) in enumerate(entries):
        y = 30 + row * place
        low, high = each["interval"]
        strong = " strong" if low > 0 else ""
        title = f"{group}, {name}: loss {each['loss']:+.3f} ({low:+.2f} to {high:+.2f}), {each['flips']:.0%} flips"
        parts.append(
            f'<g class="loss{strong}"><title>{escape(title)}</title>'
            f'<text class="label" x="{left - 10}" y="{y + 4}" text-anchor="end">'
            f"{escape(_test_label(group, name))}</text>"
            f'<line class="range" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{scale(each["loss"]):.1f}" cy="{y}" r="4.5"/>'
            f'<text class="value" x="{WIDTH}" y="{y + 4}" text-anchor="end">{each["flips"]:.0%}</text></g>'
        )
    return _svg(parts, height, "Loss of skill over chance by corruption")


def _test_label(group: str, name: str) -> str:
    return {"codec": name, "noise": f"noise, {name}", "room": "room", "packets": f"packets, {name}"}.get(group, name)


def number(value: float | None, digits: int = 3) -> str:
    """A value, or a dash where there is none."""
    return "\N{EN DASH}" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    return (
        "\N{EN DASH}" if value is None or math.isnan(value) else f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    )


def interval(ends: Sequence[float] | None, digits: int = 2) -> str:
    """Both ends of an interval in brackets; nothing where there is none."""
    return f"({ends[0]:.{digits}f} to {ends[1]:.{digits}f})".replace("-", "\N{MINUS SIGN}") if ends else ""


def count(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in megabytes."""
    return f"{value / 1e6:,.1f} MB"


def _scale(low: float, high: float, start: float, end: float) -> Any:
    """A function from values to places."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _svg(parts: Sequence[str], height: float, title: str, width: float = WIDTH, kind: str = "") -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
