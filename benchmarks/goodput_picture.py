"""The picture of the README: 200 tasks meet a real server whose limit nobody knows; throttle beside a client that
sleeps per task.

    python benchmarks/goodput_picture.py docs/unknown.svg

The server is nginx with `limit_req` (60 at once, 40 a second, 429 without a header); 300 items are fetched. Each dot is
an answer as the client saw it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from goodput_clients import tenacity
from goodput_servers import IDEAL, ITEMS, kinds

from throttle import ThrottleTransport

TASKS = 200
SERVER = "nginx 429, burst"
WIDE, HIGH, LEFT, TOP = 360, 210, 44, 58  # of one panel
LONGEST = 12.0  # seconds that are shown

Answers = list[tuple[float, int]]  # seconds since the start, status


class Recording(httpx.AsyncBaseTransport):
    """Sends, and notes when each answer came and what it was."""

    def __init__(self) -> None:
        self.inner = httpx.AsyncHTTPTransport()
        self.answers: Answers = []
        self.started = time.perf_counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        self.answers.append((time.perf_counter() - self.started, response.status_code))
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


async def fetched(url: str, *, throttled: bool) -> Answers:
    """All items by all tasks, through throttle or with tenacity around each fetch."""
    recording = Recording()
    transport: Any = ThrottleTransport(recording) if throttled else recording
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:

        async def get() -> httpx.Response:
            return (await client.get(url)).raise_for_status()

        fetch = get if throttled else tenacity()(get)
        items = iter(range(ITEMS))

        async def work() -> None:
            for _ in items:
                await fetch()

        recording.started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(work())
    return recording.answers


def panel(name: str, answers: Answers, at: int) -> list[str]:
    """One client: how many items were done by when, and each refusal."""

    def point(seconds: float, done: int) -> str:
        return f"{at + LEFT + seconds / LONGEST * WIDE:.1f},{TOP + HIGH * (1 - done / ITEMS):.1f}"

    done, line, refusals = 0, [point(0, 0)], []
    for seconds, status in answers:
        if status == 200:
            line.append(point(seconds, done))
            done += 1
            line.append(point(seconds, done))
        else:
            x, y = point(min(seconds, LONGEST), done).split(",")
            refusals.append(f'<circle cx="{x}" cy="{y}" r="2.4"/>')
    wall = max(seconds for seconds, status in answers if status == 200)
    right, bottom = at + LEFT + WIDE, TOP + HIGH
    parts = [
        f'<text x="{at + LEFT}" y="22" font-size="15" font-weight="600">{name}</text>',
        f'<text x="{at + LEFT}" y="42" fill="#57606a">{wall:.1f} s, {len(refusals)} requests refused</text>',
        f'<path d="M{at + LEFT},{TOP} V{bottom} H{right}" fill="none" stroke="#8c959f"/>',
        f'<path d="M{point(0, 60)} L{point(IDEAL, ITEMS)}" fill="none" stroke="#8c959f" stroke-dasharray="3 4"/>',
        f'<polyline points="{" ".join(line)}" fill="none" stroke="#1a7f37" stroke-width="2.5"/>',
        f'<g fill="#cf222e" fill-opacity=".55">{"".join(refusals)}</g>',
    ]
    for seconds in range(0, int(LONGEST) + 1, 3):
        x, _ = point(seconds, 0).split(",")
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle" fill="#57606a">{seconds} s</text>')
    for items in range(100, ITEMS + 1, 100):
        x, y = point(0, items).split(",")
        parts.append(f'<text x="{float(x) - 8}" y="{float(y) + 4}" text-anchor="end" fill="#57606a">{items}</text>')
    return parts


def picture(ours: Answers, theirs: Answers) -> str:
    wide, high = 2 * (WIDE + LEFT + 24), TOP + HIGH + 56
    legend = "items done (line), refused requests (dots), the best possible (dashed)"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}"',
            ' font-family="sans-serif" font-size="13">',
            f"<title>{TASKS} tasks, unknown limit: {legend}</title>",
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
            *panel("throttle, limit unknown", ours, 0),
            *panel("each task sleeps by itself (tenacity)", theirs, WIDE + LEFT + 24),
            f'<text x="{LEFT}" y="{high - 12}" fill="#57606a">{legend}</text>',
            "</svg>",
        ]
    )


def main() -> None:
    found = []
    for throttled in (True, False):
        with kinds()[SERVER].start() as server:  # type: ignore[attr-defined]
            found.append(asyncio.run(fetched(server.url, throttled=throttled)))
    Path(sys.argv[1]).write_text(picture(*found) + "\n")


if __name__ == "__main__":
    main()
