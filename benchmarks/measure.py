"""How a row is declared and measured: rounds that take turns, medians, and what is to be reached."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any

__all__ = [
    "ROWS", "Call", "Measured", "Reach", "Row", "apart", "empty", "medians", "pace", "resident", "row", "timed",
    "timed_sync",
]  # fmt: skip

Measured = dict[str, float]
Call = Callable[[], Awaitable[object]]
ROUNDS = 9
REFERENCE = 90.0  # ns: what an empty coroutine takes on the machine that absolute figures were set for


@dataclass(frozen=True)
class Reach:
    """What line `who` is to reach: a number, a multiple of line `times`, or a number on top of line `over`.

    `paced`: the number is a time on the reference machine, and is stretched by how much slower this one is.
    """

    who: str
    most: float = inf
    least: float = -inf
    times: str = ""
    over: str = ""
    paced: bool = False

    def verdict(self, measured: Measured) -> tuple[str, bool] | None:
        """What is to be reached, in words, and whether it is; None if a line is missing (a peer that is not there)."""
        base = self.times or self.over
        if self.who not in measured or (base and base not in measured):
            return None
        value = measured[self.who]
        if self.times:
            value /= measured[base] or inf
        elif self.over:
            value -= measured[base]
        most = self.most * (pace_of(measured) if self.paced else 1)
        sign, bound = ("≤", most) if most < inf else ("≥", self.least)
        how = f" x {self.times}" if self.times else f" over {self.over}" if self.over else ""
        return f"{sign} {bound:.4g}{how}", self.least <= value <= most


@dataclass(frozen=True)
class Row:
    """One row of the table: what is measured, in which unit, and what is to be reached."""

    name: str
    title: str
    unit: str
    measure: Callable[[], Measured]
    reaches: tuple[Reach, ...]


ROWS: dict[str, Row] = {}


def row(unit: str, *reaches: Reach) -> Callable[[Callable[[], Measured]], Callable[[], Measured]]:
    """A row of the table; the first line of its docstring is its title."""

    def add(fn: Callable[[], Measured]) -> Callable[[], Measured]:
        ROWS[fn.__name__] = Row(fn.__name__, (fn.__doc__ or "").splitlines()[0], unit, fn, reaches)
        return fn

    return add


async def empty() -> None:
    """What a call costs that does nothing."""


@cache
def pace() -> float:
    """How much slower this machine is than the one that absolute times were set for."""
    return timed({"empty coroutine": empty}, 20_000)["empty coroutine"] / REFERENCE


def pace_of(measured: Measured) -> float:
    """The same from the row's own empty coroutine, measured in turns with the rest, where it has one."""
    own = measured.get("empty coroutine") or measured.get("bare coroutine")
    return own / REFERENCE if own else pace()


def medians(rounds: int, measures: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Each measure's median; rounds take turns, so that a slow moment hits everybody. Of dicts, that of each entry."""
    taken: dict[str, list[Any]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            taken[name].append(measure())
    return {name: _median(values) for name, values in taken.items()}


def _median(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: statistics.median(value[name] for value in values) for name in values[0]}
    return statistics.median(values)


def timed(calls: dict[str, Call], times: int) -> Measured:
    """CPU nanoseconds a call, awaited; medians of interleaved rounds. Nothing timed here sleeps."""

    async def once(call: Call) -> float:
        start = time.process_time_ns()
        for _ in range(times):
            await call()
        return (time.process_time_ns() - start) / times

    with asyncio.Runner() as runner:

        def measure(call: Call) -> Callable[[], float]:
            def one() -> float:
                gc.collect()
                return runner.run(once(call))

            return one

        return medians(ROUNDS, {name: measure(call) for name, call in calls.items()})


def timed_sync(calls: dict[str, Callable[[], object]], times: int) -> Measured:
    """CPU nanoseconds a plain call; medians of interleaved rounds."""

    def measure(call: Callable[[], object]) -> Callable[[], float]:
        def one() -> float:
            gc.collect()
            start = time.process_time_ns()
            for _ in range(times):
                call()
            return (time.process_time_ns() - start) / times

        return one

    return medians(ROUNDS, {name: measure(call) for name, call in calls.items()})


def resident() -> int:
    """Bytes of memory that this process occupies."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def apart(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` in a fresh interpreter: its memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(fn, *args).result()
