"""The documentation's pictures, made anew at each build: `make_pictures(folder)`, or `python docs/pictures.py folder`.

The limiters' pictures come from the limiters themselves, run in virtual time. Files:

    limiters.svg      the same arrivals through each limiter: granted in the last 10 s, the busiest 10 s marked
    burst.svg         60 calls at once: how many each limiter has granted after how long
    first-period.svg  a line that never ends: a token bucket passes 2N - 1 in its first period, a sliding window N
    study.svg         the jitter study, as `throttle simulate --plot study.svg` draws it
    study-calls.md    its first table, of calls, and
    study-time.md     its second, of milliseconds; both to be included

Each picture is drawn twice: as wide as a page, and, with "-narrow" in its name, for a phone.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console

from throttle import FixedWindow, SlidingWindow, SlidingWindowCounter, TokenBucket, TwoRateBucket
from throttle.cli.picture import sliding
from throttle.cli.simulate import draw_study, rows, simulated
from throttle.cli.study import CLIENTS, STRATEGIES
from throttle.limiter import BaseLimiter
from throttle.testing import run_virtual

__all__ = ["make_pictures"]

LIMIT, WINDOW = 20, 10.0  # permits in seconds
WIDE, NARROW = 9.0, 4.6  # inches; the letters are of one size
HAIR = 1e-6  # a grant that the float of its instant puts a hair before a window's end belongs to the next one
BLUE, RED, GREY = "#1f6fb2", "#c0392b", "#7f8c8d"
COLORS = [BLUE, "#27864b", "#e08e0b", "#8e44ad", RED]


BUDGET = 'TwoRateBucket("20/10s", burst=20, peak="4/s", peak_burst=4)'


def limiters() -> dict[str, BaseLimiter]:
    """One of each kind, all of 20 permits in 10 s, under what one would write."""
    return {
        'TokenBucket("20/10s")': TokenBucket("20/10s"),
        'SlidingWindow("20/10s")': SlidingWindow("20/10s"),
        'SlidingWindowCounter("20/10s")': SlidingWindowCounter("20/10s"),
        'FixedWindow("20/10s")': FixedWindow("20/10s"),
        BUDGET: TwoRateBucket("20/10s", burst=20, peak="4/s", peak_burst=4),
    }


def granted(limiter: BaseLimiter, arrivals: Sequence[float]) -> list[float]:
    """When each of the `arrivals` gets its permit; everybody waits in line."""

    async def call(at: float) -> float:
        await asyncio.sleep(at)
        await limiter.acquire()
        return asyncio.get_running_loop().time()

    async def everybody() -> list[float]:
        return sorted(await asyncio.gather(*map(call, arrivals)))

    return run_virtual(everybody)


def busiest(times: Sequence[float]) -> tuple[float, int]:
    """Where the busiest window (its end not included) of the sorted `times` starts, and how many it holds."""
    counts = [(bisect_left(times, start + WINDOW - HAIR) - index, -start) for index, start in enumerate(times)]
    most, start = max(counts)
    return -start, most


def draw_limiters(path: Path, width: float) -> None:
    """The same arrivals through each limiter."""
    arrivals = [8.0] * 45 + [35 + step / 3 for step in range(45)]
    end = 65.0
    figure, panels = _figure(len(limiters()) + 1, width, height=1.55)
    asked, *panels = panels
    asked.hist(arrivals, bins=65, range=(0, end), color=GREY)
    asked.set_title("arrivals in each second: 45 at once, later 3/s for 15 s", loc="left", fontsize=10)
    for axes, (name, limiter) in zip(panels, limiters().items(), strict=True):
        times = granted(limiter, arrivals)
        start, most = busiest(times)
        moments, counts = sliding(times, WINDOW - HAIR, end)
        color = RED if most > LIMIT else BLUE
        axes.axvspan(start, start + WINDOW, color=color, alpha=0.13, linewidth=0)
        axes.fill_between(moments, counts, step="post", color=BLUE, alpha=0.3, linewidth=0)
        axes.step(moments, counts, where="post", color=BLUE, linewidth=1.2)
        axes.axhline(LIMIT, color=RED, linewidth=1.2)
        axes.plot(times, [-3] * len(times), "|", color="black", markersize=5, markeredgewidth=0.7)
        axes.set_title(_name(name, width), loc="left", fontsize=10, family="monospace")
        axes.text(start + WINDOW + 0.4, 44, f"busiest 10 s: {most}", color=color, va="top", fontsize=10)
        axes.set(ylim=(-6, 45), yticks=[0, 20, 40])
    panels[-1].set(xlim=(0, end), xlabel="seconds")
    figure.supylabel("granted in the last 10 s (red line: 20; strokes: grants)", fontsize=10)
    _save(figure, path)


def draw_burst(path: Path, width: float) -> None:
    """60 calls at once, 3 s before a fixed window ends."""
    figure, (axes,) = _figure(1, width, height=4.6 if width > NARROW else 5.4)
    for color, style, (name, limiter) in zip(COLORS, ["-", "-", "-", "-", "--"], limiters().items(), strict=True):
        times = [0.0, *(time - 7 for time in granted(limiter, [7.0] * 60)), 25.0]
        look = {"color": color, "linewidth": 1.8, "linestyle": style, "label": _name(name, width)}
        axes.step(times, [*range(61), 60], where="post", **look)
    axes.set(xlim=(-0.3, 25), ylim=(0, 63), xlabel="seconds after 60 calls came at once", ylabel="granted so far")
    axes.axhline(60, color=GREY, linewidth=0.8, linestyle=":")
    where = {"loc": "lower right"} if width > NARROW else {"loc": "upper center", "bbox_to_anchor": (0.45, -0.12)}
    axes.legend(**where, frameon=False, prop={"family": "monospace", "size": 9})
    _save(figure, path)


def draw_first_period(path: Path, width: float) -> None:
    """Why a token bucket may pass 2N - 1 in its first period, and a sliding window never."""
    figure, panels = _figure(2, width, height=2.9)
    wide = width > NARROW
    shown = {
        'TokenBucket("20/10s")' + ": full at the start, and refilled while it empties" * wide: TokenBucket("20/10s"),
        'SlidingWindow("20/10s")' + ": whoever left counts until 10 s later" * wide: SlidingWindow("20/10s"),
    }
    for axes, (name, limiter) in zip(panels, shown.items(), strict=True):
        times = [time for time in granted(limiter, [0.0] * 90) if time < 25]
        _, most = busiest(times)
        color = RED if most > LIMIT else BLUE
        axes.axvspan(0, WINDOW, color=color, alpha=0.13, linewidth=0)
        axes.step([*times, 25], [*range(1, len(times) + 1), len(times)], where="post", color=BLUE, linewidth=1.8)
        axes.plot([0, 25], [0, 50], color=GREY, linestyle="--", linewidth=1, label="the rate: 2 a second")
        axes.plot([0, 25], [20, 70], color=GREY, linestyle=":", linewidth=1, label="burst + rate × t")
        axes.annotate(
            f"{most} in the first 10 s" + (" = 2 × 20 - 1" if most > LIMIT else ""),
            (WINDOW, most),
            (WINDOW + 2.5, 7),
            color=color,
            arrowprops={"arrowstyle": "-", "color": color},
        )
        axes.set_title(name, loc="left", fontsize=10)
        axes.set(ylim=(0, 72), ylabel="granted so far", yticks=[0, 20, 40, 60])
    panels[0].legend(loc="upper left", frameon=False, fontsize=9)
    panels[-1].set(xlim=(0, 25), xlabel="seconds; there is always somebody in line")
    _save(figure, path)


def _name(name: str, width: float) -> str:
    return name.partition(", burst")[0] + ", ...)" if width == NARROW and name == BUDGET else name


def _figure(panels: int, width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height * panels), dpi=110, layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "throttle"}):  # the same picture is the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def make_pictures(folder: Path | str, *, runs: int = 100, suffix: str = ".svg") -> list[Path]:
    """Write every picture and table into `folder`, which is made if it is not there; their paths.

    `runs` of the study: 100, as published, take a minute of processor time. `suffix` may be ".png", to look at them.
    """
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    points = simulated(CLIENTS, runs, 1, console=Console(stderr=True))
    paths: list[Path] = []
    for name, draw in (("limiters", draw_limiters), ("burst", draw_burst), ("first-period", draw_first_period)):
        for ending, width in (("", WIDE), ("-narrow", NARROW)):
            paths.append(home / f"{name}{ending}{suffix}")
            draw(paths[-1], width)
    for ending in ("", "-narrow"):
        paths.append(home / f"study{ending}{suffix}")
        draw_study(paths[-1], points, narrow=bool(ending))
    for measure in ("calls", "time"):
        table = ["| clients | " + " | ".join(STRATEGIES) + " |", "|---:" * (len(STRATEGIES) + 1) + "|"]
        table += [
            f"| {n} | " + " | ".join(f"{value:,.0f}" for value in values) + " |" for n, values in rows(points, measure)
        ]
        paths.append(home / f"study-{measure}.md")
        paths[-1].write_text("\n".join(table) + "\n", encoding="utf-8")
    return paths


if __name__ == "__main__":
    for made in make_pictures(*sys.argv[1:2]):
        print(made)  # noqa: T201
