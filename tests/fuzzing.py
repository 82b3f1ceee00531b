"""`python tests/fuzzing.py 1000000`: random and mutated headers for `read_hints`, on all cores; what must hold of each.

Each set is made from a seed, so that a failure can be made again: `python tests/fuzzing.py --seed 123`. It must raise
nothing, tell finite waits, take less than `LONGEST`, and wait no less than a naive reader of plain numbers would.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from throttle.hints import Hints, read_hints

LONGEST = 0.001  # seconds of CPU for one response whose fields have 8 KB; of a slow measurement the best of five counts
USUAL = 0.000020  # seconds for one response as most servers send it
SIZE = 8192
VECTORS = Path(__file__).parent / "vectors"
Pairs = list[tuple[str, str]]
Case = dict[str, Any]  # the arguments of read_hints

NAMES = [
    "Retry-After", "retry-after-ms", "x-ms-retry-after-ms", "RateLimit", "RateLimit-Policy", "RateLimit-Limit",
    "RateLimit-Remaining", "RateLimit-Reset", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
    "X-RateLimit-Reset-After", "X-Rate-Limit-Limit-Minute", "X-RateLimit-Used", "X-RateLimit-Window", "X-Rate-Limit",
    "anthropic-ratelimit-tokens-reset", "x-ratelimit-reset-requests", "X-RateLimit-Limit-Requests", "Sforce-Limit-Info",
    "X-Shopify-Shop-Api-Call-Limit", "Auth0-Client-Quota-Limit", "zendesk-ratelimit-tickets-index",
    "X-MBX-USED-WEIGHT-1M", "x-amzn-errortype", "mediawiki-api-error", "X-Should-Retry", "X-RateLimit-Scope", "Date",
    "Age", "X-RateLimit-Name",
]  # fmt: skip
PIECES = [
    "0", "1", "30", "60", "999999999", "1700000030", "1700000030123", "-1", "0.5", "1e3", "٣", "²", "+5", "1_000",
    "nan", "1s", "6m0s", "20ms", "1h", "µs", "2023-11-14T22:14:20Z", "2023-11-14T22:14:20+01:00", '"a";r=0;t=50',
    '"a";q=5;w=60', "limit=100", "remaining=0", "reset=5", "100;w=60", ";pk=:YQ==:", ":", '"', '\\"', "(", ")", ",",
    ", ", ";", "; ", "=", "%", "@1", "?1", "a", "b=per_hour", "q=5", "r=0", "t=9", "18/5000", "api-usage=18/5000",
    "\t", " ", "\x00", "\xa0", "é", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994", "Mon,", "GMT", "Tue, 14 Nov 2023 22:14:20 GMT", "ThrottlingException",
    "Too many requests", "rate limit ", "exceeded", "false",
]  # fmt: skip
STATUSES = [200, 200, 304, 403, 413, 429, 429, 429, 500, 503, 529]


@cache
def vectors() -> list[Case]:
    """The published vectors, as arguments."""
    found: list[Case] = []
    for file in ("ratelimit_ietf.json", "vendors.json", "retry_after.json"):
        for one in json.loads((VECTORS / file).read_text())["vectors"]:
            headers = one["headers"]
            pairs = [tuple(pair) for pair in (headers.items() if isinstance(headers, dict) else headers)]
            body = one.get("body")
            found.append(
                {"status": one["status"], "headers": pairs, "host": one.get("host"), "now": one["now"]}
                | {"body": body if body is None or isinstance(body, str) else json.dumps(body)}
            )
    return found


def value(chance: random.Random) -> str:
    """A value: pieces of what servers send, sometimes again and again up to 8 KB."""
    text = "".join(chance.choice(PIECES) for _ in range(chance.choice((1, 1, 1, 2, 3, 8))))
    if chance.random() < 0.03:
        return (text * (SIZE // max(len(text), 1)))[:SIZE]
    return text


def mutated(text: str, chance: random.Random) -> str:
    """`text` with something cut out, put in, doubled or changed."""
    at = chance.randrange(len(text) + 1)
    end = min(len(text), at + chance.choice((1, 1, 2, 5)))
    new = chance.choice(("", text[at:end] * 2, chr(chance.randrange(256)), chance.choice(PIECES)))
    return text[:at] + new + text[end:]


def made(seed: int) -> Case:
    """The arguments of one call."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        names = [chance.choice(NAMES) for _ in range(chance.choice((1, 2, 3, 4, 8)))]
        long = SIZE // len(names)  # 8 KB in all
        pairs = [(name, value(chance)[:long]) for name in names]
        return {"status": chance.choice(STATUSES), "headers": pairs, "now": 1_700_000_000.0}
    case = dict(chance.choice(vectors()))
    pairs = [(mutated(name, chance) if chance.random() < 0.05 else name, text) for name, text in case["headers"]]
    for _ in range(chance.choice((1, 1, 2, 4))):
        if pairs:
            at = chance.randrange(len(pairs))
            pairs[at] = (pairs[at][0], mutated(pairs[at][1], chance))
    if chance.random() < 0.2:
        pairs.append((chance.choice(NAMES), value(chance)))
    if case["body"] and chance.random() < 0.5:
        case["body"] = mutated(case["body"], chance)
    if chance.random() < 0.2:
        case["status"] = chance.choice(STATUSES)
    return case | {"headers": pairs}


