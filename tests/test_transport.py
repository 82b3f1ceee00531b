"""The transport: who pays, who waits, what is sent again and what comes back; the same for httpx and httpx2."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from scripted import HTTP, URL, Body, Http, Window, http, most_in_any, server
from worlds import TrioWorld, nothing_left, virtual

from throttle import (
    AllOf,
    Constant,
    CostExceedsBurst,
    DeadlineExceeded,
    Retry,
    RetryAfterTooLong,
    RetryBudget,
    SlidingWindow,
    Throttle,
    ThrottleTransport,
    TokenBucket,
    WaitTooLong,
    by_origin,
)
from throttle.events import Admitted, GaveUp, Paused, Refused, Retrying
from throttle.hints import Hints
from throttle.retrying import Retry as RetryClass
from throttle.testing import no_waits, run_virtual

__all__ = ["http"]  # a fixture
QUICK = Retry.for_http(backoff=Constant(0.1))


def now() -> float:
    return asyncio.get_running_loop().time()


# ── what is sent again ────────────────────────────────────────────────────────────────────────────────────────────────

RETRY_AFTER = {"Retry-After": "1"}
KEYED = {"Idempotency-Key": "k"}


@pytest.mark.parametrize(
    ("method", "headers", "answer", "again"),
    [
        # refused: any method
        ("GET", {}, 429, True),
        ("POST", {}, 429, True),
        ("PATCH", {}, (429, RETRY_AFTER), True),
        ("POST", {}, (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}), True),
        ("POST", {}, (429, {"x-should-retry": "false"}), False),
        # an outage: idempotent requests
        *((method, {}, 502, True) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")),
        *((method, {}, 503, False) for method in ("POST", "PATCH", "CONNECT")),
        ("POST", KEYED, 502, True),
        ("POST", KEYED, 503, True),
        ("GET", {}, 503, True),
        ("GET", {}, 504, True),
        ("POST", {}, 504, False),
        ("POST", {}, (503, RETRY_AFTER), True),
        ("GET", {}, (502, {"x-should-retry": "false"}), False),
        ("PUT", KEYED, (503, {"stripe-should-retry": "false"}), False),
        ("GET", {}, (504, {"x-should-retry": "true"}), True),
        # no outage
        ("GET", {}, 500, False),
        ("GET", {}, (500, RETRY_AFTER), False),
        ("GET", {}, 404, False),
        ("GET", {}, 403, False),
        ("GET", {}, (301, RETRY_AFTER), False),
        # transport errors
        ("GET", {}, "ReadTimeout", True),
        ("DELETE", {}, "ReadError", True),
        ("GET", {}, "RemoteProtocolError", True),
        ("POST", {}, "ReadTimeout", False),
        ("POST", {}, "WriteError", False),
        ("POST", KEYED, "ReadError", True),
        ("POST", {}, "ConnectError", True),
        ("POST", {}, "ConnectTimeout", True),
        ("PATCH", {}, "PoolTimeout", True),
        ("GET", {}, "UnsupportedProtocol", False),  # no attempt makes the URL better
        # whatever else is raised
        ("GET", {}, "TooManyRedirects", False),
        ("GET", {}, "DecodingError", False),
        ("GET", {}, OSError("odd"), False),
    ],
)
def test_what_is_sent_again(http: Http, method: str, headers: dict[str, str], answer: Any, again: bool) -> None:
    @virtual
    async def play() -> None:
        api = server(http, answer, 200)
        async with http.client(api, retry=QUICK) as client:
            try:
                status = (await client.request(method, URL, headers=headers)).status_code
            except Exception as error:
                status = type(error).__name__
        told = answer[0] if isinstance(answer, tuple) else answer
        first = "OSError" if isinstance(told, OSError) else told
        assert (status, api.met) == ((200, 2) if again else (first, 1))

    play()


@virtual
async def test_methods_and_statuses_can_be_chosen() -> None:
    retry = Retry.for_http(methods=["post"], statuses=[500], backoff=Constant(0))
    for method, answer, met in [("POST", 500, 2), ("GET", 500, 1), ("POST", 503, 1), ("GET", 429, 2)]:
        api = server(HTTP, answer, 200)
        async with HTTP.client(api, retry=retry) as client:
            await client.request(method, URL)
        assert api.met == met


@virtual
async def test_a_policy_may_add_to_the_rules() -> None:
    on_result = Retry(on=OSError, on_result=lambda response: response.status_code == 418, backoff=Constant(0))
    for answer, met in [(OSError("odd"), 2), (418, 2), (502, 2), (404, 1), (ValueError("no"), 1)]:
        api = server(HTTP, answer, 200)
        async with HTTP.client(api, retry=on_result) as client:
            if isinstance(answer, ValueError):
                with pytest.raises(ValueError, match="no"):
                    await client.get(URL)
            else:
                await client.get(URL)
        assert api.met == met


@virtual
async def test_without_retry_nothing_is_sent_again_but_everybody_waits() -> None:
    api = server(HTTP, (429, {"Retry-After": "3"}), 200)
    async with HTTP.client(api, retry=None) as client:
        assert [(await client.get(URL)).status_code for _ in range(2)] == [429, 200]
    assert 3 <= api.times[1] <= 3.06


@virtual
async def test_a_retry_that_only_counts_is_enough_for_a_transport() -> None:
    api = server(HTTP, 502)
    async with HTTP.client(api, retry=Retry(attempts=2, backoff=Constant(0))) as client:
        await client.get(URL)
    assert api.met == 2


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Plain:
    """A file that cannot go back."""

    def read(self, size: int = -1) -> bytes:
        return b""


async def generated() -> AsyncIterator[bytes]:
    yield b"gene"
    yield b"rated"


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (lambda: {"content": b"bytes"}, [b"bytes"] * 2),
        (lambda: {"content": "text"}, [b"text"] * 2),
        (lambda: {"json": {"a": 1}}, None),
        (lambda: {"data": {"a": "1"}}, [b"a=1"] * 2),
        (lambda: {"content": generated()}, [b"generated"]),
        (lambda: {"files": {"f": io.BytesIO(b"file")}, "data": {"a": "1"}}, None),
        (lambda: {"files": {"f": b"bytes"}}, None),
    ],
)
def test_a_body_is_sent_again_whole_or_not_at_all(http: Http, content: Any, sent: list[bytes] | None) -> None:
    @virtual
    async def play() -> None:
        api = server(http, (429, RETRY_AFTER, b"refused"), 200)
        async with http.client(api) as client:
            response = await client.post(URL, **content())
        if sent is None:
            assert len(set(api.bodies)) == 1 and len(api.bodies) == 2 and api.bodies[0]
        else:
            assert api.bodies == sent
        assert response.status_code == (200 if api.met == 2 else 429)
        assert api.met == 2 or response.text == "refused"

    play()


def test_a_form_with_a_file_that_cannot_go_back_is_sent_once(http: Http) -> None:
    class Stuck(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for file in (Stuck(b"file"), Plain()):

        @virtual
        async def play(file: Any) -> None:
            api = server(http, 429)
            async with http.client(api) as client:
                assert (await client.post(URL, files={"f": file})).status_code == 429
            assert api.met == 1

        play(file)


def test_a_body_that_was_not_begun_can_be_sent(http: Http) -> None:
    @virtual
    async def play() -> None:
        api = server(http, "ConnectError", (429, RETRY_AFTER), 200, eager=False)
        async with http.client(api, retry=QUICK) as client:
            response = await client.post(URL, content=generated())
        assert (response.status_code, api.met) == (200, 3)

    play()


@virtual
async def test_the_request_is_left_as_it_was() -> None:
    for content in ({"files": {"f": b"bytes"}}, {"content": b"bytes"}):
        request = HTTP.Request("POST", URL, **content)
        stream = request.stream
        async with HTTP.client(server(HTTP, 200)) as client:
            await client.send(request)
        assert request.stream is stream
    request.read()


@virtual
async def test_a_transport_may_read_the_request() -> None:
    """As httpx's own MockTransport does: then its body can be sent again."""
    answers = iter([429, 200])
    inner = HTTP.MockTransport(lambda request: HTTP.Response(next(answers), headers={"Retry-After": "1"}))
    async with HTTP.client(inner) as client:
        response = await client.post(URL, files={"f": b"bytes"})
    assert response.status_code == 200
    assert response.request.content.count(b"bytes") == 1


