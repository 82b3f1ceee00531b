"""`FakeRateLimitedServer`: a rate-limited server that follows a script, as a transport of httpx."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httpx

from ..clock import REAL, Clock, current_clock
from ..decisions import Decision
from ..limiter import BaseLimiter, FixedWindow, SlidingWindow, TokenBucket
from ..rates import Rate, check_number
from .styles import STYLES, Facts

__all__ = ["FakeRateLimitedServer", "Seen"]

ALGORITHMS: dict[str, type[BaseLimiter]] = {
    "moving-window": SlidingWindow,
    "fixed-window": FixedWindow,
    "token-bucket": TokenBucket,
}
EPOCH = 1_700_000_000.0  # the Unix time at which virtual time starts, as the server's Date tells it

Answer = int | httpx.Response | Exception | type[Exception] | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the server saw it: when it came (seconds), what it asked, and how it was answered.

    `answer` is a status or the name of an exception; `kind` is "accepted", "rejected" (for the limit) or "scripted".
    """

    at: float
    method: str
    url: str
    answer: int | str
    kind: str


def _hello(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"path": request.url.path})


class FakeRateLimitedServer(httpx.AsyncBaseTransport):
    """A server with a limit of `limit` requests in `window` seconds, for tests: `httpx.AsyncClient(transport=server)`.

    `style` is how it tells of the limit: "none", "retry-after" (seconds), "retry-after-date", "retry-after-ms",
    "draft-03", "draft-06", "draft-07", "draft-10" (the IETF's RateLimit fields), "x-ratelimit-epoch",
    "x-ratelimit-delta", "github" (refuses with 403), "openai", "anthropic", "discord". `algorithm` is how it counts:
    "moving-window", "fixed-window" (from time 0) or "token-bucket" (`limit` at once, refilled evenly). `key(request)`
    names whom a request counts for; by default all count together.

    An accepted request is answered by `handler(request)`; by default a 200. `latency` is the seconds, or a function
    that draws them, from sending to the answer; the request counts halfway. `script` is what becomes of the first
    requests: each a status, a response, an exception (or its type), or None for the usual. `outages` are (start, end)
    or (start, end, answer) in seconds: what comes in between gets that answer, by default `httpx.ConnectError`. What is
    scripted does not count against the limit. More may be put into `server.script` at any time.

    `server.seen` is every request with its answer; `server.accepted` and `server.rejected` are the times of those that
    the limit let through and refused. Time is the default clock's (virtual in `run_virtual`; counted from the first
    request where it is real), or that of `clock`. Raises `ValueError` for a style, algorithm or number that it cannot.

    >>> import httpx
    >>> from throttle import ThrottleTransport
    >>> from throttle.testing import FakeRateLimitedServer, run_virtual
    >>> async def main():
    ...     server = FakeRateLimitedServer(2, 10, style="draft-10", script=[502])
    ...     async with httpx.AsyncClient(transport=ThrottleTransport(server)) as client:
    ...         answers = [await client.get("https://example.org/") for _ in range(3)]
    ...     return [one.status_code for one in answers], len(server.accepted), len(server.rejected)
    >>> run_virtual(main)
    ([200, 200, 200], 3, 0)
    """

    def __init__(
        self,
        limit: int,
        window: float,
        *,
        style: str = "retry-after",
        algorithm: str = "moving-window",
        handler: Callable[[httpx.Request], httpx.Response] = _hello,
        key: Callable[[httpx.Request], str] | None = None,
        latency: float | Callable[[], float] = 0.0,
        script: Iterable[Answer] = (),
        outages: Iterable[tuple[float, float] | tuple[float, float, Answer]] = (),
        clock: Clock | None = None,
    ) -> None:
        if type(limit) is not int or limit < 1:
            raise ValueError(f"limit must be a whole number of at least 1, not {limit!r}")
        check_number("window (seconds)", window, above=True)
        if not callable(latency):
            check_number("latency (seconds)", latency)
        self._style, self._counts = _one_of("style", style, STYLES), _one_of("algorithm", algorithm, ALGORITHMS)
        self._limiter: Any = self._counts(Rate(limit, per=window), clock=clock)
        self._limit, self._window, self._handler, self._key, self._latency = limit, window, handler, key, latency
        self._clock = clock
        self._first: float | None = None
        self.script: list[Answer] = _listed("script", script)
        self.outages: list[tuple[float, float] | tuple[float, float, Answer]] = _listed("outages", outages)
        for outage in self.outages:
            if not _is_outage(outage):
                raise ValueError(f"an outage is (start, end) or (start, end, answer) in seconds, not {outage!r}")
        for scripted in [*self.script, *(one[2] for one in self.outages if len(one) > 2)]:
            if scripted is not None:
                _played(scripted, "")
        self.seen: list[Seen] = []

    @property
    def accepted(self) -> list[float]:
        """When the requests came that the limit let through."""
        return [one.at for one in self.seen if one.kind == "accepted"]

    @property
    def rejected(self) -> list[float]:
        """When the requests came that the limit refused."""
        return [one.at for one in self.seen if one.kind == "rejected"]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; half of the latency passes before it counts, half after."""
        await request.aread()
        way = (self._latency() if callable(self._latency) else self._latency) / 2
        clock = self._clock or current_clock()
        if way:
            await clock.sleep(way)
        kind, answer = await self._decide(request, self._now(clock), clock)
        told = answer.status_code if isinstance(answer, httpx.Response) else type(answer).__name__
        self.seen.append(Seen(self._now(clock), request.method, str(request.url), told, kind))
        if way:
            await clock.sleep(way)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def handle_request(self, request: Any) -> Any:
        """A sync client cannot use it: `TypeError`."""
        raise TypeError("FakeRateLimitedServer is for httpx.AsyncClient; a sync Client cannot use it")

    def __enter__(self) -> Any:
        return self.handle_request(None)

    def _now(self, clock: Clock) -> float:
        if clock is not REAL:
            return clock.now()
        if self._first is None:
            self._first = clock.now()
        return clock.now() - self._first

    def _scripted(self, now: float) -> Answer:
        """What the script says of this request; None: nothing."""
        for start, end, *answer in self.outages:
            if start <= now < end:
                return answer[0] if answer else httpx.ConnectError
        return self.script.pop(0) if self.script else None

    async def _decide(self, request: httpx.Request, now: float, clock: Clock) -> tuple[str, httpx.Response | Exception]:
        scripted = self._scripted(now)
        if scripted is not None:
            return "scripted", _played(scripted, self._date(clock))
        limiter = self._limiter[self._key(request) if self._key else ""]
        decision: Decision = limiter.try_acquire_nowait()
        remaining = math.floor(decision.remaining)
        more = await limiter.peek(remaining + 1) if remaining < self._limit else decision
        wall = self._wall(clock)
        facts = Facts(
            self._limit, self._window, remaining, more.retry_after, decision.reset_after, decision.retry_after, wall
        )
        if decision.allowed:
            answer = self._handler(request)
        else:
            refusal = self._style.refusal
            answer = httpx.Response(refusal.status, content=refusal.body(facts))
        answer.headers.update({"Date": self._date(clock), **self._style.fields(facts)})
        return "accepted" if decision.allowed else "rejected", answer

    def _wall(self, clock: Clock) -> float:
        """Unix time, as this server has it."""
        return clock.now() + (REAL.epoch() if clock is REAL else EPOCH)

    def _date(self, clock: Clock) -> str:
        return formatdate(math.floor(self._wall(clock)), usegmt=True)


def _listed(what: str, given: Any) -> list[Any]:
    if not isinstance(given, Iterable):
        raise TypeError(f"{what} is a list, not {given!r}")
    return list(given)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


def _is_outage(outage: Any) -> bool:
    try:
        start, end, *answer = outage
        return isinstance(start, (int, float)) and start <= end and len(answer) <= 1
    except (TypeError, ValueError):  # nothing to unpack, or no numbers
        return False


def _played(scripted: Any, date: str) -> httpx.Response | Exception:
    """What an entry of the script comes to; `TypeError` for what is none."""
    if type(scripted) is int and 200 <= scripted <= 599:
        return httpx.Response(scripted, headers={"Date": date})
    if isinstance(scripted, (httpx.Response, Exception)):
        return scripted
    if isinstance(scripted, type) and issubclass(scripted, Exception):
        return scripted("scripted")
    raise TypeError(f"a script holds statuses, responses of httpx, exceptions and None, not {scripted!r}")


def _one_of(what: str, name: str, choices: dict[str, Any]) -> Any:
    try:
        return choices[name]
    except (KeyError, TypeError):
        raise ValueError(f"{what} is one of {', '.join(map(repr, choices))}; not {name!r}") from None
