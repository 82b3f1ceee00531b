"""`throttle probe`: what limits a server announces, read by the library's own ears."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..hints import Hints, read_hints
from ..listening import leaves_of

__all__ = ["reason", "run_probe", "with_agent", "without_secrets"]

MOST = 65536  # bytes of the body that are looked at


def with_agent(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a request: those given, and who asks, unless they say so themselves."""
    named = any(name.lower() == "user-agent" for name, _ in headers)
    return headers if named else [("User-Agent", f"throttle/{__version__}"), *headers]


def without_secrets(url: str) -> str:
    """A URL as others may see it: without user, password and what its query says, but for numbers.

    >>> without_secrets("https://me:secret@api.example.com/items?page=3&token=abc")
    'https://api.example.com/items?page=3&token=…'
    """
    url = re.sub(r"(^|//)[^/]*@", r"\1", url)
    place, mark, query = url.partition("#")[0].partition("?")
    return place + mark + "&".join(map(_without_value, query.split("&")))


def _without_value(field: str) -> str:
    name, sign, value = field.partition("=")
    if not sign:
        return name and "…"
    return field if value.isdigit() and len(value) < 10 else f"{name}=…"


def reason(error: BaseException) -> str:
    """What went wrong, in one line.

    >>> reason(ExceptionGroup("several", [OSError("first"), OSError("second")]))
    'OSError: first'
    """
    leaves = leaves_of(error)
    return reason(leaves[0]) if leaves else " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")


async def ask(url: str, timeout: float, headers: list[tuple[str, str]]) -> tuple[httpx.Response, Hints]:
    """One GET, redirects followed, and what the answer says about limits."""
    async with (
        httpx.AsyncClient(headers=with_agent(headers), timeout=timeout, follow_redirects=True) as client,
        client.stream("GET", url) as response,
    ):
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MOST:
                break
        return response, read_hints(response.status_code, response.headers, host=response.url.host, body=body[:MOST])


def told(value: Any, unit: str = "") -> str:
    """A number as it was told, a dash for what was not."""
    return "–" if value is None else f"{value:g}{unit}" if isinstance(value, float | int) else str(value)


def run_probe(url: str, *, timeout: float, headers: list[tuple[str, str]], as_json: bool) -> int:
    """Ask and show; the exit status."""
    try:
        response, hints = asyncio.run(ask(url, timeout, headers))
    except Exception as error:  # whatever a URL and its server can do is one line
        raise click.ClickException(f"{without_secrets(url)}: {reason(error)}") from error
    if as_json:
        click.echo(json.dumps({"url": str(response.url), "status": response.status_code, **asdict(hints)}))
        return 0
    console = Console(soft_wrap=True, markup=False)  # a server's words are words
    facts = Table.grid(padding=(0, 2))
    facts.add_row("status", f"{response.status_code} {response.reason_phrase}")
    facts.add_row("refused", "yes, for a limit" if hints.refused else "no")
    facts.add_row("retry after", told(hints.retry_after, " s"))
    facts.add_row(
        "next request", "not told" if hints.wait is None else f"in {hints.wait:g} s" if hints.wait else "at once"
    )
    console.print(facts, highlight=False)
    if not hints.quotas:
        console.print("no limits announced", highlight=False)
        return 0
    table = Table("limit of", "permits", "left", "full in", "window", box=None, padding=(0, 2, 0, 0))
    for quota in hints.quotas:
        limits = told(quota.limit), told(quota.remaining), told(quota.reset_after, " s"), told(quota.window, " s")
        table.add_row(told(quota.name), *limits)
    console.print(table, highlight=False)
    return 0
