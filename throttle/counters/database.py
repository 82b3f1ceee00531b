"""One SQLite file of counts: opened, checked and locked for writing, with every trouble told in one line."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ..errors import CounterUnavailable
from .base import Outage

__all__ = ["Database", "Locked", "network_of"]

T = TypeVar("T")

_log = getLogger("throttle")
_APPLICATION = 0x7468726F  # "thro": how a file says whose it is
_SCHEMA = 1
_MOUNTS = Path("/proc/self/mountinfo")  # where Linux tells of its file systems; elsewhere nothing is known
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.davfs2", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb2",
    "smb3", "smbfs",
}  # fmt: skip
_ESCAPED = re.compile(r"\\([0-7]{3})")
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)  # others are at it: try again
_WHY = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_FULL: "finds no space left",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened (is its folder there, and writable?)",
}

# A new file is closed before anybody locks it: closing any descriptor of a file drops all locks its process has there.
_creating = Lock()


class Locked(Outage):
    """Others held the file for too long."""


class Database:
    """The file at `path`, written by several processes and used by one thread of each at a time.

    `begin` opens it when it is not open, waits for the write lock and starts a transaction; `commit` ends it. Trouble
    is a `CounterUnavailable` that names the file; the file is then closed, and the next `begin` tries anew.

    WAL and its locks work between processes of one machine only: a path on a network file system is refused.
    """

    def __init__(self, path: str, schema: str, *, durable: bool) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self._schema = schema
        self._durable = durable
        self._inode: tuple[int, int] = (0, 0)
        self._warned = False

    def __del__(self) -> None:
        self.close()

    def begin(self, deadline: float) -> sqlite3.Connection:
        """A transaction that holds the write lock. Raises `CounterUnavailable`; `Locked` where others held it until
        `deadline`."""
        try:
            if self.connection is not None and self._inode != _inode(self.path):
                self.close()  # it was deleted or replaced: the counts are where the name leads
            connection = self.connection or self._open(deadline)
            _patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
        except (sqlite3.Error, OSError) as error:
            raise self.trouble(error) from error
        return connection

    def commit(self, deadline: float) -> None:
        """End the transaction; it is kept from now on, whatever happens to this process. Raises `sqlite3.Error`."""
        assert self.connection is not None
        _patiently(self.connection.commit, deadline)

    def close(self) -> None:
        """Let go of the file, and of what was not committed."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def trouble(self, error: Exception) -> CounterUnavailable:
        """What to tell of `error`; the file is closed."""
        self.close()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return Locked(f"{self.path} stays locked by others", sent=False)
        why = _WHY.get(code) or f"fails: {getattr(error, 'strerror', error)}"
        return CounterUnavailable(f"{self.path} {why}")

    def _open(self, deadline: float) -> sqlite3.Connection:
        network = network_of(self.path, _mounts())
        if network is not None:
            raise CounterUnavailable(
                f"{self.path} is on a network file system ({network}), whose locks do not hold between machines: "
                "give a path on a local disk, or use RedisCounter"
            )
        with _creating:
            with suppress(FileExistsError):  # names and keys are nobody else's business
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        self.connection, self._inode = connection, _inode(self.path)
        _patiently(lambda: self._check(connection), deadline)
        journal = _patiently(lambda: _ask(connection, "PRAGMA journal_mode = WAL"), deadline)
        if journal != "wal" and not self._warned:
            self._warned = True
            _log.warning("%s cannot use write-ahead logging (it says %r): it works, but slowly", self.path, journal)
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Make the tables in a new file; refuse one of somebody else."""
        if _ask(connection, "PRAGMA application_id") == 0:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or takes all back
                if _ask(connection, "SELECT count(*) FROM sqlite_master") == 0:
                    for statement in self._schema.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {_SCHEMA}")
        if _ask(connection, "PRAGMA application_id") != _APPLICATION:
            raise CounterUnavailable(f"{self.path} is a database of something else: give a path of its own")
        version = _ask(connection, "PRAGMA user_version")
        if version != _SCHEMA:
            raise CounterUnavailable(f"{self.path} has format {version}, this version of throttle reads {_SCHEMA}")


def _ask(connection: sqlite3.Connection, query: str) -> object:
    return connection.execute(query).fetchone()[0]


def _inode(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _patiently(action: Callable[[], T], deadline: float) -> T:
    """`action`, again and again while others are at it, until `deadline`. Short random naps share the lock more evenly
    than SQLite's own, which grow to 100 ms."""
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.0003, 0.0015))


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(errors="replace")
    except OSError:
        return ""


def network_of(path: str, mounts: str) -> str | None:
    """The network file system that `path` is on, None if it is on none; `mounts` in the form of /proc/self/mountinfo.

    >>> mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw" + chr(10) + "30 22 0:40 / /home rw shared:1 - nfs4 nas:/ rw"
    >>> network_of("/home/me/limits.db", mounts), network_of("/srv/limits.db", mounts)
    ('nfs4', None)
    """
    real, longest, kind = os.path.realpath(path), -1, ""
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields.split(" ")[4])  # a blank is written \040
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # the last of equals lies on top
            longest, kind = len(point), source.split(" ")[0]
    return kind if kind in _NETWORK else None
