"""What a server said, found on exceptions and results of any client; odd objects do no harm."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from email.message import Message
from fractions import Fraction
from http import HTTPStatus
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle import listening
from throttle.decisions import Decision
from throttle.errors import CounterUnavailable, DeadlineExceeded, RetryAfterTooLong, WaitTooLong
from throttle.hints import Hints
from throttle.listening import listen, longest, wait_told


class Thing:
    """An object with the attributes a test gives it."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Failure(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.__dict__.update(attributes)


class Odd:
    """Raises whatever is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was given to `read_hints`, which says 7 s."""
    calls: list[tuple[Any, ...]] = []

    def record(status: int, headers: Any, *, host: str | None = None) -> Hints:
        calls.append((status, headers, host))
        return Hints(refused=True, retry_after=7.0)

    monkeypatch.setattr(listening, "read_hints", record)
    return calls


@pytest.mark.parametrize(
    ("told", "wait"),
    [
        (0, 0.0),
        (2, 2.0),
        (2.5, 2.5),
        (Decimal("2.5"), 2.5),
        (Fraction(5, 2), 2.5),
        (timedelta(minutes=1), 60.0),
        (timedelta(0), 0.0),
        (10**400, 1e300),
    ],
)
def test_retry_after_of_an_exception_or_a_value(told: Any, wait: float) -> None:
    for outcome in (Failure(retry_after=told), Thing(retry_after=told)):
        hints = listen(outcome)
        assert hints == Hints(refused=True, retry_after=wait)


@pytest.mark.parametrize(
    "told",
    [
        *(None, -1, -0.5, math.nan, math.inf, True, "5", b"5", [5], timedelta(seconds=-1), lambda: 5, Mock()),
        *(Decimal("NaN"), Decimal("Infinity"), Decimal(-1), Fraction(-1), 5j),
    ],
)
def test_anything_else_is_no_retry_after(told: Any) -> None:
    assert listen(Failure(retry_after=told)) is None


def test_retry_after_goes_before_the_response(read: list[Any]) -> None:
    hints = listen(Failure(retry_after=1, response=Thing(status_code=429, headers={})))
    assert hints is not None
    assert hints.wait == 1.0
    assert not read


@pytest.mark.parametrize(
    "outcome",
    [
        Failure(response=Thing(status_code=429, headers={"a": "b"})),  # httpx, requests, openai
        Failure(status=429, headers={"a": "b"}),  # aiohttp's ClientResponseError
        Thing(status=429, headers={"a": "b"}),  # aiohttp's ClientResponse
        Thing(status_code=HTTPStatus.TOO_MANY_REQUESTS, headers={"a": "b"}),
        Failure(response=None, status_code=429, headers={"a": "b"}),
        Failure(response=Thing(text="no response"), status_code=429, headers={"a": "b"}),
        Failure(retry_after="soon", response=Thing(status_code=429, headers={"a": "b"})),
    ],
)
def test_shapes_of_responses(read: list[Any], outcome: Any) -> None:
    hints = listen(outcome)
    assert hints is not None
    assert hints.wait == 7.0
    assert read == [(429, {"a": "b"}, None)]


def test_a_response_that_is_false_is_one(read: list[Any]) -> None:
    """requests' responses are false when they are errors."""
    response = type("Response", (Thing,), {"__bool__": lambda self: False})(status_code=429, headers={})
    assert listen(Failure(response=response)) is not None
    assert len(read) == 1


@pytest.mark.parametrize(
    "headers",
    [httpx.Headers({"Retry-After": "1"}), [("Retry-After", "1")], (("Retry-After", "1"),), [], Message()],
)
def test_headers_of_any_shape_are_read(read: list[Any], headers: Any) -> None:
    listen(Thing(status=429, headers=headers))
    assert read == [(429, headers, None)]


@pytest.mark.parametrize("headers", [None, "Retry-After: 1", 5, [1, 2], ["ab"], [("a",)], Thing(), Mock, object()])
def test_what_has_no_headers_is_no_response(read: list[Any], headers: Any) -> None:
    assert listen(Thing(status=429, headers=headers)) is None
    assert not read


@pytest.mark.parametrize("status", [None, "429", 429.0, True, Mock(), [429]])
def test_what_has_no_status_is_no_response(read: list[Any], status: Any) -> None:
    assert listen(Thing(status=status, headers={})) is None
    assert listen(Thing(headers={})) is None
    assert not read


@pytest.mark.parametrize(
    ("attributes", "host"),
    [
        ({"url": httpx.URL("https://api.example.com/x")}, "api.example.com"),
        ({"url": "https://api.example.com:8443/x"}, "api.example.com"),
        ({"url": "https://[broken"}, None),
        ({"url": "nonsense"}, None),
        ({"url": 5}, None),
        ({"request_info": Thing(url=httpx.URL("https://api.example.com/x"))}, "api.example.com"),
        ({"request_info": None}, None),
    ],
)
def test_the_host_is_told(read: list[Any], attributes: dict[str, Any], host: str | None) -> None:
    listen(Thing(status=429, headers={}, **attributes))
    assert read == [(429, {}, host)]


