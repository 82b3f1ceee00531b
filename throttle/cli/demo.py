"""`throttle demo`: a real rate-limited server, scraped through the library, with a summary and a picture."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import Rate, Retry, Throttle, ThrottleError
from ..events import Event, Paused
from ..rates import exact
from .picture import check_writable, draw_file, draw_terminal

__all__ = ["run_demo", "serving"]


@contextmanager
def serving(limit: Rate, items: int) -> Generator[str]:
    """The demo's server in a process of its own, ended when the block ends; its address. Raises `ClickException`."""
    permits, per = exact(limit.permits), exact(limit.per)
    if not isinstance(permits, int) or not isinstance(per, int):
        raise click.ClickException(f"the server counts whole requests in whole seconds, not {spelled(limit)}")
    command = [sys.executable, "-P", "-m", "throttle.cli.server", "--limit", f"{permits} per {per} second"]
    with subprocess.Popen(
        [*command, "--items", str(items)],
        stdin=subprocess.PIPE,  # closes when this process ends, however it ends, and then the server ends too
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,  # no .env of the user's is read
        start_new_session=True,  # Ctrl-C is for us
    ) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            if not port:
                raise click.ClickException("the demo's server did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the scrape gave, and what the server saw of it: when each request came that it granted or refused."""

    items: int
    seconds: float
    granted: list[float]
    refused: list[float]
    learned: Rate | None = None  # the limit that the client has found out, if it was not told one

    def ideal(self, limit: Rate) -> float:
        """The least seconds in which so many requests can be granted: the first window's worth at once, and so on."""
        return (math.ceil(len(self.granted) / limit.permits) - 1) * limit.per


async def scrape(address: str, api: Throttle, step: Callable[[], None], *, learns: bool = False) -> tuple[int, float]:
    """Every item of every page, through `api`; how many, and how many seconds it took."""
    started = time.monotonic()
    plain = httpx.AsyncClient(base_url=address, trust_env=False)
    async with api.wrap(plain) if learns else plain as client:  # so that it hears what each answer says is left

        @api
        async def get(path: str) -> dict[str, Any]:
            return (await client.get(path)).raise_for_status().json()  # type: ignore[no-any-return]

        async def items() -> AsyncIterator[str]:
            page: str | None = "/items"
            while page is not None:
                listed = await get(page)
                for number in listed["items"]:
                    yield f"/items/{number}"
                page = listed["next"]

        found = 0
        async with api.map(get, items()) as results:
            async for path, item in results:
                found += path.endswith(f"/{item['id']}")
                step()
    return found, time.monotonic() - started


async def seen(address: str) -> tuple[list[float], list[float]]:
    """When the server granted and when it refused a request, in seconds from the first."""
    async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
        requests = sorted((await client.get("/stats")).json())
    first = requests[0][0]
    answers = [(came - first, status) for came, status in requests]
    return [came for came, status in answers if status < 400], [came for came, status in answers if status >= 400]


async def watched(address: str, rate: Rate | None, items: int, concurrency: int, console: Console) -> Outcome:
    """The scrape under a live progress bar, and what the server says of it."""
    columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        bar = progress.add_task("scraping", total=items, note="")

        def note(event: Event) -> None:
            if isinstance(event, Paused):
                progress.update(bar, note=f"paused for {event.seconds:.1f} s")

        retry = Retry(on=httpx.HTTPError, attempts=10)
        api = Throttle(rate, retry=retry, concurrency=concurrency, on_event=note)
        learns = rate is None
        found, seconds = await scrape(address, api, lambda: progress.update(bar, advance=1, note=""), learns=learns)
    learned = api.statistics()[""].learned if learns else None
    return Outcome(found, seconds, *await seen(address), learned)


def summary(outcome: Outcome, limit: Rate) -> Table:
    """The numbers, as the server counted them."""
    table = Table.grid(padding=(0, 2))
    ideal = outcome.ideal(limit)
    share = f", {outcome.seconds / ideal:.2f} times the ideal of {ideal:.1f} s" if ideal else ""
    requests = len(outcome.granted) + len(outcome.refused)
    table.add_row("items", str(outcome.items))
    table.add_row("requests", f"{requests}, counted by the server")
    table.add_row("rejections", f"{len(outcome.refused)}, counted by the server")
    table.add_row("time", f"{outcome.seconds:.1f} s{share}")
    if outcome.learned is not None:
        table.add_row("learned", f"a limit of {spelled(outcome.learned)}")
    return table


def run_demo(*, items: int, limit: Rate, rate: Rate | None, concurrency: int, plot: Path | None) -> int:
    """The whole demo; the exit status."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    pace = "at a limit to be found out" if rate is None else f"at {spelled(rate)}"
    if plot is not None:
        check_writable(plot)  # now, not after half a minute
    try:
        with serving(limit, items) as address:
            console.print(f"a server at {address} admits {spelled(limit)}\nscraping {items} items {pace}")
            outcome = asyncio.run(watched(address, rate, items, concurrency, console))
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except (httpx.HTTPError, ThrottleError) as error:
        raise click.ClickException(f"the scrape ended early: {type(error).__name__}: {error}") from error
    out = Console(highlight=False, soft_wrap=True)
    out.print(summary(outcome, limit))
    moments = (outcome.granted, outcome.refused, int(limit.permits), limit.per)
    out.print(draw_terminal(*moments, out.width))
    if plot is not None:
        draw_file(plot, *moments, f"{len(outcome.granted)} requests {pace}")
        out.print(f"the picture is in {plot}")
    return 0


def spelled(rate: Rate) -> str:
    """A rate in words: `20 in 1 s`."""
    return f"{rate.permits:.3g} in {rate.per:.3g} s"
