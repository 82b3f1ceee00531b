"""Whether to try again, and when: attempt + outcome + hints -> `Stop` | `Again`. Never sleeps; time is an argument.

`Policy` holds what a `Retry` was told, `Course` is one call's way under it, `HTTPRules` are the rules of a transport.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .budget import BudgetPerKey, RetryBudget
from .errors import ThrottleError
from .hints import Hints
from .listening import leaves_of, listen, longest, wait_told
from .rates import check_number

if TYPE_CHECKING:
    from random import Random

    from tenacity import RetryCallState
    from tenacity.retry import retry_base
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base

    from .backoff import Backoff

__all__ = ["Again", "Course", "HTTPRules", "Policy", "Stop", "is_async", "listen"]

FORM = "@retry(on=ConnectionError, attempts=5) or Retry(on_result=lambda value: value is None)"


@dataclass(frozen=True, slots=True)
class Stop:
    """No further attempt, because of `reason`; "patience" also says what the server asked for, in seconds."""

    reason: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt after `delay` seconds, because of `reason`."""

    delay: float
    reason: str


# ── the rules of HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class HTTPRules:
    """Which requests a transport may send again.

    `methods` are idempotent (RFC 9110 section 9.2.2; CONNECT aside); `statuses` are outages that these are retried on.

    >>> HTTPRules().wanted("POST", status=503, hints=Hints(refused=True, retry_after=2.0))
    True
    >>> HTTPRules().wanted("POST", status=503), HTTPRules().wanted("GET", status=503)
    (False, True)
    """

    methods: Collection[str] = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
    statuses: Collection[int] = frozenset({502, 503, 504})

    def __post_init__(self) -> None:
        if isinstance(self.methods, str) or not all(isinstance(name, str) for name in self.methods):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"methods takes names such as {{'GET', 'PUT'}}, not {self.methods!r}")
        statuses: Collection[Any] = self.statuses
        if not isinstance(statuses, Collection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"statuses takes status codes such as {{502, 503}}, not {statuses!r}")
        if not all(isinstance(status, int) and 100 <= status <= 999 for status in statuses):
            raise ValueError(f"statuses takes status codes such as {{502, 503}}, not {self.statuses!r}")
        object.__setattr__(self, "methods", frozenset(method.upper() for method in self.methods))
        object.__setattr__(self, "statuses", frozenset(self.statuses))

    def wanted(
        self,
        method: str,
        *,
        status: int | None = None,
        hints: Hints | None = None,
        keyed: bool = False,
        sent: bool = True,
    ) -> bool:
        """Whether to send a request again that was answered with `status` (None: by a transport error) and `hints`.

        `keyed`: it has an Idempotency-Key. `sent`: it left, or may have left, this machine.
        """
        if status is not None and hints is not None:
            if not hints.retryable:
                return False
            if hints.refused or (status == 503 and hints.retry_after is not None):
                return True
        failed = status is None or status in self.statuses
        return failed and (not sent or keyed or method.upper() in self.methods)


# ── the policy of a call ──────────────────────────────────────────────────────────────────────────────────────────────


def _full_jitter() -> Backoff:
    from .backoff import FullJitter  # tenacity's base class comes with it: loaded by the first Retry, not before

    return FullJitter()


def is_async(fn: Any) -> bool:
    """Whether it is an async function, or an object that is called as one."""
    if isinstance(fn, functools.partial):
        return is_async(fn.func)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


