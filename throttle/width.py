"""`Width`: how many requests may be under way at once; slow start, and no more where more only take longer.

A pure machine. It counts answers in epochs and compares them: if clearly more were under way than in the epoch before
and hardly more came back a second, the server (or this process) is busy, and what is sent beyond that only waits there.
"""

from __future__ import annotations

from .rates import TICKS

__all__ = ["Width"]

_EPOCH = 16  # answers, and at least twice the width
_WIDER = 1.3  # times as many under way ...
_BETTER = 1.1  # ... must bring so many times as many answers a second
_REST = 8  # epochs until a cap is tried again
_DOUBLING = 8.0  # up to here one more with each answer, which doubles with each round trip; from here on more gently
_SLOW = TICKS // 5  # a round trip; where it takes less, to be gentler costs nothing


class Width:
    """How many may be under way."""

    __slots__ = ("_answers", "_before", "_began", "_filled", "_flown", "_quickest", "_rest", "capped", "limit")

    def __init__(self) -> None:
        self.limit: float = 1.0
        self.capped: bool = False
        self._filled = -1  # the last time that as many were under way as may be
        self._quickest = _SLOW  # the least ticks that an answer took
        self._answers = 0
        self._flown = 0
        self._began = -1
        self._before: tuple[float, float] | None = None  # of the last epoch: how many under way, answers per tick
        self._rest = 0

    def narrow(self) -> None:
        """One at a time."""
        self.limit = 1.0
        self.capped, self._before = False, None
        self._start(-1)

    def sent(self, flying: int, now: int) -> None:
        """One more was sent: `flying` in all."""
        if flying >= int(self.limit):
            self._filled = now

    def answered(self, flying: int, took: int, now: int, *, contended: bool, told: bool) -> None:
        """The server let one pass of `flying`, which `took` so many ticks; `contended`: others wait to be sent.

        `told`: it says what is left, so that there is nothing to be found out.
        """
        self._quickest = min(self._quickest, took)
        full = flying >= int(self.limit) or self._filled >= now - took  # now, or since it was sent
        if not (full or contended):
            self._start(-1)
            return
        self._count(flying, now)
        if full and not self.capped:
            gentle = 1.0 if self.limit < _DOUBLING else min(0.5, max(0.1, self._quickest / _SLOW))
            self.limit += 2.0 if told else gentle

    def _start(self, now: int) -> None:
        self._answers, self._flown, self._began = 0, 0, now

    def _count(self, flying: int, now: int) -> None:
        if self._began < 0:
            self._start(now)
            return
        self._answers += 1
        self._flown += flying
        if self._answers < _EPOCH or self._answers < 2 * flying or now <= self._began:
            return
        wide, speed = self._flown / self._answers, self._answers / (now - self._began)
        self._start(now)
        before = self._before
        if self.capped:
            self._rest -= 1
            if self._rest <= 0:
                self.capped, self._before = False, (wide, speed)
        elif before is None or speed > _BETTER * before[1] or wide < before[0]:
            self._before = (wide, speed)
        elif wide > _WIDER * before[0]:
            self.limit, self.capped, self._rest = max(2.0, before[0]), True, _REST
