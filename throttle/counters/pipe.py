"""One connection to a Redis server: questions go out at once, answers come back in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

__all__ = ["Pipe", "Trip", "is_outage", "is_unsent", "packed"]


class Trip:
    """How far a question has come: `sent`, once it may have reached the server."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent: bool = False


class Pipe:
    """The one connection of one event loop, made as `client` makes its own.

    It is `client.execute_command` without what that does for others, and never takes more than one connection, however
    many ask at once. An answer that nobody waits for any more would be taken for that of the next question: so who is
    cancelled, or fails, closes the connection, and who else is under way there fails, too.
    """

    __slots__ = ("_client", "_connection", "_reading", "_sending")

    def __init__(self, client: Any) -> None:
        self._client = client
        self._connection: Any = None
        self._sending = asyncio.Lock()
        self._reading = asyncio.Lock()  # locks are fair: who has sent first reads first

    async def ask(self, words: Sequence[Any], trip: Trip) -> Any:
        """What the server answers to a command."""
        from redis.exceptions import ConnectionError as Lost
        from redis.exceptions import ResponseError

        connection: Any = None
        try:
            async with self._sending:
                connection = await self._open()
                trip.sent = True
                await connection.send_packed_command(packed(words), check_health=False)
            async with self._reading:
                if connection is not self._connection:
                    raise Lost("the connection was closed")
                return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            if connection is not None and connection is self._connection:
                await self.close()
            raise

    async def _open(self) -> Any:
        connection = self._connection
        if connection is not None and connection._reader.at_eof() and not self._reading.locked():
            await self.close()  # the server has closed it
        if self._connection is None:
            connection = self._client.connection_pool.make_connection()
            try:
                await connection.connect()
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._connection = connection
        return self._connection

    async def close(self, *, wait: bool = False) -> None:
        """Let go of the connection, and perhaps wait until it is gone; the next question opens one again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=not wait)


def packed(words: Sequence[Any]) -> bytes:
    """A command as it goes over the wire.

    >>> packed(["GET", "key"])
    b'*2\\r\\n$3\\r\\nGET\\r\\n$3\\r\\nkey\\r\\n'
    """
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        text = str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


_AWAY = ("OOM", "LOADING", "READONLY", "CLUSTERDOWN", "MISCONF", "MASTERDOWN", "TRYAGAIN")
_OUTAGES = ("ClusterDownError", "TryAgainError", "MasterDownError", "ReadOnlyError", "OutOfMemoryError")


def is_outage(error: BaseException) -> bool:
    """Whether waiting may help."""
    from redis import exceptions

    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return False
    if isinstance(error, (OSError, exceptions.ConnectionError, exceptions.TimeoutError)):
        return True
    return type(error).__name__ in _OUTAGES or str(error).startswith(_AWAY) or "-OOM" in str(error)


def is_unsent(error: BaseException) -> bool:
    """Whether a question that met an outage was surely not carried out: the server has refused it, or there was no
    connection."""
    from redis import exceptions

    refused = isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError))
    return refused or "connecting to" in str(error)
