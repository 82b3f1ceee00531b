"""Real rate-limited servers, and clients with many tasks that meet them: how much longer than possible, how much waste.

    python benchmarks/goodput.py [--only WORD] [--client WORD] [--tasks 200,50] [--json FILE] [--markdown FILE]

L = 100 requests are let through at once or in the first window, M = 3 L are to be fetched, a perfect client needs 6 s.
wall/ideal is the time until the last item is done over those 6 s; refused is what the server counted, in % of M. CPU is
the client's, per 600 items; lag is the longest time by which its event loop was late. Each client is a process of its
own, each run has a fresh server. Servers that cannot be started here are named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from goodput_servers import IDEAL, ITEMS, Kind, kinds, nginx, process, program

LONGEST = 30.0  # seconds: five times the ideal; what is not done then is lost
HALVED = 2.5  # seconds until the limit is halved
GIVEN, UNKNOWN = "throttle, limit given", "throttle, limit unknown"
PEERS = ["tenacity", "stamina, Retry-After", "httpx-retries", "aiolimiter + stamina", "pyrate-limiter + tenacity"]
CLIENTS = [GIVEN, UNKNOWN, *PEERS]
PACKAGES = ["httpx", "tenacity", "stamina", "httpx-retries", "aiolimiter", "pyrate-limiter", "flask-limiter", "slowapi"]

Row = dict[str, Any]


def measure(kind: Kind, client: str, *, tasks: int, processes: int, halved: bool) -> Row:
    """One run: a fresh server, and so many client processes that share tasks and items."""
    items = (kind.halves or 0) if halved else ITEMS
    with kind.start() as server, ExitStack() as stack:  # type: ignore[attr-defined]
        options = {
            "client": client, "ours": kind.ours, "rate": kind.rate, "url": server.url, "longest": LONGEST,
            "items": items // processes, "tasks": tasks // processes,
        }  # fmt: skip
        program = Path(__file__).with_name("goodput_clients.py")
        errors = {"stderr": subprocess.DEVNULL}
        command = [sys.executable, program, json.dumps(options)]
        runs = [stack.enter_context(process(*command, **errors)) for _ in range(processes)]
        for run in runs:
            if run.stdout.readline() != "ready\n":  # type: ignore[union-attr]
                raise SystemExit(f"{client} did not start: python {program} '{json.dumps(options)}'")
        for run in runs:
            run.stdin.write("go\n")  # type: ignore[union-attr]
            run.stdin.flush()  # type: ignore[union-attr]
        if halved:
            time.sleep(HALVED)
            server.halve()
        told = [json.loads(run.communicate(timeout=LONGEST + 30)[0]) for run in runs]
        time.sleep(0.05)  # the last line of a log
        through, refused = server.counts()
    lost = sum(one["lost"] for one in told)
    wall = max(one["wall"] for one in told)
    return {
        "ratio": None if lost and wall > LONGEST - 1 else round(wall / IDEAL, 3),
        "refused": round(100 * refused / items, 1), "lost": lost, "through": through,
        "cpu": round(sum(one["cpu"] for one in told) * 600 / items, 2),
        "lag": round(max(one["lag"] for one in told) * 1000),
    }  # fmt: skip


def plan(tasks: list[int]) -> list[tuple[int, int, bool]]:
    """Which runs: tasks, processes, whether the limit is halved."""
    most = max(tasks)
    return [*((number, 1, False) for number in tasks), (most, 2, False), (most, 1, True)]


def title(tasks: int, processes: int, halved: bool) -> str:
    return f"{tasks} tasks" + (f", {processes} processes" * (processes > 1)) + ", limit halved midway" * halved


def cell(row: Row) -> str:
    """wall/ideal, refused, and what was lost."""
    ratio = "over 5" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return f"{ratio}, {row['refused']:.0f} %" + (f", {row['lost']} lost" if row["lost"] else "")


def grid(servers: dict[str, dict[str, Row]], show: Callable[[Row], str]) -> list[str]:
    """A Markdown table: a line for each server, a column for each client."""
    clients = [client for client in CLIENTS if any(client in rows for rows in servers.values())]
    lines = [f"| server | {' | '.join(clients)} |", "|---" * (len(clients) + 1) + "|"]
    for server, rows in servers.items():
        cells = [show(rows[client]) if client in rows else "" for client in clients]
        lines.append(f"| {server} | {' | '.join(cells)} |")
    return lines


def table(results: dict[str, dict[str, dict[str, Row]]]) -> str:
    """For each scene what came of it, and what it cost the clients."""
    lines: list[str] = []
    for scene, servers in results.items():
        lines += ["", f"## {scene}", "", "wall/ideal, refused in % of all items:", "", *grid(servers, cell)]
        lines += ["", "client CPU in seconds per 600 items, longest loop lag in ms:", ""]
        lines += grid(servers, lambda row: f"{row['cpu']:.2f}, {row['lag']}")
    return "\n".join(lines)


def floor() -> str:
    """What httpx costs by itself."""
    if not program("nginx"):
        return ""
    kind = Kind("none", partial(nginx, 100_000, "burst=10000 nodelay"))
    row = measure(kind, "httpx alone", tasks=1, processes=1, halved=False)
    return f"- CPU: httpx alone, one task and one request every 20 ms, needs {row['cpu']:.2f} s for 600 items here.\n"


def trust() -> str:
    """How far to trust the figures."""
    return (
        "How far to trust this:\n\n"
        f"- One run a cell, no repeats. Load average of the last 15 minutes: {os.getloadavg()[2]:.1f}, on "
        f"{os.cpu_count()} cores that the clients share with the servers.\n"
        f"{floor()}"
        "- HAProxy, limit given: throttle has a pace chosen for that kind of count (49/s, burst 2), the peers have\n"
        "  the limit as announced (100 in 2 s). Elsewhere both have the same limit.\n"
        "- The peers meet one server of each kind, in the first scene only.\n"
    )


def head(missing: dict[str, str]) -> str:
    """Where and when."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    for name, flag in (("nginx", "-v"), ("haproxy", "-v"), ("node", "--version")):
        if path := program(name):
            said = subprocess.run([path, flag], capture_output=True, text=True, check=False)
            found.append(f"{name} {(said.stdout + said.stderr).split(chr(10))[0].removeprefix('nginx version: ')}")
    skipped = "; ".join(f"{server} (needs {what})" for server, what in missing.items()) or "none"
    lines = (__doc__ or "").split("\n\n")
    return "\n".join(
        [
            "# Goodput beside the peers", "", "By `make bench-goodput`. " + lines[2].strip().replace("\n", " "), "",
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {platform.system()}; {'; '.join(found)}.", "",
            f"Skipped: {skipped}.", "", trust().rstrip(),
        ]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", default="", help="servers with this in their name; several with | between them")
    parser.add_argument("--client", action="append", help="clients with this in their name")
    parser.add_argument("--tasks", default="200,50")
    parser.add_argument("--scene", help="only the scene with this title")
    parser.add_argument("--peers-everywhere", action="store_true", help="peers before every server in every scene")
    parser.add_argument("--json", type=Path, help="results are added to those that are there")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    chosen = {name: kind for name, kind in kinds().items() if any(word in name for word in options.only.split("|"))}
    missing = {name: kind.needs for name, kind in chosen.items() if kind.needs}
    for name, what in missing.items():
        print(f"skipped: {name} (needs {what})", flush=True)
    results: dict[str, dict[str, dict[str, Row]]] = {}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    for number, (tasks, processes, halved) in enumerate(plan([int(one) for one in options.tasks.split(",")])):
        scene = title(tasks, processes, halved)
        if options.scene and options.scene != scene:
            continue
        met: set[str] = set()  # kinds of servers that the peers have met
        for name, kind in chosen.items():
            if name in missing or (halved and kind.halves is None):
                continue
            peers = options.peers_everywhere or (number == 0 and kind.group not in met)
            clients = CLIENTS if peers else [GIVEN, UNKNOWN]
            met.add(kind.group)
            for client in clients:
                if options.client and not any(word in client for word in options.client):
                    continue
                row = measure(kind, client, tasks=tasks, processes=processes, halved=halved)
                results.setdefault(scene, {}).setdefault(name, {})[client] = row
                costs = f"CPU {row['cpu']} s, lag {row['lag']} ms, let through {row['through']}"
                print(f"{scene}: {name}: {client}: {cell(row)} ({costs})", flush=True)
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    if options.markdown:
        options.markdown.write_text(f"{head(missing)}\n{table(results)}\n")


if __name__ == "__main__":
    main()
