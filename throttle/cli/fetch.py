"""`throttle fetch`: a polite downloader that never loses what it has done."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .. import AllOf, Rate, Retry, RetryAfterTooLong, SlidingWindow, Throttle, ThrottleTransport
from ..events import Event, Paused, Refused
from .probe import reason, with_agent, without_secrets
from .results import Results

__all__ = ["Options", "run_fetch"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    urls: tuple[str, ...]
    source: str | None
    out: str
    rate: Rate | None
    per_host: Rate | None
    concurrency: int
    attempts: int
    max_retry_after: float
    max_time: float
    max_size: int
    timeout: float
    headers: list[tuple[str, str]]


class TooLarge(Exception):
    """A body above `--max-size`."""


class TooSlow(Exception):
    """A body that does not end within `--max-time`."""


def limiter_for(options: Options) -> AllOf | None:
    """All requests under one limit, each host under its own, or both; None hears what servers say."""
    try:
        whole = [] if options.rate is None else [SlidingWindow(options.rate, hold=True)["all"]]
        each = [] if options.per_host is None else [SlidingWindow(options.per_host, hold=True)]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return AllOf(*whole, *each) if whole or each else None


def client_for(options: Options, watch: Callable[[Event], None]) -> httpx.AsyncClient:
    """A client whose every request, redirects too, waits its turn; it keeps the proxies of the environment. Raises
    `ClickException`."""
    try:
        client = httpx.AsyncClient(
            headers=with_agent(options.headers),
            timeout=httpx.Timeout(options.timeout, pool=None),
            limits=httpx.Limits(max_connections=options.concurrency),  # bodies count as requests under way, too
            follow_redirects=True,
        )
    except Exception as error:  # a proxy or a file of certificates in the environment that is none
        raise click.ClickException(reason(error)) from error
    retry = Retry.for_http(attempts=options.attempts, max_retry_after=options.max_retry_after)
    limiter = limiter_for(options)
    ThrottleTransport.wrap(client, limiter=limiter, retry=retry, concurrency=options.concurrency, on_event=watch)
    return client


async def download(client: httpx.AsyncClient, url: str, options: Options) -> dict[str, Any]:
    """The record of one URL: what it gave, or its error; never an exception for anything that a URL can do."""
    started = time.monotonic()
    record: dict[str, Any] = {"url": url}
    try:
        async with client.stream("GET", url) as response:
            record["status"] = response.status_code
            if response.is_error:
                record["error"] = f"{response.status_code} {response.reason_phrase}".strip()
            else:
                record |= described(response, await body_of(response, options))
    except RetryAfterTooLong as error:
        record["error"] = f"the server asks to wait {error.retry_after:.6g} s; see --max-retry-after"
    except Exception as error:  # one broken URL, of whatever kind, is one line
        record["error"] = reason(error)
    return record | {
        "seconds": round(time.monotonic() - started, 3),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


async def body_of(response: httpx.Response, options: Options) -> bytes:
    """The body, if it is not too large and does not take too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(options.max_time):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > options.max_size * 2**20:
                    raise TooLarge(f"more than {options.max_size} MiB; see --max-size")
    except TimeoutError:
        raise TooSlow(f"more than {options.max_time:g} s; see --max-time") from None
    return bytes(body)


def described(response: httpx.Response, body: bytes) -> dict[str, Any]:
    """Type and body: `text` where the response's charset (UTF-8 if it names none) reads it, else `base64`."""
    facts: dict[str, Any] = {"type": response.headers.get("content-type", "")}
    if response.history:
        facts["final_url"] = str(response.url)
    try:
        return facts | {"text": body.decode(response.charset_encoding or "utf-8")}
    except (UnicodeDecodeError, LookupError):
        return facts | {"base64": base64.b64encode(body).decode()}


# ── where URLs come from ──────────────────────────────────────────────────────────────────────────────────────────────


