"""`read_hints`: what counts as a refusal, how long to wait, whose limit it is; and that nothing makes it raise."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from throttle.bodies import may_refuse
from throttle.hints import Hints, Quota, read_hints, tells
from throttle.resets import Moment, Stamp, duration, reset_in, resets
from throttle.retry_after import LONGEST
from throttle.vendors import host_entry

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
SPENT = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}


def hear(status: int, headers: Any = (), **options: Any) -> Hints:
    body = options.get("body")
    if body is not None and not isinstance(body, (str, bytes)):
        options["body"] = json.dumps(body)
    return read_hints(status, headers, **{"now": NOW, **options})


# ── what headers may be ───────────────────────────────────────────────────────────────────────────────────────────────


class Headers:
    """As CIMultiDictProxy of aiohttp: `items` repeats names, and it is no Mapping of ours."""

    def __init__(self, *pairs: tuple[Any, Any]) -> None:
        self.pairs = pairs

    def items(self) -> Iterator[tuple[Any, Any]]:
        return iter(self.pairs)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "5", "Server": "x"},
        {"server": "x", "RETRY-AFTER": "5"},
        {"server": 7, "retry-after": 5, "x": None},
        {b"retry-after": b"5"},
        {"retry-after": b"5", b"server": "x"},
        {"retry-after": ["5", "4"]},
        {"retry-after": 5.0},
        [("retry-after", "4"), ("server", "x"), ("Retry-After", "5")],
        [["retry-after", "5"]],
        (("retry-after", text) for text in ("soon", "5", "")),
        httpx.Headers({"retry-after": "5", "server": "x"}),
        httpx.Headers([("retry-after", "4"), ("retry-after", "5")]),
        Headers(("Retry-After", "5"), ("Retry-After", "1")),
        [None, "ab", ("retry-after", "5"), ("one", "two", "three"), (None, None), 5, (b"\xff", b"\xff")],
    ],
)
def test_headers_of_every_kind(headers: Any) -> None:
    hints = hear(429, headers)
    assert hints == Hints(refused=True, retry_after=5.0)


@pytest.mark.parametrize(
    "headers", [None, 5, "retry-after: 5", object(), [1, 2], {1: 2}, type("Odd", (), {"items": 5})]
)
def test_no_headers_at_all(headers: Any) -> None:
    assert hear(429, headers) == Hints(refused=True)
    assert hear(200, headers) == Hints()


def test_somebodys_own_idea_of_headers() -> None:
    class Raising:
        @property
        def raw(self) -> Any:
            raise RuntimeError("not there yet")

    assert hear(429, Raising()) == Hints(refused=True)


@pytest.mark.parametrize("status", [None, "429", [], 4.29, object()])
def test_what_is_no_status_refuses_nothing(status: Any) -> None:
    assert hear(status, {"retry-after": "5"}) == Hints(retry_after=5.0)


def test_other_libraries_headers() -> None:
    requests = pytest.importorskip("requests.structures")
    assert hear(429, requests.CaseInsensitiveDict({"Retry-After": "5, 60"})).wait == 60.0
    multidict = pytest.importorskip("multidict")
    proxy = multidict.CIMultiDictProxy(multidict.CIMultiDict([("Retry-After", "5"), ("Retry-After", "60")]))
    assert hear(429, proxy).wait == 60.0


@pytest.mark.parametrize("value", [-1, -0.5, math.inf, math.nan, Decimal("NaN"), "5", object()])
def test_what_people_make_by_hand_is_checked(value: Any) -> None:
    for name in ("retry_after", "wait"):
        says = rf"{name} of Hints \(seconds\) must be .*{re.escape(repr(value))}"
        with pytest.raises((TypeError, ValueError), match=says):
            Hints(refused=True, **{name: value})
    assert Hints(refused=True, retry_after=5).wait == 5


def test_nothing_said_makes_nothing_new() -> None:
    headers = httpx.Headers({"content-type": "text/html", "date": DATE, "server": "x"})
    assert hear(200, headers) is hear(404, headers) is hear(204, {}) is hear(301, [])


# ── refused or not ────────────────────────────────────────────────────────────────────────────────────────────────────

RETRY = {"Retry-After": "5"}


@pytest.mark.parametrize(
    ("status", "headers", "refused", "wait"),
    [
        (429, {}, True, None),
        (418, {}, True, None),
        (529, {}, True, None),
        (429, RETRY, True, 5.0),
        (429, {"Retry-After": "0"}, True, 0.0),
        (429, {"Retry-After": "soon"}, True, None),
        (503, {}, False, 0.0),  # may be an outage
        (503, {"Retry-After": "soon"}, False, 0.0),
        (503, RETRY, True, 5.0),
        (503, SPENT, True, 30.0),
        (403, {}, False, 0.0),
        (403, RETRY, True, 5.0),
        (403, SPENT, True, 30.0),
        (403, {**SPENT, "X-RateLimit-Remaining": "-1"}, False, 0.0),  # often means unlimited
        (413, {}, False, 0.0),
        (413, RETRY, True, 5.0),
        (413, SPENT, False, 30.0),
        (404, RETRY, False, 0.0),
        (404, SPENT, False, 30.0),
        (200, RETRY, False, 0.0),
        (202, RETRY, False, 0.0),
        (301, RETRY, False, 0.0),
        (200, SPENT, False, 30.0),
        (304, SPENT, False, 30.0),
        (500, {}, False, 0.0),
        (500, RETRY, False, 5.0),
        (502, {**SPENT, **RETRY}, False, 30.0),
        (502, {**SPENT, "Retry-After": "60"}, False, 60.0),
        (400, {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/"}, True, None),
        (400, {"x-amzn-ErrorType": "ValidationException"}, False, 0.0),
        (200, {"MediaWiki-API-Error": "ratelimited"}, True, None),
        (200, {"MediaWiki-API-Error": "maxlag", "Retry-After": "5", "X-Database-Lag": "12"}, True, 5.0),
        (200, {"MediaWiki-API-Error": "badtoken"}, False, 0.0),
    ],
)
def test_refused_and_the_wait(status: int, headers: Any, refused: bool, wait: float | None) -> None:
    hints = hear(status, headers)
    assert (hints.refused, hints.wait) == (refused, wait)


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ({"Retry-After": "5"}, 5.0),
        ({**SPENT, "Retry-After": "5"}, 5.0),  # rules, also where it is the shorter
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "58.0", "Retry-After": "1"}, 0.058),
        ({"x-amz-retry-after": "1500"}, 1.5),
        ({"retry-after-ms": ["250", "300"]}, 0.3),
        ({"retry-after-ms": "-5", "Retry-After": "1"}, 1.0),
        ({"retry-after-ms": "nan", "Retry-After": "1"}, 1.0),
        ({"retry-after-ms": "soon", "x-ms-retry-after-ms": "2000", "Retry-After": "1"}, 2.0),
        ({"retry-after": ["5", "junk"]}, 5.0),
        ({"retry-after": "junk"}, None),
        ({"retry-after": ["", DATE]}, 0.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": "Tue, 14 Nov 2023 22:14:00 GMT"}, 20.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": "Tue, 14 Nov 2023 22:14:00 GMT", "age": "8"}, 12.0),
        ({"retry-after": "30", "date": "Tue, 14 Nov 2023 22:14:00 GMT", "age": "8"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": "?", "age": "?"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": DATE, "age": "-10"}, 60.0),
        ({"retry-after": "9" * 500}, LONGEST),
        ({"retry-after-ms": "9" * 20, "Retry-After": "1"}, LONGEST),
        ({"retry-after-ms": "9" * 500}, LONGEST),
    ],
)
def test_retry_after_and_its_milliseconds(fields: Any, wait: float | None) -> None:
    hints = hear(429, fields)
    assert (hints.retry_after, hints.wait) == (wait, wait)


LIMITS = {"X-RateLimit-Limit-A": "5", "X-RateLimit-Limit-B": "9"}


@pytest.mark.parametrize(
    ("fields", "refused", "otherwise"),
    [
        # the longest reset of what is spent, and of nothing else
        ({"X-RateLimit-Remaining-A": "0", "X-RateLimit-Reset-A": "5"}, 5.0, 5.0),
        ({"X-RateLimit-Remaining-A": "1", "X-RateLimit-Reset-A": "5"}, None, 0.0),
        (
            {"X-RateLimit-Remaining-A": "0", "X-RateLimit-Reset-A": "5", "X-RateLimit-Remaining-B": "0",
             "X-RateLimit-Reset-B": "8", "X-RateLimit-Remaining-C": "3", "X-RateLimit-Reset-C": "99"},
            8.0, 8.0,
        ),
        # how much is left is not told: on a refusal the reset bounds the wait
        ({"X-RateLimit-Reset": "5"}, 5.0, 0.0),
        ({"X-RateLimit-Limit": "10", "X-RateLimit-Reset": "5"}, 5.0, 0.0),
        # below one is none, below zero is none left or unknown
        ({"X-RateLimit-Remaining": "0.5", "X-RateLimit-Reset": "5"}, 5.0, 5.0),
        ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "5"}, 5.0, 0.0),
        # no reset: a short window bounds the wait, a long one does not
        ({"X-RateLimit-Remaining-Minute": "0"}, 60.0, 60.0),
        ({"X-RateLimit-Remaining-Day": "0"}, None, 0.0),
        ({"RateLimit": '"a";r=0', "RateLimit-Policy": '"a";q=5;w=30'}, 30.0, 30.0),
        ({"RateLimit": '"a";r=0', "RateLimit-Policy": '"a";q=5'}, None, 0.0),
        ({"RateLimit-Policy": '"a";q=5;w=30'}, None, 0.0),
        # a limit of requests in flight is free when one of them ends
        ({"RateLimit": '"a";r=0', "RateLimit-Policy": '"a";q=5;w=30;qu="concurrent-requests"'}, None, 0.0),
        # a reset that is over names no time
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1699999990"}, None, 0.0),
    ],
)  # fmt: skip
def test_which_limits_hold(fields: Any, refused: float | None, otherwise: float) -> None:
    assert hear(429, fields).wait == refused
    assert hear(200, fields).wait == otherwise


def test_retry_after_of_a_success_is_the_reset_of_what_is_spent() -> None:
    fields = {"X-RateLimit-Remaining": "0", "Retry-After": "7"}
    assert hear(200, fields).wait == 7.0
    assert hear(200, {**fields, "X-RateLimit-Reset": "3"}).wait == 3.0


def test_numbers_from_a_cache_are_of_another_time() -> None:
    assert hear(200, {**SPENT, "Age": "1"}) == Hints()
    assert hear(200, {**SPENT, "Age": "0"}).wait == 30.0
    assert hear(429, {**SPENT, "Age": "1"}).wait == 30.0
    assert hear(404, {**SPENT, "Age": "1"}) == Hints()  # caches keep these, too


# ── quotas ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "quotas"),
    [
        ({"X-RateLimit-Limit": "5"}, [Quota(limit=5)]),
        ({"x-ratelimit-used": "5"}, []),
        ({"X-RateLimit-Used": "5", "X-RateLimit-Remaining": "2"}, [Quota(limit=7, remaining=2)]),
        ({"X-RateLimit-Limit": "-5"}, []),
        ({"X-RateLimit-Limit": "1e3", "X-RateLimit-Remaining": "many"}, []),
        ({"X-RateLimit-Remaining": "-1"}, []),
        ({"RateLimit-Limit": "5", "X-RateLimit-Limit": "5", "X-Rate-Limit-Reset": "9"}, [Quota(None, 5, None, 9)]),
        ({"RateLimit-Limit": "5", "X-RateLimit-Limit": "6"}, [Quota(limit=5), Quota(limit=6)]),
        ({"RateLimit-Remaining": "5", "X-RateLimit-Remaining": "6"}, [Quota(remaining=5), Quota(remaining=6)]),
        ({"X-RateLimit-Remaining": "5", "RateLimit-Limit": "9"}, [Quota(None, 9, 5)]),
        ({"RateLimit": "limit=5, remaining=3", "X-RateLimit-Limit": "5"}, [Quota(None, 5, 3)]),
        ({"RateLimit-Reset": "5", "X-RateLimit-Reset": "1700000006"}, [Quota(reset_after=6)]),
        ({"Acme-RateLimit-Limit": "5", "X-RateLimit-Limit": "5"}, [Quota(limit=5), Quota(limit=5)]),
        ({"Acme-RateLimit-Reset": "5", "X-RateLimit-Limit": "5"}, [Quota(limit=5)]),
        ({"RateLimit-Name": "users", "RateLimit-Limit": "5"}, [Quota("users", 5)]),
        ({"RateLimit-Name": " ", "RateLimit-Limit": "5"}, [Quota(limit=5)]),
        ({"X-RateLimit-Limit-Search": "5"}, [Quota("search", 5)]),
        ({"X-RateLimit-Search-Limit": "5"}, [Quota("search", 5)]),
        (  # Trello
            {"x-rate-limit-api-key-interval-ms": "10000", "x-rate-limit-api-key-max": "9", "x-ratelimit-max": "5"},
            [Quota("api-key", 9, window=10), Quota(limit=5)],
        ),
        (  # X
            {"x-user-limit-24hour-remaining": "0", "x-app-limit-24hour-limit": "9"},
            [Quota("user-24hour", None, 0, window=86400), Quota("24hour", 9, window=86400)],
        ),
        ({"X-RateLimit-Limit-Hour": "5"}, [Quota("hour", 5, window=3600)]),
        ({"X-RateLimit-Limit-5m": "5"}, [Quota("5m", 5, window=300)]),
        ({"X-RateLimit-Limit-Month": "5"}, [Quota("month", 5)]),
        ({"X-RateLimit-Limit": "5", "X-RateLimit-Window": "60"}, [Quota(limit=5, window=60)]),
        ({"X-RateLimit-Limit": "5", "X-RateLimit-Interval": "1m"}, [Quota(limit=5, window=60)]),
        ({"X-RateLimit-Limit": "5", "X-RateLimit-Interval": "soon"}, [Quota(limit=5)]),
        ({"X-RateLimit-Limit": "5", "X-RateLimit-Window": "0"}, [Quota(limit=5)]),
        # repeated fields: the more careful number; a comma without a space is no list
        ({"X-RateLimit-Limit": ["5", "9"], "X-RateLimit-Remaining": "3, 2"}, [Quota(None, 5, 2)]),
        ({"X-RateLimit-Remaining": ["3", "none"]}, []),
        ({"X-RateLimit-Remaining": "1,000"}, []),
        ({"X-RateLimit-Limit": "5", "X-RateLimit-Reset": "7, 9"}, [Quota(None, 5, None, 9)]),
        ({"X-RateLimit-Limit": "5", "X-RateLimit-Reset": "7, soon"}, [Quota(limit=5)]),
        # several limits side by side, as Brave has them
        (
            {
                "X-RateLimit-Limit": "1, 15000",
                "X-RateLimit-Policy": "1;w=1, 15000;w=2592000",
                "X-RateLimit-Remaining": "0, 14523",
                "X-RateLimit-Reset": "1, 1234567",
            },
            [Quota(None, 1, 0, 1, 1), Quota(None, 15000, 14523, 1234567, 2592000)],
        ),
        (
            {
                "X-RateLimit-Limit-Search": ["1", "9"],
                "X-RateLimit-Remaining-Search": "-1, 5",
                "X-RateLimit-Reset-Search": "x, 2",
            },
            [Quota("search", 1), Quota("search", 9, 5, 2)],
        ),
        ({"RateLimit-Limit": "5, 9", "RateLimit-Remaining": "0, 1", "RateLimit-Reset": "7"}, [Quota(None, 5, 0, 7)]),
        ({"RateLimit-Limit": "5, 5", "RateLimit-Remaining": "3, 4", "RateLimit-Reset": "7, 9"}, [Quota(None, 5, 3, 9)]),
        # the relative reset beats the other
        (
            {"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "1700000099", "X-RateLimit-Reset-After": "0.5"},
            [Quota(None, None, 5, 0.5)],
        ),
        # policies behind the limit
        ({"RateLimit-Limit": "5, 5;w=1, 9;w=60"}, [Quota(limit=5, window=1), Quota(limit=9, window=60)]),
        ({"X-RateLimit-Limit": "5;w=1"}, [Quota(limit=5)]),
        ({"RateLimit-Limit": "5, 9;w"}, [Quota(limit=5)]),
        ({"RateLimit-Limit": "5;"}, []),
        ({"RateLimit-Limit": "-5;w=1"}, []),
        ({"RateLimit-Limit": "x;w=1"}, []),
        ({"RateLimit-Limit": "5" + ", 5;w=1" * 400}, []),
        # a share, and pairs
        ({"X-Shopify-Shop-Api-Call-Limit": "41/40"}, [Quota(None, 40, 0)]),
        ({"X-Shopify-Shop-Api-Call-Limit": "all"}, []),
        (
            {"Sforce-Limit-Info": "api-usage=18/5000; per-app-api-usage=17/250(appName=x)"},
            [Quota("api-usage", 5000, 4982), Quota("per-app-api-usage", 250, 233)],
        ),
        ({"Acme-RateLimit-Search": "total=9; remaining=8; resets=7; color=red; x"}, [Quota("search", 9, 8, 7)]),
        ({"Acme-RateLimit-Search": "total=many; remaining=-1; resets=7"}, []),
        ({"X-MBX-USED-WEIGHT-1H": "5", "X-MBX-UUID": "1"}, [Quota("used-weight-1h", window=3600)]),
        ({"X-RateLimit-Resource": "core", "X-RateLimit-NearLimit": "true"}, []),
        ({"X-" + "a" * 100 + "-RateLimit-Limit": "5"}, []),
        ({f"a{n}-ratelimit-limit": "5" for n in range(1000)}, [Quota(limit=5)] * 60),
    ],
)
def test_families(fields: Any, quotas: list[Quota]) -> None:
    assert list(hear(200, fields).quotas) == quotas


@pytest.mark.parametrize(
    ("limit", "policy", "quotas"),
    [
        ('"a";r=1;t=2', None, [Quota("a", None, 1, 2)]),
        ('"a";t=2', None, [Quota("a", None, None, 2)]),
        ('"a"', None, []),
        ('"a";r=-1', None, []),
        ('"a";r=1;t=-2', None, []),
        ('"a";r=1;t=1.5', None, []),
        ('"a";r="1"', None, []),
        ('"a";r=@1', None, []),
        ("5.5;r=1", None, []),
        ("(a);r=1", None, []),
        ('"a";r=1;t=1700000030', None, [Quota("a", None, 1, 30)]),  # an epoch, against the draft
        ('"a";r=5;t=1, "a";r=5;t=9', None, [Quota("a", None, 5, 9)]),
        ('"a";r=0;t=1, "a";r=5;t=9', None, [Quota("a", None, 0, 1)]),
        ('"a";t=1, "a";r=5', None, [Quota("a", None, 5)]),
        ("limit=5, remaining=1.0, reset=?1", None, [Quota(limit=5)]),
        ("remaining=1", "5;w=9", [Quota(remaining=1), Quota(limit=5, window=9)]),
        ("limit=5", "5;w=9, 5;w=60", [Quota(limit=5, window=9), Quota(limit=5, window=60)]),
        ("quota;t=1", None, [Quota("quota", None, None, 1)]),  # a Dictionary, too, but without Integers
        ("5", None, [Quota(limit=5)]),
        ("-5", None, []),
        ('"a";r=1', '"a";q=5;w=9', [Quota("a", 5, 1, None, 9)]),
        ('"a";r=1', '"b";q=5;w=9', [Quota("a", None, 1), Quota("b", 5, None, None, 9)]),
        ('"a";r=1;pk=:YQ==:', '"a";q=5', [Quota("a", 5, 1)]),
        ('"a";r=1', '"a";q=5;pk=:YQ==:', [Quota("a", 5, 1)]),
        ('"a";r=1;pk=:YQ==:', '"a";q=5;pk=:Yg==:', [Quota("a", None, 1), Quota("a", 5)]),
        ('"a";r=1;pk=:Yg==:', '"a";q=5;pk=:YQ==:, "a";q=6;pk=:Yg==:', [Quota("a", 6, 1), Quota("a", 5)]),
        ('"a";r=1;pk=:YQ==:, "a";r=2;pk=:Yg==:', '"a";q=5', [Quota("a", 5, 1), Quota("a", 5, 2)]),
        (None, '"a";q=5;w=0, "b";q=-1, "c";q=1, d;q=2', [Quota("c", 1), Quota("d", 2)]),
        (None, "5;w=0, 6;window=60, 7;w=1;window=60", [Quota(limit=6, window=60), Quota(limit=7, window=1)]),
        (None, "5.5;w=1, -5;w=1, (5);w=1", []),
        ('"a";r=1' + ";x" * 600, '"a";q=5' + ";x" * 600, []),
        ("limit=5" + ", x" * 600, None, []),
    ],
)
def test_ratelimit_fields(limit: str | None, policy: str | None, quotas: list[Quota]) -> None:
    fields = [("RateLimit", limit), ("RateLimit-Policy", policy)]
    assert list(hear(200, [field for field in fields if field[1]]).quotas) == quotas


def test_reset_units_of_a_known_host() -> None:
    fields = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1500"}
    assert hear(429, fields, host="app.skuvault.com").wait == 1.5
    assert hear(429, fields, host="api.kucoin.com").wait == 1.5
    assert hear(429, fields, host="example.com").wait == 1500.0


@pytest.mark.parametrize(
    ("host", "floor"),
    [
        ("api.github.com", 60.0),
        ("GitHub.com.", 60.0),
        ("api.github.com:443", 60.0),
        ("notgithub.com", None),
        ("github.com.example.org", None),
        ("localhost", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_floors_of_known_hosts(host: Any, floor: float | None) -> None:
    assert host_entry(host).floor == floor
    assert hear(429, {}, host=host).wait == floor
    assert hear(429, {"Retry-After": "1"}, host=host).wait == 1.0
    assert hear(200, {"X-RateLimit-Limit": "5"}, host=host).wait == 0.0


@pytest.mark.parametrize(
    ("fields", "scope"),
    [
        ({"X-RateLimit-Bucket": "abcd", "X-RateLimit-Scope": "shared"}, "shared"),
        ({"X-RateLimit-Bucket": " abcd "}, "abcd"),
        ({"X-RateLimit-Resource": "core"}, "core"),
        ({"X-RateLimit-Scope": " ", "RateLimit-Reason": "jira-quota"}, "jira-quota"),
        ({"X-RateLimit-Limit": "5"}, None),
    ],
)
def test_scope(fields: Any, scope: str | None) -> None:
    assert hear(429, fields).scope == scope


@pytest.mark.parametrize(
    ("fields", "retryable"),
    [({"X-Should-Retry": "false"}, False), ({"Stripe-Should-Retry": "false"}, False), ({"x-should-retry": "1"}, True)],
)
def test_the_server_says_whether_waiting_helps(fields: Any, retryable: bool) -> None:
    assert hear(429, fields).retryable is retryable


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "body", "refused", "wait"),
    [
        (429, {"retry_after": 1.5}, True, 1.5),
        (429, {"retry_after": "2"}, True, 2.0),
        (429, {"retry_after": -1}, True, None),
        (429, {"retry_after": True}, True, None),
        (429, {"retry_after": "soon"}, True, None),
        (429, {"retry_after": 10**400}, True, LONGEST),
        (429, {"retry_after": 1e20}, True, LONGEST),
        (429, "\ufeff" + '{"retry_after": 3}', True, 3.0),
        (429, b'\xef\xbb\xbf{"retry_after": 3}', True, 3.0),
        (429, '{"retry_after": NaN}', True, None),
        (429, {"error": {"details": [{"retryDelay": "17s"}, {"retryDelay": "3s"}, 5, {}]}}, True, 17.0),
        (429, {"error": {"details": [{"retryDelay": 17}]}}, True, 17.0),
        (429, {"error": {"details": {"retryDelay": "17s"}}}, True, 17.0),
        (429, [{"error": {"details": [{"retryDelay": "3s"}, {"retryDelay": "17.5s"}]}}], True, 17.5),
        (429, {"code": 8, "details": [{"retryDelay": "17s"}]}, True, 17.0),
        (429, {"retryAfter": 5, "retry-after-ms": 7000}, True, 7.0),
        (429, {"retryAfterSeconds": "5", "retry_count": 9, "retry": 8}, True, 5.0),
        (429, {"retry_after": "20s"}, True, 20.0),
        (429, {"retry_after": "2023-11-14T22:13:50Z"}, True, 30.0),
        (429, {"retry_after": []}, True, None),
        (429, {"error": {"retry_after": 5}, "data": {"retry_after": 9}}, True, 5.0),
        (429, {"parameters": {"retry_after": 35}}, True, 35.0),  # Telegram
        (429, {"error": {"error": {"error": {"error": {"error": {"error": {"retry_after": 5}}}}}}}, True, None),
        (429, [[[[[[[{"retry_after": 5}]]]]]]], True, None),
        (200, {"errors": [{"code": "COMPLEXITY_BUDGET_EXHAUSTED", "retry_in_seconds": 12}]}, True, 12.0),  # monday.com
        (400, {"error": {"message": "(#4) Application request limit reached", "code": 4}}, True, None),  # Facebook
        (403, {"message": "You have triggered an abuse detection mechanism."}, True, None),  # GitHub, once
        (418, {"msg": "Way too much request weight used; IP banned until 1700000120000."}, True, 120.0),
        (200, {"error": ["EService: Throttled: 1700000060"]}, True, 60.0),
        (200, {"error": ["EAPI:Rate limit exceeded"]}, True, None),
        (200, {"error": ["EAPI:Invalid key"]}, False, 0.0),
        (200, {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}, True, None),
        (200, {"error": {"code": "maxlag", "lag": 12}}, True, None),
        (200, {"message": "API rate limit exceeded", "error": None}, False, 0.0),  # data, not an error
        (200, {"title": "Too many requests"}, False, 0.0),
        (200, "Too many requests", False, 0.0),
        (403, {"message": "API rate limit exceeded for user ID 1."}, True, None),
        (403, {"message": "You have exceeded a secondary rate limit. Please wait."}, True, None),
        (403, {"message": "You may not change rate limits"}, False, 0.0),
        (403, {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}, True, None),
        (403, {"error": {"errors": [{"reason": "forbidden"}]}}, False, 0.0),
        (403, [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}], True, None),
        (403, "<html><title>SEC.gov | Request Rate Threshold Exceeded</title></html>", True, None),
        (403, "<html><title>Forbidden</title></html>", False, 0.0),
        (403, "Too many requests", True, None),
        (400, {"__type": "com.amazon.coral.availability#ThrottlingException"}, True, None),
        (400, {"__type": "LimitExceededException"}, True, None),
        (400, {"__type": "com.amazonaws.kms#LimitExceededException"}, True, None),
        (400, {"__type": "com.amazonaws.kms#GrantLimitExceededException"}, False, 0.0),
        (400, {"__type": "ValidationException"}, False, 0.0),
        (503, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>", True, None),
        (503, "<Error><Code>InternalError</Code></Error>", False, 0.0),
        (503, {"type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"}, True, None),
        (403, b"\xff\xfe", False, 0.0),
        (403, b'{"message": "rate limited \xff"}', True, None),
        (403, "", False, 0.0),
        (403, "{", False, 0.0),
        (403, "[" * 60_000, False, 0.0),
        (403, '{"error":' * 7000, False, 0.0),
        (403, {"error": {"error": {"error": {"error": {"error": {"error": {"error": "rate_limited"}}}}}}}, False, 0.0),
        (403, "9" * 5000, False, 0.0),
        (403, '{"code": ' + "9" * 5000 + "}", False, 0.0),
        (403, {"message": "rate limited", "pad": "x" * 70_000}, False, 0.0),
    ],
)
def test_bodies(status: int, body: Any, refused: bool, wait: float | None) -> None:
    hints = hear(status, {}, body=body)
    assert (hints.refused, hints.wait) == (refused, wait)


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        ("Rate limit reached on requests per min. Limit: 3 / min. Please try again in 20s. Contact us", 20.0),
        ("Please try again in 446ms.", 0.446),
        ("Please try again in 1m12.5s.", 72.5),
        ("Try again in 6h0m0s", 21600.0),
        ("Please retry after 26 seconds.", 26.0),
        ("Rate limit is exceeded. Try again in 38 Seconds.", 38.0),
        ("Request was throttled. Expected available in 1 minute and 5 seconds.", 65.0),
        ("Please wait for 2 minutes, 30 seconds", 150.0),
        ("available in 2 days", 172800.0),
        ("retry in 500 milliseconds", 0.5),
        ("retry-after: 7", 7.0),
        ("Too Many Requests: retry after 35.", 35.0),
        ("Please wait 3.5", 3.5),
        ("Please wait a moment, then try again in 4 s", 4.0),
        ("Please wait a few minutes before you try again.", None),
        ("retry 3 times", None),
        ("retry after 2023-11-14", None),
        ("retry in 00:12:00", None),
        ("retry after 10.0.0.1", None),
        ("retry after 1700000060", None),
        ("retry in 0 seconds", None),
        ("retry in 5 moons", None),
        ("x" * 300 + " retry in 5s", None),
        ("again in " + "999999999 days " * 30, LONGEST),
    ],
)
def test_a_sentence_may_tell_the_wait_where_nothing_else_does(words: str, wait: float | None) -> None:
    assert hear(429, {}, body={"error": {"message": words}}).wait == wait
    assert hear(429, {}, body=words).wait == wait
    assert hear(429, SPENT, body=words).wait == 30.0
    assert hear(429, {}, body={"error": words, "retry_after": 9}).wait == 9.0
    assert hear(429, {}, host="api.github.com", body=words).wait == (wait or 60.0)


@pytest.mark.parametrize("body", [5, object(), ["error"], {}])
def test_what_is_no_body_says_nothing(body: Any) -> None:
    assert read_hints(403, {}, body=body, now=NOW) == Hints()


def test_the_fields_come_before_the_body() -> None:
    body = {"retry_after": 1.5}
    assert hear(429, {"Retry-After": "2"}, body=body).wait == 2.0
    assert hear(429, SPENT, body=body).wait == 1.5
    assert hear(429, SPENT, body={"retry_after": 0}).wait == 30.0


def test_named_policies_are_the_violated_ones() -> None:
    fields = {"RateLimit": '"a";r=5;t=30, "b";r=5;t=40'}
    problem = {"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "violated-policies": ["a", 5]}
    assert hear(429, fields, body=problem).wait == 30.0
    assert hear(429, fields, body={**problem, "violated-policies": "a"}).wait is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": "insufficient_quota"}}, False),
        ({"errors": [{"extensions": {"code": "MAX_COST_EXCEEDED"}}]}, False),
        ({"title": "UsageCapExceeded", "detail": "Usage cap exceeded: Monthly product cap"}, False),
        ({"error": {"code": "rate_limit_exceeded"}}, True),
    ],
)
def test_when_waiting_does_not_help(body: Any, expected: bool) -> None:
    assert hear(429, {}, body=body).retryable is expected


@pytest.mark.parametrize(
    ("status", "wait"),
    [
        ({"maximumAvailable": 1000, "currentlyAvailable": 60, "restoreRate": 50}, 0.2),
        ({"maximumAvailable": 1000, "currentlyAvailable": 70, "restoreRate": 50}, None),
        ({"maximumAvailable": 1000, "currentlyAvailable": 60, "restoreRate": 0}, None),
        ({"maximumAvailable": 1000, "currentlyAvailable": 60}, None),
        ({"maximumAvailable": 1000, "currentlyAvailable": 60, "restoreRate": 5e-324}, LONGEST),
    ],
)
def test_shopifys_bucket(status: Any, wait: float | None) -> None:
    cost = {"requestedQueryCost": 70, "throttleStatus": status}
    body = {"errors": [{"extensions": {"code": "THROTTLED"}}], "extensions": {"cost": cost}}
    hints = hear(200, {}, body=body)
    assert (hints.refused, hints.wait) == (True, wait)
    assert hints.quotas == (Quota(limit=1000.0, remaining=status["currentlyAvailable"]),)
    assert hear(200, {}, body={**body, "errors": []}).wait == 0.0


# ── resets ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("0", 0.0),
        ("30", 30.0),
        ("30.5", 30.5),
        ("999999999", 999_999_999.0),
        ("1000000000", 0.0),
        ("1700000030", 30.0),
        ("1700000030.25", 30.25),
        ("1700000030250", 30.25),
        ("1700000030000000", 30.0),
        ("1700000030000000000", 30.0),
        ("9" * 400, LONGEST),
        ("45s", 45.0),
        ("6m0s", 360.0),
        ("72ms", 0.072),
        ("1h2m3.5s", 3723.5),
        ("250µs", 0.00025),
        ("250μs", 0.00025),
        ("250Âµs", 0.00025),
        ("1d", 86400.0),
        ("5ns", 5e-9),
        ("2023-11-14T22:13:50Z", 30.0),
        ("2023-11-14t22:13:50.5z", 30.5),
        ("2023-11-15T00:13:50+02:00", 30.0),
        ("2023-11-14T20:13:50-0200", 30.0),
        ("2023-11-14T23:13:50+01", 30.0),
        ("2023-11-14T22:15Z", 100.0),
        ("2023-11-14T22:00Z", 0.0),
        ("2023-11-14 22:13:50Z", 30.0),
        ("2023-11-14 22:13:50 UTC", 30.0),
        ("2023-11-14 17:13:50 -0500", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        (" 30 ", 30.0),
        ("30;x=1", 30.0),
        ("2023-13-14T22:13:50Z", None),
        ("2023-02-29T22:13:50Z", None),
        ("2023-11-14T22:13:50", None),  # of no zone
        ("2023-11-14 22:13:50", None),
        ("2023-11-14 22:13:50 CET", None),
        ("2023-11-14", None),
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("nan", None),
        ("1m 5s", None),
        ("5x", None),
        ("m", None),
        ("1s" * 40, None),
        ("", None),
    ],
)
def test_resets(text: str, wait: float | None) -> None:
    told = resets([text], Moment(NOW))
    assert told == pytest.approx(wait, abs=1e-6) if wait else told == wait


def test_the_servers_clock_is_read_once_and_only_for_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[float] = []

    def clock() -> float:
        reads.append(NOW)
        return NOW

    monkeypatch.setattr("throttle.retry_after.time.time", clock)
    moment = Moment()
    assert resets(["30", "1m"], moment) == 60.0
    assert reads == []
    assert (reset_in(1_700_000_030, moment), reset_in(1_700_000_060, moment)) == (30.0, 60.0)
    assert reads == [NOW]


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, ms: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{ms}ms"
    assert duration(text) == pytest.approx(3600 * hours + 60 * minutes + seconds + ms / 1000)


# ── whatever it is given ──────────────────────────────────────────────────────────────────────────────────────────────

NAMES = [
    "Retry-After", "retry-after-ms", "x-amz-retry-after", "RateLimit", "RateLimit-Policy", "RateLimit-Limit",
    "RateLimit-Remaining", "RateLimit-Reset", "X-RateLimit-Limit", "X-RateLimit-Remaining-Tokens",
    "X-RateLimit-Reset-Tokens", "X-RateLimit-Reset-After", "X-Rate-Limit-Interval", "X-RateLimit-Used", "Date", "Age",
    "Sforce-Limit-Info", "Auth0-Client-Quota-Limit", "acme-ratelimit-search", "x-hubspot-ratelimit-daily",
    "x-mbx-used-weight-1m", "x-amzn-errortype", "ratelimit-name", "x-ratelimit-scope", "x-should-retry", "Server",
]  # fmt: skip
TEXTS = [
    "0", "1", "-1", "5", "0.5", "100, 100;w=10", '"a";r=0;t=5', '"a";q=5;w=60', "limit=5, remaining=0, reset=9", "6m0s",
    "1700000030", "1700000030250", "2023-11-14T22:13:50Z", DATE, "b=x;q=5;r=0;t=9,", "18/5000", "nan", "9" * 400, "",
    "ThrottlingException", "false",
]  # fmt: skip
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=10), st.sampled_from(NAMES).map(str.encode))
values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(TEXTS),
    st.lists(st.sampled_from([*TEXTS, ", ", ";", "=", ",", '"', " "]), max_size=5).map("".join),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.integers(),
    st.floats(),
    st.none(),
)
KEYS = [
    "error", "errors", "code", "message", "details", "retryDelay", "retry_after", "violated-policies",
    "extensions", "cost", "throttleStatus", "currentlyAvailable", "restoreRate", "requestedQueryCost",
]  # fmt: skip
json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(TEXTS), st.text(max_size=5)),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYS),
            inside,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
bodies = st.one_of(st.none(), st.text(max_size=30), st.binary(max_size=30), json_like.map(json.dumps))
statuses = st.sampled_from([200, 204, 301, 400, 403, 404, 413, 418, 429, 500, 503, 529, 0, -1])


def sane(number: float | None) -> bool:
    return number is None or 0 <= number <= LONGEST


@given(statuses, st.lists(st.tuples(names, values), max_size=8), bodies, st.one_of(st.none(), st.floats()))
@example(429, [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "9" * 8000)], None, NOW)
@example(429, [("RateLimit", '"' * 8000), ("RateLimit-Policy", ";" * 8000)], None, NOW)
@example(200, [("X-RateLimit-Limit", 10**5000)], "[" * 10_000, math.nan)
def test_nothing_raises_and_all_is_sane(status: int, headers: Any, body: Any, now: Any) -> None:
    hints = read_hints(status, headers, host="api.github.com", body=body, now=now)
    assert sane(hints.wait)
    assert sane(hints.retry_after)
    assert hints.refused or hints.wait is not None
    for quota in hints.quotas:
        numbers = (quota.limit, quota.remaining, quota.reset_after, quota.window)
        assert all(map(sane, numbers))
        assert any(number is not None for number in numbers)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS)), max_size=8), st.booleans())
def test_all_spellings_of_headers_say_the_same(pairs: list[tuple[str, str]], refused: bool) -> None:
    status = 429 if refused else 200
    hints = hear(status, pairs)
    raw = [(name.upper().encode(), value.encode()) for name, value in pairs]
    assert hear(status, raw) == hear(status, httpx.Headers(pairs)) == hear(status, Headers(*pairs)) == hints
    single = dict(pairs)
    assert hear(status, list(single.items())) == hear(status, single)


@given(st.lists(st.tuples(st.sampled_from(NAMES[3:]), st.sampled_from(TEXTS)), max_size=6), st.integers(0, 10**6))
def test_a_retry_after_is_never_shortened(pairs: list[tuple[str, str]], wait: int) -> None:
    for status in (429, 418, 503, 403, 529):
        assert hear(status, [*pairs, ("Retry-After", str(wait))]).wait == wait
    told = hear(500, [*pairs, ("Retry-After", str(wait))])
    assert told.wait is not None
    assert told.wait >= wait


@given(statuses, st.lists(st.tuples(st.sampled_from([*NAMES, "Via", "X-Limes"]), st.sampled_from(TEXTS)), max_size=6))
def test_an_answer_that_tells_nothing_is_not_read(status: int, pairs: list[tuple[str, str]]) -> None:
    headers = httpx.Headers(pairs)
    told = {"date", "age", "server", "via", "x-limes"}
    assert tells(status, headers) == (status in (403, 413, 418, 429, 503, 529) or not told.issuperset(headers))
    if not tells(status, headers):
        assert read_hints(status, headers, now=NOW) == Hints()


def test_headers_of_no_known_kind_are_read() -> None:
    assert tells(200, None)
    assert tells(200, httpx.Headers([("x" * 9000, "1")]))


@given(statuses, bodies)
@example(502, "too many requests")
@example(200, '{"extensions": {"cost": {"throttleStatus": {"maximumAvailable": 5}}}}')
@example(402, '{"error": {"code": "insufficient_quota"}}')
def test_a_body_says_the_same_beside_fields_that_tell_nothing(status: int, body: Any) -> None:
    beside = {"X-Should-Retry": "true"}
    assert hear(status, {}, body=body) == hear(status, beside, body=body)


def test_names_are_remembered_within_bounds() -> None:
    """A server that makes up names does not fill the memory."""
    for n in range(5000):
        hear(429, {f"x-ratelimit-limit-{n}": "5"})
    gc.collect()
    from throttle import families, hints

    assert families._place.cache_info().currsize <= 1024
    assert hints._known.cache_info().currsize <= 1024


@given(statuses, bodies)
@example(502, "ok")
@example(503, '{"extensions": {"cost": {"throttleStatus": {"currentlyAvailable": 0}}}}')
@example(502, '{"error": "r\\u0061te limit exceeded"}')
@example(502, "#limitexceededexception")
@example(502, "\u017flow down")
def test_a_short_body_that_cannot_refuse_does_not(status: int, body: Any) -> None:
    raw = body.encode() if isinstance(body, str) else body or b""
    if not may_refuse(raw):
        assert len(raw) <= 300
        assert hear(status, {}, body=raw).refused == hear(status, {}).refused


def test_a_reset_that_was_read_off_a_stamp_says_so() -> None:
    told = {"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "8", "Date": "Thu, 26 Nov 2026 21:17:22 GMT"}
    (stamped,) = read_hints(200, told | {"X-RateLimit-Reset": "1795727846"}).quotas
    (counted,) = read_hints(200, told | {"X-RateLimit-Reset": "4"}).quotas
    assert stamped == counted
    assert isinstance(stamped.reset_after, Stamp)
    assert not isinstance(counted.reset_after, Stamp)
