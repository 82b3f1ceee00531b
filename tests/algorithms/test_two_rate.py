"""Two rates: the rule admits exactly what the meter marks green, and the meter keeps to its checks."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttle.algorithms import TokenBucketRule, TwoRateMeter, TwoRateRule
from throttle.rates import TICKS, Rate


def test_construction() -> None:
    rule = TwoRateRule.of(Rate(10), 20, Rate(50, per=2), 5)
    assert rule.committed == TokenBucketRule.of(Rate(10), 20)
    assert rule.peak == TokenBucketRule.of(Rate(50, per=2), 5)
    assert (rule.most, rule.period, rule.kind, rule.whole, rule.holds) == (5, 2 * TICKS, "two_rate", False, False)
    assert rule.anchored(3) is rule
    assert TwoRateRule.of(Rate(10), None, Rate(0.5, per=0.01)).most == 1


def test_a_peak_below_the_rate_names_both() -> None:
    with pytest.raises(ValueError, match="peak must be at least the rate: 5/s is below 10/s"):
        TwoRateRule.of(Rate(10), 20, Rate(5))
    rule = TwoRateRule.of(Rate(10), 20, Rate(10))
    with pytest.raises(ValueError, match="10/s is below 11/s"):
        rule.reconfigured(Rate(11), None)


@pytest.mark.parametrize(
    ("burst", "peak_burst", "named"), [(0, 1, "burst"), (1, -2, "peak_burst"), (1, 0, "peak_burst")]
)
def test_bad_bursts_are_named(burst: float, peak_burst: float, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be"):
        TwoRateRule.of(Rate(10), burst, Rate(50), peak_burst)


def test_the_peak_spreads_the_burst_out() -> None:
    rule, now = TwoRateRule.of(Rate(10), 4, Rate(50), 1), 0
    state = rule.initial(0)
    waits: list[float] = []
    for _ in range(6):
        due = rule.earliest(state, now, 1)
        waits.append((due - now) / TICKS)
        state, now = rule.book(state, due, 1), due
    assert waits == [0, 0.02, 0.02, 0.02, 0.04, 0.1]


def test_reconfigured_changes_the_committed_rate_only() -> None:
    old = TwoRateRule.of(Rate(10), 20, Rate(50), 8)
    new = old.reconfigured(Rate(20), 30)
    assert new == TwoRateRule.of(Rate(20), 30, Rate(50), 8)
    state = old.book(old.initial(0), 0, 6)
    assert new.committed.remaining(new.carry(state, 0, old)[0], 0) == 24
    assert new.remaining(new.carry(state, 0, old), 0) == 2


numbers = st.integers(1, 9)


@given(numbers, numbers, numbers, numbers, st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=30))
def test_the_rule_admits_what_the_meter_marks_green(
    rate: int, burst: int, more: int, peak_burst: int, packets: list[tuple[int, int]]
) -> None:
    """Packets that are not green are not sent: they take nothing, so the meter is told only of those that are."""
    rule = TwoRateRule.of(Rate(rate), burst, Rate(rate + more), peak_burst)
    meter, state, now = TwoRateMeter(rate, burst, rate + more, peak_burst), rule.initial(0), 0
    tc, tp, last = Fraction(burst), Fraction(peak_burst), Fraction(0)
    for pause, size in packets:
        now += pause * TICKS // 10
        passed, last = Fraction(now, TICKS) - last, Fraction(now, TICKS)
        tc = min(burst, tc + rate * passed)
        tp = min(peak_burst, tp + (rate + more) * passed)
        green = size <= min(tc, tp)
        assert rule.remaining(state, now) == min(tc, tp)
        assert (size <= rule.most and rule.earliest(state, now, size) == now) == green
        if green:
            assert meter.mark(size, Fraction(now, TICKS)) == "green"
            state, tc, tp = rule.book(state, now, size), tc - size, tp - size
            assert (meter.tc, meter.tp) == (tc, tp)


def test_meter_takes_numbers_by_their_decimal_spelling() -> None:
    meter = TwoRateMeter(cir=0.1, cbs=0.3, pir=0.1, pbs=0.3)
    assert [meter.mark(0.1, at=0.0) for _ in range(4)] == ["green", "green", "green", "red"]
    assert meter.mark(0.1, at=0.7) == "red"
    assert (meter.tc, meter.tp) == (Fraction(7, 100), Fraction(7, 100))
    assert TwoRateMeter(Fraction(1, 3), 1, Fraction(1, 3), Decimal("1.5")).pbs == Fraction(3, 2)  # type: ignore[arg-type]
    assert repr(TwoRateMeter(1, 2, 3, 4)) == "TwoRateMeter(cir=1, cbs=2, pir=3, pbs=4)"


def test_meter_time_never_goes_back() -> None:
    meter = TwoRateMeter(1, 10, 1, 10)
    assert meter.mark(10, at=100) == "green"
    assert meter.mark(1, at=50) == "red"
    assert meter.mark(1, at=100) == "red"  # 50 was as good as 100
    assert meter.mark(1, at=101) == "green"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1, 1, 1), "cir must be a finite number above 0, not 0"),
        ((1, -1, 1, 1), "cbs must be a finite number above 0, not -1"),
        ((1, 1, float("inf"), 1), "pir must be"),
        ((1, 1, 0, 1), "pir must be a finite number above 0, not 0"),
        ((1, 1, 1, 0), "pbs must be a finite number above 0, not 0"),
        ((1, 1, 1, float("nan")), "pbs must be"),
        ((2, 1, 1, 1), "pir=1 is below cir=2"),
    ],
)
def test_meter_checks_its_numbers(numbers: tuple[float, float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoRateMeter(*numbers)


def test_meter_checks_each_packet() -> None:
    meter = TwoRateMeter(1, 1, 1, 1)
    with pytest.raises(ValueError, match="size must be a finite number of at least 0, not -1"):
        meter.mark(-1, at=0)
    with pytest.raises(ValueError, match='color must be "green", "yellow", "red" or None, not \'blue\''):
        meter.mark(1, at=0, color="blue")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^at \(seconds\)"):
        meter.mark(1, at=float("nan"))
    with pytest.raises(TypeError, match="cir"):
        TwoRateMeter("1", 1, 1, 1)  # type: ignore[arg-type]
    assert (meter.tc, meter.tp) == (1, 1)


def test_a_meter_whose_clock_began_before_zero() -> None:
    meter = TwoRateMeter(1, 1, 2, 1)
    assert [meter.mark(1, at) for at in (-5.0, -4.9, -4.5, -4.0)] == ["green", "red", "yellow", "green"]
