"""`Pace` and the first steps after a refusal, event by event: what is taken for the limit, and how many may probe."""

from __future__ import annotations

from itertools import pairwise

import pytest

from throttle.adaptive import Learner
from throttle.hints import Hints
from throttle.pace import Pace
from throttle.rates import TICKS
from throttle.silence import others_try, silence_of


def ticks(seconds: float) -> int:
    return round(seconds * TICKS)


def paced(initial: float, *times: tuple[float, int, float], calm: float = 0.0, overtaken: bool = False) -> float:
    """The rate a second after such times: each begins at so many seconds, lets so many pass, and is over at so many,
    when one more is refused. `calm`: seconds since the last refusal, in those after the first second;
    `overtaken`: the answer to the last comes first."""
    pace = Pace(initial / TICKS)
    ends = [0.0, *(end for _, _, end in times)]
    for (before, end), (start, passed, _) in zip(pairwise(ends), times, strict=True):
        sent = [ticks(start + number * (end - start) / passed) for number in range(passed)]
        for number, at in enumerate(sent):
            if number == 0 and before:
                pace.reopened(at, ticks(before), 1, named=False, told=False)
            pace.sent(at, 1, ticks(calm) if before > 1 else 0, named=False)
            if not overtaken:
                pace.passed(1, at, fresh=True)
        for at in sent[::-1] if overtaken else ():
            pace.passed(1, at, fresh=True)
        pace.closed(ticks(end), named=False)
    assert pace.rate is not None
    return pace.rate * TICKS


def test_what_a_full_server_did_not_take_back_is_no_measure() -> None:
    """Where never more than one passes at once, what comes back in a silence is lost."""
    for overtaken in (False, True):
        rate = paced(80, (0.0, 1, 0.005), (1.0, 11, 1.22), overtaken=overtaken)
        assert rate == pytest.approx(49, abs=0.1)


def test_what_a_server_had_in_store_is_none_either() -> None:
    assert paced(80, (0.0, 12, 0.005), (1.0, 11, 1.22)) < 45


def test_few_that_pass_do_not_overthrow_what_many_have_told() -> None:
    """Where each refusal counts, the next is soon refused again: the pace was right, and only the start too early."""
    before = paced(50, (0.0, 30, 0.1), (3.0, 60, 5.0))
    assert before == pytest.approx(25, abs=0.5)
    assert paced(50, (0.0, 30, 0.1), (3.0, 60, 5.0), (5.15, 3, 5.3)) > 0.7 * before


def test_a_better_measure_replaces_what_was_too_little() -> None:
    slow = (0.0, 1, 0.005), (1.0, 40, 2.0)
    assert paced(80, *slow) == pytest.approx(39.2, abs=0.1)
    assert paced(80, *slow, (9.0, 36, 9.72), calm=8.0) == pytest.approx(49, abs=0.1)


def test_after_refusals_that_cost_a_pause_the_pace_creeps_least() -> None:
    grown = {}
    for named in (False, True):
        pace = Pace(50 / TICKS)
        for number in range(40):
            pace.sent(ticks(number / 50), 1, 0, named=named)
            pace.passed(1, ticks(number / 50), fresh=True)
        pace.closed(ticks(0.8), named=named)
        before = pace.rate
        pace.sent(ticks(0.8), 1, 0, named=named)
        assert pace.rate is not None and before is not None
        grown[named] = (pace.rate / before - 1) / (pace.gap(1) / TICKS)
    assert grown[True] == pytest.approx(0.02, rel=0.01)
    assert grown[False] == pytest.approx(0.03, rel=0.01)


def test_an_answer_to_what_was_sent_before_a_refusal_lets_no_second_probe_go() -> None:
    learner = Learner(lambda: 0.0)
    first = learner.sent(0, 1, lands=True)
    learner.landed(first, ticks(0.01), answered=True, contended=True)
    refused, passed = (learner.sent(ticks(0.01), 1, lands=True) for _ in range(2))
    learner.heard(Hints(refused=True), refused, ticks(0.02))
    learner.landed(refused, ticks(0.02), answered=False, contended=True)
    learner.landed(passed, ticks(0.021), answered=True, contended=True)
    assert not learner.full()
    learner.sent(learner.earliest(ticks(0.021), 1), 1, lands=True)
    assert learner.full()


