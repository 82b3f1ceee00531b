"""Rate-limited servers in virtual time, and clients that learn their limits: events on a heap, no loop, no sleeping.

A server is asked `at(now)` and says whether it lets the request pass, what the answer tells, and how long it takes.
Their rules are written down independently of the package's own. `play` lets clients finish their items and counts.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from throttle.adaptive import Learner
from throttle.hints import Hints, Quota
from throttle.rates import TICKS
from throttle.resets import Stamp
from throttle.silence import others_try

# ── servers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Answer = tuple[bool, Hints, float]  # whether it passes, what it says, seconds that the work takes
PLAIN = Hints()


class Bucket:
    """nginx `limit_req` with nodelay: `rate` a second, `burst` more at once; says nothing, or Retry-After."""

    def __init__(self, rate: float, burst: float, *, retry_after: float | None = None) -> None:
        self.rate, self.burst, self.retry_after = rate, burst, retry_after
        self.excess, self.last = 0.0, 0.0

    def at(self, now: float) -> Answer:
        excess = max(0.0, self.excess - (now - self.last) * self.rate) + 1
        if excess > self.burst + 1:
            return False, Hints(refused=True, retry_after=self.retry_after), 0.0
        self.excess, self.last = excess, now
        return True, PLAIN, 0.0

    def ideal(self, items: int) -> float:
        return max(0.0, (items - self.burst - 1) / self.rate)


class Queue(Bucket):
    """nginx `limit_req` that delays: one after the other at `rate`; only a queue longer than `burst` is refused."""

    def at(self, now: float) -> Answer:
        passes, hints, _ = super().at(now)
        return passes, hints, (self.excess - 1) / self.rate if passes else 0.0

    def ideal(self, items: int) -> float:
        return items / self.rate


@dataclass
class Window:
    """`limit` in each window of `seconds`, opened by the first request in it, or aligned. `tells`: how resets are
    written: "exact", "up" (whole seconds), "down", "late" (up, and one more), "stamp" (in whole seconds, less a Date in
    whole seconds), "late stamp" (not rounded, but a second late), "wait" (only Retry-After), "nothing"."""

    limit: int
    seconds: float
    tells: str = "exact"
    aligned: bool = False
    policy: bool = True
    phase: float = 0.0  # of aligned windows
    opened: float = -math.inf
    used: int = 0

    def spelled(self, seconds: float, now: float) -> float:
        if "stamp" in self.tells:  # its clock is not ours
            stamp = now + seconds + 0.37
            return Stamp((stamp + 1 if self.tells == "late stamp" else math.ceil(stamp)) - math.floor(now + 0.37))
        ways: dict[str, Callable[[float], float]] = {
            "up": math.ceil,
            "down": math.floor,
            "late": lambda s: math.ceil(s + 1),
        }
        return float(ways.get(self.tells, float)(seconds))

    def hints(self, passes: bool, left: int, reset: float, now: float) -> Hints:
        told = self.spelled(max(0.0, reset), now)
        if self.tells == "nothing":
            return Hints(refused=not passes)
        if self.tells == "wait":
            return PLAIN if passes else Hints(refused=True, retry_after=told)
        quota = Quota("default", float(self.limit), float(left), told, self.seconds if self.policy else None)
        if passes:
            return Hints(wait=told if left < 1 else 0.0, quotas=(quota,))
        return Hints(refused=True, retry_after=told, quotas=(quota,))

    def at(self, now: float) -> Answer:
        if now >= self.opened + self.seconds:
            self.opened = (now + self.phase) // self.seconds * self.seconds - self.phase if self.aligned else now
            self.used = 0
        passes = self.used < self.limit
        self.used += passes
        return passes, self.hints(passes, self.limit - self.used, self.opened + self.seconds - now, now), 0.0

    def ideal(self, items: int) -> float:
        return (math.ceil(items / self.limit) - 1) * self.seconds


@dataclass
class Moving(Window):
    """`limit` in any `seconds`; the reset that is told is that of the oldest request."""

    log: deque[float] = field(default_factory=deque)

    def at(self, now: float) -> Answer:
        while self.log and self.log[0] + self.seconds <= now:
            self.log.popleft()
        passes = len(self.log) < self.limit
        if passes:
            self.log.append(now)
        return passes, self.hints(passes, self.limit - len(self.log), self.log[0] + self.seconds - now, now), 0.0


@dataclass
class Counting(Window):
    """HAProxy `http_req_rate`: two counters, weighted; refused requests count as well."""

    tells: str = "nothing"
    before: int = 0

    def at(self, now: float) -> Answer:
        if self.opened == -math.inf:
            self.opened = now
        while now >= self.opened + self.seconds:
            self.opened += self.seconds
            self.before, self.used = self.used, 0
        self.used += 1
        share = 1 - (now - self.opened) / self.seconds
        passes = self.used + self.before * share <= self.limit
        return passes, Hints(refused=not passes), 0.0

    def ideal(self, items: int) -> float:
        return items * self.seconds / self.limit  # once the first burst is spent, what it was must run out


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Network:
    """Seconds each way, with jitter in proportion; answers may overtake each other."""

    delay: float = 0.002
    jitter: float = 0.5
    rng: Random = field(default_factory=lambda: Random(1))

    def way(self) -> float:
        return self.delay * (1 + self.rng.random() * self.jitter)


@dataclass
class Item:
    number: int
    attempts: int = 0
    flight: Any = None


@dataclass
class Client:
    """`tasks` tasks with `items` items behind one learner."""

    learner: Learner
    items: int
    tasks: int = 200
    attempts: int = 5
    done: int = 0
    refused: int = 0
    lost: int = 0
    rates: list[tuple[float, float]] = field(default_factory=list)
    line: deque[Item] = field(default_factory=deque)
    flying: int = 0
    started: int = 0
    finished: float = 0.0
    sends: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)

    def fill(self) -> None:
        while self.started < self.items and len(self.line) + self.flying < self.tasks:
            self.line.append(Item(self.started))
            self.started += 1


def tick(now: float) -> int:
    return round((now + 50_000) * TICKS)  # clocks begin anywhere


@dataclass
class Played:
    seconds: float
    refused: int
    lost: int
    done: int


def play(  # noqa: PLR0915  # the events of one world, in one piece
    server: object,
    clients: list[Client],
    network: Network,
    *,
    changes: dict[float, Callable[[], None]] | None = None,
    until: float = 300.0,
) -> Played:
    """Until every item is done or lost; raises `AssertionError` if that takes longer than `until` seconds."""
    events: list[tuple[float, int, Callable[[float], None]]] = []
    number = 0
    bells: dict[int, float] = {}

    def post(at: float, call: Callable[[float], None]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (at, number, call))

    def serve(client: Client, now: float) -> None:
        client.fill()
        while client.line and not client.learner.full():
            at = client.learner.earliest(tick(now), 1)
            if at > tick(now):
                due = at / TICKS - 50_000 + 1e-9
                if bells.get(id(client), math.inf) > due:
                    bells[id(client)] = due
                    post(due, lambda then: ring(client, then))
                return
            item = client.line.popleft()
            item.flight = client.learner.sent(tick(now), 1, lands=True)
            client.flying += 1
            client.sends.append(now)
            rate = client.learner.pace.rate
            client.rates.append((now, 0.0 if rate is None else rate * TICKS))
            post(now + network.way(), lambda then, item=item: arrive(client, item, then))  # type: ignore[misc]
            client.fill()

    def ring(client: Client, now: float) -> None:
        bells.pop(id(client), None)
        serve(client, now)

    def arrive(client: Client, item: Item, now: float) -> None:
        passes, hints, work = server.at(now)  # type: ignore[attr-defined]
        post(now + work + network.way(), lambda then: answer(client, item, passes, hints, then))

    def answer(client: Client, item: Item, passes: bool, hints: Hints, now: float) -> None:
        learner = client.learner
        counts = learner.heard(hints, item.flight, tick(now))
        learner.landed(item.flight, tick(now), answered=passes, contended=bool(client.line))
        client.flying -= 1
        if passes:
            client.done += 1
            client.finished = now
        else:
            client.refused += 1
            client.refusals.append(now)
            item.attempts += counts
            if item.attempts >= client.attempts:
                client.lost += 1
            elif not hints.wait and others_try(learner.row):
                client.line.append(item)
            else:
                client.line.appendleft(item)
        serve(client, now)

    for at, change in (changes or {}).items():
        post(at, lambda _now, change=change: change())  # type: ignore[misc]
    for client in clients:
        post(0.0, lambda now, client=client: serve(client, now))  # type: ignore[misc]
    while events and any(client.done + client.lost < client.items for client in clients):
        now, _, call = heapq.heappop(events)
        assert now < until, f"not done after {until} s: {[(c.done, c.lost, c.items) for c in clients]}"
        call(now)
    assert all(client.done + client.lost == client.items for client in clients), "somebody waits for ever"
    return Played(
        max(client.finished for client in clients),
        sum(client.refused for client in clients),
        sum(client.lost for client in clients),
        sum(client.done for client in clients),
    )
