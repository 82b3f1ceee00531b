"""The documentation's pictures show what their titles say, and are made wherever the documentation is built."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import learner_picture
import pytest

HOME = Path(__file__).parent.parent / "docs" / "pictures.py"


@pytest.fixture(scope="module")
def pictures() -> Any:
    if not HOME.exists():
        pytest.skip("the tests of a built wheel have no documentation beside them")
    spec = importlib.util.spec_from_file_location("pictures", HOME)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_learner_has_a_picture(tmp_path: Path) -> None:
    learner_picture.main(tmp_path / "new" / "learner.png", learner_picture.SHOWN[-3:])
    assert (tmp_path / "new" / "learner.png").read_bytes().startswith(b"\x89PNG")


def test_the_busiest_window_of_each_limiter(pictures: Any) -> None:
    most = [pictures.busiest(pictures.granted(one, [8.0] * 45))[1] for one in pictures.limiters().values()]
    assert most == [39, 20, 35, 40, 39]  # N = 20: a token bucket 2N - 1, a sliding window N, a fixed window 2N


def test_no_two_windows_share_a_grant(pictures: Any) -> None:
    assert pictures.busiest([0.0, 1.0, 10.0, 10.5]) == (1.0, 3)
    assert pictures.busiest([0.1, 10.1 - 1e-12]) == (0.1, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="documentation is built on POSIX")
def test_every_picture_is_made(pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CLIENTS", [2, 3])
    made = pictures.make_pictures(tmp_path / "new", runs=1)
    assert [path.name for path in made if path.suffix == ".svg"] == [
        f"{name}{ending}.svg" for name in ("limiters", "burst", "first-period", "study") for ending in ("", "-narrow")
    ]
    assert all(path.name.replace("-narrow", "") in pictures.__doc__ for path in made)
    assert all("<svg" in path.read_text() for path in made if path.suffix == ".svg")
    table = (tmp_path / "new" / "study-calls.md").read_text().splitlines()
    assert table[0] == "| clients | none | exponential | equal | full | decorrelated |"
    assert len(table) == 4
    pictures.draw_burst(tmp_path / "again.svg", pictures.WIDE)
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "new" / "burst.svg").read_bytes()
