"""The controller against simulated servers, in hundreds of random worlds: how long, how much refused, nothing lost.

`make learn` plays thousands (LEARN_SEEDS). The bounds are what the package promises; the ideal is the least time in
which the server could let everything through.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from simulated import Bucket, Client, Counting, Moving, Network, Queue, Window, play

from throttle.adaptive import Learner

SEEDS = int(os.environ.get("LEARN_SEEDS", "30"))


@dataclass(frozen=True)
class World:
    """A kind of server; the bounds: wall/ideal and refused % of the median run, and of the worst."""

    make: Callable[[], Any]
    items: int
    wall: float
    refused: float
    worst_wall: float
    worst_refused: float
    clients: int = 1
    change: Callable[[Any], None] | None = None
    ideal: float | None = None


def halve(server: Any) -> None:
    if isinstance(server, Window):
        server.limit //= 2
    else:
        server.rate /= 2


WORLDS = {
    "bucket": World(lambda: Bucket(33.3, 100), 300, 1.08, 9, 1.15, 12),
    "bucket with a small burst": World(lambda: Bucket(40, 20), 261, 1.08, 8, 1.15, 12),
    "bucket without a burst": World(lambda: Bucket(40, 0), 241, 1.2, 5, 1.5, 7),
    "one a second": World(lambda: Bucket(1, 0), 200, 1.25, 25, 1.4, 30),
    "one a second with a small burst": World(lambda: Bucket(1, 5), 200, 1.05, 18, 1.1, 22),
    "three a second": World(lambda: Bucket(3, 0), 300, 1.25, 12, 1.3, 15),
    "bucket that names a second": World(lambda: Bucket(40, 20, retry_after=1.0), 261, 1.4, 10, 1.5, 12),
    "window": World(lambda: Window(100, 3), 300, 1.08, 1, 1.12, 1),
    "window, no policy": World(lambda: Window(100, 3, policy=False), 300, 1.08, 1, 1.12, 1),
    "window, whole seconds": World(lambda: Window(100, 3, "up"), 300, 1.08, 1, 1.12, 2),
    "window of the clock": World(lambda: Window(100, 3, "up", aligned=True, policy=False), 300, 1.1, 1, 1.15, 2),
    "window, stamps": World(lambda: Window(100, 3, "stamp", policy=False), 300, 1.08, 1, 1.12, 1),
    "window, late stamps": World(lambda: Window(100, 3, "late stamp", policy=False), 300, 1.08, 1, 1.12, 1),
    "window of the clock, stamps": World(
        lambda: Window(100, 3, "stamp", aligned=True, policy=False, phase=1.3), 300, 1.35, 1, 1.45, 1, ideal=4.7
    ),
    "long window, stamps": World(lambda: Window(100, 30, "stamp", policy=False), 300, 1.08, 1, 1.12, 1),
    "window, rounded down": World(lambda: Window(100, 3, "down", policy=False), 300, 1.25, 3, 1.35, 5),
    "window that names only waits": World(lambda: Window(100, 3, "wait"), 300, 1.25, 10, 1.35, 12),
    "moving window": World(lambda: Moving(100, 3), 300, 1.08, 1, 1.15, 2),
    "moving window, whole seconds": World(lambda: Moving(100, 3, "up", policy=False), 300, 1.25, 3, 1.35, 4),
    "moving window, stamps": World(lambda: Moving(100, 3, "stamp", policy=False), 300, 1.08, 1, 1.15, 3),
    "moving window, late stamps": World(lambda: Moving(100, 3, "late stamp", policy=False), 300, 1.08, 1, 1.15, 3),
    "moving window of a second, stamps": World(
        lambda: Moving(100, 1, "stamp", policy=False), 500, 1.08, 1, 1.2, 3
    ),
    "rejections that count": World(lambda: Counting(100, 3), 300, 1.25, 15, 1.6, 18),
    "rejections that count, shorter": World(lambda: Counting(100, 2), 300, 1.25, 15, 1.5, 18),
    "queue": World(lambda: Queue(40, 20), 240, 1.2, 4, 1.3, 6),
    "bucket, two clients": World(lambda: Bucket(33.3, 100), 300, 1.2, 20, 1.7, 25, clients=2),
    "bucket without a burst, two clients": World(lambda: Bucket(40, 0), 241, 1.5, 12, 4.2, 21, clients=2),
    "window, two clients": World(lambda: Window(100, 3), 300, 1.2, 20, 1.3, 25, clients=2),
    "moving window, two clients": World(lambda: Moving(100, 3), 300, 1.2, 20, 1.7, 25, clients=2),
    "bucket halved": World(lambda: Bucket(40, 20), 201, 1.1, 13, 1.25, 20, change=halve, ideal=6.0),
    "window halved": World(lambda: Window(100, 2), 300, 1.1, 2, 1.2, 4, change=halve, ideal=6.0),
    "moving window halved": World(lambda: Moving(100, 2), 300, 1.25, 3, 1.3, 5, change=halve, ideal=6.0),
}


def run(world: World, seed: int) -> tuple[float, float, int]:
    """One game: seconds over the ideal, refused in %, lost."""
    rng = Random(seed)
    server = world.make()
    share = world.items // world.clients
    clients = [
        Client(Learner(Random(f"{seed} {number}").random), share, tasks=200 // world.clients)
        for number in range(world.clients)
    ]
    network = Network(delay=rng.choice([0.0005, 0.001, 0.002, 0.005, 0.01]), rng=rng)
    changes = {} if world.change is None else {3.0: lambda: world.change(server)}  # type: ignore[misc]
    played = play(server, clients, network, changes=changes, until=60.0 + 2 * server.ideal(world.items))
    ideal = server.ideal(world.items) if world.ideal is None else world.ideal
    return played.seconds / ideal, 100 * played.refused / world.items, played.lost


@pytest.mark.jitter
@pytest.mark.parametrize("name", WORLDS)
def test_it_comes_close_to_the_ideal(name: str) -> None:
    world = WORLDS[name]
    games = [run(world, seed) for seed in range(SEEDS)]
    walls, refused, lost = zip(*games, strict=True)
    told = (
        f"{name}: {statistics.median(walls):.3f} (worst {max(walls):.3f}), {statistics.median(refused):.1f} % refused "
    )
    told += f"(worst {max(refused):.1f}), {sum(lost)} lost"
    print(told)
    assert sum(lost) == 0, told
    assert statistics.median(walls) <= world.wall, told
    assert statistics.median(refused) <= world.refused, told
    assert max(walls) <= world.worst_wall, told
    assert max(refused) <= world.worst_refused, told


@pytest.mark.jitter
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        *(("moving window, stamps", seed) for seed in (30, 33, 191, 333)),
        *(("moving window, late stamps", seed) for seed in (229, 329)),
    ],
)
def test_a_moving_window_is_seen_through_a_slow_network(name: str, seed: int) -> None:
    """What has come back there is not quite what has come back by our own count, because answers take their time."""
    wall, refused, lost = run(WORLDS[name], seed)
    assert (wall < 1.1, refused, lost) == (True, 0, 0)
