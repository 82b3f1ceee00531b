"""One game of the learner in each of some worlds, as a picture: `python tests/learner_picture.py build/learner.png`.

The bars are what was sent in each moment, in a colour for each client, and what was refused of it, in red; the lines
are the pace that was learned. The dotted line is what the server lets through on average.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from simulated import Client, Network, play
from test_learner import WORLDS, World

from throttle.adaptive import Learner

SHOWN = (
    "bucket", "bucket without a burst", "one a second", "rejections that count", "moving window, stamps",
    "window of the clock, stamps", "bucket halved", "bucket, two clients", "bucket without a burst, two clients",
)  # fmt: skip
SEED = 7


def game(world: World) -> tuple[list[Client], float, float]:
    """The clients after one game, how long it took, and the least it could take."""
    server, share = world.make(), world.items // world.clients
    tasks, learners = 200 // world.clients, [Learner(Random(number).random) for number in range(world.clients)]
    clients = [Client(learner, share, tasks=tasks) for learner in learners]
    changes = {} if world.change is None else {3.0: lambda: world.change(server)}  # type: ignore[misc]
    played = play(server, clients, Network(delay=0.002, rng=Random(SEED)), changes=changes)
    return clients, played.seconds, server.ideal(world.items) if world.ideal is None else world.ideal


def panel(axes: Any, name: str) -> None:
    """One world."""
    clients, seconds, ideal = game(WORLDS[name])
    width = max(0.25, seconds / 60)
    moments = [number * width for number in range(int(seconds / width) + 1)]

    def counted(times: list[float]) -> list[float]:
        """How many a second."""
        return [sum(moment <= at < moment + width for at in times) / width for moment in moments]

    top = [0.0] * len(moments)
    for number, client in enumerate(clients):
        sent = counted(client.sends)
        axes.bar(moments, sent, width * 0.9, bottom=top, align="edge", color=f"C{number}", alpha=0.5)
        top = [low + more for low, more in zip(top, sent, strict=True)]
        paced = [(at, rate) for at, rate in client.rates if rate]
        if paced:
            axes.plot(*zip(*paced, strict=True), color=f"C{number}", linewidth=1)
    refused = counted([at for client in clients for at in client.refusals])
    axes.bar(moments, refused, width * 0.9, align="edge", color="red")
    axes.axhline(WORLDS[name].items / ideal, color="black", linewidth=0.5, linestyle=":")
    axes.set(xlim=(0, seconds), ylim=(0, 1.6 * sorted(top)[-1 - len(top) // 20]), xlabel="seconds", ylabel="a second")
    waste = 100 * sum(client.refused for client in clients) / WORLDS[name].items
    axes.set_title(f"{name}: {seconds / ideal:.2f} of the ideal time, {waste:.0f} % refused", fontsize=8)


def main(path: Path, shown: tuple[str, ...] = SHOWN) -> None:
    """Draw three worlds in a row."""
    rows = len(shown) // 3
    figure = import_module("matplotlib.figure").Figure(figsize=(15, 3 * rows), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(rows, 3).flat, shown, strict=True):
        panel(axes, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"the picture: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/learner.png"))