@pytest.mark.parametrize(
    "outcome",
    [
        None, 1, "text", b"", {}, {"status": 429}, [], OSError(), ValueError("x"), object(), Mock(),
        Failure(response=5),
        Thing(status=429), Decision(False, 0.0, 5.0, True, 5.0, 5),
        WaitTooLong(5.0), RetryAfterTooLong(5.0), DeadlineExceeded(5.0), CounterUnavailable("redis"),
        httpx.ConnectError("no request"), httpx.ReadTimeout("late", request=httpx.Request("GET", "https://a.b")),
    ],
)  # fmt: skip
def test_what_no_server_said(outcome: Any) -> None:
    assert listen(outcome) is None


def test_what_cannot_be_looked_at(read: list[Any]) -> None:
    assert listen(Odd()) is None
    assert listen(Failure(response=Odd())) is None
    for name in ("retry_after", "status", "headers"):
        assert listen(Thing(**{"status": 429, "headers": {}, name: Odd()})) is None
    assert not read


def test_a_property_that_raises_does_not_hide_the_rest(read: list[Any]) -> None:
    class Half(Exception):
        status, headers = 429, {}

        @property
        def response(self) -> Any:
            raise RuntimeError("not set")

    assert listen(Half()) is not None
    assert len(read) == 1


def test_hints_are_what_they_are() -> None:
    hints = Hints(retry_after=3.0)
    assert listen(hints) is hints


def test_attributes_put_on_a_builtin_exception_are_heard() -> None:
    error = OSError()
    error.retry_after = 3  # type: ignore[attr-defined]
    assert listen(error) == Hints(refused=True, retry_after=3.0)


def test_of_a_group_the_longest_wait_counts() -> None:
    group = ExceptionGroup(
        "two", [Failure(retry_after=1), OSError(), ExceptionGroup("", [Failure(retry_after=5), WaitTooLong(99.0)])]
    )
    assert listen(group) == Hints(refused=True, retry_after=5.0)
    assert listen(ExceptionGroup("none", [OSError()])) is None


def test_a_real_response_is_really_read() -> None:
    request = httpx.Request("GET", "https://api.example.com/items")
    response = httpx.Response(429, headers={"Retry-After": "7"}, request=request)
    error = httpx.HTTPStatusError("429", request=request, response=response)
    for outcome in (error, response):
        hints = listen(outcome)
        assert hints is not None
        assert (hints.refused, hints.wait) == (True, 7.0)
    answer = listen(httpx.Response(200, headers={"Retry-After": "7"}, request=request))
    assert answer is not None
    assert not answer.refused


def test_longest() -> None:
    refused, named, said = Hints(refused=True), Hints(refused=True, retry_after=2.0), Hints(retry_after=9.0)
    assert longest([None, refused, named]) == named
    assert longest([refused, Hints()]) == refused
    assert longest([said, Hints(retry_after=1.0)]) == said
    assert longest([None, said]) is said
    assert longest([]) is None


def test_a_refusal_beside_a_longer_wait_is_a_refusal_for_that_long() -> None:
    outage = Hints(retry_after=9.0, wait=9.0)  # 503 and its like
    for other in (Hints(refused=True), Hints(refused=True, retry_after=2.0)):
        assert longest([other, outage]) == Hints(refused=True, retry_after=9.0, wait=9.0)


def test_waiting_must_help_all_of_a_group() -> None:
    hopeless = Hints(refused=True, retryable=False)
    told = longest([hopeless, Hints(refused=True, retry_after=2.0)])
    assert told == Hints(refused=True, retry_after=2.0, retryable=False)


@pytest.mark.parametrize(
    ("hints", "wait"),
    [
        (Hints(), 0.0),
        (Hints(refused=True), 0.0),
        (Hints(refused=True, retry_after=2.0), 2.0),
        (Hints(refused=True, retry_after=2.0, wait=3.0), 3.0),
        (Hints(refused=True, retry_after=None, wait=3.0), 3.0),
        (Hints(retry_after=2.0), 2.0),
        (Hints(wait=4.0), 4.0),
    ],
)
def test_wait_told(hints: Hints, wait: float) -> None:
    assert wait_told(hints) == wait


NAMES = st.sampled_from(["retry_after", "response", "status", "status_code", "headers", "url"])


@given(st.dictionaries(NAMES, st.one_of(
    st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.timedeltas(),
    st.lists(st.tuples(st.text(), st.text())), st.dictionaries(st.text(), st.text()), st.builds(Odd), st.builds(Mock),
)))  # fmt: skip
def test_nothing_makes_it_raise(attributes: dict[str, Any]) -> None:
    for outcome in (Thing(**attributes), Failure(**attributes), Failure(response=Thing(**attributes))):
        hints = listen(outcome)
        assert hints is None or isinstance(hints, Hints)
