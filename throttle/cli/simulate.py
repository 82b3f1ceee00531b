"""`throttle simulate`: the published study of backoff under contention, as tables, as JSON, and as a picture."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .picture import check_writable
from .study import CLIENTS, STRATEGIES, Point, study

__all__ = ["draw_study", "rows", "run_simulate", "simulated"]

COLORS = dict(zip(STRATEGIES, ("#7f8c8d", "#c0392b", "#e08e0b", "#1f6fb2", "#27864b"), strict=True))
UNITS = {"calls": "calls until all are done", "time": "milliseconds until all are done"}


def _leave_interrupts_to_the_parent() -> None:  # pragma: no cover  # in the pool's own processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def simulated(
    clients: Sequence[int], runs: int, seed: int, *, jobs: int | None = None, console: Console
) -> list[Point]:
    """The study under a progress bar, in `jobs` processes (default: one for each processor), in the tables' order."""
    columns = (TextColumn("{task.description}"), BarColumn(40), TaskProgressColumn(), TimeElapsedColumn())
    # Spawned, not forked: the progress bar has a thread.
    pool = ProcessPoolExecutor(
        jobs or os.cpu_count() or 1, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent
    )
    with pool, Progress(*columns, console=console, transient=True) as progress:
        # A run's work grows about with the square of its clients.
        bar = progress.add_task("simulating", total=runs * len(STRATEGIES) * sum(n * n for n in clients))
        return study(pool, clients, runs=runs, seed=seed, done=lambda n, some: progress.advance(bar, some * n * n))


def rows(points: Sequence[Point], measure: str) -> list[tuple[int, list[float]]]:
    """For each number of clients what `measure` ("calls" or "time") is with each strategy, in the strategies' order."""
    numbers = sorted({point.clients for point in points})
    found = {(point.clients, point.strategy): getattr(point, measure) for point in points}
    return [(n, [found[n, strategy] for strategy in STRATEGIES]) for n in numbers]


def table(points: Sequence[Point], measure: str) -> Table:
    """One measure as a table for the terminal; the least of each row stands out."""
    drawn = Table(title=UNITS[measure], title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    drawn.add_column("clients", justify="right")
    for strategy in STRATEGIES:
        drawn.add_column(strategy, justify="right")
    for clients, values in rows(points, measure):
        best = min(values)
        cells = [Text(f"{value:,.0f}", style="bold green" if value == best else "") for value in values]
        drawn.add_row(str(clients), *cells)
    return drawn


def draw_study(path: Path, points: Sequence[Point], *, narrow: bool = False) -> None:
    """Both measures over the number of clients, side by side or (`narrow`) one below the other, as a PNG or SVG file.

    Raises `OSError` where it cannot be written.
    """
    size, grid, ncols = ((4.6, 8.0), (2, 1), 3) if narrow else ((10, 4.6), (1, 2), len(STRATEGIES))
    with import_module("matplotlib").rc_context({"svg.hashsalt": "throttle"}):
        figure: Any = import_module("matplotlib.figure").Figure(figsize=size, dpi=120, layout="constrained")
        panels = figure.subplots(*grid)
        for axes, measure in zip(panels, UNITS, strict=True):
            _draw_measure(axes, points, measure)
        runs, most = points[0].runs, max(point.clients for point in points)
        between = "\n" if narrow else " "
        figure.suptitle(f"Up to {most} clients update one row:{between}what each backoff costs (mean of {runs} runs)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=ncols, frameon=False)
        figure.savefig(path, format=path.suffix[1:].lower(), metadata={"Date": None} if _is_svg(path) else None)


def _is_svg(path: Path) -> bool:
    return path.suffix.lower() == ".svg"


def _draw_measure(axes: Any, points: Sequence[Point], measure: str) -> None:
    for marker, (strategy, color) in zip("oXsD^", COLORS.items(), strict=True):
        own = [point for point in points if point.strategy == strategy]
        numbers, values = [point.clients for point in own], [getattr(point, measure) for point in own]
        errors = [getattr(point, f"{measure}_error") for point in own] if own[0].runs > 1 else None
        wide = strategy == "equal"  # so that it shows under the line of "full", which covers it
        look = {"color": color, "marker": marker, "markersize": 4 + 2 * wide, "linewidth": 1.4 + wide}
        axes.errorbar(numbers, values, yerr=errors, capsize=2, elinewidth=1, label=strategy, **look)
    axes.set(xlabel="clients", ylabel=UNITS[measure], yscale="log" if measure == "time" else "linear")
    axes.yaxis.set_major_formatter(import_module("matplotlib.ticker").StrMethodFormatter("{x:,.0f}"))
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def run_simulate(
    clients: Sequence[int], *, runs: int, seed: int, jobs: int | None, plot: Path | None, as_json: bool
) -> int:
    """`throttle simulate`; the exit status."""
    if plot is not None:
        check_writable(plot)  # now, not after half a minute
    progress, out = Console(stderr=True), Console(highlight=False, soft_wrap=True)
    try:
        points = simulated(sorted(set(clients)) or CLIENTS, runs, seed, jobs=jobs, console=progress)
    except KeyboardInterrupt:
        progress.print("stopped")
        return 130
    except BrokenProcessPool as error:
        raise click.ClickException("a process of the simulation was killed: is there memory for --jobs 1?") from error
    if plot is not None:
        draw_study(plot, points)
    if as_json:
        click.echo(json.dumps({"runs": runs, "seed": seed, "points": [point.as_json() for point in points]}))
        return 0
    for measure in UNITS:
        out.print(table(points, measure), "")
    out.print(f"means of {runs} runs from seed {seed}; --json has their standard errors", style="dim")
    if plot is not None:
        out.print(f"the picture is in {plot}")
    return 0
