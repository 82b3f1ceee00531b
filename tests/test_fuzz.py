"""A short run of `make fuzz`, and that its checks can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fuzzing
import pytest
from fuzzing import LONGEST, USUAL, careful, checked, made, naive, share, usual, worst_cases

from throttle import hints

LOADED = 20  # this machine may be so much slower than the one of the figure


def test_random_and_mutated_headers() -> None:
    count, refused, worst, _ = share((0, 3000))
    assert count == 3000
    assert 0 < refused < count
    assert worst < LONGEST * LOADED


def test_the_longest_fields() -> None:
    assert max(careful(case) for case in list(worst_cases())[::97]) < LONGEST * LOADED


def test_usual_responses() -> None:
    assert usual(rounds=50) < USUAL * LOADED


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, [("Retry-After", "30")], 30.0),
        (429, [("Retry-After", "30"), ("Retry-After", "soon"), ("retry-after", "40")], 40.0),
        (429, [("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "7")], 7.0),
        (429, [("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset", "7")], 0.0),
        (200, [("Retry-After", "30")], 0.0),
        (429, [("Retry-After", "30"), ("retry-after-ms", "100")], 0.0),
    ],
)
def test_the_naive_reading(status: int, headers: fuzzing.Pairs, expected: float) -> None:
    assert naive({"status": status, "headers": headers}) == expected


def test_a_shorter_wait_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(*given: Any, **options: Any) -> hints.Hints:
        said = hints.read_hints(*given, **options)
        return replace(said, wait=said.wait and said.wait / 2)

    monkeypatch.setattr(fuzzing, "read_hints", hasty)
    with pytest.raises(AssertionError):
        checked({"status": 429, "headers": [("Retry-After", "30")]})


def test_a_seed_makes_the_same_again() -> None:
    assert made(5) == made(5)
    assert made(5) != made(6)
