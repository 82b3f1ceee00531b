"""Every Python block of the README and the docs runs, in virtual time, against a server that refuses nothing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from throttle.testing import run_virtual

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"path": request.url.path})

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    monkeypatch.setattr(asyncio, "run", lambda main: run_virtual(_awaited, main))
    exec(compile(block, "<README>", "exec"), {"__name__": "__main__"})


async def _awaited(program: object) -> object:
    return await program  # type: ignore[misc]


def test_readme_has_its_blocks() -> None:
    assert len(BLOCKS) >= 5
