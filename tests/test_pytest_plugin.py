"""The pytest plugin, as users have it: under pytest-asyncio in both modes, anyio on both loops, and with neither."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import anyio.from_thread
import pytest
import pytest_asyncio
import trio.testing

import throttle.testing.virtual

KEPT = (anyio.from_thread, pytest_asyncio, trio.testing, throttle.testing.virtual)  # else each inner run has its own

HEAD = """
import asyncio, time
import anyio, pytest
from throttle import Constant, Retry, TokenBucket
"""

BODY = """
LIMITER = TokenBucket("1/min", burst=1)

async def test_an_hour(virtual_clock):
    began = time.monotonic()
    limiter = TokenBucket("1/min", burst=1)
    for _ in range(61):
        await limiter.acquire()
    assert virtual_clock.now() == 3600
    await anyio.sleep(30)
    assert virtual_clock.now() == 3630
    with pytest.raises(TimeoutError):
        with anyio.fail_after(29):
            await limiter.acquire()
    assert virtual_clock.now() == 3659
    assert time.monotonic() - began < 50


async def test_a_limiter_of_the_module():
    began = anyio.current_time()
    for _ in range(3):
        await LIMITER.acquire()
    assert anyio.current_time() - began == 120


async def test_it_starts_full_again():
    assert (await LIMITER.try_acquire()).allowed


async def test_a_retry_waits_in_virtual_time(virtual_clock):
    @Retry(on=OSError, attempts=3, backoff=Constant(1000))
    async def fails():
        raise OSError

    with pytest.raises(OSError):
        await fails()
    assert virtual_clock.now() == 2000


async def test_the_clock_can_be_moved_by_hand_too(virtual_clock):
    seen = []

    async def sleeper():
        await virtual_clock.sleep(10)
        seen.append(virtual_clock.now())

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await anyio.sleep(1)
        virtual_clock.advance(9)
        await virtual_clock.run(5)
        assert seen == [10]
        assert virtual_clock.now() == 15
    with pytest.raises(ValueError, match="-1"):
        virtual_clock.advance(-1)
    assert repr(virtual_clock) == "<the virtual time of the running loop>"
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider -p no:xdist")
    return pytester


def run(suite: pytest.Pytester, tests: str, *options: str, **outcomes: int) -> pytest.RunResult:
    suite.makepyfile(HEAD + tests)
    result = suite.runpytest_inprocess(*options)
    result.assert_outcomes(**outcomes)
    return result


def marked(*marks: str) -> str:
    return f"pytestmark = [{', '.join(f'pytest.mark.{mark}' for mark in ('virtual_time', *marks))}]\n"


def test_with_no_other_plugin(suite: pytest.Pytester) -> None:
    run(suite, marked() + BODY, "-p", "no:asyncio", passed=5)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_with_pytest_asyncio(suite: pytest.Pytester, mode: str) -> None:
    fixture = """
import pytest_asyncio

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def loop():
    return asyncio.get_running_loop()

@pytest.mark.asyncio(loop_scope="module")
async def test_in_the_loop_of_its_fixtures(loop, virtual_clock):
    assert asyncio.get_running_loop() is loop
    await asyncio.sleep(1000)
    assert virtual_clock.now() == loop.time() == 1000

@pytest.mark.asyncio(loop_scope="module")
async def test_from_zero_again(loop):
    assert loop.time() == 0
    await asyncio.to_thread(time.sleep, 0.01)
    assert loop.time() == 0
"""
    marks = ["asyncio"] if mode == "strict" else []
    options = ["--asyncio-mode", mode, "-o", "asyncio_default_fixture_loop_scope=function"]
    run(suite, marked(*marks) + BODY + fixture, *options, passed=7)


def test_with_anyio_on_both_loops(suite: pytest.Pytester) -> None:
    backends = """
@pytest.fixture(params=["asyncio", "trio", ("trio", {"restrict_keyboard_interrupt_to_checkpoints": True})])
def anyio_backend(request):
    return request.param
"""
    run(suite, marked("anyio") + backends + BODY, "-p", "no:asyncio", passed=15)


def test_real_time_comes_back(suite: pytest.Pytester) -> None:
    tests = """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module", autouse=True)
async def loop(anyio_backend):
    yield asyncio.get_running_loop()

@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_virtual(loop):
    await asyncio.sleep(100)
    await asyncio.to_thread(time.sleep, 0.01)
    assert loop.time() == 100

@pytest.mark.anyio
async def test_real(loop):
    assert asyncio.get_running_loop() is loop
    assert abs(loop.time() - time.monotonic()) < 5
"""
    run(suite, tests, "-p", "no:asyncio", passed=2)


def test_without_the_marker_the_test_moves_the_clock(suite: pytest.Pytester) -> None:
    tests = """
LIMITER = TokenBucket("1/min", burst=1)

def test_by_hand(virtual_clock):
    assert virtual_clock.now() == 0
    assert LIMITER.try_acquire_nowait()
    assert LIMITER.try_acquire_nowait().retry_after == 60
    virtual_clock.advance(60)
    assert LIMITER.try_acquire_nowait()

def test_anew(virtual_clock):
    assert virtual_clock.now() == 0
    assert LIMITER.try_acquire_nowait()

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_with_tasks(virtual_clock, anyio_backend):
    async with anyio.create_task_group() as group:
        group.start_soon(LIMITER.acquire)
        group.start_soon(LIMITER.acquire)
        await virtual_clock.run(59)
        assert not LIMITER.try_acquire_nowait()
        await virtual_clock.run(1)
"""
    run(suite, tests, "-p", "no:asyncio", passed=4)


def test_hypothesis(suite: pytest.Pytester) -> None:
    tests = """
from hypothesis import given, settings, strategies

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@given(seconds=strategies.integers(1, 10**6))
@settings(max_examples=5, database=None, deadline=None)
async def test_any_time(anyio_backend, seconds):
    began = anyio.current_time()
    await anyio.sleep(seconds)
    assert anyio.current_time() - began == pytest.approx(seconds)
"""
    run(suite, marked() + tests, "-p", "no:asyncio", passed=2)


def test_a_failure_is_a_failure(suite: pytest.Pytester) -> None:
    tests = """
async def test_wrong():
    await asyncio.sleep(5)
    assert asyncio.get_running_loop().time() == 6
"""
    result = run(suite, marked() + tests, "-p", "no:asyncio", failed=1)
    result.stdout.fnmatch_lines(["*assert 5.0 == 6*"])


def test_mistakes_are_told(suite: pytest.Pytester) -> None:
    tests = """
def test_sync():
    pass

@pytest.fixture
async def early(anyio_backend):
    yield

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_the_run_has_begun_on_the_real_clock(anyio_backend, early):
    pass
"""
    result = run(suite, marked() + tests, "-p", "no:asyncio", failed=2)
    result.stdout.fnmatch_lines(
        [
            "*@pytest.mark.virtual_time is for async tests; others move a virtual_clock by hand",
            "*RuntimeError: this trio run is on the real clock: give it clock=MockClock(autojump_threshold=0)",
        ]
    )


def test_other_tests_are_left_alone(suite: pytest.Pytester) -> None:
    run(suite, "def test_plain():\n    assert True\n", "-p", "no:asyncio", passed=1)


def test_it_is_found_and_imports_nothing_heavy() -> None:
    found = [one for one in entry_points(group="pytest11") if one.value == "throttle.pytest_plugin"]
    assert [one.name for one in found] == ["throttle"]
    code = "import sys, throttle.pytest_plugin; print({'anyio', 'httpx', 'trio', 'tenacity'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
