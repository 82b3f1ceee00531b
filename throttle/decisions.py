"""`Decision`: a limiter's answer, a value that knows when."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Decision"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a limiter answers to one ask; true when allowed. All times in seconds from the asking.

    - `remaining`: permits left; before the cost for `peek`, after it for the verbs that take.
    - `retry_after`: 0.0 when allowed; refused one microsecond before it, granted at the float `now + retry_after`
      if nothing else happens, unless `exact` is false: then it is only a bound.
    - `reset_after`: until the limiter is as new.
    - `retry_after_whole`: the conservative whole number for a header: the least integer n such that a retry n seconds
      later is granted.

    >>> bool(Decision(allowed=False, remaining=0.0, retry_after=0.25, exact=True, reset_after=1.0, retry_after_whole=1))
    False
    """

    allowed: bool
    remaining: float
    retry_after: float
    exact: bool
    reset_after: float
    retry_after_whole: int

    def __bool__(self) -> bool:
        return self.allowed
