"""The pytest plugin: the marker `virtual_time`, a test in virtual time, and the fixture `virtual_clock`.

    @pytest.mark.virtual_time
    async def test_a_minute_passes(virtual_clock):
        limiter = TokenBucket("1/min", burst=1)
        await limiter.acquire()
        await limiter.acquire()
        assert virtual_clock.now() == 60

The marker is for async tests: those of pytest-asyncio, of anyio (on asyncio and trio), and those that no other plugin
runs, which then run on asyncio. Async fixtures are set up in real time. `virtual_clock` is a `VirtualClock`: that of
the test's virtual time; in a test without the marker one that only the test moves, and the default clock there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import VirtualClock

__all__ = ["virtual_clock"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "virtual_time: run this async test in virtual time (throttle.testing)")


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker("virtual_time") is not None


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> Generator[VirtualClock]:
    """The test's virtual time as a `VirtualClock`; without the marker a clock that the test moves, by default used."""
    from .clock import default_clock
    from .testing import VirtualClock
    from .testing.virtual import RunClock

    if _is_marked(request.node):
        yield RunClock()
        return
    clock = VirtualClock()
    with default_clock(clock):
        yield clock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Put a marked test into virtual time, in whatever loop its own plugin runs it."""
    if not (_is_marked(item) and isinstance(item, pytest.Function)):
        return (yield)
    drawn = getattr(item.obj, "hypothesis", None)  # its own function is inside; that one is run
    home, name = (item, "obj") if drawn is None else (drawn, "inner_test")
    test = getattr(home, name)
    if not inspect.iscoroutinefunction(test):
        pytest.fail("@pytest.mark.virtual_time is for async tests; others move a virtual_clock by hand", pytrace=False)
    somebody_runs_it = item.get_closest_marker("asyncio") or "anyio_backend" in item.fixturenames
    with _replaced(home, name, (_in_virtual_time if somebody_runs_it else _on_a_loop_of_its_own)(test)):
        return (yield)


@contextmanager
def _replaced(home: Any, name: str, value: Any) -> Generator[None]:
    before = getattr(home, name)
    setattr(home, name, value)
    try:
        yield
    finally:
        setattr(home, name, before)


def _in_virtual_time(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        from .testing.virtual import virtual_time

        with virtual_time():
            await test(*args, **kwargs)

    return run


def _on_a_loop_of_its_own(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        from .testing import run_virtual

        run_virtual(functools.partial(test, *args, **kwargs))

    return run


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Give trio, which cannot change its clock later, a mock clock for a marked test of anyio's plugin."""
    backend: Any = pyfuncitem.funcargs.get("anyio_backend")
    name: str = backend if isinstance(backend, str) else backend[0] if backend else ""
    options: dict[str, Any] = {} if isinstance(backend, str) or not backend else backend[1]
    if name == "trio" and "clock" not in options and _is_marked(pyfuncitem):
        from trio.testing import MockClock

        clocked = (name, {**options, "clock": MockClock(autojump_threshold=0)})
        with _replaced_item(pyfuncitem.funcargs, "anyio_backend", clocked):
            return (yield)
    return (yield)


@contextmanager
def _replaced_item(table: dict[str, Any], name: str, value: Any) -> Generator[None]:
    before = table[name]
    table[name] = value
    try:
        yield
    finally:
        table[name] = before
