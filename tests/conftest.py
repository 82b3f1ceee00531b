"""What every test may use: hypothesis profiles, and both event loops for async tests."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("quick", max_examples=10, deadline=None, derandomize=True)  # one more run of the same code
settings.register_profile("thorough", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: our children would be deaf to it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no garbage collection, of which some tests ask for hundreds, looks at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each `@pytest.mark.anyio` test runs on both; a module that is for one only overrides this."""
    return request.param


@pytest.fixture(autouse=True)
def no_jitter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a server named end to the tick, except in tests of that very jitter."""
    if request.node.get_closest_marker("jitter") is None:
        monkeypatch.setattr("throttle.silence.MOST_JITTER", 0)
