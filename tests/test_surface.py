"""The public surface: `surface.txt` lists it and a change must edit that file (`make surface`); importing is cheap."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import throttle

SUBMODULES = ["algorithms", "counters", "events", "hints", "retry_after", "testing"]
MODULES = ["throttle", *(f"throttle.{name}" for name in SUBMODULES)]
HEAVY = {"anyio", "asyncio", "httpx", "httpx2", "redis", "rich", "sqlite3", "tenacity", "trio", "typer"}


class Shown:
    """Prints as `text`, the same on every Python."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(thing: Any) -> str:
    """Parameters with their annotations as they are written; a default that is no plain value is `...`."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    plain = (bool, float, int, str, type(None), type)
    parameters = [
        one.replace(
            annotation=Shown(one.annotation) if isinstance(one.annotation, str) else one.annotation,
            default=one.default if isinstance(one.default, plain) else Shown("..."),
        )
        for one in found.parameters.values()
    ]
    answer = found.return_annotation
    return str(
        found.replace(parameters=parameters, return_annotation=Shown(answer) if isinstance(answer, str) else answer)
    )


def own_members(thing: type) -> list[str]:
    """Public attributes that a class has of its own or from another class of ours."""
    homes = [base for base in thing.__mro__ if base.__module__.split(".")[0] == "throttle"]
    return sorted({name for base in homes for name in vars(base) if not name.startswith("_")})


def is_verb(thing: type, name: str) -> bool:
    """A method or property; the docstring of a class speaks for its plain fields."""
    member = inspect.getattr_static(thing, name)
    return callable(member) or isinstance(member, property | classmethod | staticmethod)


def members(thing: type) -> Iterator[str]:
    for name in own_members(thing):
        member = inspect.getattr_static(thing, name)
        verb = getattr(member, "__func__", member)
        yield f"    .{name}{signature(verb) if callable(verb) else ''}"


def surface() -> Iterator[str]:
    for module_name in MODULES:
        module = import_module(module_name)
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            protocol = getattr(thing, "_is_protocol", False)
            yield f"{module_name}.{name}{signature(thing) if callable(thing) and not protocol else ''}"
            if inspect.isclass(thing):
                yield from members(thing)


def test_surface_is_the_written_one() -> None:
    written = (Path(__file__).parent / "surface.txt").read_text().splitlines()
    assert list(surface()) == written, "the public surface changed: if that is meant, run `make surface`"


@pytest.mark.parametrize("module_name", MODULES)
def test_every_public_name_says_what_it_is(module_name: str) -> None:
    module = import_module(module_name)
    assert len(module.__all__) == len(set(module.__all__))
    things = {name: getattr(module, name) for name in module.__all__}
    silent = [name for name, thing in things.items() if callable(thing) and not inspect.getdoc(thing)]
    silent += [
        f"{name}.{member}"
        for name, thing in things.items()
        if inspect.isclass(thing)
        for member in own_members(thing)
        if is_verb(thing, member) and not inspect.getdoc(getattr(thing, member))
    ]
    assert not silent, "no docstring"


def test_front_door() -> None:
    assert set(throttle.__all__) <= set(dir(throttle))
    assert {name for names in throttle._HOMES.values() for name in names.split()} == set(throttle.__all__)
    assert throttle.Rate is import_module("throttle.rates").Rate
    with pytest.raises(AttributeError, match="nothing_like_it"):
        throttle.nothing_like_it


def loaded(code: str) -> set[str]:
    """Which heavy modules a fresh interpreter has after running `code`."""
    lines = ["import sys; before = set(sys.modules)", code, "print(*set(sys.modules) - before)"]
    run = [sys.executable, "-c", "\n".join(lines)]
    return HEAVY & set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_import_is_cheap() -> None:
    assert loaded("import throttle") == set()
    assert loaded("import throttle; throttle.Rate, throttle.Decision, throttle.WaitTooLong") == set()
    assert loaded("import throttle; throttle.TokenBucket('10/s')") <= {"asyncio"}


if __name__ == "__main__":
    print(*surface(), sep="\n")
