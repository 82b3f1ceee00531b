"""A real server that is down: the retries of all calls together stay within the budget that is there by default."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from worlds import virtual

from throttle import Rate, Retry, RetryBudget, Throttle, ThrottleTransport
from throttle.clock import current_clock
from throttle.tally import KeyStatistics

from .odd import ANSWERS, Server, odd_server

pytestmark = pytest.mark.server

CALLS = 300
WINDOW = 10.0  # seconds that a budget looks back on


async def load(server: Server, path: str, **options: Any) -> tuple[int, float, Any]:
    """What `CALLS` calls of 20 tasks send to the server, in how many seconds, and their transport."""
    transport = ThrottleTransport(limiter=False, **options)
    start = current_clock().now()
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:
        fetch = Throttle(False, concurrency=20).map(lambda _: client.get(server.url + path), range(CALLS))
        async with fetch as results:
            async for _ in results:
                pass
    return server.met[path], current_clock().now() - start, transport


@pytest.fixture(autouse=True)
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "/bad-gateway", (502, {}, b""))


@virtual
async def test_the_offered_load_of_an_outage() -> None:
    with odd_server() as server:
        sent, seconds, transport = await load(server, "/bad-gateway")
    (counts,) = transport.statistics().values()
    assert counts.sent == sent
    assert counts.lost == CALLS
    assert counts.rejected == counts.refused == 0
    assert CALLS < sent <= 1.1 * CALLS + 10 * (seconds + WINDOW)
    assert sent < 2 * CALLS  # five attempts each would be 1500


@virtual
async def test_without_a_budget_it_would_be_multiplied() -> None:
    with odd_server() as server:
        sent, *_ = await load(server, "/bad-gateway", retry=Retry.for_http(attempts=3, budget=None))
    assert sent == 3 * CALLS


@virtual
async def test_refusals_for_a_limit_do_not_spend_it() -> None:
    budget = RetryBudget(ratio=0, reserve=0)
    with odd_server() as server:
        async with httpx.AsyncClient(transport=ThrottleTransport(retry=Retry.for_http(budget=budget))) as client:
            statuses = [(await client.get(f"{server.url}/flaky")).status_code]
            statuses.append((await client.get(f"{server.url}/bad-gateway")).status_code)
    assert statuses == [200, 502]
    assert (server.met["/flaky"], server.met["/bad-gateway"]) == (2, 1)


@virtual
async def test_statistics_of_a_server_that_tells_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RateLimit": '"all";r=99;t=60', "RateLimit-Policy": '"all";q=100;w=60'}
    monkeypatch.setitem(ANSWERS, "/told", (200, told, b""))
    with odd_server() as server:
        async with httpx.AsyncClient(transport=ThrottleTransport()) as client:
            await client.get(f"{server.url}/told")
            (counts,) = client._transport.statistics().values()  # type: ignore[attr-defined]
    assert counts == KeyStatistics(sent=1, waited=counts.waited, learned=Rate(100, per=60))
