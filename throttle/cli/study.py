"""The published study of backoff under contention, with this library's own backoffs: pure simulation, no plotting.

N clients each update one row once, by optimistic locking: read the row's version, then write with it; the write that
finds another version than it read is refused, and its client backs off and reads again. Each message takes
|Normal(10, 2)| ms. Backoffs have base 5 and cap 2000 ms. What is counted: the writes until all are done (calls), and
the time until then.

Source: Marc Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015, and its aws-arch-backoff-simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from heapq import heapify, heappop, heapreplace
from random import Random
from statistics import fmean, stdev
from typing import Any

from ..backoff import Backoff, Constant, DecorrelatedJitter, EqualJitter, Exponential, FullJitter

__all__ = ["CLIENTS", "STRATEGIES", "Point", "contend", "results", "study", "summed_up"]

BASE, CAP = 5.0, 2000.0  # milliseconds here; a backoff does not mind
MEAN, DEVIATION = 10.0, 2.0  # of a message's delay
CLIENTS = range(10, 200, 10)
BATCH = 10  # runs that one process does at once

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


def results(strategy: str, clients: int, runs: Sequence[int], seed: int) -> list[tuple[int, float]]:
    """The runs of these numbers; each gives the same for the same seed, whatever else is simulated and wherever."""
    backoff = STRATEGIES[strategy]
    return [contend(clients, backoff, Random(f"{seed} {strategy} {clients} {run}")) for run in runs]


def summed_up(strategy: str, clients: int, outcomes: Sequence[tuple[int, float]]) -> Point:
    """What `outcomes`, in whatever order, come to.

    >>> summed_up("full", 5, [(10, 90.0), (12, 110.0)])
    Point(strategy='full', clients=5, runs=2, calls=11.0, calls_error=1.0, time=100.0, time_error=10.0)
    """
    calls, times = zip(*outcomes, strict=True)
    return Point(strategy, clients, len(outcomes), fmean(calls), _error(calls), fmean(times), _error(times))


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def study(
    pool: Executor,
    clients: Iterable[int] = CLIENTS,
    *,
    runs: int = 100,
    seed: int = 1,
    done: Callable[[int, int], object] = lambda clients, runs: None,
) -> list[Point]:
    """Every strategy with each number of clients, computed in `pool`; `done(clients, runs)` after each few runs."""
    found: dict[tuple[int, str], list[tuple[int, float]]] = {(n, name): [] for n in clients for name in STRATEGIES}
    batches = [range(start, min(start + BATCH, runs)) for start in range(0, runs, BATCH)]
    jobs = {  # the long ones first, so that no processor is left with one at the end
        pool.submit(results, name, n, batch, seed): (n, name)
        for n, name in sorted(found, key=lambda pair: -pair[0])
        for batch in batches
    }
    try:
        for job in as_completed(jobs):
            outcomes = job.result()
            found[jobs[job]] += outcomes
            done(jobs[job][0], len(outcomes))
    finally:
        for job in jobs:
            job.cancel()
    return [summed_up(name, n, outcomes) for (n, name), outcomes in found.items()]
