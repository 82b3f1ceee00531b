"""One request and what came back on its attempts: what is listened to, what is sent again, which response is returned.

For httpx and httpx2 alike; `http` is the library that the request belongs to.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

import anyio

from .errors import ThrottleError
from .events import GaveUp
from .hints import Hints, read_hints
from .permits import Permit
from .policy import HTTPRules
from .service import Service, Work, http_wants

__all__ = ["Exchange", "pass_through", "prepare"]

_MOST = 65536  # bytes of a refused response that are read ...
_LONGEST = 1.0  # ... and seconds that may take; closing may take as long again
_ANY_RULES = HTTPRules()


class _NoUseWaiting(ThrottleError):
    """The body of a refusal says so; never leaves this module."""


def prepare() -> None:
    """Load now what the first request needs: it takes some 30 ms, for which the loop would stand still."""
    with suppress(RuntimeError):  # no loop runs yet
        anyio.current_time()


def _said(service: Service, request: Any, response: Any, body: bytes | None = None) -> Hints | None:
    """What a response says about limits: as the policy's `hints=` hears it, else by its status, fields and body."""
    if service.retry is not None and service.retry.hints is not None:
        return service.retry.hear(response)
    return read_hints(response.status_code, response.headers, host=request.url.host, body=body)


def _hear(service: Service, permit: Permit, request: Any, response: Any) -> Hints | None:
    """The hints of a response, for the gate; a 503 that says nothing slows it, too: nginx's limit, or an outage."""
    hints = _said(service, request, response)
    if response.status_code == 503 and (hints is None or not hints.refused):
        service.slow(permit)
        return None
    return hints


async def pass_through(service: Service, work: Work, inner: Any, request: Any) -> Any:
    """Send a request inside a call of the same service, which has paid and retries: observe only."""
    permit = work.permit
    permit.sent_again()
    response = await inner.handle_async_request(request)
    hints = _hear(service, permit, request, response)
    if hints is not None:
        service.heard(permit, response, hints)
        if hints.refused or hints.wait:
            work.hear(response, hints)
    return response


async def straight(service: Service, inner: Any, http: ModuleType, request: Any, key: str, cost: Any) -> Any:
    """One request whose first attempt is mostly its last: what that needs and no more, else an `Exchange` goes on."""
    permit = service.grab(key, cost) if isinstance(request.stream, http.ByteStream) else None
    if permit is None:
        return await Exchange(service, inner, http, request).run(key=key, cost=cost)
    outcome: Any
    try:
        outcome = await _attempt(service, inner, request, permit)
    except Exception as error:
        outcome = error
    else:
        hints = read_hints(outcome.status_code, outcome.headers, host=request.url.host)
        if not (hints.refused or hints.wait) and not _repeats(service, outcome.status_code):
            service.done(permit)
            return outcome
    return await Exchange(service, inner, http, request, outcome).run(key=key, cost=cost, begun=[permit])


async def _attempt(service: Service, inner: Any, request: Any, permit: Permit) -> Any:
    here = Work(service, permit)
    before, outer = here.enter(), permit.enter()
    try:
        return await inner.handle_async_request(request)
    except Exception:
        raise
    except BaseException as error:  # cancelled: the work has ended
        permit.leave(error)
        raise
    finally:
        here.leave(before)
        permit.exit(outer)


def _repeats(service: Service, status: int) -> bool:
    """Whether the status alone may be a reason to send again."""
    rules = _ANY_RULES if service.retry is None or service.retry.http is None else service.retry.http
    return status == 503 or status in rules.statuses


class Exchange:
    """One request under its service; `first` is what its first attempt came to, if that was made."""

    def __init__(self, service: Service, inner: Any, http: ModuleType, request: Any, first: Any = None) -> None:
        self._service = service
        self._inner = inner
        self._http = http
        self._request = request
        self._body = request.stream if isinstance(request.stream, http.ByteStream) else _watched(http)(request.stream)
        self._last: Any = None  # the response that came last: as it came, or a copy of one that was put aside
        self._number = 0
        self._first = first
        self._permit: Permit

    async def run(self, **options: Any) -> Any:
        """The last response, or the error of a request that has none."""
        request, body = self._request, self._request.stream
        request.stream = self._body
        try:
            return await self._service.run(
                self._send, listen=self._listen, judge=self._judge, discard=self._put_aside, **options
            )
        except ThrottleError:
            if self._last is None:  # never answered
                raise
            return self._last
        except BaseException:
            if self._last is not None:
                await _close(self._last)
            raise
        finally:
            if request.stream is self._body:
                request.stream = body

    async def _send(self) -> Any:
        work = self._service.work_inside()
        assert work is not None  # this is one
        self._permit = work.permit
        self._number += 1
        first, self._first = self._first, None
        if isinstance(first, Exception):
            raise first
        self._last = await self._inner.handle_async_request(self._request) if first is None else first
        return self._last

    def _listen(self, outcome: Any) -> Hints | None:
        """What the response says; a transport error says nothing."""
        if isinstance(outcome, Exception):
            return None
        return _hear(self._service, self._permit, self._request, outcome)

    def _judge(self, outcome: Any, failed: bool, hints: Hints | None) -> bool:
        """Whether to send the request again."""
        retry = self._service.retry
        if retry is None or not self._repeatable():
            return False
        wanted = http_wants(retry.http or _ANY_RULES, self._request, outcome, hints)
        return wanted or (retry.wants(outcome) if failed else retry.wants_result(outcome))

    def _repeatable(self) -> bool:
        """Whether the body can be sent: bytes, a stream that was not begun, a form whose files can be rewound."""
        body = self._body
        if isinstance(body, self._http.ByteStream) or not body.begun:
            return True
        fields = getattr(body.stream, "fields", None)
        return fields is not None and all(_rewinds(getattr(field, "file", b"")) for field in fields)

    async def _put_aside(self, response: Any) -> None:
        """Read a response that is tried again and close it, so that its connection is free; keep a copy."""
        if isinstance(response.stream, self._http.ByteStream):  # in memory: it can be read again
            body = b"".join(response.stream)
            if not body:
                return
            decoded = _decoded(self._copy(response, body))
        else:
            body, whole = await _read(response)
            decoded = _decoded(self._copy(response, body))
            self._last = self._copy(response, body) if whole else self._copy(response, decoded, decoded=True)
        hints = _said(self._service, self._request, response, decoded)
        before = _said(self._service, self._request, response)
        if hints is None or before is None or not hints.refused:
            return
        if (hints.wait or 0.0) > (before.wait or 0.0):
            self._service.more(self._permit, hints)
        if not hints.retryable:
            self._service.notify(GaveUp(self._permit.key, self._number, self._last))
            raise _NoUseWaiting

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
        def __init__(self, stream: Any) -> None:
            self.stream = stream
            self.begun = False

        async def __aiter__(self) -> Any:
            self.begun = True
            async for chunk in self.stream:
                yield chunk

        async def aclose(self) -> None:
            await self.stream.aclose()

    return Watched
