"""How long nobody is sent after a refusal: what the server named and a little more, or ever longer; a pure machine.

Instants are ticks.
"""

from __future__ import annotations

from collections.abc import Callable

from .rates import TICKS

__all__ = ["jitter_of", "others_try", "silence_of"]

_OFTEN = 3  # refusals in a row are no accident: others may take what the server allows ...
_ENOUGH = 16  # ... after so many somebody should be told ...
_DOWN = 20  # ... and after so many the server counts as down

JITTER = 50  # after a pause of w another w / 50 at most ...
MOST_JITTER = TICKS  # ... and at most a second

_FIRST = TICKS // 10
_DOUBLED = 3  # times: below a second
_LONGEST = 30 * TICKS


def jitter_of(wait: int, random: Callable[[], float]) -> int:
    """Ticks on top of a `wait` that a server named, so that not all its clients come back at once."""
    return round(random() * min(wait / JITTER, MOST_JITTER))


def silence_of(row: int, random: Callable[[], float]) -> int:
    """Ticks after so many refusals in a row that name no time, where no pace is known: equal jitter, up to 0.2 s and
    doubled each time, but not above 0.8 s as long as the server may only be full; 30 s at most."""
    doubled = min(row, _DOUBLED + min(max(0, row - _DOWN), 16))
    return round(min(_FIRST * (1 << doubled), _LONGEST) * (0.5 + random() / 2))


def others_try(row: int) -> bool:
    """Whether, after so many refusals in a row that name no time, the next probe is another's in line: each has only so
    many attempts, and one that takes all of them in a bad time would be lost."""
    return _OFTEN <= row <= _ENOUGH
