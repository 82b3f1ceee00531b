"""`python -m throttle.cli` is the `throttle` command."""

from __future__ import annotations

from . import main

main()
