"""Counts in Redis or Valkey: one limit for many processes and machines."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha1
from typing import Any, Literal, NamedTuple, Self

from ..errors import CounterUnavailable
from ..loops import running
from ..rates import Exact, check_number
from .base import Ask, Booking, Entry, Outage
from .memory import MemoryCounter
from .shares import LocalShare, share_of
from .wire import arguments, as_new, bookings, entry_of, legs_of, script_of

__all__ = ["RedisCounter"]

_log = logging.getLogger("throttle")

_FLOORS = 10_000  # states that are remembered, to restore them where the server has lost its own
_DAY = 86_400_000  # milliseconds for which a reset is remembered
_SUFFIXES = r"token_bucket|two_rate\.peak|two_rate|fixed_window|sliding_window_counter|sliding_window"
_AGAIN = 0.05  # seconds between two tries to reach a server that was never reached


class _Kept(NamedTuple):
    """What a key of the server says it is."""

    record: str
    name: str
    kind: str
    is_log: bool
    key: str


class RedisCounter:
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
        self._floors: dict[str, str] = {}
        self._reached = self._away = False
        self._local = MemoryCounter()  # where a share of each limit is counted during an outage ...
        self._owed: dict[tuple[str, str], Exact] = {}  # ... and what that came to

    def __repr__(self) -> str:
        return f"RedisCounter({self._url.rpartition('@')[2] if self._url else self._client!r})"

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
        script, digest = _script(frozenset(leg.kind for its in legs for leg in its))
        keys = [key for name in names for key in name]
        try:
            answer = await self._ask(script, digest, len(keys), [*keys, *arguments(asks, legs, floors)])
        except Outage as outage:
            if self.on_outage == "wait":
                raise
            return await self._without(asks, outage)
        for index, name in enumerate(names):
            floor = answer[4 + 2 * index]
            if floor:
                self._remember(name[0], floor)
        return bookings(answer, legs)

    async def clear(self, name: str, key: str | None = None) -> int:
        """Everything under `name`, or of one `key` of it, as new; how many records that were."""
        found = [one for one in await self._kept(name) if key in (None, one.key)]
        now = await self._now()
        for one in found:
            self._floors.pop(one.record, None)
            if key is not None and not one.is_log:  # newer than what others remember of it
                text = await self._command("GET", one.record)
                await self._command("SET", one.record, as_new(_text(text or ""), one.kind, now), "PX", _DAY)
            else:
                await self._command("DEL", one.record)
        if key is None:
            await self._command("SET", f"{self._tag(name)}:all", f"{now} 0", "PX", _DAY)
        return sum(not one.is_log for one in found)

    async def entries(self, name: str | None = None) -> list[Entry]:
        """What is kept under `name` (None: under any), by name and key."""
        now = await self._now()
        found: list[Entry] = []
        for one in await self._kept(name):
            if one.is_log or one.kind == "two_rate.peak":
                continue
            texts = [await self._command("GET", one.record)]
            log: list[Any] = []
            if one.kind == "sliding_window":
                log = await self._command("LRANGE", self._records(one.name, one.kind, one.key)[1], 0, -1)
            elif one.kind == "two_rate":
                texts.append(await self._command("GET", self._records(one.name, "two_rate.peak", one.key)[0]))
            if all(texts):  # else it has run out meanwhile
                held = _numbers(await self._command("GET", f"{self._tag(one.name)}:all") or "0 0")
                state, ticks = [_text(text) for text in texts], [_text(tick) for tick in log]
                entry = entry_of(one.name, one.key, one.kind, state, ticks, now)
                paused = max(entry.paused_for, (held[1] - now) / 1e6)
                found.append(replace(entry, paused_for=paused))
        return sorted(found, key=lambda entry: (entry.name, entry.key, entry.kind))

    async def aclose(self) -> None:
        """Let go of this loop's connection; the counter opens one again by itself when used again."""
        client = self._clients.pop(running(), None)
        if client is not None and self._process == os.getpid():
            for connection in client.throttle_free:
                await connection.disconnect()
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
            del floors[next(iter(floors))]

    async def _kept(self, name: str | None) -> list[_Kept]:
        """The records of `name` (None: of any), as they are called on the server."""
        tag = f"{self.prefix}:" if name is None else f"{self._tag(name)}:"
        pattern = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in tag) + "*"

        async def scan(client: Any) -> list[str]:
            return [_text(one) async for one in client.scan_iter(match=pattern, count=1000)]

        form = re.compile(rf"{re.escape(self.prefix)}:(.+?):({_SUFFIXES})(\.log)?:(.*)", re.DOTALL)
        found = [form.fullmatch(one) for one in await self._do(scan)]
        return [
            _Kept(one[0], re.sub(r"^\{([^{}]*)\}$", r"\1", one[1]), one[2], bool(one[3]), one[4])
            for one in found
            if one
        ]

    async def _now(self) -> int:
        """The server's time in microseconds."""
        seconds, micros = await self._command("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    # ── the server ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, script: str, digest: str, number: int, values: list[Any]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return await self._command("EVALSHA", digest, number, *values)
        except NoScriptError:  # it has not been carried out
            return await self._command("EVAL", script, number, *values)

    async def _command(self, *words: Any) -> Any:
        """What the server answers to a command."""
        if self._client is None:
            return await self._do(lambda client: self._exchange(client, words))
        return await self._do(lambda client: client.execute_command(*words))

    async def _exchange(self, client: Any, words: tuple[Any, ...]) -> Any:
        """`client.execute_command`, without what that does for others: one connection, one question, one answer."""
        from redis.exceptions import ResponseError

        free: list[Any] = client.throttle_free
        while free and free[-1]._reader.at_eof():  # closed by the server
            await free.pop().disconnect(nowait=True)
        connection = free.pop() if free else client.connection_pool.make_connection()
        try:
            if not connection.is_connected:
                await connection.connect()
            await connection.send_packed_command(packed(words), check_health=False)
            answer = await connection.read_response()
        except ResponseError:
            free.append(connection)
            raise
        except BaseException:  # its answer may be on the way: nobody else is to read that
            await connection.disconnect(nowait=True)
            raise
        free.append(connection)
        return answer

    async def _do(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """What `work` with the client returns. Raises `Outage` where the server has been reached before and is not now,
        else `CounterUnavailable`; what was sent is never sent again."""
        from redis.exceptions import NoScriptError, RedisError

        give_up = time.monotonic() + self.timeout
        while True:
            client = self._on_this_loop()
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await work(client)
                break
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                why = f"{error}" or "no answer in time"
                if not _is_outage(error):
                    raise CounterUnavailable(f"{self!r} refuses: {why}") from error
                if self._reached:
                    self._lost(why)
                    raise Outage(f"{self!r} cannot be reached: {why}", sent="connecting to" not in why) from error
                if time.monotonic() + _AGAIN > give_up:
                    raise CounterUnavailable(f"{self!r} cannot be reached: {why}") from error
                await asyncio.sleep(_AGAIN)
        self._reached = True
        if self._away:
            self._away = False
            _log.warning("%r is back", self)
        return answer

    def _lost(self, why: str) -> None:
        if not self._away:
            self._away = True
            _log.warning("%r cannot be reached (%s): on_outage=%r", self, why, self.on_outage)

    def _on_this_loop(self) -> Any:
        loop = running()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise RuntimeError("RedisCounter needs asyncio: redis-py has no client for trio")
        if self._client is not None:
            return self._client
        if self._process != os.getpid():  # connections of the parent are the parent's: to close them would deafen it
            self._inherited.append(self._clients)
            self._process, self._clients = os.getpid(), {}
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
        client.throttle_free = []  # connections that nobody uses at the moment
        return client

    # ── outages ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _without(self, asks: Sequence[Ask], outage: Outage) -> Sequence[Booking]:
        """What is answered while the server is away."""
        if self.on_outage == "raise":
            raise CounterUnavailable(str(outage)) from outage
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


def _numbers(value: Any) -> list[int]:
    return [int(one) for one in _text(value).split()]


def _takes(ask: Ask) -> bool:
    return ask.within is None or ask.within >= 0


def packed(words: Sequence[Any]) -> bytes:
    """A command as it goes over the wire.

    >>> packed(["GET", "key"])
    b'*2\\r\\n$3\\r\\nGET\\r\\n$3\\r\\nkey\\r\\n'
    """
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        text = str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


@lru_cache(maxsize=100)
def _script(kinds: frozenset[str]) -> tuple[str, str]:
    text = script_of(kinds)
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


_AWAY = ("OOM", "LOADING", "READONLY", "CLUSTERDOWN", "MISCONF", "MASTERDOWN", "TRYAGAIN")
_OUTAGES = ("ClusterDownError", "TryAgainError", "MasterDownError", "ReadOnlyError", "OutOfMemoryError")


def _is_outage(error: BaseException) -> bool:
    """Whether waiting may help."""
    from redis import exceptions

    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return False
    if isinstance(error, (OSError, exceptions.ConnectionError, exceptions.TimeoutError)):
        return True
    return type(error).__name__ in _OUTAGES or str(error).startswith(_AWAY) or "-OOM" in str(error)
