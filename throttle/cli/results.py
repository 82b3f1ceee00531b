"""The file of results: one line of JSON per URL, appended and flushed as it comes; what is there already is good."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import click

__all__ = ["Results"]

START = b'{"url": "'


class Results:
    """Results under way to a file, or to standard output for `-`.

    `fetched` are the URLs that the file has a line for without an error. A last line that was cut short, as by a
    crash, is taken away. Raises `ClickException` for a file that cannot be written or holds something else.
    """

    def __init__(self, name: str) -> None:
        self.name: str = "standard output" if name == "-" else name
        self.fetched: set[str] = set()
        if name == "-" and sys.stdout is None:  # as `>&-` leaves it
            raise click.ClickException("standard output is closed: give --out FILE")
        if name == "-":
            self._file: BinaryIO = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
            return
        try:
            if Path(name).is_file():
                self._resume(Path(name))
            self._file = Path(name).open("ab", buffering=0)  # noqa: SIM115  # closed by __exit__
        except OSError as error:
            raise click.ClickException(f"cannot write {name}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def on_terminal(self) -> bool:
        """Whether a person sees them come."""
        return self._file.isatty()

    def _resume(self, path: Path) -> None:
        """Learn what is there; leave the file at the end of a whole line."""
        good = 0
        with path.open("r+b") as file:
            for number, line in enumerate(file, 1):
                record = _record(line)
                if record is None and (line.startswith(START) or START.startswith(line)) and not line.endswith(b"\n"):
                    file.truncate(good)
                    break
                if record is None:
                    raise click.ClickException(f"{path} line {number} is no result of fetch: choose another --out")
                if "error" not in record:
                    self.fetched.add(record["url"])
                if not line.endswith(b"\n"):
                    file.seek(0, io.SEEK_END)
                    file.write(b"\n")
                good += len(line)

    def write(self, record: dict[str, Any]) -> None:
        """Append one line. Raises `ClickException` where it cannot be written, `BrokenPipeError` when nobody reads."""
        line = memoryview(json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise click.ClickException(f"cannot write {self.name}: {error.strerror}") from error


def _record(line: bytes) -> dict[str, Any] | None:
    """The record that a line holds, None if it is no line of results."""
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "url" in record else None  # pyright: ignore[reportUnknownVariableType]