def naive(case: Case) -> float:
    """The least wait that a reader of plain numbers would keep; 0.0 where it cannot be sure that one is meant."""
    fields: dict[str, list[str]] = {}
    for name, text in case["headers"]:
        fields.setdefault(name.lower(), []).append(text)
    if any(name.endswith(("-ms", "x-amz-retry-after")) for name in fields):
        return 0.0
    if case["status"] == 429 and "retry-after" in fields:
        return max((float(text) for text in fields["retry-after"] if re.fullmatch("[0-9]{1,9}", text)), default=0.0)
    own = {name: fields.get(f"x-ratelimit-{name}", []) for name in ("remaining", "reset")}
    plain = all(len(texts) == 1 and re.fullmatch("[0-9]{1,8}", texts[0]) for texts in own.values())
    words = "".join(fields)
    if case["status"] != 429 or not plain or words.count("limit") > 2 or case.get("body") or case.get("host"):
        return 0.0  # several limits, or a vendor's own unit
    return float(own["reset"][0]) if own["remaining"][0] == "0" and "age" not in fields else 0.0


def checked(case: Case) -> tuple[Hints, float]:
    """What is read, all that must hold of it asserted; and the seconds that took."""
    start = time.process_time()
    hints = read_hints(**case)
    taken = time.process_time() - start
    for told in (hints.wait, hints.retry_after):
        assert told is None or (math.isfinite(told) and told >= 0), case
    for quota in hints.quotas:
        numbers = (quota.limit, quota.remaining, quota.reset_after, quota.window)
        assert all(number is None or (math.isfinite(number) and number >= 0) for number in numbers), case
    assert hints.wait is not None or hints.refused, case
    assert (hints.wait or 0.0) >= naive(case), (hints, case)
    return hints, taken


def careful(case: Case) -> float:
    """Seconds of CPU, the best of five: what else the machine does is not the reader's fault."""
    best = math.inf
    for _ in range(5):
        best = min(best, checked(case)[1])
    return best


def worst_cases() -> Iterator[Case]:
    """Every field with every piece, alone and with its neighbours, again and again up to 8 KB; and very many fields."""
    joints = (",", ", ", ";", "; ", " ", "=", '"', "1", "1s,")
    texts = [*PIECES, *(piece + joint for piece in PIECES for joint in joints)]
    for name in NAMES:
        for text in texts:
            yield {"status": 429, "headers": [(name, (text * SIZE)[:SIZE])], "now": 1_700_000_000.0}
        for text in PIECES:
            for lines in (8, 128):
                pairs = [(name, (text * SIZE)[: SIZE // lines])] * lines
                yield {"status": 429, "headers": pairs, "now": 1_700_000_000.0}
    for text in PIECES[:20]:
        many = [(f"X-RateLimit-{part}-{at}", text) for at in range(130) for part in ("Limit", "Remaining", "Reset")]
        yield {"status": 200, "headers": many[: SIZE // 24], "now": 1_700_000_000.0}


def usual(rounds: int = 2000) -> float:
    """Seconds for a response like GitHub's, or with the fields of draft 10: the longer of them, the best of seven."""
    beside = [("Date", "Tue, 14 Nov 2023 22:13:20 GMT"), *((f"X-Other-{at}", "said") for at in range(8))]
    fields = {"Limit": "5000", "Remaining": "4987", "Used": "13", "Reset": "1700001800", "Resource": "core"}
    responses = [
        [*beside, *((f"X-RateLimit-{name}", text) for name, text in fields.items())],
        [*beside, ("RateLimit", '"default";r=50;t=30'), ("RateLimit-Policy", '"default";q=100;w=60')],
    ]
    slowest = 0.0
    for pairs in responses:
        best = math.inf
        for _ in range(7):
            start = time.process_time()
            for _ in range(rounds):
                read_hints(200, pairs, host="api.example.com")
            best = min(best, (time.process_time() - start) / rounds)
        slowest = max(slowest, best)
    return slowest


def share(work: tuple[int, int]) -> tuple[int, int, float, int]:
    """A part of the work, in one process: sets, refused ones, the worst time, and the seed of that."""
    first, count = work
    refused, worst, slowest = 0, 0.0, first
    for seed in range(first, first + count):
        case = made(seed)
        try:
            hints, taken = checked(case)
        except Exception as error:
            error.add_note(f"python tests/fuzzing.py --seed {seed}")
            raise
        refused += hints.refused
        if taken > worst and (taken := careful(case)) > worst:
            worst, slowest = taken, seed
    return count, refused, worst, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("sets", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one, shown")
    options = parser.parse_args()
    if options.seed is not None:
        print(made(options.seed))
        print(*checked(made(options.seed)))
        return
    started, step = time.monotonic(), 10_000
    work = [(first, min(step, options.sets - first)) for first in range(0, options.sets, step)]
    with multiprocessing.Pool() as pool:
        run: Callable[..., Any] = pool.imap_unordered
        done = list(run(share, [(options.first + first, count) for first, count in work]))
    _, _, worst, slowest = max(done, key=lambda one: one[2])
    refused = sum(one[1] for one in done)
    cases = list(worst_cases())
    slow = sorted(((careful(case), case) for case in cases), key=lambda one: -one[0])
    print(f"{sum(one[0] for one in done)} sets, {refused} refused, no exception, {time.monotonic() - started:.0f} s")
    print(f"slowest of them: {worst * 1e6:.0f} us (seed {slowest})")
    name, text = slow[0][1]["headers"][0]
    print(f"slowest of {len(cases)} with 8 KB: {slow[0][0] * 1e6:.0f} us ({name}: {text[:40]!r}...)")
    often = usual()
    print(f"usual responses: {often * 1e6:.0f} us at most")
    if max(worst, slow[0][0]) > LONGEST or often > USUAL:
        raise SystemExit(f"that is more than {LONGEST * 1000:.0f} ms, or than {USUAL * 1e6:.0f} us of the usual ones")


if __name__ == "__main__":
    main()
