"""The `throttle` command, of the extra `cli`: demo, fetch, probe, simulate, counter."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit; where the extra is missing, one line says what to install."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if (error.name or "throttle").split(".")[0] == "throttle":
            raise
        sys.exit(f"throttle: the command line needs {error.name}: pip install 'throttle-async[cli]'")
    sys.exit(run(sys.argv[1:]))
