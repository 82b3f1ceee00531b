"""The transport behind `throttle.httpx` and `throttle.httpx2`, and how it is put in front of a client that exists.

The two libraries have the same shape; what differs are their classes, which the face gives as `_http`. Nothing of
either is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any, ClassVar, Self, TypeVar

from .events import Event
from .exchange import Exchange, pass_through, prepare, suffices
from .guard import Local
from .limiter import BaseLimiter, Bound
from .permits import Permit, current_permit
from .service import LimiterLike, Service
from .tally import KeyStatistics

__all__ = ["FOR_HTTP", "TransportCore", "by_origin", "face_of", "wrap_client"]

Client = TypeVar("Client")

FOR_HTTP: Any = object()  # the default of `retry`: Retry.for_http(), made when a transport is

_PORTS = {"http": 80, "https": 443}


def by_origin(request: Any) -> str:
    """The key of a request: its origin, `scheme://host:port`; never credentials, path or query.

    >>> import httpx
    >>> by_origin(httpx.Request("GET", "https://user:secret@api.example.com/items?token=1"))
    'https://api.example.com:443'
    """
    url = request.url
    scheme, host = url.scheme, url.host  # each is worked out when it is asked for
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{url.port or _PORTS.get(scheme, 0)}"


class TransportCore(Local):
    """An httpx transport that waits for a permit, sends, hears what the server says and tries again.

    `httpx.AsyncClient(transport=ThrottleTransport(limiter="10/s"))`, or, to keep a client's own transport, mounts and
    proxies, `ThrottleTransport.wrap(client, limiter="10/s")`. One limit per origin by default. With `transport=` httpx
    makes no use of the client's `verify`, `http2`, `limits` and such: give them to `inner`, or wrap.

    - `inner`: the transport that sends; by default the library's own.
    - `limiter`: a limiter or a rate; None learns what servers say, False is no limit.
    - `retry`: a `Retry`, by default `Retry.for_http()`; None is no retry.
    - `key`: of a request, a callable or a str. `cost`: a value or a callable of the request.
    - `max_wait` in seconds for each permit; the client's `timeout=` does not cover the line.
    - `concurrency`: requests at once, each until its response headers have come. `on_event`: see `throttle.events`.

    `request.extensions["throttle"] = {"cost": 3, "key": "search", "priority": 1, "max_wait": 5}` overrides per request.
    A refusal holds back every task of that key. When attempts, patience or time run out the last response is returned,
    not an exception; a request that was never sent raises the `ThrottleError`, one whose last attempt failed that
    failure. Raises `TypeError` or `ValueError` that names a bad option.

    >>> import asyncio, httpx
    >>> from throttle import ThrottleTransport
    >>> server = httpx.MockTransport(lambda request: httpx.Response(200, text="hello"))
    >>> async def main():
    ...     transport = ThrottleTransport(server, limiter="10/s")
    ...     async with httpx.AsyncClient(transport=transport) as client:
    ...         return (await client.get("https://example.org/")).text
    >>> asyncio.run(main())
    'hello'
    """

    _http: ClassVar[ModuleType]

    def __init__(
        self,
        inner: Any = None,
        *,
        limiter: LimiterLike | bool | None = None,
        retry: Any = FOR_HTTP,
        key: str | Callable[[Any], str] = by_origin,
        cost: Any = 1,
        max_wait: float | None = None,
        concurrency: int | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        if retry is FOR_HTTP:
            from .retrying import Retry

            retry = Retry.for_http()
        service = Service(limiter, retry=retry, concurrency=concurrency, on_event=on_event)
        service.check(cost=cost, key=key, max_wait=max_wait)
        self._start(service, inner)
        self._key, self._cost, self._max_wait = key, cost, max_wait

    def _start(self, service: Service, inner: Any) -> None:
        self._service = service
        self._inner = self._http.AsyncHTTPTransport() if inner is None else inner
        self._key, self._cost, self._max_wait = by_origin, 1, None
        other = sys.modules.get("httpx2" if self._http.__name__ == "httpx" else "httpx")
        foreign = other is not None and isinstance(self._inner, other.AsyncBaseTransport)
        if isinstance(self._inner, type) or foreign or not hasattr(self._inner, "handle_async_request"):
            hint = "; a limit is given by name: limiter=" if isinstance(inner, (str, BaseLimiter, Bound)) else ""
            raise TypeError(f"inner must be an async transport of {self._http.__name__}, not {inner!r}{hint}")
        prepare()

    @classmethod
    def _of(cls, service: Service, inner: Any = None) -> Self:
        """A transport of a service that exists."""
        self = cls.__new__(cls)
        self._start(service, inner)
        return self

    def __repr__(self) -> str:
        return f"<ThrottleTransport {self.limiter!r}>"

    @classmethod
    def wrap(cls, client: Client, **options: Any) -> Client:
        """Put a `ThrottleTransport(**options)` in front of a client's own transport, mounts and proxies; returns it.

        For clients of httpx and httpx2. Raises `TypeError` for anything else, a sync client included, and `ValueError`
        for a client that is throttled already.
        """
        if "inner" in options:
            raise TypeError("wrap() keeps the client's own transport: it takes no inner=")
        return wrap_client(client, cls(_Nowhere(), **options))

    async def handle_async_request(self, request: Any) -> Any:
        """Send `request` when its turn has come; the response whose headers came last."""
        service, inner, http = self._service, self._inner, self._http
        service.inside += 1
        try:
            around = None if current_permit() is None else Permit._inside(service)
            if around is not None:
                return await pass_through(service, around, inner, request)
            key, cost = self._key, self._cost
            if "throttle" in request.extensions or self._max_wait is not None:
                options = {"max_wait": self._max_wait, **_options(request)}
                key, cost = options.pop("key", key), options.pop("cost", cost)
                key, cost = key(request) if callable(key) else key, cost(request) if callable(cost) else cost
                return await Exchange(service, inner, http, request).run(key=key, cost=cost, **options)
            key, cost = key(request) if callable(key) else key, cost(request) if callable(cost) else cost
            straight = service.straight and isinstance(request.stream, http.ByteStream)
            permit = service.grab(key, cost) if straight else None
            if permit is None:
                return await Exchange(service, inner, http, request).run(key=key, cost=cost)
            # The straight way, in one piece: a first attempt that need not wait, and is mostly the last. Its cost is
            # shared by the permit, counts for `statistics`, retry budget, hints and this frame.
            before = permit.enter()
            try:
                outcome: Any = await inner.handle_async_request(request)
            except Exception as error:
                outcome = error
            except BaseException as error:  # cancelled: the work has ended
                permit.leave(error)
                raise
            else:
                if suffices(service, permit, request, outcome):
                    return outcome
            finally:
                permit.exit(before)
            exchange, outcome = Exchange(service, inner, http, request, outcome), None
            return await exchange.run(key=key, cost=cost, begun=[permit])
        finally:
            service.inside -= 1

    def statistics(self) -> dict[str, KeyStatistics]:
        """What happened so far, by key: see `KeyStatistics` in `throttle.tally`."""
        return self._service.statistics()

    @property
    def limiter(self) -> BaseLimiter | Bound:
        """The limiter behind it."""
        return self._service.limiter

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the transport that sends."""
        await self._inner.aclose()

    def handle_request(self, request: Any) -> Any:
        """A sync client cannot wait in line: `TypeError`."""
        raise TypeError(f"ThrottleTransport is for {self._http.__name__}.AsyncClient; a sync Client cannot use it")

    def __enter__(self) -> Self:
        return self.handle_request(None)  # type: ignore[no-any-return]  # it raises

    def __exit__(self, *exc: object) -> None:
        """Never entered."""

    def close(self) -> None:
        """Nothing was opened."""


