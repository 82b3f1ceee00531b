"""`throttle counter`: what a shared counter keeps, read and reset by its own verbs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console
from rich.table import Table

from ..counters import Entry, SQLiteCounter
from ..errors import CounterUnavailable

__all__ = ["run_list", "run_reset", "run_show", "store_of"]

T = TypeVar("T")


class Store(Protocol):
    """What the commands ask of a shared counter."""

    async def entries(self, name: str | None = None) -> list[Entry]:
        """What is kept under `name` (None: under any), by name and key."""
        ...

    async def clear(self, name: str, key: str | None = None) -> int:
        """Everything under `name`, or of one `key` of it, as new; how many entries that were."""
        ...

    async def aclose(self) -> None:
        """Let go of the store."""
        ...


def store_of(sqlite: Path | None, redis: str | None, prefix: str) -> Store:
    """The counter that the options name."""
    if (sqlite is None) == (redis is None):
        raise click.UsageError("which counter? give --sqlite PATH or --redis URL")
    if sqlite is not None:
        return SQLiteCounter(sqlite)
    from ..counters.redis import RedisCounter

    try:
        return RedisCounter(redis, prefix=prefix)
    except ImportError as error:
        raise click.ClickException("--redis needs the redis package: pip install 'throttle-async[redis]'") from error
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--redis") from error


def asked(store: Store, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` answers; then the store is let go of."""

    async def main() -> T:
        try:
            return await work()
        finally:
            await store.aclose()

    try:
        return asyncio.run(main())
    except CounterUnavailable as error:
        raise click.ClickException(str(error)) from error


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> [duration(seconds) for seconds in (0, 0.25, 59.96, 3599.9, 90000)]
    ['–', '0.25 s', '60 s', '1 h', '1 day 1 h']
    """
    if seconds <= 0:
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    left, parts = round(seconds), list[str]()
    for unit, size in (("day", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count and len(parts) < 2:
            parts.append(f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}")
    return " ".join(parts)


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; what does not fit is folded, never cut."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False, markup=False)


def printable(text: str) -> str:
    """A name or key on one line, nothing in it that a terminal would obey."""
    return text if text.isprintable() else json.dumps(text)


def run_list(store: Store, *, as_json: bool) -> int:
    """Show every name; the exit status."""
    entries = asked(store, store.entries)
    rows: list[dict[str, Any]] = []
    for (name, kind), group in groupby(sorted(entries, key=_place), lambda entry: (entry.name, entry.kind)):
        each = list(group)
        limits = sorted({entry.limit for entry in each})
        paused = sum(entry.paused_for > 0 for entry in each)
        rows.append({"name": name, "kind": kind, "limits": limits, "keys": len(each), "paused": paused})
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        click.echo("no limit is in use")
    else:
        show_table(
            ("name", "kind", "limit", "keys", "paused"),
            (
                (printable(row["name"]), row["kind"], "; ".join(row["limits"]), str(row["keys"]), str(row["paused"]))
                for row in rows
            ),
        )
    return 0


def _place(entry: Entry) -> tuple[str, str, str]:
    return entry.name, entry.kind, entry.key


def run_show(store: Store, name: str, *, as_json: bool) -> int:
    """Show every key of `name`; the exit status."""
    entries = asked(store, lambda: store.entries(name))
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries]))
    elif not entries:
        click.echo(f"nothing is in use of {printable(name)}: all as new")
    else:
        show_table(
            ("key", "limit", "left", "as new in", "paused for"),
            (
                (
                    printable(entry.key) or "–",
                    entry.limit,
                    f"{entry.remaining:.10g}",
                    duration(entry.reset_after),
                    duration(entry.paused_for),
                )
                for entry in entries
            ),
        )
    return 0


def run_reset(store: Store, name: str, key: str | None, *, sure: bool) -> int:
    """Forget what was used of `name`; the exit status."""
    what = f"{printable(name)}{'' if key is None else f', key {printable(key)}'}"
    if not sure:
        click.confirm(f"Forget what was used of {what}?", abort=True, err=True)
    count = asked(store, lambda: store.clear(name, key))
    click.echo(f"{what}: {count} reset" if count else f"{what}: nothing was in use")
    return 0
