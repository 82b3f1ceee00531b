"""Instants: floats to ticks and back, and the least wait that reaches a tick."""

from __future__ import annotations

import asyncio
import math

from hypothesis import given
from hypothesis import strategies as st

from throttle.clock import REAL, Clock, current_clock, ticks_of, wait_of

INSTANTS = st.floats(min_value=0, max_value=1e9)


@given(INSTANTS, INSTANTS)
def test_ticks_are_monotone(one: float, two: float) -> None:
    assert (ticks_of(one) <= ticks_of(two)) or one > two


@given(st.integers(min_value=0, max_value=10**12))
def test_decimal_instants_are_read_as_they_are_spelled(micros: int) -> None:
    assert ticks_of(micros / 1e6) == micros * 1000


@given(INSTANTS, st.integers(min_value=0, max_value=10**18))
def test_the_wait_reaches_its_tick_and_no_microsecond_less_does(now: float, due: int) -> None:
    wait = wait_of(now, due)
    assert ticks_of(now + wait) >= due
    earlier = now + wait - 1e-6
    assert wait == 0 or ticks_of(earlier) < due or math.ulp(now + wait) > 1e-7


def test_instants_stay_finite() -> None:
    assert ticks_of(1e300) == ticks_of(1e15)
    assert wait_of(0.0, 10**30) == 1e21


def test_the_default_is_real_in_and_out_of_a_loop() -> None:
    async def inside() -> Clock:
        await REAL.sleep(0)
        return current_clock()

    assert current_clock() is asyncio.run(inside()) is REAL
    assert isinstance(REAL, Clock)
