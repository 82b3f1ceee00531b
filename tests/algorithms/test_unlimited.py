"""The rule of no limit grants everything and remembers nothing."""

from __future__ import annotations

import pytest

from throttle import Rate
from throttle.algorithms.unlimited import UnlimitedRule


def test_grants_everything_and_remembers_nothing() -> None:
    rule = UnlimitedRule()
    state = rule.initial(5)
    assert state == rule.initial(7)  # every key is as new
    assert rule.earliest(state, 5, 10**9) == 5
    assert rule.book(state, 5, 10**9) == rule.give(state, 5, 3, 5) == state
    assert rule.copy(state) == rule.carry(state, 5, rule) == state
    assert rule.remaining(state, 5) == rule.most
    assert rule.full_at(state, 5) == 5
    assert rule.exact(state)
    assert rule.anchored(7) is rule


def test_has_no_rate_to_change() -> None:
    words = "there is no limit here to reconfigure: give the limiter a rate at construction"
    with pytest.raises(TypeError, match=f"^{words}$"):
        UnlimitedRule().reconfigured(Rate(1), None)