@virtual
async def test_a_stream_is_closed_through() -> None:
    closed = []

    class Stream(HTTP.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"

        async def aclose(self) -> None:
            closed.append(self)

    def close(request: Any) -> int:
        streams.append(request.stream)
        return 200

    streams: list[Any] = []
    async with HTTP.client(server(HTTP, close)) as client:
        await client.send(HTTP.Request("POST", URL, stream=Stream()))
        await streams[0].aclose()
    assert len(closed) == 1


# ── responses that are put aside, and the one that is returned ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "reads", "took"),
    [
        (Body(b"no"), 1, 0),
        (Body(*[b"x" * 1000] * 200), 66, 0),  # 64 KiB
        (Body(b"x" * 100_000), 1, 0),
        (Body(*[b"x"] * 1000, every=0.3), 3, 1),  # trickles for ever: a second
        (Body(b"x", error=OSError("cut")), 1, 0),
    ],
)
def test_a_response_that_is_put_aside_is_read_and_closed_first(http: Http, body: Body, reads: int, took: float) -> None:
    body = Body(*body.chunks, every=body.every, error=body.error)  # one for each run

    def second(_: Any) -> int:
        assert body.ended and body.closed
        return 200

    @virtual
    async def play() -> None:
        api = server(http, (502, {}, body), second)
        async with http.client(api, retry=Retry.for_http(backoff=Constant(0))) as client:
            assert (await client.get(URL)).status_code == 200
        assert (body.read, body.closed, api.times) == (reads, True, [0, took])

    play()


def test_the_returned_response_is_untouched(http: Http) -> None:
    @virtual
    async def play() -> None:
        for script in ([200], [404], [429], [502, 502]):
            last = Body(b"la", b"st")
            api = server(http, *script[:-1], (script[-1], RETRY_AFTER, last))
            async with (
                http.client(api, retry=Retry.for_http(attempts=len(script))) as client,
                client.stream("GET", URL) as response,
            ):
                assert (last.read, last.closed) == (0, False)
                assert [chunk async for chunk in response.aiter_raw()] == [b"la", b"st"]
            assert last.closed

    play()


@pytest.mark.parametrize(
    ("options", "request_options", "met"),
    [
        ({"retry": Retry.for_http(attempts=2)}, {}, 2),
        ({"retry": Retry.for_http(max_retry_after=4)}, {}, 1),
        ({"retry": Retry.for_http(timeout=4)}, {}, 1),
        ({"retry": Retry.for_http(timeout=12)}, {}, 3),
        ({"max_wait": 4}, {}, 1),
        ({}, {"max_wait": 4.5}, 1),
        ({"retry": Retry.for_http(budget=RetryBudget(0, 0), attempts=3)}, {}, 3),  # refusals are the gate's
        ({"retry": None}, {}, 1),
    ],
)
def test_the_last_response_is_returned_not_an_exception(
    http: Http, options: Any, request_options: Any, met: int
) -> None:
    @virtual
    async def play() -> None:
        api = server(http, lambda _: (429, {"Retry-After": "5"}, f"refused {api.met}".encode()))
        async with http.client(api, **options) as client:
            response = await client.get(URL, extensions={"throttle": request_options})
        assert (response.status_code, response.text, api.met) == (429, f"refused {met}", met)
        assert response.headers["Retry-After"] == "5"
        statistics = client._transport.statistics()["http://server:80"]
        assert (statistics.sent, statistics.refused) == (met, met)
        assert statistics.lost == (0 if options == {"retry": None} else 1)

    play()


def test_an_outage_ends_with_its_response_too(http: Http) -> None:
    @virtual
    async def play() -> None:
        for retry, met in [
            (Retry.for_http(attempts=3, backoff=Constant(1)), 3),
            (Retry.for_http(timeout=2.5, backoff=Constant(1)), 3),
            (Retry.for_http(budget=RetryBudget(0, 0.2), backoff=Constant(1)), 3),
        ]:
            api = server(http, *((502, {}, f"down {number}".encode()) for number in range(1, 6)))
            async with http.client(api, retry=retry) as client:
                response = await client.get(URL)
            assert (response.text, api.met) == (f"down {met}", met)

    play()


@virtual
async def test_a_slow_answer_does_not_renew_the_budget() -> None:
    retry = Retry.for_http(attempts=2, budget=RetryBudget(0, 0.1), backoff=Constant(0))
    options = {"limiter": False, "retry": retry}
    slow, down = server(HTTP, 200, lag=2.0), server(HTTP, 502)
    async with HTTP.client(slow, **options) as patient, HTTP.client(down, **options) as client:
        answer = asyncio.create_task(patient.get(URL))
        await asyncio.sleep(1.5)
        await client.get(URL)
        await client.get(URL)
        assert down.met == 3  # one retry in ten seconds
        assert (await answer).status_code == 200
        await client.get(URL)
    assert down.met == 4


