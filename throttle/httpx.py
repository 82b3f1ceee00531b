"""The transport for httpx: `httpx.AsyncClient(transport=ThrottleTransport(limiter="10/s"))`."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import httpx

from .transport import TransportCore

__all__ = ["ThrottleTransport"]


class ThrottleTransport(TransportCore, httpx.AsyncBaseTransport):  # noqa: D101  # has that of its core
    __doc__ = TransportCore.__doc__

    _http: ClassVar[ModuleType] = httpx
