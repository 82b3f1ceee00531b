"""Requests per moment against the limit: in the terminal, or as a PNG or SVG file."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.text import Text

__all__ = ["check_writable", "draw_file", "draw_terminal", "sliding"]

STEPS = 400  # moments along the time axis, besides those of the requests
ROWS = 10  # text rows up to the limit
BLOCKS = " ▁▂▃▄▅▆▇█"


def sliding(times: Sequence[float], window: float, end: float) -> tuple[list[float], list[int]]:
    """At moments from 0 to `end`, how many of the sorted `times` lie in the `window` seconds that end there.

    >>> moments, counts = sliding([0.0, 0.5, 2.0], window=1.0, end=400.0)
    >>> moments[:5], counts[:5]
    ([0.0, 0.5, 1.0, 2.0, 3.0], [1, 2, 1, 1, 0])
    """
    moments = sorted({*times, *(end * step / STEPS for step in range(STEPS + 1))})
    return moments, [bisect_right(times, now) - bisect_right(times, now - window) for now in moments]


def draw_terminal(granted: Sequence[float], refused: Sequence[float], limit: int, window: float, width: int) -> Text:
    """The picture as text of `width` columns; what is above the line of the limit is above the limit."""
    columns = max(20, min(width, 100) - 8)
    end = max([*granted, *refused, window])
    heights, marks = [0] * columns, [" "] * columns
    for moment, count in zip(*sliding(granted, window, end), strict=True):
        column = min(columns - 1, int(moment / end * columns))
        heights[column] = max(heights[column], count)
    for moment in refused:
        marks[min(columns - 1, int(moment / end * columns))] = "x"
    text = Text(f"requests in the last {window:g} s, as the server granted them\n", end="")
    over = math.ceil((max(heights) - limit) * ROWS / limit)
    for row in range(ROWS + max(over, 0), 0, -1):  # one text row is limit / ROWS requests
        if row == ROWS:
            text.append(f"{limit:>6} ┤").append("─" * columns + "\n", "red")
        bars = "".join(BLOCKS[max(0, min(8, round((height * ROWS / limit - row + 1) * 8)))] for height in heights)
        text.append("       │").append(bars + "\n", "red" if row > ROWS else "cyan")
    text.append("     0 └" + "─" * columns + "\n")
    if refused:
        text.append("refused ").append("".join(marks) + "\n", "red")
    return text.append(f"       0 s{f'{end:.1f} s':>{columns - 2}}")


def draw_file(
    path: Path, granted: Sequence[float], refused: Sequence[float], limit: int, window: float, title: str
) -> None:
    """The same picture as a PNG or SVG file. Raises `OSError` where it cannot be written."""
    figure: Any = import_module("matplotlib.figure").Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    moments, counts = sliding(granted, window, max([*granted, *refused, window]))
    axes.fill_between(moments, counts, step="post", color="#4c9bd6", alpha=0.35, linewidth=0)
    axes.step(moments, counts, where="post", color="#1f6fb2", linewidth=1.2, label="granted")
    axes.axhline(limit, color="#c0392b", linewidth=1.5, label=f"the server's limit: {limit} in {window:g} s")
    if refused:
        ticks = [counts[bisect_left(moments, at)] if at <= moments[-1] else 0 for at in refused]
        axes.plot(refused, ticks, "x", color="#c0392b", markersize=6, label=f"refused: {len(refused)}")
    axes.set(xlabel="seconds", ylabel=f"requests in the last {window:g} s", title=title)
    axes.set_xlim(0, moments[-1])
    axes.set_ylim(0, max([limit, *counts]) * 1.25)
    axes.legend(loc="upper right", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format=path.suffix[1:].lower())


def check_writable(path: Path) -> None:
    """Raise `ClickException` where the file cannot be written; what it holds stays."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