def test_silences_grow_gently_while_a_refusal_is_only_the_price_of_the_search() -> None:
    learner, at = Learner(lambda: 0.0), 0
    learner.landed(learner.sent(0, 1, lands=True), 0, answered=True, contended=True)
    silences, counted = [], []
    for _ in range(17):
        flight = learner.sent(at, 1, lands=True)
        counted.append(learner.heard(Hints(refused=True), flight, at))
        learner.landed(flight, at, answered=False, contended=True)
        silences.append((learner.told_until() - at) / TICKS)
        at = learner.told_until()
    grown = [round(after / before, 2) for before, after in pairwise(silences)]
    assert grown == [3, 3, 3, *[1.25] * 13]
    assert counted == [False, *(silence >= 2 for silence in silences[:-1])]
    assert sum(silences[: counted.index(True) + 4]) > 17  # what five attempts bear


@pytest.mark.parametrize(
    ("row", "most"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 0.8), (20, 0.8), (21, 1.6), (25, 25.6), (26, 30), (10**6, 30)]
)
def test_silences_without_a_pace_stay_short_while_the_server_may_only_be_full(row: int, most: float) -> None:
    assert [silence_of(row, lambda: 0.0) / TICKS, silence_of(row, lambda: 1.0) / TICKS] == [most / 2, most]


@pytest.mark.parametrize(("row", "tries"), [(1, False), (2, False), (3, True), (16, True), (17, False)])
def test_others_try_in_a_bad_time(row: int, tries: bool) -> None:
    assert others_try(row) is tries


def found(refused: float, at: float, row: int) -> Pace:
    """The pace of whoever was let pass once, refused `row` times from 10 ms on, the last at `refused`, and let pass at
    `at`."""
    pace = Pace()
    pace.sent(0, 1, 0, named=False)
    pace.passed(1, 0, fresh=True)
    pace.closed(ticks(0.01), named=False)
    pace.reopened(ticks(at), ticks(refused), row, named=False, told=False)
    return pace


def test_the_first_after_a_pace_was_found_keeps_it() -> None:
    pace = found(0.01, 0.03, 1)
    assert pace.earliest(ticks(0.031), 1) == ticks(0.05)  # 50 a second: 20 ms after the probe


@pytest.mark.parametrize(
    ("seen", "rate", "grows"),
    [(2, 1, 1.0), (2, 40, 0.05), (5, 1, 0.1), (8, 1, 0.005), (8, 400, 3 / 4000), (20, 1, 0.002), (20, 400, 3 / 40000)],
)
def test_the_pace_creeps_up_by_the_second_and_on_a_slow_server_by_the_permit(
    seen: float, rate: float, grows: float
) -> None:
    pace = Pace(initial=rate / TICKS)
    pace._seen = seen
    pace.sent(0, 1, 0, named=False)
    pace.sent(pace.next_at, 1, 0, named=False)
    assert pace.rate is not None
    assert pace.rate * TICKS == pytest.approx(rate * (1 + grows), rel=1e-9)


def test_what_came_back_soon_is_not_waited_for_long_again() -> None:
    """It took three seconds once, because others were there; then it came back at once."""
    pace = Pace(initial=40 / TICKS)
    for at, back, row in ((1.0, 4.0, 5), (5.0, 5.1, 1)):
        pace.passed(1, ticks(at) - 1, fresh=True)
        pace.closed(ticks(at), named=False)
        pace.reopened(ticks(back), ticks(back) - 1, row, named=False, told=False)
        assert pace.returned == ticks(back) - ticks(at)


def test_the_first_guess_is_what_came_back_after_the_last_refusal() -> None:
    """Not since the first: while others take all, a silence says nothing of the limit."""
    pace = found(3.5, 4.0, 6)
    assert pace.rate is not None
    assert pace.rate * TICKS == pytest.approx(2.0)