@dataclass(frozen=True, kw_only=True, repr=False)
class Policy:
    """What `Retry` was told; see there. All times in seconds."""

    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[Any], object] | retry_base | None = None
    on_result: Callable[[Any], object] | retry_base | None = None
    attempts: int | None = 5
    timeout: float | None = None
    attempt_timeout: float | None = None
    backoff: Backoff | wait_base = field(default_factory=_full_jitter)
    max_retry_after: float | None = 60.0
    budget: RetryBudget | BudgetPerKey | None = None
    stop: Callable[[RetryCallState], object] | stop_base | None = None
    hints: Callable[[Any], Hints | None] | None = None
    rng: Random | None = None
    http: HTTPRules | None = None
    timed: bool = field(init=False, compare=False)  # an attempt can be ended
    prepared: bool = field(init=False, compare=False)  # there is something to do before the first attempt
    straight: bool = field(init=False, compare=False)  # of a first attempt that succeeds it only counts that it was
    stateful: bool = field(init=False, compare=False)  # an object of tenacity wants to know about each attempt

    def __post_init__(self) -> None:
        self._check_what()
        if self.attempts is not None:
            if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"attempts must be a whole number of at least 1, or None, not {self.attempts!r}")
            if self.attempts < 1:
                raise ValueError(f"attempts counts the first and must be at least 1, not {self.attempts!r}")
        for name, above in (("timeout", True), ("attempt_timeout", True), ("max_retry_after", False)):
            value = getattr(self, name)
            if value is not None:
                checked = check_number(f"{name} (seconds)", value, above=above)
                object.__setattr__(self, name, float(checked))
        self._check_parts()
        timed = not (self.timeout is None and self.attempt_timeout is None)
        object.__setattr__(self, "timed", timed)
        prepared = timed or not (self.budget is None and self.stop is None and self.hints is None)
        object.__setattr__(self, "prepared", prepared)
        straight = not timed and self.stop is None and self.on_result is None and self.hints is None
        object.__setattr__(self, "straight", straight)
        object.__setattr__(self, "stateful", self.stop is not None or not hasattr(self.backoff, "delays"))

    def deposit(self, key: str, now: float) -> RetryBudget | None:
        """A call for `key` begins: tell the budget that pays for its retries."""
        budget = self.budget
        if isinstance(budget, BudgetPerKey):
            budget = budget._budgets.get(key) or budget.of(key, now)
        if budget is not None:
            budget.deposit(now)
        return budget

    def _check_what(self) -> None:
        on: Any = self.on
        kinds: tuple[Any, ...] = on if issubclass(type(on), tuple) else (on,) if isinstance(on, type) else ()
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"on takes an exception type, a tuple of them or a predicate, not {on!r}")
            if kind is not BaseException and not issubclass(kind, (Exception, BaseExceptionGroup)):
                raise ValueError(f"on names {kind.__name__}, but cancellation and exits are never retried")
            if issubclass(kind, ThrottleError):
                raise ValueError(f"on names {kind.__name__}, but errors of throttle itself are never retried")
        if not (on is None or isinstance(on, (type, tuple)) or callable(on)):
            raise TypeError(f"on takes an exception type, a tuple of them or a predicate, not {on!r}")
        for name in ("on_result", "stop", "hints"):
            value = getattr(self, name)
            mistaken = isinstance(value, type) and (name == "stop" or issubclass(value, BaseException))
            if value is not None and (mistaken or not callable(value)):
                what = "a stop of tenacity such as stop_after_delay(30)" if name == "stop" else "a function"
                raise TypeError(f"{name} takes {what}, not {value!r}")
        for name in ("on", "on_result", "stop", "hints", "backoff"):
            if is_async(getattr(self, name)):  # what it gives is true before it is awaited
                raise TypeError(f"{name} takes a plain function, not the async {getattr(self, name)!r}")

    def _check_parts(self) -> None:
        waits = callable(self.backoff) or callable(getattr(self.backoff, "delays", None))
        if isinstance(self.backoff, type) or not waits:
            raise TypeError(f"backoff takes FullJitter() or its like, or a wait of tenacity, not {self.backoff!r}")
        budget: Any = self.budget
        if not (budget is None or isinstance(budget, (RetryBudget, BudgetPerKey))):
            raise TypeError(f"budget takes a RetryBudget or None, not {budget!r}")
        if self.rng is not None and not callable(getattr(self.rng, "uniform", None)):
            raise TypeError(f"rng takes a random.Random or None, not {self.rng!r}")

    def __repr__(self) -> str:
        default = type(self)()
        told = ((f.name, getattr(self, f.name)) for f in fields(self) if f.init)
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in told if v != getattr(default, n))})"

    def check_function(self) -> None:
        """Raises `TypeError` that shows the form if nothing says what of a function is to be retried."""
        if self.on is None and self.on_result is None:
            raise TypeError(f"say what to retry: {FORM}")

    def wants(self, error: BaseException) -> bool:
        """Whether `on` says that this exception is to be retried; of a group, each of its leaves."""
        leaves = leaves_of(error)
        if leaves:
            return all(self.wants(leaf) for leaf in leaves)
        on = self.on
        if on is None or isinstance(error, ThrottleError) or not isinstance(error, Exception):
            return False
        if isinstance(on, (type, tuple)):
            return isinstance(error, on)
        from .backoff import predicate

        return bool(predicate(on, failed=True)(error))

    def wants_result(self, result: Any) -> bool:
        """Whether `on_result` says that this value is to be retried."""
        if self.on_result is None:
            return False
        from .backoff import predicate

        return bool(predicate(self.on_result, failed=False)(result))

    def hear(self, outcome: Any) -> Hints | None:
        """What a server said on `outcome`: by `hints=`, else as `listen` finds it."""
        if self.hints is None:
            return listen(outcome)
        if isinstance(outcome, ThrottleError):
            return None
        leaves = leaves_of(outcome)
        if leaves:
            return longest(self.hear(leaf) for leaf in leaves)
        hints: Any = self.hints(outcome)
        if not (hints is None or isinstance(hints, Hints)):
            raise TypeError(f"hints= gives Hints, as read_hints() does, or None; not {hints!r}")
        return hints


