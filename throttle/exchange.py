"""One request and what came back on its attempts: what is listened to, what is sent again, which response is returned.

For httpx and httpx2 alike; `http` is the library that the request belongs to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import anyio

from .bodies import may_refuse
from .errors import ThrottleError
from .events import GaveUp
from .hints import NOTHING, Hints, read_hints, tells
from .permits import Permit, current_permit
from .policy import HTTPRules
from .service import Service, http_wants

__all__ = ["Exchange", "pass_through", "prepare", "suffices"]

_MOST = 65536  # bytes of a refused response that are read ...
_LONGEST = 1.0  # ... and seconds that may take; closing may take as long again
_ANY_RULES = HTTPRules()


class _NoUseWaiting(ThrottleError):
    """The body of a refusal says so; never leaves this module."""


def prepare() -> None:
    """Load now what the first request needs: it takes some 30 ms, for which the loop would stand still."""
    with suppress(RuntimeError):  # no loop runs yet
        anyio.current_time()


def _said(service: Service, request: Any, response: Any) -> Hints | None:
    """What a response says about limits: as the policy's `hints=` hears it, else by its status and fields."""
    if service.retry is not None and service.retry.hints is not None:
        return service.retry.hear(response)
    status, headers = response.status_code, response.headers
    return read_hints(status, headers, host=request.url.host) if tells(status, headers) else NOTHING


def _hear(service: Service, permit: Permit, response: Any, hints: Hints | None) -> Hints | None:
    """The hints of a response, for the gate; a 503 that says nothing slows it, too: nginx's limit, or an outage."""
    if response.status_code == 503 and (hints is None or not hints.refused):
        service.slow(permit)
        return None
    return hints


async def pass_through(service: Service, permit: Permit, inner: Any, request: Any) -> Any:
    """Send a request inside a call of the same service, which has paid and retries: observe only."""
    permit.sent_again()
    response = await inner.handle_async_request(request)
    try:
        hints = _hear(service, permit, response, _said(service, request, response))
    except BaseException:  # of the policy's `hints=`
        await _close(response)
        raise
    if hints is not None:
        service.heard(permit, response, hints)
        if hints.refused or hints.wait:
            permit._note(response, hints)
    return response


def suffices(service: Service, permit: Permit, request: Any, response: Any) -> bool:
    """Whether the answer to a first attempt is the last, too; then its work has ended. Mostly it says nothing."""
    status = response.status_code
    if tells(status, response.headers):
        hints = read_hints(status, response.headers, host=request.url.host)
        if hints.refused or hints.wait:
            return False
        if hints.quotas and status not in service.repeats:
            service.heard(permit, response, hints)
    if status in service.repeats:
        return False
    service.done(permit)
    return True