async def chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What comes in at a descriptor; a pipe or a terminal is waited for, and stops nobody meanwhile."""
    import anyio

    kind = os.fstat(descriptor).st_mode
    waits = (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(descriptor)) and sys.platform != "win32"
    while True:
        if waits:
            await anyio.wait_readable(descriptor)
        data = os.read(descriptor, 65536)
        if not data:
            return
        yield data


async def lines(descriptor: int) -> AsyncIterator[str]:
    """Lines as they come, without their ends."""
    rest = b""
    async for data in chunks(descriptor):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    yield rest.decode(errors="replace")


async def urls(options: Options, descriptor: int | None, skip: set[str], tally: Counter[str]) -> AsyncIterator[str]:
    """Every URL once: arguments, then the file; not those in `skip`, no blank lines and comments."""

    async def candidates() -> AsyncIterator[str]:
        for url in options.urls:
            if url != "-":
                yield url
        if descriptor is not None:
            async for line in lines(descriptor):
                yield line

    met: set[str] = set()
    async for candidate in candidates():
        url = candidate.strip("\ufeff \t\r\n")
        if not url or url.startswith("#") or url in met:
            continue
        met.add(url)
        if url in skip:
            tally["there already"] += 1
            continue
        tally["urls"] += 1
        yield url


@contextmanager
def source(options: Options) -> Generator[int | None]:
    """The descriptor that URLs are read from besides the arguments. Raises `ClickException`."""
    if options.source == "-" or (options.source is None and "-" in options.urls):
        if sys.stdin is None:  # as `<&-` leaves it
            raise click.ClickException("cannot read standard input: it is closed")
        yield sys.stdin.fileno()
    elif options.source is None:
        yield None
    else:
        try:
            file = Path(options.source).open("rb", buffering=0)  # noqa: SIM115  # two lines down
        except OSError as error:
            raise click.ClickException(f"cannot read {options.source}: {error.strerror}") from error
        with file:
            yield file.fileno()


# ── the job ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Watch:
    """The progress bar and the counts; on standard error, live on a terminal only."""

    def __init__(self, tally: Counter[str]) -> None:
        self.console: Console = Console(stderr=True, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        note = TextColumn("{task.fields[note]}", markup=False)  # [fe80::1] is a host
        self.progress: Progress = Progress(*columns, note, console=self.console)
        self.tally: Counter[str] = tally
        self.bar: TaskID = self.progress.add_task("fetching", total=None, note="")

    def live(self, results: Results) -> AbstractContextManager[object]:
        """The bar, as long as the block lasts; not where the results scroll by."""
        return self.progress if self.console.is_terminal and not results.on_terminal() else nullcontext()

    def event(self, event: Event) -> None:
        """A hook for `on_event`."""
        if isinstance(event, Refused):
            self.tally["refused"] += 1
        elif isinstance(event, Paused):
            self.progress.update(self.bar, note=f"{event.key} paused for {event.seconds:.1f} s")

    def begun(self) -> None:
        """One more URL was read: the bar knows how many there are."""
        self.progress.update(self.bar, total=self.tally["urls"])

    def done(self, record: dict[str, Any]) -> None:
        """Count one record; a failure is told at once."""
        failed = "error" in record
        self.tally["failed" if failed else "fetched"] += 1
        if failed:
            url = without_secrets(record["url"])
            self.console.print(f"failed {url}: {record['error']}", markup=False, highlight=False)
        self.progress.update(self.bar, advance=1)

    def summary(self) -> str:
        """The counts in one line."""
        names = [name for name in ("there already", "refused") if self.tally[name]]
        return ", ".join(f"{self.tally[name]} {name}" for name in ("fetched", "failed", *names))


async def fetch_all(options: Options, descriptor: int | None, results: Results, watch: Watch) -> None:
    """Fetch every URL that is not there yet."""
    async with client_for(options, watch.event) as client:

        async def one(url: str) -> None:
            watch.begun()
            record = await download(client, url, options)
            results.write(record)  # here, not by who collects: what is done is never lost to a Ctrl-C
            watch.done(record)

        todo = urls(options, descriptor, results.fetched, watch.tally)
        with watch.live(results):
            async with Throttle(False).map(one, todo) as done:
                async for _ in done:
                    pass


def run_fetch(options: Options) -> int:
    """The whole job; the exit status: 0 all is there, 1 something failed, 130 stopped."""
    tally: Counter[str] = Counter()
    watch = Watch(tally)
    with source(options) as descriptor, Results(options.out) as results:
        try:
            asyncio.run(fetch_all(options, descriptor, results, watch))
        except KeyboardInterrupt:
            again = "" if options.out == "-" else "; the same command goes on from here"
            watch.console.print(f"stopped: {watch.summary()}{again}", highlight=False)
            return 130
    watch.console.print(f"done: {watch.summary()}", highlight=False)
    return 1 if tally["failed"] else 0
