"""Every figure of the in-memory limiters and the retry driver, side by side with the peers, in one run.

    python benchmarks/bench.py                      every row; writes results.json and RESULTS.md beside this file
    python benchmarks/bench.py --only acquire       the rows whose names begin so; prints only (may be given often)
    python benchmarks/bench.py --list               the names

Numbers are medians of rounds that take turns on this machine. Wall time depends on the machine; the ratios, against the
first line of each row, are what to read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import measure
import no_wait  # each of these declares its rows
import peers
import sending
import waiting
from measure import ROWS, Measured, Row

HERE = Path(__file__).parent
assert no_wait
assert sending
assert waiting


def facts() -> dict[str, Any]:
    """Machine, versions and date."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "cpu": _cpu_model(),
        "load": round(os.getloadavg()[0], 1),
        "event loop": type(asyncio.new_event_loop()).__name__,
        "empty coroutine ns": round(measure.pace() * measure.REFERENCE, 1),
        "versions": {name: version(name) for name in ("throttle-async", "httpx", "anyio")} | peers.versions(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def lines_of(row: Row, measured: Measured) -> list[list[str]]:
    """The lines of one row: what, who, measured, ratio, to reach, reached."""
    verdicts = {reach.who: reach.verdict(measured) for reach in row.reaches}
    first = next(iter(measured.values()))
    lines = []
    for number, (who, value) in enumerate(measured.items()):
        to_reach, reached = verdicts.get(who) or ("", None)
        mark = "" if reached is None else "yes" if reached else "**no**"
        ratio = f"{value / first:.2f}" if first else ""
        lines.append(["" if number else row.title, who, f"{_number(value)} {row.unit}", ratio, to_reach, mark])
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(results: dict[str, Measured]) -> str:
    """The results as a Markdown table, its columns aligned."""
    lines = [["what", "who", "measured", "ratio", "to reach", "reached"]]
    for name, measured in results.items():
        lines += lines_of(ROWS[name], measured)
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def as_json(told: dict[str, Any], results: dict[str, Measured]) -> str:
    """The same for machines."""
    rows: dict[str, Any] = {}
    for name, measured in results.items():
        row = ROWS[name]
        verdicts = [(reach.who, reach.verdict(measured)) for reach in row.reaches]
        reaches = [{"who": who, "to reach": v[0], "reached": v[1]} for who, v in verdicts if v]
        rows[name] = {"title": row.title, "unit": row.unit, "measured": measured, "reaches": reaches}
    return json.dumps({**told, "rows": rows}, indent=1) + "\n"


def as_markdown(told: dict[str, Any], results: dict[str, Measured]) -> str:
    """RESULTS.md."""
    libraries = ", ".join(f"{name} {found}" for name, found in told["versions"].items())
    return (
        f"# Results\n\n{told['date']}, {told['python']} ({told['event loop']}), {told['machine']}, {told['cpu']}, "
        f"load {told['load']}; an "
        f"empty coroutine takes {told['empty coroutine ns']} ns here.\n\n{libraries}.\n\n"
        "Made by `make bench`: medians of rounds that take turns. The ratio is against the first line of each row. "
        f"Times to reach are those of a machine whose empty coroutine takes {measure.REFERENCE:.0f} ns, stretched by "
        f"the row's own empty coroutine, or by the one above where it has none.\n\n{table(results)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="rows whose names begin so")
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{row.name:20} {row.title}" for row in ROWS.values()))
        return
    names = [name for name in ROWS if not options.only or name.startswith(tuple(options.only))]
    if not names:
        parser.error(f"no row begins with {options.only}; there are {', '.join(ROWS)}")
    logging.disable()  # peers log every retry
    told, results = facts(), dict[str, Measured]()
    for name in names:
        start = time.perf_counter()
        results[name] = ROWS[name].measure()
        print(f"... {name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    print(table(results))
    whole = not options.only
    json_file = options.json or (HERE / "results.json" if whole else None)
    markdown_file = options.markdown or (HERE / "RESULTS.md" if whole else None)
    if json_file:
        json_file.write_text(as_json(told, results), encoding="utf-8")
    if markdown_file:
        markdown_file.write_text(as_markdown(told, results), encoding="utf-8")


if __name__ == "__main__":
    main()
