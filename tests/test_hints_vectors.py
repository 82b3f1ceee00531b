"""`read_hints` against the published vectors: strictly, unless a vector marks its outcome as one of several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from throttle.hints import Hints, Quota, read_hints

VECTORS = Path(__file__).parent / "vectors"

def load(file: str) -> list[Any]:
    vectors = json.loads((VECTORS / file).read_text())["vectors"]
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def hear(vector: dict[str, Any]) -> Hints:
    body = vector.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
    return read_hints(vector["status"], vector["headers"], host=vector.get("host"), body=body, now=vector["now"])


def near(told: float | None, expected: float | None) -> bool:
    return told is expected or (told is not None and expected is not None and abs(told - expected) < 1e-6)


def same_quota(quota: Quota, expected: dict[str, Any], *, named: bool) -> bool:
    """Whether a quota is the expected one in all that a `Quota` tells and the vector speaks of."""
    pairs = [("limit", quota.limit), ("remaining", quota.remaining), ("reset_s", quota.reset_after)]
    pairs.append(("window_s", quota.window))
    return (not named or quota.name == expected["name"]) and all(
        near(told, expected[key]) for key, told in pairs if key in expected
    )


def all_quotas(hints: Hints, expected: list[dict[str, Any]]) -> bool:
    """Whether exactly the expected quotas were told, in any order."""
    left = list(hints.quotas)
    for one in expected:
        match = next((quota for quota in left if same_quota(quota, one, named=True)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def one_quota(hints: Hints, expected: dict[str, Any]) -> bool:
    """Whether the numbers that a vendor vector expects of the one limit are told by one of the quotas, or by none."""
    if all(expected.get(key) is None for key in ("limit", "remaining", "reset_s", "window_s")):
        return not hints.quotas
    return any(same_quota(quota, expected, named=False) for quota in hints.quotas)


def fits(hints: Hints, expected: dict[str, Any]) -> bool:
    """Whether all that the expectation speaks of, and `Hints` can tell, is so."""
    return all(
        [
            near(hints.wait, expected["wait_s"]),
            hints.refused is expected.get("throttled", hints.refused),
            hints.retryable is expected.get("retryable", True),
            expected.get("scope", expected.get("bucket")) in (None, hints.scope),
            "policies" not in expected or all_quotas(hints, expected["policies"]),
            "limits" not in expected or all_quotas(hints, expected["limits"]),
            "limit" not in expected or one_quota(hints, expected),
        ]
    )


# Where the outcome taken here is not a vector's first but another that it allows, and why.
JUDGED = {
    "draft-06 decimal reset": "a fraction of a second is read: to ignore it would be to forget the wait",
    "reddit: served, less than one request left": "the fraction is kept; it holds the next request all the same",
    "gitlab: 429 of another limiter: remaining 595, no Retry-After": "a limit with plenty left names no wait",
    "generic: remaining 0 without reset on 200": "the answer was no refusal: the next request may try",
}


@pytest.mark.parametrize("vector", load("ratelimit_ietf.json") + load("vendors.json"))
def test_vectors(vector: dict[str, Any]) -> None:
    hints = hear(vector)
    if vector["name"] in JUDGED:
        assert not fits(hints, vector["expect"]), "strict by now: strike it from the list"
        assert any(fits(hints, other) for other in vector["also_ok"]), hints
    else:
        assert fits(hints, vector["expect"]), hints


@pytest.mark.parametrize("vector", load("retry_after.json"))
def test_retry_after_is_what_it_says(vector: dict[str, Any]) -> None:
    expected = vector["expect"]["retry_after_s"]
    assert hear(vector).retry_after == (None if expected in ("absent", "invalid") else expected)


@pytest.mark.parametrize("vector", load("ratelimit_ietf.json") + load("vendors.json"))
def test_the_checks_of_the_vectors_can_fail(vector: dict[str, Any]) -> None:
    """Hints of nothing fit only where nothing is expected."""
    expected = vector["expect"]
    silent = not (expected.get("throttled") or expected["wait_s"] or expected.get("limits") or expected.get("policies"))
    silent = silent and all(expected.get(key) is None for key in ("limit", "remaining", "reset_s", "window_s"))
    assert fits(Hints(), expected) is silent
