"""How servers tell of their limits: the header styles of `FakeRateLimitedServer`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate

__all__ = ["STYLES", "Facts", "Refusal", "Style"]

Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server knows of its limit when it answers; seconds are floats, `wall` is Unix time."""

    limit: int
    window: float
    remaining: int
    reset: float  # seconds until more is left
    full: float  # seconds until everything is left
    retry_after: float  # seconds until a refused request would pass; 0.0 for one that passed
    wall: float

    @property
    def refused(self) -> bool:
        """Whether this answer is a refusal."""
        return self.retry_after > 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Status and body of a refusal."""

    status: int = 429
    body: Callable[[Facts], bytes] = lambda _: b"too many requests\n"


@dataclass(frozen=True, slots=True)
class Style:
    """One way to tell: the fields of every answer (of which a success may have none), and what a refusal looks like."""

    fields: Callable[[Facts], Fields]
    refusal: Refusal = Refusal()


def _whole(seconds: float) -> int:
    """Whole seconds, never too few; what a float adds to whole ones does not count."""
    return math.ceil(round(seconds, 6))


def _if_refused(tell: Callable[[Facts], Fields]) -> Callable[[Facts], Fields]:
    return lambda facts: tell(facts) if facts.refused else {}


def _retry_after(facts: Facts) -> Fields:
    return {"Retry-After": str(_whole(facts.retry_after))} if facts.refused else {}


def _three(prefix: str, facts: Facts, reset: str, suffix: str = "") -> Fields:
    return {
        f"{prefix}-Limit{suffix}": str(facts.limit),
        f"{prefix}-Remaining{suffix}": str(facts.remaining),
        f"{prefix}-Reset{suffix}": reset,
    }


def _draft_03(facts: Facts) -> Fields:
    told = _three("RateLimit", facts, str(_whole(facts.reset)))
    return told | {"RateLimit-Limit": f"{facts.limit}, {facts.limit};w={_whole(facts.window)}"}


def _draft_06(facts: Facts) -> Fields:
    return _three("RateLimit", facts, str(_whole(facts.reset))) | _policy(facts)


def _draft_07(facts: Facts) -> Fields:
    told = f"limit={facts.limit}, remaining={facts.remaining}, reset={_whole(facts.reset)}"
    return {"RateLimit": told} | _policy(facts)


def _policy(facts: Facts) -> Fields:
    return {"RateLimit-Policy": f"{facts.limit};w={_whole(facts.window)}"}


def _draft_10(facts: Facts) -> Fields:
    return {
        "RateLimit": f'"default";r={facts.remaining};t={_whole(facts.reset)}',
        "RateLimit-Policy": f'"default";q={facts.limit};w={_whole(facts.window)}',
    }


def _github(facts: Facts) -> Fields:
    told = _three("X-RateLimit", facts, str(_whole(facts.wall + facts.reset)))
    return told | {"X-RateLimit-Used": str(facts.limit - facts.remaining), "X-RateLimit-Resource": "core"}


def _openai(facts: Facts) -> Fields:
    told = _three("x-ratelimit", facts, _go_duration(facts.full), "-requests")
    milliseconds = {"retry-after-ms": str(math.ceil(round(facts.retry_after * 1000, 3)))}
    return told | (milliseconds | _retry_after(facts) if facts.refused else {})


def _go_duration(seconds: float) -> str:
    """As Go prints it: 4h43m36.314s, 6m0s, 20ms."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    told = f"{milliseconds / 1000:g}s"
    return f"{hours}h{minutes}m{told}" if hours else f"{minutes}m{told}" if minutes else told


def _anthropic(facts: Facts) -> Fields:
    reset = datetime.fromtimestamp(_whole(facts.wall + facts.full), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _three("anthropic-ratelimit-requests", facts, reset) | _retry_after(facts)


def _discord(facts: Facts) -> Fields:
    told = _three("X-RateLimit", facts, f"{facts.wall + facts.reset:.3f}")
    return (
        told
        | {"X-RateLimit-Reset-After": f"{_up(facts.reset):.3f}", "X-RateLimit-Bucket": "abcd1234"}
        | _retry_after(facts)
    )


def _up(seconds: float) -> float:
    """Rounded up to milliseconds."""
    return math.ceil(round(seconds * 1000, 3)) / 1000


def _discord_says(facts: Facts) -> bytes:
    message = "You are being rate limited."
    return json.dumps({"message": message, "retry_after": _up(facts.retry_after), "global": False}).encode()


_EPOCH_RESET = Style(lambda facts: _three("X-RateLimit", facts, str(_whole(facts.wall + facts.reset))))

STYLES: dict[str, Style] = {
    "none": Style(lambda _: {}),
    "retry-after": Style(_retry_after),
    "retry-after-date": Style(
        _if_refused(lambda facts: {"Retry-After": formatdate(_whole(facts.wall + facts.retry_after), usegmt=True)})
    ),
    "retry-after-ms": Style(
        _if_refused(lambda facts: {"Retry-After-Ms": str(math.ceil(round(facts.retry_after * 1000, 3)))})
    ),
    "draft-03": Style(_draft_03),
    "draft-06": Style(_draft_06),
    "draft-07": Style(_draft_07),
    "draft-10": Style(_draft_10),
    "x-ratelimit-epoch": _EPOCH_RESET,
    "x-ratelimit-delta": Style(lambda facts: _three("X-RateLimit", facts, str(_whole(facts.reset)))),
    "github": Style(_github, Refusal(403, lambda _: b'{"message": "API rate limit exceeded for user ID 1."}')),
    "openai": Style(_openai, Refusal(429, lambda _: b'{"error": {"code": "rate_limit_exceeded"}}')),
    "anthropic": Style(_anthropic, Refusal(429, lambda _: b'{"type": "error", "error": {"type": "rate_limit_error"}}')),
    "discord": Style(_discord, Refusal(429, _discord_says)),
}