class Exchange:
    """One request under its service; `first` is what its first attempt came to, if that was made."""

    __slots__ = (
        "_body",
        "_first",
        "_http",
        "_inner",
        "_last",
        "_number",
        "_permit",
        "_put",
        "_request",
        "_said",
        "_service",
    )

    def __init__(self, service: Service, inner: Any, http: ModuleType, request: Any, first: Any = None) -> None:
        self._service = service
        self._inner = inner
        self._http = http
        self._request = request
        self._body = request.stream if isinstance(request.stream, http.ByteStream) else _watched(http)(request)
        self._last: Any = None  # the response that came last
        self._said: Hints | None = None  # what it said ...
        self._put: tuple[bytes, bool] | None = None  # ... and its body, and whether that is all, once it was put aside
        self._number = 0
        self._first = first
        self._permit: Permit

    async def run(self, *, key: str, **options: Any) -> Any:
        """The last response, or the error of a request that has none."""
        request, body = self._request, self._request.stream
        request.stream = self._body
        service = self._service
        attempt: Callable[[], Awaitable[Any]]
        attempt = partial(service.attempt, self._send, self._listen, key=key, **options)
        if service.retry is not None:
            attempt = service.retried(attempt, key=key, judge=self._judge, discard=self._put_aside, keep=True)
        try:
            return await attempt()
        except ThrottleError:
            if self._last is None:  # never answered
                raise
            return self._kept()
        except BaseException:
            if self._last is not None and self._put is None:
                await _close(self._last)
            raise
        finally:
            if request.stream is self._body:
                request.stream = body

    async def _send(self) -> Any:
        self._permit = current_permit()  # type: ignore[assignment]  # this is an attempt
        self._number += 1
        first = self._first
        if first is None:
            first = await self._inner.handle_async_request(self._request)
        else:
            self._first = None
            if isinstance(first, Exception):
                raise first
        self._last, self._put = first, None
        return first

    def _listen(self, outcome: Any) -> Hints | None:
        """What the response says; a transport error says nothing."""
        if isinstance(outcome, Exception):
            return None
        self._said = hints = _said(self._service, self._request, outcome)
        return _hear(self._service, self._permit, outcome, hints) if outcome.status_code == 503 else hints

    def _judge(self, outcome: Any, failed: bool, hints: Hints | None) -> bool:
        """Whether to send the request again."""
        retry = self._service.retry
        if retry is None or not (isinstance(self._body, self._http.ByteStream) or self._repeatable()):
            return False
        rules, request = retry.http or _ANY_RULES, self._request
        if failed:
            wanted = http_wants(rules, request, outcome, hints)
        else:
            method = request.method
            keyed = method not in rules.methods and "idempotency-key" in request.headers
            wanted = rules.wanted(method, status=outcome.status_code, hints=hints, keyed=keyed)
        return wanted or (retry.wants(outcome) if failed else retry.wants_result(outcome))

    def _repeatable(self) -> bool:
        """Whether a stream can be sent: one that was not begun, or a form whose files can be rewound."""
        body = self._body
        if not body.begun:
            return True
        fields = getattr(body.stream, "fields", None)
        return fields is not None and all(_rewinds(getattr(field, "file", b"")) for field in fields)

    async def _put_aside(self, response: Any) -> None:
        """Read a response that is tried again and close it, so that its connection is free; keep its body."""
        if isinstance(response.stream, self._http.ByteStream):  # in memory: it can be read again
            body = b"".join(response.stream)
            if not body:
                return
        else:
            self._put = await _read(response)
            body = self._put[0]
        retry, before = self._service.retry, self._said
        if before is None or retry is None or retry.hints is not None:
            return  # `hints=` has heard the response, whatever is in its body
        if "content-encoding" in response.headers:
            body = _decoded(self._copy(response, body))
        if not (before.refused or may_refuse(body)):
            return
        hints = read_hints(response.status_code, response.headers, host=self._request.url.host, body=body)
        if not hints.refused:
            return
        if (hints.wait or 0.0) > (before.wait or 0.0):
            self._service.more(self._permit, hints)
        if not hints.retryable:
            self._service.notify(GaveUp(self._permit.key, self._number, self._kept()))
            raise _NoUseWaiting

    def _kept(self) -> Any:
        """The last response as it came, or a copy of it if it was put aside."""
        if self._put is not None:
            body, whole = self._put
            if not whole:
                body = _decoded(self._copy(self._last, body))
            self._last, self._put = self._copy(self._last, body, decoded=not whole), None
        return self._last

    def _copy(self, response: Any, body: bytes, *, decoded: bool = False) -> Any:
        http = self._http
        headers = response.headers.copy()
        if decoded:  # what came of it before it was cut short
            for name in ("content-encoding", "content-length", "transfer-encoding"):
                headers.pop(name, None)
        stream, extensions = http.ByteStream(body), response.extensions
        return http.Response(response.status_code, headers=headers, stream=stream, extensions=extensions)


async def _read(response: Any) -> tuple[bytes, bool]:
    """The raw body as far as it comes within 64 KiB and a second, and whether that is all; the response is closed."""
    body, whole = b"", False
    chunks = aiter(response.stream)
    try:
        with anyio.move_on_after(_LONGEST), suppress(Exception):  # what comes of a refusal's body will do
            async for chunk in chunks:
                body += chunk
                if len(body) > _MOST:
                    break
            else:
                whole = True
    finally:
        await _close(response, chunks)
    return body, whole


async def _close(response: Any, chunks: Any = None) -> None:
    """Close a response in any case: shielded, and bounded in time."""
    with anyio.move_on_after(_LONGEST, shield=True):
        with suppress(Exception):
            if hasattr(chunks, "aclose"):
                await chunks.aclose()
        with suppress(Exception):
            await response.aclose()


def _decoded(response: Any) -> bytes:
    """As much of a body in memory as can be decoded."""
    body = b""
    with suppress(Exception):
        for chunk in response.iter_bytes():
            body += chunk
    return body


def _rewinds(file: Any) -> bool:
    return isinstance(file, (str, bytes)) or (hasattr(file, "seekable") and bool(file.seekable()))


@lru_cache(maxsize=2)
def _watched(http: ModuleType) -> Any:
    """The class of streams that know whether they were begun: a generator cannot be sent again."""

    class Watched(http.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, request: Any) -> None:
            if not isinstance(request, http.Request):
                theirs = type(request).__module__.partition(".")[0]
                raise TypeError(f"a request of {theirs} needs the ThrottleTransport of throttle.{theirs}: {request!r}")
            self.stream = request.stream
            self.begun = False

        async def __aiter__(self) -> Any:
            self.begun = True
            async for chunk in self.stream:
                yield chunk

        async def aclose(self) -> None:
            await self.stream.aclose()

    return Watched
