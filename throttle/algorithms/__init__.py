"""The rules as pure machines, and the RFC 2698 meter; see `base.py` for what a rule is."""

from __future__ import annotations

from .base import Algorithm
from .fixed_window import FixedWindowRule
from .sliding_window import SlidingWindowRule
from .sliding_window_counter import SlidingWindowCounterRule
from .token_bucket import TokenBucketRule
from .two_rate import TwoRateMeter, TwoRateRule
from .windows import window_of

__all__ = [
    "Algorithm",
    "FixedWindowRule",
    "SlidingWindowCounterRule",
    "SlidingWindowRule",
    "TokenBucketRule",
    "TwoRateMeter",
    "TwoRateRule",
    "window_of",
]