class Course:
    """One call under a policy, from its first attempt: `after` each failed one says how to go on.

    `number` is that of the attempt under way, from 1; `deadline` the end of `timeout` on the same clock as `now`.
    """

    __slots__ = ("_budget", "_delays", "_state", "deadline", "failure", "number", "policy", "started")

    def __init__(self, policy: Policy, now: float, key: str = "") -> None:
        self.policy: Policy = policy
        self.number: int = 1
        self.started: float = now
        self.deadline: float | None = None if policy.timeout is None else now + policy.timeout
        self.failure: Exception | None = None  # the last one: the cause of a DeadlineExceeded
        self._delays: Any = None
        self._state: RetryCallState | None = None
        self._budget = policy.deposit(key, now)

    def close(self) -> None:
        """Let go of the last failure: it holds the frames that hold this course."""
        self.failure = self._state = None

    def after(
        self,
        outcome: Any,
        *,
        failed: bool,
        hints: Hints | None,
        now: float,
        held: bool = False,
        news: bool = True,
        waits: bool = True,
    ) -> Stop | Again:
        """What to do after an attempt that ended with `outcome`, an exception (`failed`) or a result.

        `held`: a gate waits in this call's place, so that the delay here is 0. `news`: a refusal counts as an attempt.
        `waits`: false where every delay is 0.
        """
        policy = self.policy
        refused = hints is not None and hints.refused
        held = held and refused
        counts = news or not held
        if hints is not None and refused and not hints.retryable:
            return Stop("waiting does not help")
        if counts and policy.attempts is not None and self.number >= policy.attempts:
            return Stop("attempts")
        told = 0.0 if hints is None else wait_told(hints)
        if policy.max_retry_after is not None and told > policy.max_retry_after:
            return Stop("patience", told)
        state = self._tell(outcome, failed, now) if counts and policy.stateful else None
        delay = told if held else self._delay(told, state) if waits else 0.0
        if state is not None and policy.stop is not None:
            state.upcoming_sleep = delay
            if policy.stop(state):
                return Stop("stop")
        if self.deadline is not None and now + delay >= self.deadline:
            return Stop("timeout")
        if not refused and self._budget is not None and not self._budget.withdraw(now):
            return Stop("budget")
        self.number += counts
        return Again(0.0 if held else delay, "refused" if refused else "failed")

    def _delay(self, told: float, state: RetryCallState | None) -> float:
        """w + U(0, min(e(n), 1 + w/10)) for a server's wait w, else the backoff's own draw."""
        policy = self.policy
        backoff: Any = policy.backoff
        if not hasattr(backoff, "delays"):
            draw = bound = max(0.0, float(backoff(state)))
        else:
            if self._delays is None:
                self._delays = backoff.delays(policy.rng)
            draw = bound = next(self._delays)
        if not told:
            return draw
        if hasattr(backoff, "bound"):
            bound = backoff.bound(self.number)
        return told + _uniform(policy.rng, min(bound, 1 + told / 10))

    def _tell(self, outcome: Any, failed: bool, now: float) -> RetryCallState:
        """The retry state that tenacity's objects read."""
        from .backoff import tell_state

        number, started = self.number, self.started
        self._state = tell_state(self._state, number=number, outcome=outcome, failed=failed, started=started, now=now)
        return self._state


def _uniform(rng: Random | None, most: float) -> float:
    import random

    return (rng or random).uniform(0.0, most)
