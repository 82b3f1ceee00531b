"""The transport for httpx2: `httpx2.AsyncClient(transport=ThrottleTransport(limiter="10/s"))`."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import httpx2

from .transport import TransportCore

__all__ = ["ThrottleTransport"]


class ThrottleTransport(TransportCore, httpx2.AsyncBaseTransport):  # noqa: D101  # has that of its core
    __doc__ = TransportCore.__doc__

    _http: ClassVar[ModuleType] = httpx2
