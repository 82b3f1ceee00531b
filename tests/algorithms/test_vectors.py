"""The published vectors, strictly: once in ticks so fine that every number is whole, once in nanoseconds."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from throttle.algorithms import Algorithm, SlidingWindowCounterRule, TokenBucketRule, TwoRateMeter
from throttle.clock import ticks_of
from throttle.rates import TICKS

VECTORS = Path(__file__).parents[1] / "vectors"


def vectors(file: str) -> list[Any]:
    """The vectors of a file as test parameters."""
    return [pytest.param(v, id=v["name"]) for v in json.loads((VECTORS / file).read_text())["vectors"]]


def resolution(vector: dict[str, Any]) -> int:
    """Ticks of a second in which every time of the vector is whole."""
    times = [Fraction(step["t"]) for step in vector["steps"]]
    times += [Fraction(step["expect"]["retry_after"]) for step in vector["steps"] if step["expect"]["retry_after"]]
    return math.lcm(*(time.denominator for time in times))


def bucket(vector: dict[str, Any], ticks: int) -> tuple[TokenBucketRule, Any]:
    """The vector's rule in `ticks` a second, and its first state."""
    params = vector["params"]
    rule = TokenBucketRule(params["tokens"], params["per_s"] * ticks, params["capacity"], params["per_s"] * ticks)
    missing = params["capacity"] - params.get("initial", params["capacity"])
    return rule, rule.book(rule.initial(0), 0, missing)


def windows(vector: dict[str, Any], ticks: int) -> tuple[SlidingWindowCounterRule, Any]:
    """The vector's rule in `ticks` a second, and its first state."""
    rule = SlidingWindowCounterRule(vector["params"]["limit"], vector["params"]["window_s"] * ticks)
    return rule, rule.initial(0)


def whole(fraction: Fraction) -> int:
    assert fraction.denominator == 1
    return fraction.numerator


def cost_of(step: dict[str, Any]) -> Any:
    cost = Fraction(step["cost"])
    return cost.numerator if cost.denominator == 1 else cost


def check(rule: Algorithm, state: Any, now: int, step: dict[str, Any], second: int, *, strict: bool) -> Any:
    """One step; the state after it."""
    cost, expect = cost_of(step), step["expect"]
    if expect["retry_after"] is None:
        assert cost > rule.most
        return state
    due = rule.earliest(state, now, cost)
    assert (due == now) == expect["allow"]
    if strict:
        assert due - now == Fraction(expect["retry_after"]) * second
    else:
        assert abs(due - now - Fraction(expect["retry_after"]) * second) < 2  # both ends are rounded to ticks
    assert math.ceil(Fraction(due - now, second)) == expect["retry_after_int"]
    return rule.book(state, now, cost) if expect["allow"] else state


@pytest.mark.parametrize("vector", vectors("token_bucket.json"))
def test_token_bucket_exactly(vector: dict[str, Any]) -> None:
    second = resolution(vector)
    rule, state = bucket(vector, second)
    for step in vector["steps"]:
        now = whole(Fraction(step["t"]) * second)
        state = check(rule, state, now, step, second, strict=True)
        assert rule.remaining(state, now) == Fraction(step["expect"]["remaining"])


@pytest.mark.parametrize("vector", vectors("sliding_window_counter.json"))
def test_sliding_window_counter_exactly(vector: dict[str, Any]) -> None:
    second = resolution(vector)
    rule, state = windows(vector, second)
    for step in vector["steps"]:
        now = whole(Fraction(step["t"]) * second)
        before, expect = rule.remaining(state, now), step["expect"]
        assert before == math.floor(rule.limit - Fraction(expect["estimate_before"]))
        state = check(rule, state, now, step, second, strict=True)
        assert rule.remaining(state, now) == math.floor(rule.limit - Fraction(expect["estimate_after"]))
        assert rule.book(state, now, 0)[1:] == (expect["previous"], expect["current"])


@pytest.mark.parametrize(
    ("vector", "start"),
    [pytest.param(*p.values, bucket, id=f"bucket: {p.id}") for p in vectors("token_bucket.json")]
    + [pytest.param(*p.values, windows, id=f"counter: {p.id}") for p in vectors("sliding_window_counter.json")],
)
def test_in_nanoseconds_from_floats(vector: dict[str, Any], start: Any) -> None:
    rule, state = start(vector, TICKS)
    for step in vector["steps"]:
        now = ticks_of(float(Fraction(step["t"])))
        if step["expect"].get("knife_edge"):
            now = max(now, math.ceil(Fraction(step["t"]) * TICKS))
            now = min(rule.earliest(state, now, cost_of(step)), now + 1)
        state = check(rule, state, now, step, TICKS, strict=False)


@pytest.mark.parametrize("vector", vectors("rfc2698.json"))
def test_rfc2698(vector: dict[str, Any]) -> None:
    params = vector["params"]
    aware = params["mode"] == "color-aware"
    meter = TwoRateMeter(cir=params["CIR"], cbs=params["CBS"], pir=params["PIR"], pbs=params["PBS"])
    for step in vector["steps"]:
        expect = step["expect"]
        color = meter.mark(step["size"], Fraction(step["t"]), step["precolor"] if aware else None)
        assert (color, meter.tc, meter.tp) == (
            expect["color"],
            Fraction(expect["tc_after"]),
            Fraction(expect["tp_after"]),
        )