@virtual
async def test_the_timeout_interrupts_an_attempt_and_returns_what_came_before() -> None:
    async def late(request: Any) -> Any:
        if api_times:
            await asyncio.sleep(100)
        api_times.append(now())
        return HTTP.Response(502, text="first")

    api_times: list[float] = []
    retry = Retry.for_http(timeout=3, backoff=Constant(1))
    async with HTTP.client(HTTP.MockTransport(late), retry=retry) as client:
        assert (await client.get(URL)).text == "first"
    assert (len(api_times), now()) == (1, 3)


@virtual
async def test_the_last_failure_is_raised_if_that_came_last() -> None:
    api = server(HTTP, 502, "ReadTimeout")
    async with HTTP.client(api, retry=Retry.for_http(attempts=2, backoff=Constant(0))) as client:
        with pytest.raises(HTTP.ReadTimeout):
            await client.get(URL)


def test_a_request_that_was_never_sent_raises(http: Http) -> None:
    @virtual
    async def play() -> None:
        api = server(http, 200, lag=1)
        limiter = TokenBucket("0.1/s", burst=1)
        async with http.client(api, limiter=limiter, max_wait=3) as client:
            await client.get(URL)
            with pytest.raises(WaitTooLong) as told:
                await client.get(URL)
            assert 8.9 < told.value.retry_after < 9.1
            with pytest.raises(CostExceedsBurst):
                await client.get(URL, extensions={"throttle": {"cost": 2}})
        async with http.client(api, limiter=limiter, retry=Retry.for_http(timeout=3)) as client:
            with pytest.raises(DeadlineExceeded):
                await client.get(URL)
        limiter.pause(100)
        async with http.client(api, limiter=limiter) as client:
            with pytest.raises(RetryAfterTooLong):
                await client.get(URL)
        assert api.met == 1

    play()


def test_a_copy_can_be_read_in_every_way(http: Http) -> None:
    """What was put aside and is returned after all: the line was too long for it."""
    packed = gzip.compress(b"hello" * 10)

    @virtual
    async def play() -> None:
        for body in (packed, Body(packed[:9], packed[9:])):
            api = server(http, (429, {"Retry-After": "9", "Content-Encoding": "gzip"}, body))
            async with http.client(api, max_wait=1) as client:
                assert (await client.get(URL)).text == "hello" * 10
                await asyncio.sleep(10)
                async with client.stream("GET", URL) as response:
                    if isinstance(body, Body):
                        assert b"".join([chunk async for chunk in response.aiter_raw()]) == packed
                assert response.extensions is not None

    play()


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity", "deflate"])
def test_a_copy_that_was_cut_short_can_still_be_read(http: Http, encoding: str) -> None:
    packed = gzip.compress(bytes(range(256)) * 4)[:-9] if encoding == "gzip" else b"x" * 50

    @virtual
    async def play() -> None:
        body = Body(packed, error=http.ReadError("cut"))
        headers = {"Retry-After": "9", "Content-Encoding": encoding, "Content-Length": "4000"}
        async with http.client(server(http, (429, headers, body)), max_wait=1) as client:
            response = await client.get(URL)
        if encoding == "gzip":
            assert response.content and (bytes(range(256)) * 4).startswith(response.content)
        elif encoding == "identity":
            assert response.content == packed
        assert response.headers["Retry-After"] == "9"

    play()


@virtual
async def test_a_response_that_cannot_be_closed_stops_nothing() -> None:
    class Stuck(HTTP.AsyncByteStream):
        def __init__(self, error: Exception | None) -> None:
            self.error = error

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"no"

        async def aclose(self) -> None:
            if self.error:
                raise self.error
            await asyncio.sleep(1000)

    for error, took in [(OSError("odd"), 0), (None, 1)]:
        start, answers = now(), iter([HTTP.Response(502, stream=Stuck(error)), HTTP.Response(200)])

        class Inner(HTTP.AsyncBaseTransport):
            async def handle_async_request(self, request: Any) -> Any:
                return next(answers)  # noqa: B023

        async with HTTP.client(Inner(), retry=Retry.for_http(backoff=Constant(0))) as client:
            assert (await client.get(URL)).status_code == 200
        assert now() - start == took


@virtual
async def test_nothing_is_left_open_when_judging_fails() -> None:
    def odd(_: Any) -> bool:
        raise LookupError("odd")

    body = Body(b"x")
    async with HTTP.client(server(HTTP, (200, {}, body)), retry=Retry(on_result=odd)) as client:
        with pytest.raises(LookupError):
            await client.get(URL)
    assert body.closed


@virtual
async def test_nothing_is_left_open_when_listening_fails_inside_a_call() -> None:
    def odd(_: Any) -> None:
        raise LookupError("odd")

    body = Body(b"x")
    api = Throttle(False, retry=Retry(on=OSError, hints=odd))
    async with HTTP.AsyncClient(transport=api.transport(server(HTTP, (200, {}, body)))) as client:
        with pytest.raises(LookupError):
            await api.call(client.get, URL)
    assert body.closed


@virtual
async def test_cancelled_while_a_response_is_put_aside() -> None:
    body = Body(*[b"x"] * 10, every=0.5)
    limiter = TokenBucket("10/s")
    async with HTTP.client(server(HTTP, (502, {}, body)), limiter=limiter) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await client.get(URL)
    assert (body.read, body.closed, now()) == (1, True, 0.7)
    assert nothing_left(limiter)


