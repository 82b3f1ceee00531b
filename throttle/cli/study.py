"""The published study of backoff under contention, with this library's own backoffs: pure simulation, no plotting.

N clients each update one row once, by optimistic locking: read the row's version, then write with it; the write that
finds another version than it read is refused, and its client backs off and reads again. Each message takes
|Normal(10, 2)| ms. Backoffs have base 5 and cap 2000 ms. What is counted: the writes until all are done (calls), and
the time until then.

Source: Marc Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015, and its aws-arch-backoff-simulator.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from heapq import heapify, heappop, heapreplace
from random import Random
from statistics import fmean, stdev
from typing import Any

from ..backoff import Backoff, Constant, DecorrelatedJitter, EqualJitter, Exponential, FullJitter

__all__ = ["CLIENTS", "STRATEGIES", "Point", "contend", "measure", "study"]

BASE, CAP = 5.0, 2000.0  # milliseconds here; a backoff does not mind
MEAN, DEVIATION = 10.0, 2.0  # of a message's delay
CLIENTS = range(10, 200, 10)

STRATEGIES: dict[str, Backoff] = {
    "none": Constant(0),
    "exponential": Exponential(BASE, CAP),
    "equal": EqualJitter(BASE, CAP),
    "full": FullJitter(BASE, CAP),
    "decorrelated": DecorrelatedJitter(BASE, CAP),
}


@dataclass(frozen=True, slots=True)
class Point:
    """What `runs` runs of one strategy with so many clients gave: the means and their standard errors.

    `calls` are writes, `time` is in milliseconds; an error of one run is infinite.
    """

    strategy: str
    clients: int
    runs: int
    calls: float
    calls_error: float
    time: float
    time_error: float

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite error, which JSON cannot say, is `None`."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}


def contend(clients: int, backoff: Backoff, rng: Random) -> tuple[int, float]:
    """One run: how many writes were sent until every client has updated the row once, and after how many ms.

    >>> contend(1, Constant(0), Random(1))[0]
    1
    """
    gauss, version, calls, end = rng.gauss, 0, 0, 0.0
    waits = [backoff.delays(rng) for _ in range(clients)]
    # (when, client, the version it read or -1): a read or a write that reaches the server. What happens at the client
    # in between only adds delays, so it needs no event of its own.
    queue = [(abs(gauss(MEAN, DEVIATION)), client, -1) for client in range(clients)]
    heapify(queue)
    while queue:
        now, client, read = queue[0]
        there_and_back = abs(gauss(MEAN, DEVIATION)) + abs(gauss(MEAN, DEVIATION))
        if read < 0:
            heapreplace(queue, (now + there_and_back, client, version))
            continue
        calls += 1
        if read == version:
            version += 1
            heappop(queue)
            end = max(end, now + abs(gauss(MEAN, DEVIATION)))
        else:
            heapreplace(queue, (now + there_and_back + next(waits[client]), client, -1))
    return calls, end


def measure(strategy: str, clients: int, runs: int, seed: int) -> Point:
    """`runs` runs; the same numbers for the same arguments, whatever else is simulated and wherever.

    >>> measure("full", 5, 3, seed=1) == measure("full", 5, 3, seed=1)
    True
    """
    backoff = STRATEGIES[strategy]
    results = [contend(clients, backoff, Random(f"{seed} {strategy} {clients} {run}")) for run in range(runs)]
    calls, times = zip(*results, strict=True)
    return Point(strategy, clients, runs, fmean(calls), _error(calls), fmean(times), _error(times))


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def study(
    pool: Executor, clients: Iterable[int] = CLIENTS, *, runs: int = 100, seed: int = 1
) -> Generator[Point, None, None]:
    """Every strategy with each number of clients, measured in `pool`: the long ones first, each as it is done."""
    pairs = sorted(((name, n) for name in STRATEGIES for n in clients), key=lambda pair: -pair[1])
    points = [pool.submit(measure, name, n, runs, seed) for name, n in pairs]
    try:
        for point in as_completed(points):
            yield point.result()
    finally:
        for point in points:
            point.cancel()