class _Nowhere:
    """Stands in for the inner transport until `wrap` gives the client's own."""

    handle_async_request: Any = None


def wrap_client(client: Client, throttle: Service | TransportCore) -> Client:
    """Put a service, or copies of a transport, in front of each transport of an httpx or httpx2 client."""
    face = face_of(client, "Client")
    wrapped: Any = client
    inner, mounts = wrapped._transport, wrapped._mounts
    if any(isinstance(one, TransportCore) for one in (inner, *mounts.values())):
        raise ValueError(f"{client!r} is throttled already")

    def around(one: Any) -> TransportCore:
        if isinstance(throttle, Service):
            return face._of(throttle, one)
        twin = face._of(throttle._service, one)
        twin._key, twin._cost, twin._max_wait = throttle._key, throttle._cost, throttle._max_wait
        return twin

    wrapped._transport = around(inner)
    wrapped._mounts = {pattern: None if one is None else around(one) for pattern, one in mounts.items()}
    return client


def face_of(thing: Any, kind: str) -> type[TransportCore]:
    """The face of the library that a client or transport (`kind`) belongs to; none is imported that is not in use."""
    for name in ("httpx", "httpx2"):
        http = sys.modules.get(name)
        if http is None:
            continue
        if isinstance(thing, getattr(http, f"Async{kind}")):
            return import_module(f".{name}", __package__).ThrottleTransport  # type: ignore[no-any-return]
        if isinstance(thing, getattr(http, kind)):
            raise TypeError(f"a sync {name}.{kind} cannot wait in line: use {name}.Async{kind}")
    raise TypeError(f"{thing!r} is no Async{kind} of httpx or httpx2")


_OPTIONS = ("cost", "key", "max_wait", "priority")


def _options(request: Any) -> dict[str, Any]:
    """What `request.extensions["throttle"]` overrides; one clear error for what it cannot."""
    given: Any = request.extensions.get("throttle")
    if given is None:
        return {}
    options: dict[str, Any] = given
    if not isinstance(given, Mapping) or not options.keys() <= set(_OPTIONS):
        raise ValueError(f'extensions["throttle"] takes a dict of {", ".join(_OPTIONS)}; not {given!r}')
    priority = options.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority must be a whole number, not {priority!r}")
    return options
