"""What the body of a response says about limits: some vendors say it nowhere else, some with status 200.

Only the places where errors are told are looked at, so that data which speaks of rate limits is not taken for one. Kept
to the first 64 KiB; a body that cannot be read says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from .ietf import Told
from .resets import Moment, reset_in, resets
from .retry_after import LONGEST, plain_number

__all__ = ["Said", "code_says_so", "may_refuse", "read_body"]


@dataclass(slots=True)
class Said:
    """What a body said; `violated` are the names of exhausted policies (draft-10, problem types)."""

    refused: bool = False
    retryable: bool = True
    wait: float | None = None
    spoken: float | None = None  # the same in words for people, where nothing better tells it
    told: Told | None = None
    violated: frozenset[str] = frozenset()


_LARGEST = 65_536

# Error codes, that is words without spaces: AWS SDKs' list of throttling codes; google.rpc RESOURCE_EXHAUSTED and the
# older rateLimitExceeded; Salesforce REQUEST_LIMIT_EXCEEDED; Microsoft Graph activityLimitReached; MediaWiki maxlag;
# S3 SlowDown; Shopify and GitHub GraphQL; Notion and Anthropic overload; problem types of the RateLimit draft.
_CODE = re.compile(
    r"rate.?limit|throttl|too.?many.?requests|request.?limit.?exceeded|throughput.?exceeded|bandwidth.?limit.?exceeded"
    r"|(?:^|#)LimitExceededException|TransactionInProgressException|PriorRequestNotComplete|slow.?down|resource.?exhausted"
    r"|activity.?limit.?reached|^maxlag$|service.?overload|overloaded|quota-exceeded|reduced-capacity|abnormal-usage"
    r"|complexity.?budget.?exhausted",
    re.IGNORECASE,
)
# Messages for people: the limit must be said to be over, or "you may not change rate limits" would be a refusal.
_MESSAGE = re.compile(
    r"(?:rate|request).?limit[^.]{0,40}(?:exceeded|reached|hit)|(?:exceeded|reached|hit|over)[^.]{0,60}rate.?limit"
    r"|rate.?limited|too many requests|\bthrottled|rate threshold exceeded|reduce your request rate"
    r"|request weight used|abuse detection mechanism",
    re.IGNORECASE,
)
# Waiting does not help: OpenAI's code for an account without money; a Shopify query above the size of the bucket; X's
# monthly cap.
_HOPELESS = re.compile("insufficient_quota|billing_hard_limit_reached|MAX_COST_EXCEEDED|UsageCapExceeded")
# Kraken: "EService: Throttled: <Unix time>"; Binance: "IP banned until <Unix time in ms>"
_UNTIL = re.compile(r"(?:throttled:|banned until) ([0-9]{9,19})", re.IGNORECASE)
# Names of a wait: retry_after (Discord, Telegram), retryDelay (google.rpc.RetryInfo), retryAfterSeconds (AWS Lambda)
_WAIT = re.compile("retry[_-]?(?:after|in|delay)[_-]?(?:s|secs?|seconds?|(ms|millis|milliseconds?))?", re.IGNORECASE)
# "Please try again in 1m12.5s" (OpenAI), "Please retry after 26 seconds." (Azure), "Expected available in 38 seconds."
_AGAIN = re.compile(r"\b(?:again|retry|available|wait)(?:[ -](?:in|after|for))?:? (?=[0-9])", re.IGNORECASE)
_STEP = re.compile(
    r"(?:,? ?(?:and )?)([0-9]{1,9}(?:\.[0-9]{1,9})?) ?"
    r"(ms|milli|[smhd])(?:s(?:econds?)?|ec(?:ond)?s?|in(?:ute)?s?|(?:ou)?rs?|ays?)?(?![a-z])",
    re.IGNORECASE,
)
_UNITS = {"ms": 1e-3, "milli": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?! ?[\w:/-]|\.[0-9])")  # not "retry 3 times", no date, no address

_MARKUP = re.compile("<(?:Code|Message|title)>([^<]{1,300})<")  # S3's XML, and the title of a page

_PLACES = (
    *("error", "errors", "extensions", "details", "detail", "code", "type", "__type", "status", "reason", "title"),
    *("errorCode", "errorType", "message", "Message", "msg"),
)


_SHORT = 300  # the words of such a body are looked at whole
_ANYWHERE = f"{_CODE.pattern}|{_MESSAGE.pattern}|throttleStatus".replace("^", "").replace("$", "")
_PERHAPS = re.compile(_ANYWHERE, re.IGNORECASE)


def may_refuse(body: bytes) -> bool:
    """Whether it is worth reading whether `body` says that a limit refused the request: a quick look at short ones."""
    if len(body) > _SHORT or b"\\" in body:  # what is escaped cannot be seen
        return True
    return _PERHAPS.search(body.decode("utf-8", "replace")) is not None


def code_says_so(text: str) -> bool:
    """Whether an error code or a message says that a limit refused the request."""
    text = text[:300]
    return bool((_MESSAGE if " " in text.strip() else _CODE).search(text))


def read_body(body: object, status: int, moment: Moment) -> Said | None:
    """What `body` (bytes or text) says, None if nothing."""
    if not isinstance(body, (str, bytes, bytearray)) or len(body) > _LARGEST:
        return None
    text = (body if isinstance(body, str) else body.decode("utf-8", "replace")).lstrip("\ufeff")
    if text.lstrip()[:1] not in ("{", "["):
        words = _MARKUP.findall(text[:4096]) or [text]
        if status < 400:
            return None
        return Said(refused=any(map(code_says_so, words)), wait=_until(words, moment), spoken=_spoken(words))
    if status < 400 and not ("rror" in text or "throttleStatus" in text):
        return None  # data: not worth reading
    import json  # only here: most programs never need it, and importing throttle must stay cheap

    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _read(data, status, moment)


def _read(data: Any, status: int, moment: Moment) -> Said:
    top = _dict(data)
    places = data if status >= 400 else [top.get("error"), top.get("errors")]  # below 400 the rest is data
    words = list(islice(_words(places), 50))
    said = Said(
        refused=any(map(code_says_so, words)),
        retryable=not any(_HOPELESS.search(word) for word in words),
        wait=max(_waits(data, moment), default=None) or _until(words, moment),
        spoken=_spoken(words),
        violated=frozenset(name for name in _list(top.get("violated-policies")) if isinstance(name, str)),
    )
    _shopify(top, said)
    return said


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    """The first members: errors come in ones and twos."""
    return cast("Sequence[Any]", value)[:16] if isinstance(value, list) else ()


def _words(data: Any, depth: int = 0) -> Iterator[str]:
    """The texts at the places where errors are told."""
    if isinstance(data, str):
        yield data[:300]
    elif depth <= 5:
        for one in _list(data):
            yield from _words(one, depth + 1)
        told = _dict(data)
        for place in _PLACES:
            if place in told:
                yield from _words(told[place], depth + 1)


def _waits(data: Any, moment: Moment, depth: int = 0) -> Iterator[float]:
    """The waits that are told by name at the places where errors are told."""
    for one in _list(data) if depth <= 5 else ():
        yield from _waits(one, moment, depth + 1)
    told = _dict(data) if depth <= 5 else {}
    for name, value in islice(told.items(), 50):
        if match := _WAIT.fullmatch(name):
            wait = _number(value)
            if wait is None and isinstance(value, str):
                wait = resets([value[:50]], moment)
            if wait is not None:
                yield wait / 1000 if match[1] else wait
    for place in (*_PLACES, "parameters"):
        if place in told:
            yield from _waits(told[place], moment, depth + 1)


def _spoken(words: list[str]) -> float | None:
    """The wait that a sentence names."""
    for word in words:
        if phrase := _AGAIN.search(word := word[:300]):
            at, total = phrase.end(), 0.0
            while step := _STEP.match(word, at):
                total, at = total + float(step[1]) * _UNITS[step[2].lower()], step.end()
            plain = None if total else _SECONDS.match(word, at)
            return min(total, LONGEST) or (float(plain[0]) if plain else None)
    return None


def _until(words: list[str], moment: Moment) -> float | None:
    for word in words:
        if match := _UNTIL.search(word[:300]):
            return reset_in(float(match[1]), moment)
    return None


def _number(value: Any) -> float | None:
    """A number that is not negative, also written as text; cut to `LONGEST`."""
    if isinstance(value, str):
        value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return float(min(value, LONGEST))


def _shopify(top: dict[str, Any], said: Said) -> None:
    """shopify.dev, GraphQL rate limits: a bucket of cost points; the wait is what is missing over the refill rate."""
    cost = _dict(_dict(top.get("extensions")).get("cost"))
    bucket = _dict(cost.get("throttleStatus"))
    limit, left = _number(bucket.get("maximumAvailable")), _number(bucket.get("currentlyAvailable"))
    rate, asked = _number(bucket.get("restoreRate")), _number(cost.get("requestedQueryCost"))
    if limit is None and left is None:
        return
    said.told = Told(limit=limit, remaining=left)
    if said.wait is None and left is not None and asked is not None and rate:
        said.wait = min(max(asked - left, 0.0) / rate, LONGEST)
