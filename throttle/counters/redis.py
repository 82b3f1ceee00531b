"""Counts in Redis or Valkey: one limit for many processes and machines."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

from ..errors import CounterUnavailable
from ..guard import Local
from ..loops import running
from ..rates import Exact, check_number
from .base import Ask, Booking, Entry, Outage
from .memory import MemoryCounter
from .pipe import Pipe, Trip, is_outage, is_unsent
from .shares import LocalShare, share_of
from .wire import RESET, arguments, bookings, entry_of, legs_of, script_of

__all__ = ["RedisCounter"]

_log = logging.getLogger("throttle")

_FLOORS = 10_000  # states that are remembered, to restore them where the server has lost its own
_AT_ONCE = 1000  # keys that are reset in one step
_SUFFIXES = r"token_bucket|two_rate\.peak|two_rate|fixed_window|sliding_window_counter|sliding_window"
_AGAIN = 0.05  # seconds between two tries to reach a server that was never reached


class _Kept(NamedTuple):
    """What a record of the server says it is."""

    name: str
    suffix: str
    key: str


class RedisCounter(Local):
    """Counts in the Redis (5 or newer) or Valkey at `url`, or of an asyncio client of redis-py.

        counter = RedisCounter("redis://localhost")
        limiter = TokenBucket("500/s", burst=50, counter=counter, name="github")

    Keys begin with `prefix`. `timeout` (seconds) bounds each question to the server. A server that was never reached is
    a `CounterUnavailable` after it; one that was there and is gone is waited for (`on_outage="wait"`), or raises
    `CounterUnavailable` ("raise"), or holds nobody back ("open"), or is replaced in this process by a share of each
    limit (`LocalShare(0.25)`). A wrong password and the like raise at once. On asyncio only (`RuntimeError` on trio).
    Needs `throttle-async[redis]`.
    """

    shared = True

    def __init__(
        self,
        url_or_client: Any,
        *,
        prefix: str = "throttle",
        on_outage: Literal["wait", "raise", "open"] | LocalShare = "wait",
        timeout: float = 1.0,
    ) -> None:
        known: tuple[Any, ...] = ("wait", "raise", "open")
        if on_outage not in known and not isinstance(on_outage, LocalShare):
            raise ValueError(f'on_outage must be "wait", "raise", "open" or LocalShare(0.25), not {on_outage!r}')
        self.timeout: float = float(check_number("timeout (seconds)", timeout, above=True))
        if not prefix or "{" in prefix:
            raise ValueError(f"prefix must be a text without braces, not {prefix!r}")
        self._url: str = ""
        self._client: Any = None
        if isinstance(url_or_client, str):
            self._url = url_or_client
            self._new_client()  # tells at once what is no URL
        elif inspect.iscoroutinefunction(getattr(url_or_client, "execute_command", None)):
            self._client = url_or_client
        else:
            raise TypeError(f"RedisCounter takes a URL or a client of redis.asyncio, not {url_or_client!r}")
        self.prefix = prefix
        self.on_outage = on_outage
        self._clients: dict[Any, Any] = {}
        self._inherited: list[dict[Any, Any]] = []
        self._process = os.getpid()
        self._told: set[str] = set()  # the scripts that a server has had from us
        self._floors: dict[str, str] = {}
        self._reached = self._away = self._probing = False
        self._quiet_until = 0.0  # the server is away and need not be asked again before
        self._local = MemoryCounter()  # where a share of each limit is counted during an outage ...
        self._owed: dict[tuple[str, str], Exact] = {}  # ... and what that came to

    def __repr__(self) -> str:
        return f"RedisCounter({self._url.rpartition('@')[2].partition('?')[0] if self._url else self._client!r})"

    # ── verbs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def book(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        """All asks in one atomic step; see `Counter.book`."""
        if len({len(ask.costs) for ask in asks}) > 1:
            raise ValueError(f"asks of one call have the same costs, not {[ask.costs for ask in asks]}")
        if self._owed and not self._away:
            asks = [self._with_debt(ask) for ask in asks]
        legs = [legs_of(ask.rule) for ask in asks]
        pairs = zip(asks, legs, strict=True)
        names = [self._records(ask.name, leg.suffix, ask.key) for ask, its in pairs for leg in its]
        floors = [self._floors.get(name[0], "") for name in names]
        script, digest = script_of(frozenset(leg.kind for its in legs for leg in its))
        keys = [key for name in names for key in name]
        try:
            answer = await self._ask(script, digest, len(keys), [*keys, *arguments(asks, legs, floors)])
        except Outage:
            if self.on_outage in ("wait", "raise") or not self._reached:
                raise
            return await self._without(asks)
        for index, name in enumerate(names):
            floor = answer[4 + 2 * index]
            if floor:
                self._remember(name[0], floor)
        return bookings(answer, legs)

    async def clear(self, name: str, key: str | None = None) -> int:
        """Everything under `name`, or of one `key` of it, as new; how many entries that were."""
        found = [one for one in await self._kept(name) if key in (None, one.key)]
        tag, cleared = f"{self._tag(name)}:", 0
        for floor in [one for one in self._floors if one.startswith(tag)]:
            if key in (None, floor.removeprefix(tag).partition(":")[2]):
                self._floors.pop(floor, None)
        for first in range(0, len(found) or key is None, _AT_ONCE):
            part = found[first : first + _AT_ONCE]
            keys = [f"{tag}all"]
            for one in part:
                keys += self._records(one.name, one.suffix, one.key)[:2]
            used = await self._ask(*RESET, len(keys), [*keys, int(key is None)])
            cleared += sum(there for there, one in zip(used, part, strict=True) if one.suffix != "two_rate.peak")
        return cleared

    async def entries(self, name: str | None = None) -> list[Entry]:
        """What is kept under `name` (None: under any), by name and key."""
        now = await self._now()
        found: list[Entry] = []
        for one in await self._kept(name):
            if one.suffix == "two_rate.peak":
                continue
            record, log, all_keys = self._records(one.name, one.suffix, one.key)
            texts = [await self._command("GET", record)]
            ticks: list[Any] = []
            if one.suffix == "sliding_window":
                ticks = await self._command("LRANGE", log, 0, -1)
            elif one.suffix == "two_rate":
                texts.append(await self._command("GET", self._records(one.name, "two_rate.peak", one.key)[0]))
            states = [_text(text or "") for text in texts]
            held = [int(number) for number in _text(await self._command("GET", all_keys) or "0 0").split()]
            entry = entry_of(one.name, one.key, one.suffix, states, [_text(tick) for tick in ticks], held[0], now)
            if entry is not None:
                paused = max(entry.paused_for, (held[1] - now) / 1e6)
                found.append(replace(entry, paused_for=paused))
        return sorted(found, key=lambda entry: (entry.name, entry.key, entry.kind))

    async def aclose(self) -> None:
        """Let go of this loop's connection; the counter opens one again by itself when used again."""
        client = self._clients.pop(running(), None)
        if client is not None and self._process == os.getpid():
            await client.throttle_pipe.close(wait=True)
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def check_together(self, names: Sequence[str]) -> None:
        """Refuse limits that one script of a cluster cannot reach together."""
        tags = {self._tag(name).partition("{")[2].partition("}")[0] for name in names}
        if len(tags) > 1 and "Cluster" in type(self._client).__name__:
            raise ValueError(f"on a cluster the names in one AllOf need a common {{tag}}, unlike {list(names)}")

    # ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tag(self, name: str) -> str:
        """What the keys of `name` begin with: one hash tag, the name's own where it has one."""
        return f"{self.prefix}:{name}" if "{" in name and "}" in name else f"{self.prefix}:{{{name}}}"

    def _records(self, name: str, suffix: str, key: str) -> tuple[str, str, str]:
        """Where the state of a limit is, its log, and what concerns every key of its name."""
        tag = self._tag(name)
        return f"{tag}:{suffix}:{key}", f"{tag}:{suffix}.log:{key}", f"{tag}:all"

    def _remember(self, name: str, floor: Any) -> None:
        floors = self._floors
        floors.pop(name, None)
        floors[name] = _text(floor)
        if len(floors) > _FLOORS:
            floors.pop(next(iter(floors)), None)

    async def _kept(self, name: str | None) -> list[_Kept]:
        """The records of `name` (None: of any), as they are called on the server."""
        tag = f"{self.prefix}:" if name is None else f"{self._tag(name)}:"
        pattern = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in tag) + "*"

        async def scan(client: Any, trip: Trip) -> list[str]:
            return [_text(one) async for one in client.scan_iter(match=pattern, count=1000)]

        form = re.compile(rf"{re.escape(self.prefix)}:(.+?):({_SUFFIXES}):(.*)", re.DOTALL)
        found = [form.fullmatch(one) for one in await self._do(scan)]
        return [_Kept(re.sub(r"^\{([^{}]*)\}$", r"\1", one[1]), one[2], one[3]) for one in found if one]

    async def _now(self) -> int:
        """The server's time in microseconds."""
        seconds, micros = await self._command("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    # ── the server ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, script: str, digest: str, number: int, values: list[Any]) -> Any:
        from redis.exceptions import NoScriptError

        if digest in self._told:
            try:
                return await self._command("EVALSHA", digest, number, *values)
            except NoScriptError:  # it has not been carried out
                pass
        answer = await self._command("EVAL", script, number, *values)  # at once: to ask first costs a round trip
        self._told.add(digest)
        return answer

    async def _command(self, *words: Any) -> Any:
        """What the server answers to a command."""

        async def ask(client: Any, trip: Trip) -> Any:
            if self._client is None:
                return await client.throttle_pipe.ask(words, trip)
            trip.sent = True
            return await client.execute_command(*words)

        return await self._do(ask)

    async def _do(self, work: Callable[[Any, Trip], Awaitable[Any]]) -> Any:
        """What `work` with the client returns. Raises `Outage` where the server cannot be reached, `CounterUnavailable`
        where it refuses; what may have been sent is never sent again."""
        from redis.exceptions import NoScriptError, RedisError

        if self._process != os.getpid():
            self._forked()
        with self._probe() as probes:
            give_up = time.monotonic() + self.timeout
            while True:
                client, trip, started = self._on_this_loop(), Trip(), time.monotonic()
                try:
                    async with asyncio.timeout(self.timeout if self._reached else give_up - started):
                        answer = await work(client, trip)
                    break
                except NoScriptError:
                    raise
                except (RedisError, OSError) as error:
                    why = f"{error}" or "no answer in time"
                    if not is_outage(error):
                        raise CounterUnavailable(f"{self!r} refuses: {why}") from error
                    sent = trip.sent and not is_unsent(error)
                    if self._reached:
                        self._lost(why, time.monotonic() - started if probes else 0.0)
                    elif not sent and time.monotonic() + _AGAIN <= give_up:
                        await asyncio.sleep(_AGAIN)
                        continue
                    waits = self._reached and self.on_outage == "wait"
                    raise Outage(f"{self!r} cannot be reached: {why}", sent=sent, waits=waits) from error
        self._reached = True
        if self._away:
            self._away = False
            _log.warning("%r is back", self)
        return answer

    def _forked(self) -> None:
        """Connections of the parent are the parent's: to close them would deafen it."""
        self._inherited.append(self._clients)
        self._process, self._clients, self._probing = os.getpid(), {}, False

    @contextmanager
    def _probe(self) -> Generator[bool]:
        """While the server is away, one question at a time tries it; after one in vain, none does for as long as that
        took. Others are told at once."""
        if not self._away:
            yield False
            return
        if self._probing or time.monotonic() < self._quiet_until:
            raise Outage(f"{self!r} cannot be reached", sent=False, waits=self.on_outage == "wait")
        self._probing = True
        try:
            yield True
        finally:
            self._probing = False

    def _lost(self, why: str, rest: float) -> None:
        self._quiet_until = time.monotonic() + rest
        if not self._away:
            self._away = True
            _log.warning("%r cannot be reached (%s): on_outage=%r", self, why, self.on_outage)

    def _on_this_loop(self) -> Any:
        loop = running()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise RuntimeError("RedisCounter needs asyncio: redis-py has no client for trio")
        if self._client is not None:
            return self._client
        client = self._clients.get(loop)
        if client is None:
            self._clients = {one: its for one, its in self._clients.items() if not one.is_closed()}
            client = self._clients[loop] = self._new_client()
        return client

    def _new_client(self) -> Any:
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise ImportError('RedisCounter needs redis-py: pip install "throttle-async[redis]"') from error

        connect: Any = Redis.from_url  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        client: Any = connect(self._url, retry=Retry(NoBackoff(), 0))  # a booking must not be sent twice
        client.throttle_pipe = Pipe(client)
        return client

    # ── outages ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _without(self, asks: Sequence[Ask]) -> Sequence[Booking]:
        """What is answered while the server is away."""
        count = len(asks[0].costs)
        if isinstance(self.on_outage, LocalShare):
            share = self.on_outage.share
            local = [replace(ask, rule=share_of(ask.rule, share)) for ask in asks]
            booked = await self._local.book(local)
            for ask, booking in zip(asks, booked, strict=True):
                spent = sum(ask.costs[: len(booking.waits)])
                place = ask.name, ask.key
                self._owed[place] = self._owed.get(place, 0) + spent - ask.give
            return booked
        return [Booking((0,) * (count if _takes(ask) else 0), 0, ask.rule.most, 0) for ask in asks]

    def _with_debt(self, ask: Ask) -> Ask:
        """What was used during the outage is charged now, whatever that makes of the limit."""
        owed = self._owed.pop((ask.name, ask.key), 0)
        return replace(ask, give=ask.give - owed) if owed else ask


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value.decode()


def _takes(ask: Ask) -> bool:
    return ask.within is None or ask.within >= 0
