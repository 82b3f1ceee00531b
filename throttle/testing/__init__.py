"""For your tests: virtual time, retries without their waits, and a rate-limited server that follows a script.

`VirtualClock` is a clock that a test moves, `run_virtual` runs a whole program in virtual time, `no_waits` takes the
waits out of retries, and `FakeRateLimitedServer` is an httpx transport that refuses as a real server does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..calls import no_waits
from .clocks import VirtualClock
from .virtual import run_virtual

if TYPE_CHECKING:
    from .server import FakeRateLimitedServer

__all__ = ["FakeRateLimitedServer", "VirtualClock", "no_waits", "run_virtual"]


def __getattr__(name: str) -> Any:
    if name == "FakeRateLimitedServer":  # only it needs httpx
        from .server import FakeRateLimitedServer

        globals()[name] = FakeRateLimitedServer
        return FakeRateLimitedServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