@virtual
async def test_a_response_is_closed_even_if_that_takes_time_and_nobody_waits() -> None:
    class Slow(HTTP.AsyncByteStream):
        closed = 0.0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            await asyncio.sleep(0.9)
            yield b"no"

        async def aclose(self) -> None:
            await asyncio.sleep(0.2)
            Slow.closed = now()

    class Inner(HTTP.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            return HTTP.Response(502, stream=Slow())

    async with HTTP.client(Inner(), retry=Retry.for_http(backoff=Constant(0))) as client:
        with anyio.move_on_after(0.5):
            await client.get(URL)
    assert Slow.closed == 0.7


# ── what the server says ──────────────────────────────────────────────────────────────────────────────────────────────


def test_retry_after_holds_every_task_of_the_origin_and_no_other(http: Http) -> None:
    @virtual
    async def play() -> None:
        def answer(request: Any) -> Any:
            return (429, {"Retry-After": "7"}) if request.url.host == "a" and now() < 7 else 200

        api = server(http, answer)
        urls = ["http://a/", "https://a/", "http://a:8080/", "http://b/"]
        async with http.client(api) as client:
            first = asyncio.create_task(client.get("http://a/first"))
            await asyncio.sleep(1)
            await asyncio.gather(*(client.get(url + str(n)) for url in urls[1:] for n in range(3)))
            await asyncio.gather(*(client.get(f"http://a/{n}") for n in range(5)))
            assert (await first).status_code == 200
        early = [url for url, at in zip(api.urls, api.times, strict=True) if at < 7 and url.startswith("http://a/")]
        assert early == ["http://a/first"]
        other = [url for url, at in zip(api.urls, api.times, strict=True) if at == 1]
        assert sum("b/" in url for url in other) == 3

    play()


@virtual
async def test_after_a_pause_one_probe_then_a_paced_return() -> None:
    flying: list[int] = []
    inside = 0

    async def handle(request: Any) -> Any:
        nonlocal inside
        inside += 1
        if now() >= 5:
            flying.append(inside)
        await asyncio.sleep(0.1)
        inside -= 1
        return HTTP.Response(200) if now() >= 5 else HTTP.Response(429, headers={"Retry-After": "5"})

    async with HTTP.client(HTTP.MockTransport(handle)) as client:
        responses = await asyncio.gather(*(client.get(URL) for _ in range(40)))
    assert [response.status_code for response in responses] == [200] * 40
    flights = [flying[start : start + width] for start, width in ((0, 1), (1, 2), (3, 4), (7, 8))]
    assert flights == [list(range(1, width + 1)) for width in (1, 2, 4, 8)]
    assert max(flying) <= 16  # wider and wider, but never the herd


@virtual
async def test_refusals_of_one_flight_are_one_reaction_and_one_attempt() -> None:
    """Fifty are refused at once, and again: with two attempts each, all come through, because old news counts once."""
    rule = Window(10, 2.0)
    events: list[Any] = []
    api = server(HTTP, rule, lag=0.05)
    retry = Retry.for_http(attempts=4)
    async with HTTP.client(api, limiter=False, retry=retry, on_event=events.append) as client:
        responses = await asyncio.gather(*(client.get(URL) for _ in range(50)))
    assert {response.status_code for response in responses} == {200}
    flight = [event for event in events if isinstance(event, Refused)]
    assert len(flight) == len(rule.refused) >= 40
    paused = [event for event in events if isinstance(event, Paused)]
    assert len(paused) < 20
    assert len(rule.refused) <= 40 + 4 * 10  # after the first flight only what each return overshoots


@virtual
async def test_a_refused_call_goes_ahead_of_newcomers() -> None:
    done: list[str] = []

    async def get(client: Any, name: str) -> None:
        await client.get(URL + name)
        done.append(name)

    api = server(HTTP, (429, {"Retry-After": "5"}), 200, lag=0.1)
    async with HTTP.client(api) as client, asyncio.TaskGroup() as group:
        group.create_task(get(client, "old"))
        await asyncio.sleep(1)
        for number in range(3):
            group.create_task(get(client, f"new {number}"))
    assert done == ["old", "new 0", "new 1", "new 2"]


@virtual
async def test_refusals_that_name_no_time_back_off_at_the_gate() -> None:
    api = server(HTTP, *[429] * 6, 200)
    async with HTTP.client(api, retry=Retry.for_http(attempts=10, max_retry_after=60)) as client:
        assert (await client.get(URL)).status_code == 200
    gaps = [late - early for early, late in zip(api.times, api.times[1:], strict=False)]
    for gap, most in zip(gaps, (0.2, 0.4, 0.8, 0.8, 0.8, 0.8), strict=True):
        assert most / 2 <= gap <= most + 1e-6


@virtual
@pytest.mark.parametrize("limiter", [None, "1000/s"])
async def test_a_bad_time_is_borne_by_all_who_wait_and_loses_nobody(limiter: str | None) -> None:
    """Five attempts have each; alone, the first in line would use them up in two seconds."""
    began, refused = now(), Counter[str]()

    def full_for_a_while(request: Any) -> int:
        if now() - began > 6:
            return 200
        refused[str(request.url)] += 1
        return 429

    api = server(HTTP, full_for_a_while)
    async with HTTP.client(api, limiter=limiter, concurrency=1) as client:
        responses = await asyncio.gather(*(client.get(f"{URL}/{number}") for number in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert sum(refused.values()) > 8
    assert max(refused.values()) == 3  # the first; then everybody else was asked before it


@virtual
@pytest.mark.parametrize("limiter", [None, "1000/s"])
async def test_a_server_that_only_refuses_has_five_attempts_from_each_and_the_first_end_soon(
    limiter: str | None,
) -> None:
    began, ended = now(), []

    async def get(number: int) -> int:
        status: int = (await client.get(f"{URL}/{number}")).status_code
        ended.append(now() - began)
        return status

    api = server(HTTP, 429)
    async with HTTP.client(api, limiter=limiter, concurrency=1) as client:
        assert set(await asyncio.gather(*map(get, range(20)))) == {429}
    assert Counter(api.urls) == {f"{URL}/{number}": 5 for number in range(20)}
    assert ended[0] < 16


@virtual
async def test_an_answer_ends_the_refusals_in_a_row() -> None:
    api = server(HTTP, *[429] * 5, 200, 429, 200)
    async with HTTP.client(api, retry=Retry.for_http(attempts=10)) as client:
        await client.get(URL)
        again = now()
        await client.get(URL)
    assert api.times[6] == again
    assert 0.02 <= api.times[7] - again + 1e-6 <= 0.201


@virtual
async def test_a_503_without_a_time_slows_everybody_but_only_idempotent_requests_are_sent_again() -> None:
    events: list[Any] = []
    api = server(HTTP, 503, 200)
    async with HTTP.client(api, on_event=events.append) as client:
        assert (await client.post(URL)).status_code == 503
        assert (await client.post(URL)).status_code == 200
    assert 0.1 <= api.times[1] <= 0.2
    assert [type(event) for event in events] == [Admitted, Paused, Admitted]
    assert client._transport.statistics()["http://server:80"].refused == 0


@virtual
async def test_a_spent_quota_holds_everybody() -> None:
    spent = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "8"}
    api = server(HTTP, (200, spent), 200)
    async with HTTP.client(api) as client:
        await client.get(URL)
        await asyncio.gather(client.get(URL), client.get(URL))
    assert 8 <= api.times[1] == api.times[2] <= 8.16


@pytest.mark.parametrize("ends", ["cancelled", "ReadTimeout"])
def test_a_probe_that_ends_without_an_answer_does_not_wedge_the_gate(ends: str) -> None:
    @virtual
    async def play() -> None:
        async def handle(request: Any) -> Any:
            times.append(now())
            if len(times) == 1:
                return HTTP.Response(429, headers={"Retry-After": "2"})
            if len(times) == 2:
                if ends == "cancelled":
                    probe.cancel()
                await asyncio.sleep(0.1)
                raise HTTP.ReadTimeout("scripted")
            return HTTP.Response(200)

        times: list[float] = []
        async with HTTP.client(HTTP.MockTransport(handle), retry=Retry.for_http(attempts=2)) as client:
            probe = asyncio.create_task(client.post(URL))
            await asyncio.sleep(1)
            others = [asyncio.create_task(client.get(URL)) for _ in range(3)]
            with pytest.raises((asyncio.CancelledError, HTTP.ReadTimeout)):
                await probe
            assert [response.status_code for response in await asyncio.gather(*others)] == [200] * 3
        assert now() < 2.2

    play()


def test_the_body_of_a_refusal_is_heard(http: Http) -> None:
    """Some servers name the time only there, or that waiting is of no use."""

    @virtual
    async def play() -> None:
        body = b'{"message": "You are being rate limited.", "retry_after": 6.5, "global": false}'
        events: list[Any] = []
        api = server(http, (429, {"Content-Type": "application/json"}, body), 200)
        async with http.client(api, on_event=events.append) as client:
            await client.get(URL)
        assert api.times == [0, 6.5]
        assert events[-2].seconds == 6.5
        assert [type(event) for event in events][:2] == [Admitted, Refused]

        body = b'{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}'
        api = server(http, 502, (429, {"Content-Type": "application/json"}, body), 200)
        events.clear()
        async with http.client(api, retry=QUICK, on_event=events.append) as client:
            response = await client.get(URL)
        assert (response.status_code, response.content, api.met) == (429, body, 2)
        assert isinstance(events[-1], GaveUp)
        assert events[-1].outcome is response and events[-1].number == 2
        assert client._transport.statistics()["http://server:80"].lost == 1

    play()


@virtual
async def test_a_refusal_that_is_slow_to_read_holds_no_longer_than_it_says() -> None:
    api = server(HTTP, (429, {"Retry-After": "5"}, Body(b"x", b"y", every=0.4)), 200)
    async with HTTP.client(api) as client:
        await client.get(URL)
    assert 5 <= api.times[1] <= 5.1


@virtual
async def test_hints_of_the_policy_replace_what_is_read() -> None:
    def hear(response: Any) -> Hints | None:
        if "x-slow" in response.headers:
            return Hints(refused=True, retry_after=float(response.headers["x-slow"]))
        return None

    api = server(HTTP, (200, {"x-slow": "3"}), (429, {"Retry-After": "1000"}), 503, (200, {}, b"ok"))
    async with HTTP.client(api, retry=Retry.for_http(hints=hear)) as client:
        assert (await client.get(URL)).status_code == 429  # not what this policy calls a refusal
        assert (await client.get(URL)).text == "ok"
    assert 3 <= api.times[1] == api.times[2] <= 3.06


@virtual
async def test_pauses_longer_than_a_callers_patience_are_not_waited_out_by_anybody() -> None:
    limiter = TokenBucket("1/s", burst=1)
    api = server(HTTP, 200, (429, {"Retry-After": "100"}))
    async with HTTP.client(api, limiter=limiter) as client:
        start = now()
        tasks = [asyncio.create_task(client.get(URL)) for _ in range(4)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(result, "status_code", type(result)) for result in results] == [
            200,
            429,
            RetryAfterTooLong,
            RetryAfterTooLong,
        ]
        assert now() - start == 1  # also those already in line
        with pytest.raises(RetryAfterTooLong) as told:
            await client.get(URL)
        assert 99 < told.value.retry_after <= 100
        assert (await client.get("http://other/")).status_code == 429


def test_a_long_wait_is_logged_once_per_key(caplog: pytest.LogCaptureFixture) -> None:
    @virtual
    async def play() -> None:
        api = server(HTTP, (429, {"Retry-After": "20", "Set-Cookie": "token=secret"}), 200)
        async with HTTP.client(api) as client:
            await client.get("http://user:secret@server/?token=secret", headers={"Authorization": "secret"})

    with caplog.at_level(logging.DEBUG, "throttle"):
        play()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("throttle")]
    assert len(ours) == 1 and "http://server:80" in ours[0] and "secret" not in ours[0]


def test_no_secret_is_told_to_anybody(http: Http, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "throttle")

    @virtual
    async def play() -> None:
        events: list[Any] = []
        secret = {"Set-Cookie": "session=secret", "X-Api-Key": "secret", "Retry-After": "1"}
        secret |= {"X-RateLimit-Bucket": "secret", "RateLimit": '"secret";r=0;t=1;pk=:c2VjcmV0:'}
        api = server(http, (429, secret, b"secret"), "ConnectError", (502, secret), 200)
        async with http.client(api, retry=QUICK, on_event=events.append) as client:
            url = "http://user:secret@server/path?token=secret"
            assert (await client.get(url, headers={"Authorization": "Bearer secret"})).status_code == 200
            transport = client._transport
            told = [events, transport.statistics(), transport, transport.limiter, transport._service.retry]
        assert "secret" not in repr(told) + caplog.text
        assert {event.key for event in events} == {"http://server:80"}

    play()


def test_events_come_in_order_and_a_hook_that_fails_is_only_logged(
    http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []

    def hook(event: Any) -> None:
        events.append(event)
        raise RuntimeError("the hook's own")

    @virtual
    async def play() -> None:
        api = server(http, (429, {"Retry-After": "2"}), 502, 200, 502)
        retry = Retry.for_http(backoff=Constant(1), attempts=3)
        async with http.client(api, retry=retry, on_event=hook) as client:
            await client.get(URL)
            await client.get(URL)

    play()
    key = "http://server:80"
    kinds = [Admitted, Refused, Paused, Retrying, Admitted, Retrying, Admitted]
    kinds += [Admitted, Retrying, Admitted, Retrying, Admitted, GaveUp]
    assert [type(event) for event in events] == kinds
    assert events[0] == Admitted(key, 1, 0.0)
    assert events[1].hints.retry_after == 2
    assert 2 <= events[2].seconds <= 2.04
    assert (events[3].number, events[3].delay, events[3].outcome.status_code) == (1, 0.0, 429)
    assert events[4] == Admitted(key, 1, events[2].seconds)
    assert (events[5].number, events[5].delay) == (2, 1)
    assert (events[-1].number, events[-1].outcome.status_code) == (3, 502)
    assert all("on_event failed on" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == len(events)


@virtual
async def test_no_waits_takes_the_waits_out() -> None:
    api = server(HTTP, (429, {"Retry-After": "30"}), 503, 200)
    with no_waits():
        async with HTTP.client(api) as client:
            assert (await client.get(URL)).status_code == 200
    assert api.times == [0, 0, 0]


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delays", [(0.0, 0.9), (0.0, 0.0, 2.5), (0.3, 0.1, 1.7, 0.0)])
def test_the_server_never_sees_more_than_the_limit_in_any_window(http: Http, delays: tuple[float, ...]) -> None:
    """However the network delays a request on its way there, or its answer on its way back."""

    @virtual
    async def play() -> None:
        seen: list[float] = []

        async def handle(request: Any) -> Any:
            number = int(request.url.path[1:])
            await asyncio.sleep(delays[number % len(delays)])  # on its way there
            seen.append(now())
            await asyncio.sleep(delays[number // 3 % len(delays)])  # and back
            return http.Response(200)

        async with http.client(http.MockTransport(handle), limiter="5/s", client={"timeout": None}) as client:
            await asyncio.gather(*(client.get(f"{URL}{number}") for number in range(40)))
        assert len(seen) == 40
        assert most_in_any(1.0, seen) <= 5

    play()


def test_each_origin_has_a_limit_of_its_own(http: Http) -> None:
    @virtual
    async def play() -> None:
        api = server(http, 200)
        async with http.client(api, limiter=TokenBucket("1/s", burst=1)) as client:
            await asyncio.gather(*(client.get(f"http://{host}/") for host in "aabb"))
        assert sorted(api.times) == [0, 0, 1, 1]

    play()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://a/x?y=1", "http://a:80"),
        ("https://A.example:443/", "https://a.example:443"),
        ("https://user:pass@a:8443/", "https://a:8443"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("odd://a/", "odd://a:0"),
    ],
)
def test_by_origin(http: Http, url: str, key: str) -> None:
    assert by_origin(http.Request("GET", url)) == key


@virtual
async def test_key_and_cost_may_be_values_or_functions_of_the_request() -> None:
    limiter = TokenBucket("1/s", burst=10)
    for options in (
        {"key": "search", "cost": 3},
        {"key": lambda request: request.url.path[1:], "cost": lambda request: int(request.url.params["n"])},
    ):
        await limiter.reset()
        async with HTTP.client(server(HTTP, 200), limiter=limiter, **options) as client:
            await client.get(URL + "search?n=3")
        assert [(await limiter.peek(key=key)).remaining for key in ("search", "http://server:80")] == [7, 10]


@virtual
async def test_each_request_may_say_otherwise() -> None:
    limiter = TokenBucket("1/s", burst=10)
    async with HTTP.client(server(HTTP, 200), limiter=limiter) as client:
        await client.get(URL, extensions={"throttle": {"key": "k", "cost": 4}})
        assert (await limiter.peek(key="k")).remaining == 6
        await client.get(URL, extensions={"throttle": {"key": lambda request: "l", "cost": lambda request: 2}})
        assert (await limiter.peek(key="l")).remaining == 8
        await client.get(URL, extensions={"throttle": {}})
        assert (await limiter.peek(key="http://server:80")).remaining == 9


@virtual
async def test_a_higher_priority_goes_ahead() -> None:
    done: list[int] = []
    api = server(HTTP, lambda request: done.append(int(request.url.path[1:])) or 200)
    async with HTTP.client(api, limiter=TokenBucket("1/s", burst=1)) as client:

        async def get(priority: int) -> None:
            await client.get(f"{URL}{priority}", extensions={"throttle": {"priority": priority}})

        await asyncio.gather(*(get(priority) for priority in (0, 1, 3, 2)))
    assert done == [0, 3, 2, 1]


@pytest.mark.parametrize(
    ("extension", "error", "says"),
    [
        ("5", ValueError, r'takes a dict of cost, key, max_wait, priority; not "?\'5'),
        ({"costs": 3}, ValueError, "not {'costs': 3}"),
        ({"cost": -1}, ValueError, "-1"),
        ({"cost": "many"}, (ValueError, TypeError), "many"),
        ({"cost": lambda request: None}, (ValueError, TypeError), "None"),
        ({"cost": 11}, CostExceedsBurst, "11"),
        ({"key": 5}, TypeError, "a key is a str, not 5"),
        ({"key": lambda request: None}, TypeError, "a key is a str, not None"),
        ({"priority": "high"}, TypeError, "priority must be a whole number, not 'high'"),
        ({"priority": True}, TypeError, "not True"),
        ({"max_wait": -1}, ValueError, "-1"),
        ({"max_wait": "5"}, (ValueError, TypeError), "5"),
    ],
)
def test_a_bad_extension_is_one_clear_error(extension: Any, error: Any, says: str) -> None:
    @virtual
    async def play() -> None:
        api = server(HTTP, 200)
        async with HTTP.client(api, limiter=TokenBucket("1/s", burst=10)) as client:
            with pytest.raises(error, match=says):
                await client.get(URL, extensions={"throttle": extension})
            await client.get(URL)
        assert api.times == [0]

    play()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"limiter": True}, TypeError, "limiter=True"),
        ({"limiter": "fast"}, ValueError, "fast"),
        ({"limiter": 0}, ValueError, "0"),
        ({"limiter": [1]}, TypeError, r"\[1\]"),
        ({"retry": 3}, TypeError, "not 3"),
        ({"retry": RetryClass}, TypeError, "retry takes a Retry"),
        ({"key": 5}, TypeError, "5"),
        ({"key": None}, TypeError, "key takes a str or a function that gives one, not None"),
        ({"cost": -1}, ValueError, "-1"),
        ({"cost": 11, "limiter": "10/s"}, CostExceedsBurst, "11"),
        ({"max_wait": -1}, ValueError, "-1"),
        ({"max_wait": float("nan")}, ValueError, "nan"),
        ({"concurrency": 0}, ValueError, "concurrency must be a whole number of at least 1, not 0"),
        ({"concurrency": 1.5}, ValueError, "1.5"),
        ({"concurrency": True}, ValueError, "True"),
        ({"on_event": 5}, TypeError, "on_event"),
        ({"unknown": 5}, TypeError, "unknown"),
        ({"inner": 5}, TypeError, "inner must be an async transport of httpx"),
        ({"inner": HTTP.AsyncHTTPTransport}, TypeError, "inner must be"),
        ({"inner": "10/s"}, TypeError, "not '10/s'; a limit is given by name: limiter="),
        ({"inner": HTTP.HTTPTransport()}, TypeError, "inner must be"),
    ],
)
def test_a_bad_option_is_one_clear_error(options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        ThrottleTransport(**options)


@virtual
async def test_the_two_libraries_do_not_mix() -> None:
    httpx2 = pytest.importorskip("httpx2")
    from throttle.httpx2 import ThrottleTransport as Twin

    for other, ours, twin in ((httpx2, ThrottleTransport, HTTP), (HTTP, Twin, httpx2)):
        with pytest.raises(TypeError, match=f"inner must be an async transport of {twin.__name__}, not"):
            ours(other.AsyncHTTPTransport())
        async with other.AsyncClient(transport=ours()) as client:
            with pytest.raises(TypeError, match=rf"needs the ThrottleTransport of throttle.{other.__name__}: <Request"):
                await client.get(URL)


def test_a_limiter_may_be_shared_and_bound(http: Http) -> None:
    @virtual
    async def play() -> None:
        limiter = TokenBucket("1/s", burst=1)
        first, second = server(http, 200), server(http, 200)
        bound = limiter["all"]
        async with http.client(first, limiter=bound) as one, http.client(second, limiter=bound) as two:
            await asyncio.gather(one.get("http://a/"), one.get("http://b/"), two.get("http://c/"))
        assert sorted(first.times + second.times) == [0, 1, 2]
        assert one._transport.statistics().keys() == {"all"}
        assert one._transport.limiter.key == "all"

    play()


@virtual
async def test_all_of_names_costs() -> None:
    limiter = AllOf(requests=TokenBucket("10/s"), tokens=TokenBucket("100/s"))
    async with HTTP.client(server(HTTP, 200), limiter=limiter, key="k", cost={"tokens": 60}) as client:
        await client.get(URL)
        await client.get(URL)
    assert now() == pytest.approx(0.2)


# ── concurrency ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_concurrency_is_part_of_the_gate(http: Http) -> None:
    @virtual
    async def play() -> None:
        flying = most = 0

        async def handle(request: Any) -> Any:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(1)
            flying -= 1
            return http.Response(200)

        limiter = TokenBucket("2/s", burst=5)
        async with http.client(http.MockTransport(handle), limiter=limiter, concurrency=3, key="k") as client:
            await asyncio.gather(*(client.get(URL) for _ in range(9)))
        assert (most, now()) == (3, 3)  # who waits for a slot has not taken a permit: three rounds of three

    play()


@virtual
async def test_who_waits_for_a_rate_holds_no_slot() -> None:
    limiter = TokenBucket("0.1/s", burst=1)
    async with HTTP.client(server(HTTP, 200, lag=1), limiter=limiter, concurrency=1) as client:
        await client.get("http://slow/")
        waits = asyncio.create_task(client.get("http://slow/"))
        await asyncio.sleep(0)
        await client.get("http://quick/")
        assert now() == 2
        await waits
        assert now() == 11


@virtual
async def test_no_slot_leaks_however_a_request_ends() -> None:
    """Cancelled at each instant of its way, failed, refused: at the end all slots are free."""
    for instant in [number / 10 for number in range(60)]:
        limiter = TokenBucket("1/s", burst=1)
        slow = (502, {}, Body(b"x", b"y", every=0.2))
        api = server(HTTP, 200, (429, {"Retry-After": "1"}), "ReadTimeout", slow, lag=0.3)
        async with HTTP.client(api, limiter=limiter, concurrency=1, retry=QUICK) as client:
            tasks = [asyncio.create_task(client.get(URL)) for _ in range(3)]
            await asyncio.sleep(instant)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            service = client._transport._service
            assert service._concurrency.used == 0
            assert nothing_left(limiter)


@virtual
async def test_a_limit_given_as_a_rate_is_held_until_the_headers_come() -> None:
    api = server(HTTP, 200, lag=0.5)
    async with HTTP.client(api, limiter="1/s") as client:
        await asyncio.gather(*(client.get(URL) for _ in range(3)))
    assert api.times == [0, 1.5, 3]


@virtual
async def test_the_clients_timeout_does_not_cover_the_line() -> None:
    def pool(request: Any) -> int:
        assert request.extensions["timeout"] == {"connect": 0.1, "read": 0.1, "write": 0.1, "pool": 0.1}
        return 200

    async with HTTP.client(server(HTTP, pool), limiter="1/10s", client={"timeout": 0.1}) as client:
        await client.get(URL)
        await client.get(URL)
    assert now() == 10


@virtual
async def test_attempt_timeout_does_not_cover_the_line_and_is_no_reason_to_post_twice() -> None:
    retry = Retry.for_http(attempt_timeout=1, attempts=3, backoff=Constant(0))
    for method, met in [("GET", 3), ("POST", 1)]:
        api = server(HTTP, 200, lag=5)
        async with HTTP.client(api, limiter=TokenBucket("1/3s", burst=1), retry=retry) as client:
            with pytest.raises(TimeoutError):
                await client.request(method, URL)
        assert api.met == met
        await asyncio.sleep(10)


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wrap_keeps_transport_mounts_and_proxies_under_one_limit(http: Http) -> None:
    @virtual
    async def play() -> None:
        main, proxy = server(http, 200), server(http, 200)
        client = http.AsyncClient(transport=main, mounts={"http://mounted": proxy, "http://none": None})
        events: list[Any] = []
        options = {"limiter": TokenBucket("1/s", burst=1), "key": "all", "max_wait": 50, "on_event": events.append}
        assert http.transport.wrap(client, **options) is client
        async with client:
            assert (main.entered, proxy.entered) == (1, 1)
            await client.get("http://server/")
            await client.get("http://mounted/")
            await client.get("http://none/")
        assert (main.closed, proxy.closed) == (1, 1)
        assert sorted(main.times + proxy.times) == [0, 1, 2]
        assert (main.met, proxy.met) == (2, 1)
        assert client._transport.statistics()["all"].sent == 3
        client = http.AsyncClient(proxy="http://localhost:1")
        http.transport.wrap(client, limiter="1/s")
        pools = [mount._inner._pool for mount in client._mounts.values() if mount is not None]
        assert any("Proxy" in type(pool).__name__ for pool in pools)
        await client.aclose()

    play()


def test_wrap_serves_either_library_and_refuses_the_rest(http: Http) -> None:
    client = http.AsyncClient()
    assert ThrottleTransport.wrap(client, limiter="1/s") is client
    assert isinstance(client._transport, http.transport)
    with pytest.raises(ValueError, match="throttled already"):
        http.transport.wrap(client)
    with pytest.raises(ValueError, match="throttled already"):
        http.transport.wrap(http.AsyncClient(transport=http.transport()))
    with pytest.raises(ValueError, match="throttled already"):
        http.transport.wrap(http.AsyncClient(mounts={"http://server": http.transport()}))
    with pytest.raises(TypeError, match=f"sync {http.library.__name__}.Client cannot wait"):
        http.transport.wrap(http.Client())
    for thing in (None, 5, "client", object(), http.AsyncHTTPTransport()):
        with pytest.raises(TypeError, match="is no AsyncClient of httpx or httpx2"):
            http.transport.wrap(thing)
    with pytest.raises(TypeError, match="takes no inner"):
        http.transport.wrap(http.AsyncClient(), inner=http.AsyncHTTPTransport())
    with pytest.raises(TypeError, match="unknown"):
        http.transport.wrap(http.AsyncClient(), unknown=5)


def test_a_sync_client_is_told(http: Http) -> None:
    with pytest.raises(TypeError, match="a sync Client cannot use it"):
        http.Client(transport=http.transport()).get(URL)
    with pytest.raises(TypeError, match="a sync Client cannot use it"), http.Client(transport=http.transport()):
        pass
    http.Client(transport=http.transport()).close()
    transport = http.transport()
    assert transport.__exit__(None, None, None) is None


def test_it_is_a_transport_of_its_library(http: Http) -> None:
    transport = http.transport()
    assert isinstance(transport, http.AsyncBaseTransport)
    assert isinstance(transport._inner, http.AsyncHTTPTransport)
    assert repr(transport) == "<ThrottleTransport <AdaptiveLimiter>>"
    assert "TokenBucket" in repr(http.transport(limiter=TokenBucket("1/s")))


def test_opening_and_closing_are_passed_on(http: Http) -> None:
    @virtual
    async def play() -> None:
        api = server(http, 200)
        async with http.client(api):
            assert api.entered == 1
        assert api.closed == 1
        await http.client(api).aclose()
        assert api.closed == 2

    play()


def test_redirects_and_auth_flows_pay_per_request(http: Http) -> None:
    @virtual
    async def play() -> None:
        api = server(http, (302, {"Location": "/there"}), 200)
        async with http.client(api, limiter=TokenBucket("1/s", burst=1)) as client:
            await client.get(URL, follow_redirects=True)
        assert api.times == [0, 1]

        challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
        api = server(http, (401, {"WWW-Authenticate": challenge}), 200)
        async with http.client(api, limiter=TokenBucket("1/s", burst=1)) as client:
            await client.post(URL, auth=http.DigestAuth("user", "password"), files={"f": b"bytes"})
        assert api.times == [1, 2]
        assert api.bodies[0] == api.bodies[1] != b""

        api = server(http, (307, {"Location": "/there"}), (429, RETRY_AFTER), 200)
        async with http.client(api) as client:
            response = await client.post(URL, follow_redirects=True, files={"f": io.BytesIO(b"bytes")})
        assert (response.status_code, api.met, len(set(api.bodies))) == (200, 3, 1)

    play()


@virtual
async def test_transports_may_stand_in_line() -> None:
    """A limit in all around one per origin."""
    api = server(HTTP, 200)
    per_origin = HTTP.transport(api, limiter=TokenBucket("1/s", burst=1), retry=None)
    async with HTTP.client(per_origin, limiter=TokenBucket("2/s", burst=1)["all"]) as client:
        await asyncio.gather(*(client.get(f"http://{host}/") for host in "aab"))
    assert sorted(api.times) == [0, 1, 1]


@virtual
async def test_what_the_inner_transports_limiter_refuses_is_not_tried_again() -> None:
    inner = HTTP.transport(server(HTTP, 200), limiter=TokenBucket("0.1/s", burst=1), retry=Retry.for_http(timeout=2))
    async with HTTP.client(inner) as client:
        await client.get(URL)
        with pytest.raises(DeadlineExceeded):
            await client.get(URL)
        assert client._transport.statistics()["http://server:80"].sent == 2
    assert now() == 0


# ── other loops, other times ──────────────────────────────────────────────────────────────────────────────────────────


def test_on_trio(http: Http) -> None:
    """The same core under trio: a known limit, a refusal with its time, a response put aside, a cancelled request."""
    world = TrioWorld()

    async def play() -> None:
        api = server(http, 200, 200, (429, {"Retry-After": "5"}, Body(b"no")), (200, {}, b"ok"))
        api.now = world.now
        start = world.now()
        limiter = SlidingWindow("2/s", hold=True, clock=world.clock)
        async with http.client(api, limiter=limiter, concurrency=2) as client:
            for _ in range(2):
                await client.get(URL)
            assert (await client.get(URL)).text == "ok"
            assert [round(at - start, 3) for at in api.times] == [0, 0, 1, 6]
            client._transport.limiter.pause(30)
            with trio.move_on_after(1):
                await client.get(URL, extensions={"throttle": {"key": "other"}})
        assert round(world.now() - start, 3) == 7
        assert client._transport._service._concurrency.used == 0
        assert nothing_left(limiter)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_client_may_be_used_in_one_program_after_another(http: Http) -> None:
    transport = http.transport(server(http, 200), limiter=TokenBucket("1/s", burst=1))
    transport._inner.now = now

    async def play() -> float:
        start = now()
        await asyncio.gather(*(http.AsyncClient(transport=transport).get(URL) for _ in range(2)))
        return now() - start

    assert [run_virtual(play) for _ in range(2)] == [1, 1]
    assert transport.statistics()["http://server:80"].waited == 2


def test_fifty_tasks_finish_an_unknown_limit(http: Http) -> None:

    @virtual
    async def play(rule: Window) -> None:
        retry = Retry.for_http(attempts=30)
        async with http.client(server(http, rule, lag=0.02), retry=retry) as client:
            responses = await asyncio.gather(*(client.get(URL) for _ in range(50)))
        assert {response.status_code for response in responses} == {200}
        assert len(rule.granted) == 50

    play(Window(10, 2.0))
    play(Window(10, 2.0, tells=False))
