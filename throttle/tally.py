"""What happened to each key of a service, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import RLock

from .rates import Rate

__all__ = ["KeyStatistics", "Tally"]

_MOST_KEYS = 10_000  # numbers are kept of so many keys, the latest ones


@dataclass(slots=True)
class KeyStatistics:
    """What happened to one key so far; counts, and times in seconds. Nothing here was told by a header as text.

    - `sent`: attempts that were let go, retries included.
    - `refused`: answers that refused one for a limit; `rejected` is the same number.
    - `waited`: seconds in line for permit and slot, summed over the attempts.
    - `paused`: seconds for which the whole key was held back by what its server said, or failed.
    - `lost`: calls given up by the retry: their caller got a failure or a refusal.
    - `learned`: the limit as its server's answers show it, a `Rate`; None where it was given and fits, or is not known.
    """

    sent: int = 0
    refused: int = 0
    waited: float = 0.0
    paused: float = 0.0
    lost: int = 0
    learned: Rate | None = None

    @property
    def rejected(self) -> int:
        """The same as `refused`."""
        return self.refused


class Tally:
    """The statistics of every key; from any number of loops and threads.

    >>> tally = Tally()
    >>> tally.add("github", sent=1, waited=0.5)
    >>> tally.add("github", refused=1)
    >>> tally.copy()
    {'github': KeyStatistics(sent=1, refused=1, waited=0.5, paused=0.0, lost=0, learned=None)}
    >>> tally.copy()["github"].rejected
    1
    """

    def __init__(self) -> None:
        self._keys: dict[str, KeyStatistics] = {}
        self._lock = RLock()

    def add(self, key: str, **more: float) -> None:
        """Count `more` for `key`."""
        with self._lock:
            counts = self._of(key)
            for name, number in more.items():
                setattr(counts, name, getattr(counts, name) + number)

    def sent(self, key: str, waited: float) -> None:
        """Count one attempt for `key`, that has waited so many seconds: `add`, for the way of every call."""
        with self._lock:
            counts = self._keys.get(key) or self._of(key)
            counts.sent += 1
            counts.waited += waited

    def _of(self, key: str) -> KeyStatistics:
        counts = self._keys.get(key)
        if counts is None:
            if len(self._keys) >= _MOST_KEYS:
                del self._keys[next(iter(self._keys))]
            counts = self._keys[key] = KeyStatistics()
        return counts

    def copy(self) -> dict[str, KeyStatistics]:
        """The numbers of this moment, by key."""
        with self._lock:
            return {key: replace(counts) for key, counts in self._keys.items()}
