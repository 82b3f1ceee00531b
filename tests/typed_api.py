"""Never run: mypy and pyright read it, strict, to see that the public names are typed as users meet them."""

from __future__ import annotations

from typing import assert_type

from throttle import Decision, Permit, Rate, SlidingWindow, TokenBucket, current_permit


async def limiters() -> None:
    bucket = TokenBucket("10/s", burst=20)
    async with bucket:
        pass
    async with bucket.permit(cost=2, key="a", max_wait=1.5) as permit:
        assert_type(permit, Permit)
        permit.settle(3)
    assert_type(await bucket.try_acquire(), Decision)
    assert_type(bucket.try_acquire_nowait(key="a"), Decision)
    assert_type((await bucket.peek()).retry_after, float)
    assert_type(Rate.parse("10/s"), Rate)
    assert_type(current_permit(), Permit | None)
    SlidingWindow(Rate(100, per=60), hold=True).pause(2.0, key="a")
