"""The demo's server: a small paginated shop under a real rate limit; nothing in it knows of this library.

`python -m throttle.cli.server --limit "20 per 1 second"` prints its port and serves until its standard input closes,
so it never outlives who started it. `/stats` is not limited: when each request came, and how it was answered.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from typing import Any

import uvicorn
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PAGE = 25  # items a page


class Recorder:
    """Around the whole application: when each request came and how it was answered, also when it was refused."""

    def __init__(self, app: Any) -> None:
        self.app: Any = app
        self.seen: list[tuple[float, int]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application."""
        came = time.monotonic()

        async def recorded(message: Any) -> None:
            if message["type"] == "http.response.start" and scope["path"] != "/stats":
                self.seen.append((came, message["status"]))
            await send(message)

        await self.app(scope, receive, recorded)


def build(limit: str, items: int) -> Recorder:
    """`/items?page=1` lists ids, `/items/7` is one item; both under one limit per client, a moving window."""
    limiter: Any = Limiter(  # its methods are not typed
        key_func=get_remote_address,
        application_limits=[limit],
        strategy="moving-window",
        headers_enabled=True,
    )

    async def listing(request: Request) -> JSONResponse:
        page = int(request.query_params.get("page", "1"))
        ids = list(range(1, items + 1))[(page - 1) * PAGE : page * PAGE]
        return JSONResponse({"items": ids, "next": f"/items?page={page + 1}" if page * PAGE < items else None})

    async def item(request: Request) -> JSONResponse:
        number = request.path_params["number"]
        return JSONResponse({"id": number, "name": f"item {number}", "price": number * 37 % 1000 / 10})

    @limiter.exempt  # type: ignore[untyped-decorator]
    async def stats(request: Request) -> JSONResponse:
        return JSONResponse(recorder.seen)

    routes = [Route("/items", listing), Route("/items/{number:int}", item), Route("/stats", stats)]
    app = Starlette(routes=routes)
    app.state.limiter = limiter
    app.add_middleware(SlowAPIASGIMiddleware)
    recorder = Recorder(app)
    return recorder


def listening() -> socket.socket:
    """A socket on a free local port, whose connections answer at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each body waits 40 ms for a late ACK
    return listener


def end_with_stdin(server: uvicorn.Server) -> None:
    """Wait until standard input closes, then end the server."""
    os.read(0, 1)  # nothing is ever sent
    server.should_exit = True


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description="the demo's rate-limited server")
    parser.add_argument("--limit", required=True, help='as slowapi spells it, such as "20 per 1 second"')
    parser.add_argument("--items", type=int, default=300)
    options = parser.parse_args()
    listener = listening()
    config = uvicorn.Config(build(options.limit, options.items), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=end_with_stdin, args=(server,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)  # noqa: T201  # connections queue from here on
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
