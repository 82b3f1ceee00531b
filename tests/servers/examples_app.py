"""The examples' servers: `python examples_app.py KIND` prints its port and serves until its standard input closes.

Nothing in them knows of this library. Each counts fixed windows of a second, and tells at /stats how many requests it
answered and how many it refused.

- plain: 20 requests a second at any path; refuses with 429 and Retry-After.
- model: POST /chat, 20 requests and 4000 tokens a second, told as a language model's server does.
- github: 40 requests in a window that is told in every answer, and at most 5 at once, both refused with 403.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

counts = {"answered": 0, "refused": 0}


class Window:
    """So much in each window of so many seconds; opens with the first request after the last one."""

    def __init__(self, limit: int, seconds: float = 1.0) -> None:
        self.limit, self.seconds, self.used, self.end = limit, seconds, 0, 0.0

    def look(self) -> Window:
        if time.monotonic() >= self.end:
            self.used, self.end = 0, time.monotonic() + self.seconds
        return self

    @property
    def left(self) -> int:
        return self.limit - self.used

    @property
    def ends_in(self) -> float:
        return self.end - time.monotonic()


def answer(body: Any, headers: dict[str, str] | None = None, status: int = 200) -> JSONResponse:
    counts["answered" if status == 200 else "refused"] += 1
    return JSONResponse(body, status, headers)


requests, tokens = Window(20), Window(4000)
hour = Window(40, 2.0)
running = 0


async def plain(request: Request) -> JSONResponse:
    if requests.look().left < 1:
        return answer({"error": "slow down"}, {"Retry-After": f"{requests.ends_in:.3f}"}, 429)
    requests.used += 1
    return answer({"path": request.url.path})


async def model(request: Request) -> JSONResponse:
    asked = await request.json()
    used = len(asked["prompt"].split()) + asked["max_tokens"] // 2
    refused = requests.look().left < 1 or tokens.look().left < used
    if not refused:
        requests.used, tokens.used = requests.used + 1, tokens.used + used
    headers = {}
    for name, window in (("requests", requests), ("tokens", tokens)):
        headers[f"x-ratelimit-limit-{name}"] = str(window.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(window.left)
        headers[f"x-ratelimit-reset-{name}"] = f"{window.ends_in * 1000:.0f}ms"
    if refused:
        headers["retry-after-ms"] = f"{max(requests.ends_in, tokens.ends_in) * 1000:.0f}"
        return answer({"error": {"code": "rate_limit_exceeded"}}, headers, 429)
    return answer({"text": asked["prompt"].upper(), "usage": {"total_tokens": used}}, headers)


async def github(request: Request) -> JSONResponse:
    global running
    hour.look()
    headers = {"X-RateLimit-Limit": str(hour.limit), "X-RateLimit-Reset": str(int(time.time() + hour.ends_in) + 1)}
    if running >= 5:
        headers |= {"X-RateLimit-Remaining": str(hour.left), "Retry-After": "1"}
        return answer({"message": "You have exceeded a secondary rate limit."}, headers, 403)
    if hour.left < 1:
        return answer({"message": "API rate limit exceeded"}, headers | {"X-RateLimit-Remaining": "0"}, 403)
    running, hour.used = running + 1, hour.used + 1
    try:
        await asyncio.sleep(0.02)
    finally:
        running -= 1
    return answer({"full_name": request.url.path}, headers | {"X-RateLimit-Remaining": str(hour.left)})


async def stats(request: Request) -> JSONResponse:
    return JSONResponse(counts)


def main() -> None:
    handler = {"plain": plain, "model": model, "github": github}[sys.argv[1]]
    app = Starlette(routes=[Route("/stats", stats), Route("/{path:path}", handler, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))

    def end_with_stdin() -> None:
        os.read(0, 1)  # nothing is ever sent
        server.should_exit = True

    threading.Thread(target=end_with_stdin, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # connections queue from here on
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
