"""Griffe extension: docstrings and signatures as a reader wants them on a page.

The doctests of a docstring become blocks of code. Signatures show what a user gives, and defaults as one would write
them: not the parts that only the library itself passes on.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from throttle.policy import HTTPRules

_DOCTEST = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences each run of lines that begins with `>>>`, up to the next blank line; tidies signatures."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Every class, function and module that has a docstring."""
        if obj.docstring is not None and "```pycon" not in obj.docstring.value:  # once, where two share it
            obj.docstring.value = _DOCTEST.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """The whole package, once it is read."""
        griffe.DataclassesExtension().on_package(pkg=pkg)  # gives dataclasses their __init__
        retry = pkg["retrying.Retry.__init__"].parameters
        del retry["http"]  # of Retry.for_http()
        retry["backoff"].default = "FullJitter()"
        whole = [parameter for parameter in retry if parameter.name != "self"]
        pkg["retrying.retry"].parameters = griffe.Parameters(*whole)
        rules = pkg["retrying.Retry.for_http"].parameters
        rules["methods"].default = repr(tuple(sorted(HTTPRules().methods)))
        rules["statuses"].default = repr(tuple(sorted(HTTPRules().statuses)))
        core, face = pkg["transport.TransportCore"], pkg["httpx.ThrottleTransport"]
        core["__init__"].parameters["retry"].default = "Retry.for_http()"
        face.docstring = core.docstring
        for name in ("__init__", "limiter", "wrap", "statistics"):
            face.set_member(name, core[name])
        permit = pkg["permits.Permit"]
        permit.del_member("__init__")  # nobody but a limiter makes one
        permit["key"].value = None
