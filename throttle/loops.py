"""Which event loop runs this code, and how another thread has it do something."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["post", "running"]


def running() -> Any:
    """The event loop that runs this code: an asyncio loop, a trio token, or None where there is none."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()  # a task, not only a run: trio may be a guest of an asyncio loop
            return trio.lowlevel.current_trio_token()
        except RuntimeError:
            pass
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def post(loop: Any, call: Callable[..., Any], *args: Any) -> None:
    """Have `loop`, as `running` names it, do `call(*args)`; from any thread. Nothing happens where it has ended."""
    soon = loop.call_soon_threadsafe if isinstance(loop, asyncio.AbstractEventLoop) else loop.run_sync_soon
    with suppress(RuntimeError):  # nobody is left to be told
        soon(call, *args)
