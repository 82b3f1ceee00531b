"""What the window rules share: whole permits in a whole window, and no burst."""

from __future__ import annotations

import math
from fractions import Fraction

from ..rates import TICKS, Rate, exact

__all__ = ["no_burst", "window_of"]

_WIDEST = 1000  # a fractional rate is widened by at most this factor


def window_of(rate: Rate) -> tuple[int, int]:
    """The whole permits and the ticks of the window that say the same as `rate`.

    A rate below one permit is turned round (0.5/s is 1 per 2 s, its window rounded up to a whole tick), another
    fraction is widened (1.5/s is 3 per 2 s). Raises `ValueError` where that would take more than 1000 periods.

    >>> window_of(Rate(100, per=60)), window_of(Rate(0.5)), window_of(Rate(1.5))
    ((100, 60000000000), (1, 2000000000), (3, 2000000000))
    """
    permits, window = exact(rate.permits), Fraction(exact(rate.per) * TICKS)
    if permits < 1:
        permits, window = 1, window / permits
    elif permits.denominator > _WIDEST:
        whole = Rate(math.floor(permits), rate.per)
        raise ValueError(
            f"a window counts whole permits, which {rate} has not, nor have up to {_WIDEST} of its periods: "
            f"write whole ones such as {whole}"
        )
    return permits.numerator, math.ceil(window * permits.denominator)


def no_burst(kind: str, burst: float | None) -> None:
    """Refuse a burst where it means nothing."""
    if burst is not None:
        raise ValueError(f"burst={burst!r} means nothing to a {kind}: its burst is the whole window, leave it out")
