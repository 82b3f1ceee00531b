"""`throttle simulate`: the study gives what the published simulator gives; its screens and files."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from throttle.cli import simulate
from throttle.cli.app import run
from throttle.cli.study import STRATEGIES, Point, contend, results, study, summed_up

REFERENCE = json.loads((Path(__file__).parent / "vectors" / "jitter_study.json").read_text())


def measure(strategy: str, clients: int, runs: int, seed: int) -> Point:
    return summed_up(strategy, clients, results(strategy, clients, range(runs), seed))


def reference(strategy: str, clients: int) -> Any:
    return next(row for row in REFERENCE["points"] if (row["strategy"], row["clients"]) == (strategy, clients))


@pytest.mark.parametrize("clients", [10, 30, 100])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_as_the_published_simulator(strategy: str, clients: int) -> None:
    point, known = measure(strategy, clients, 20, seed=1), reference(strategy, clients)
    for name in ("calls", "time"):
        error = math.hypot(getattr(point, f"{name}_error"), known[f"{name}_error"])
        assert abs(getattr(point, name) - known[name]) <= 3 * error, name


def test_the_published_figures_are_those_of_the_reference() -> None:
    calls, times = (2420, 1849, 812, 795, 998), (2025, 63290, 6574, 4893, 4678)
    for strategy, call, time in zip(STRATEGIES, calls, times, strict=True):
        known = reference(strategy, 100)
        assert known["calls"] == pytest.approx(call, abs=5 * math.sqrt(2) * known["calls_error"])
        assert known["time"] == pytest.approx(time, abs=5 * math.sqrt(2) * known["time_error"])


def test_one_client_alone_needs_four_messages() -> None:
    calls, time = contend(1, STRATEGIES["full"], Random(3))
    assert calls == 1
    assert 4 * 10 - 4 * 8 < time < 4 * 10 + 4 * 8


def test_every_point_once_the_same_in_any_pool() -> None:
    told: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        points = study(pool, [3, 2], runs=12, seed=7, done=lambda clients, runs: told.append((clients, runs)))
    assert [(point.clients, point.strategy) for point in points] == [(n, name) for n in (3, 2) for name in STRATEGIES]
    assert points == [measure(name, n, 12, seed=7) for n in (3, 2) for name in STRATEGIES]
    assert sorted(told) == sorted([(n, some) for n in (2, 3) for some in (10, 2)] * 5)


def test_what_fails_stops_the_rest() -> None:
    def stop(clients: int, runs: int) -> None:
        raise LookupError

    jobs: list[Future[Any]] = []

    class Noting(ThreadPoolExecutor):
        def submit(self, *args: Any) -> Future[Any]:  # type: ignore[override]
            jobs.append(super().submit(*args))
            return jobs[-1]

    with Noting(1) as pool, pytest.raises(LookupError):
        study(pool, [50], runs=1000, seed=1, done=stop)
    assert sum(job.cancelled() for job in jobs) > 400  # of 500


def test_an_error_of_one_run_is_not_known() -> None:
    point = measure("none", 2, 1, seed=1)
    assert point.calls_error == math.inf
    assert point.as_json()["calls_error"] is None
    assert json.loads(json.dumps(point.as_json()))["clients"] == 2


class Here(ThreadPoolExecutor):
    """A pool of this process in place of one of processes."""

    def __init__(self, jobs: int, *_: object) -> None:
        super().__init__(jobs)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "ProcessPoolExecutor", Here)


@pytest.mark.usefixtures("here")
def test_the_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot = tmp_path / "study.png"
    assert run(["simulate", "--runs", "2", "--clients", "3,2", "--seed", "5", "--plot", str(plot)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "calls until all are done"
    assert lines[1].split() == ["clients", *STRATEGIES]
    assert [line.split()[0] for line in lines[2:4]] == ["2", "3"]
    assert float(lines[2].split()[4]) == pytest.approx(measure("full", 2, 2, seed=5).calls, abs=0.5)
    assert lines[5] == "milliseconds until all are done"
    assert lines[-2] == "means of 2 runs from seed 5; --json has their standard errors"
    assert lines[-1] == f"the picture is in {plot}"
    assert "Traceback" not in err
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("here")
def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot = tmp_path / "study.SVG"
    assert run(["simulate", "--runs", "1", "--clients", "2", "--json", "--plot", str(plot)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["seed"], len(told["points"])) == (1, 1, 5)
    assert Point(**{**told["points"][0], "calls_error": math.inf, "time_error": math.inf}) == measure(
        "none", 2, 1, seed=1
    )
    assert b"<svg" in plot.read_bytes()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_without_a_picture(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--runs", "1", "--clients", "2", *options]) == 0
    assert "picture" not in capsys.readouterr().out


def test_in_processes_of_its_own() -> None:
    points = simulate.simulated([2], 1, 1, jobs=1, console=Console(file=StringIO()))
    assert points == [measure(strategy, 2, 1, seed=1) for strategy in STRATEGIES]


def test_ctrl_c(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "simulated", interrupted)
    assert run(["simulate"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_killed_process_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(simulate, "simulated", killed)
    assert run(["simulate"]) == 1
    assert capsys.readouterr().err.startswith("throttle: a process of the simulation was killed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "0 is not in the range x>=1"),
        (["--clients", "1,x"], "whole numbers from 1 on, such as 10,50,100, not '1,x'"),
        (["--clients", "0"], "not '0'"),
        (["--plot", "x.gif"], "a picture is a .png or .svg file, not 'x.gif'"),
        (["--plot", "/nowhere/x.png"], "cannot write /nowhere/x.png: No such file or directory"),
    ],
)
def test_one_line_for_each_mistake(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", *arguments]) != 0
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_without_matplotlib(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.cli.app.find_spec", lambda name: None)
    assert run(["simulate", "--plot", "x.png"]) == 1
    assert capsys.readouterr().err == "throttle: --plot needs matplotlib: pip install 'throttle-async[cli]'\n"
