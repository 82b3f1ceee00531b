"""The house stands: imports only go down its floors, in no circle, and foreign things stay in their homes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import throttle

ROOT = Path(throttle.__file__).parent

FLOORS = {
    name: floor
    for floor, names in enumerate(
        [
            # ground: values
            "errors rates clock decisions guard loops",
            # pure machines; events carry Hints, so they stand one floor above the other values
            "algorithms backoff retry_after structured ietf resets families vendors bodies hints events listening"
            " budget policy silence ledger accounts pace width adaptive",
            # where counts live
            "counters",
            # where time passes
            "calls waiting guests forecast gate core correcting rulecore permits lanes limiter combined combinedcore"
            " learning stock lane"
            " sharedcore sharedcombined",
            # trying again
            "driving retrying",
            # roof
            "tally service exchange mapping decorators bundle transport httpx httpx2 testing pytest_plugin cli",
        ]
    )
    for name in names.split()
}

HOMES = {  # foreign module -> our modules that may touch it
    "httpx": "httpx testing.server cli",
    "httpx2": "httpx2",
    "tenacity": "backoff",
    "redis": "counters.redis counters.pipe",
    "sqlite3": "counters.database counters.transactions counters.sqlite",
    "anyio": "clock counters.transactions counters.sqlite waiting stock driving exchange mapping testing cli",
    "trio": "waiting testing pytest_plugin",
    "time": "clock lanes counters retry_after hints driving testing cli",
    "random": "backoff counters policy core cli",
    "pytest": "pytest_plugin",
    "click": "cli",
    "rich": "cli",
}

FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in ROOT.rglob("*.py")}


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, also inside functions, but not what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_run_time(node)


@cache  # names only: trees that stay would make every later garbage collection slow
def imports(name: str, source: str) -> list[str]:
    """Full names of what the module `name` imports; of `from a import b` both a and a.b."""
    package = ["throttle", *name.split(".")[:-1]]
    found: list[str] = []
    for node in at_run_time(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


def ours(name: str, source: str) -> set[str]:
    """Modules of the house that `name` imports, as they are called in FILES."""
    inside = {full.removeprefix("throttle.") for full in imports(name, source) if full.startswith("throttle.")}
    known = {inner for inner in inside if inner in FILES or f"{inner}.__init__" in FILES}
    return {inner if inner in FILES else f"{inner}.__init__" for inner in known} - {name}


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_only_go_down(name: str) -> None:
    if name == "__init__":
        return  # the front door stands before all floors
    room = name.partition(".")[0]
    assert room in FLOORS, f"{name} has no floor: give it one here"
    climbs = {inner for inner in ours(name, FILES[name]) if FLOORS[inner.split(".")[0]] > FLOORS[room]}
    assert not climbs, f"{name} imports up: {climbs}"


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_runs_in_a_circle() -> None:
    assert circle({name: ours(name, FILES[name]) for name in FILES}) == []


@pytest.mark.parametrize("foreign", HOMES)
def test_foreign_modules_stay_in_their_homes(foreign: str) -> None:
    guests = {
        name for name in FILES if any(f"{full}.".startswith(f"{foreign}.") for full in imports(name, FILES[name]))
    }
    homes = HOMES[foreign].split()
    strays = {guest for guest in guests if not any(f"{guest}.".startswith(f"{home}.") for home in homes)}
    assert not strays, f"{foreign} is imported outside its homes {homes}: {strays}"


def test_the_guard_sees_what_it_must() -> None:
    """The readers above find imports in functions and packages, and leave out what is for type checkers."""
    lines = ["import time", "if TYPE_CHECKING:", "    import redis", "def f():", "    from ..waiting import Line"]
    source = "\n".join([*lines, "    from .. import gate"])
    assert ours("counters.memory", source) == {"waiting", "gate"}
    assert "time" in imports("rates", source)
    assert "redis" not in imports("rates", source)
    assert circle({"a": {"b"}, "b": {"a"}})
