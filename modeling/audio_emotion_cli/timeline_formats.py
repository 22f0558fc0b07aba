"""Time lines as CSV, JSON, RTTM, WebVTT and Praat's TextGrid."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

Lanes = Mapping[str, Sequence[dict[str, Any]]]  # windows by the name of a channel, "" for the mean of all


def write_csv(name: str, lanes: Lanes) -> str:
    """A row per window: channel, times, flags, dimensions, emotion, probabilities."""
    first = next(iter(lanes.values()))[0]
    dimensions, labels = list(first.get("dimensions", {})), sorted(each["label"] for each in first.get("emotions", []))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["channel", "start", "end", "flags", *dimensions, "emotion", *labels])
    for channel, windows in lanes.items():
        for each in windows:
            scores = {one["label"]: one["score"] for one in each.get("emotions", [])}
            row = [channel, f"{each['start']:.3f}", f"{each['end']:.3f}", " ".join(each["flags"])]
            row += [f"{each['dimensions'][key]:.4f}" for key in dimensions]
            writer.writerow([*row, _emotion(each), *(f"{scores[label]:.4f}" for label in labels)])
    return text.getvalue()


def write_json(name: str, lanes: Lanes) -> str:
    """One object: the name of the file, and windows by channel."""
    return json.dumps({"input": name, "channels": dict(lanes)}, indent=1) + "\n"


def write_rttm(name: str, lanes: Lanes) -> str:
    """RTTM with the emotion in place of the speaker, and its probability; the channel is counted from 1."""
    lines = []
    for channel, windows in lanes.items():
        for each in windows:
            score = each["emotions"][0]["score"] if each.get("emotions") else 0.0
            lines.append(
                f"SPEAKER {quote(name, safe='')} {channel or 1} {each['start']:.3f} {each['end'] - each['start']:.3f} "
                f"<NA> <NA> {quote(_emotion(each), safe='') or '<NA>'} {score:.3f} <NA>"
            )
    return "\n".join(lines) + "\n"


def write_vtt(name: str, lanes: Lanes) -> str:
    """WebVTT: a cue per window with the most probable emotion and the dimensions, one track for all channels."""
    cues = []
    for channel, windows in lanes.items():
        for each in windows:
            values = ", ".join(f"{key} {value:.2f}" for key, value in each.get("dimensions", {}).items())
            score = f" {each['emotions'][0]['score']:.2f} " if _emotion(each) else ""
            voice = f"<v channel {channel}>" if channel else ""
            flags = f" [{', '.join(each['flags'])}]" if each["flags"] else ""
            text = f"{voice}{_escape(_emotion(each))}{score}({values}){_escape(flags)}"
            cues.append((each["start"], f"{_clock(each['start'])} --> {_clock(each['end'])}\n{text}\n"))
    return "WEBVTT\n\n" + "\n".join(text for _, text in sorted(cues))


def write_textgrid(name: str, lanes: Lanes) -> str:
    """Praat's TextGrid: for each channel an interval tier of emotions and one for each dimension.

    Overlapping windows are divided where the next one begins, because intervals of a tier do not overlap.
    """
    end = max(windows[-1]["end"] for windows in lanes.values())
    tiers = []
    for channel, windows in lanes.items():
        suffix = f" {channel}" if channel else ""
        tiers.append((f"emotion{suffix}", [(each, _emotion(each)) for each in windows]))
        for key in windows[0].get("dimensions", {}):
            tiers.append((f"{key}{suffix}", [(each, f"{each['dimensions'][key]:.3f}") for each in windows]))
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.6f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (title, marked) in enumerate(tiers, start=1):
        intervals = _intervals(marked, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{title}"']
        lines += ["        xmin = 0", f"        xmax = {end:.6f}", f"        intervals: size = {len(intervals)}"]
        for place, (start, stop, text) in enumerate(intervals, start=1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{place}]:", f"            xmin = {start:.6f}"]
            lines += [f"            xmax = {stop:.6f}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


WRITERS: dict[str, Callable[[str, Lanes], str]] = {
    "csv": write_csv,
    "json": write_json,
    "rttm": write_rttm,
    "vtt": write_vtt,
    "textgrid": write_textgrid,
}


def _intervals(marked: Sequence[tuple[dict[str, Any], str]], end: float) -> list[tuple[float, float, str]]:
    """Intervals from 0 to the end without gaps or overlaps."""
    found, clock = [], 0.0
    for number, (window, text) in enumerate(marked):
        stop = min(window["end"], marked[number + 1][0]["start"]) if number + 1 < len(marked) else window["end"]
        if window["start"] > clock + 1e-6:
            found.append((clock, window["start"], ""))
        if stop > max(window["start"], clock) + 1e-6:
            found.append((max(window["start"], clock), stop, text))
            clock = stop
    if end > clock + 1e-6:
        found.append((clock, end, ""))
    return found


def _emotion(window: Mapping[str, Any]) -> str:
    """The most probable emotion; nothing where there is none, or no speech."""
    if {"silence", "no_speech", "abstained"} & set(window["flags"]):
        return ""
    emotions = window.get("emotions", [])
    return str(emotions[0]["label"]) if emotions else ""


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
