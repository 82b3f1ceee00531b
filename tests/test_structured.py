"""Structured fields: tables by hand, and equality with http-sf, another implementation of RFC 9651."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from throttle.structured import Date, Display, Token, parse_dictionary, parse_list


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", []),
        ("   ", []),
        ("1", [(1, {})]),
        (" 1 ", [(1, {})]),
        ("1,2", [(1, {}), (2, {})]),
        ("1 \t,\t 2", [(1, {}), (2, {})]),
        ("-0, 007", [(0, {}), (7, {})]),
        ("999999999999999", [(999_999_999_999_999, {})]),
        ("-999999999999.999", [(-999_999_999_999.999, {})]),
        ("1.5;a", [(1.5, {"a": True})]),
        ('"a b";r=0;t=50', [("a b", {"r": 0, "t": 50})]),
        ('"a"; r=0;  t=50', [("a", {"r": 0, "t": 50})]),
        ('"a";r=1;r=0', [("a", {"r": 0})]),
        (r'"say \"no\" \\ yes"', [('say "no" \\ yes', {})]),
        ('"a;b, c"', [("a;b, c", {})]),
        ("*a/b:c", [(Token("*a/b:c"), {})]),
        ("?1, ?0;x=?0", [(True, {}), (False, {"x": False})]),
        (":aGk=:, :aGk:, ::", [(b"hi", {}), (b"hi", {}), (b"", {})]),
        ("a;pk=:aGk=:;qu=bytes", [(Token("a"), {"pk": b"hi", "qu": Token("bytes")})]),
        ("@-5", [(Date(-5), {})]),
        ('%"d%c3%a9faut"', [(Display("défaut"), {})]),
        ("()", [([], {})]),
        ('( 1 "a";x  b );y', [([(1, {}), ("a", {"x": True}), (Token("b"), {})], {"y": True})]),
    ],
)
def test_lists(text: str, members: Any) -> None:
    read = parse_list(text)
    assert read == members
    assert repr(read) == repr(members)  # 1 is not True, nor a Token a String


BROKEN = [
    ",",
    "1,",
    "1, ",
    ",1",
    "1,,2",
    "1 2",
    "\t1",
    "1;",
    "1; ",
    "1 ;a",
    "1;A",
    "1;a =2",
    "1;a= 2",
    "1;a=",
    "1;\ta",
    "-",
    "- 1",
    "+1",
    "1.",
    ".5",
    "1.2.3",
    "1.2345",
    "1234567890123.1",
    "1000000000000000",
    "1e3",
    '"a',
    '"a\\n"',
    '"é"',
    '"a\n"',
    "é",
    "１",
    "1\n",
    "?2",
    "?",
    ":a:",
    ":a",
    ":=:",
    ":ab===:",
    ":a-b_:",
    ":a=b=:",
    "@1.5",
    "@",
    "%a",
    '%"%C3%A9"',
    '%"%ff"',
    '%"%c3',
    "(1",
    "(1,2)",
    '("a""b")',
    "((1))",
    "=1",
    "'a'",
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_list_is_none(text: str) -> None:
    assert parse_list(text) is None


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", {}),
        ("  ", {}),
        ("limit=100, remaining=0,reset=5", {"limit": (100, {}), "remaining": (0, {}), "reset": (5, {})}),
        ("a=1, b, a=2", {"a": (2, {}), "b": (True, {})}),
        ("a;x=1, b=?0;y", {"a": (True, {"x": 1}), "b": (False, {"y": True})}),
        ("a=(1 2);z", {"a": ([(1, {}), (2, {})], {"z": True})}),
        ("*=1, a.b_c-*=2", {"*": (1, {}), "a.b_c-*": (2, {})}),
    ],
)
def test_dictionaries(text: str, members: Any) -> None:
    read = parse_dictionary(text)
    assert read == members
    assert repr(read) == repr(members)


@pytest.mark.parametrize(
    "text", ["a=1,", ",a", "a=", "a= 1", "a =1", "A=1", "1=a", '"a"=1', "a=1 b=2", "a=1;", "é", "-a", "\ta", "a=(1"]
)
def test_a_broken_dictionary_is_none(text: str) -> None:
    assert parse_dictionary(text) is None


# ── against http-sf ───────────────────────────────────────────────────────────────────────────────────────────────────

http_sf = pytest.importorskip("http_sf")


def plain(value: Any) -> Any:
    """A value of either library as its kind and its content, to be compared."""
    if isinstance(value, datetime):
        return "date", str(int((value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()))
    if isinstance(value, (list, tuple, dict)):
        inside = value.items() if isinstance(value, dict) else value
        return type(value).__name__, [plain(part) for part in inside]
    if isinstance(value, Decimal):
        value = float(value)
    return type(value).__name__.removesuffix("String").lower(), str(value)


def theirs(text: str, tltype: str) -> Any:
    try:
        data = text.encode("ascii")
        return plain(http_sf.parse(data, tltype=tltype))
    except (http_sf.StructuredFieldError, UnicodeEncodeError):
        return None


def ours(text: str, tltype: str) -> Any:
    read: Any = parse_list(text) if tltype == "list" else parse_dictionary(text)
    return None if read is None else plain(read)


PIECES = [
    '"a"', '"b\\"c"', "gold", "*t", "1", "-5", "50.25", "1.2345", "123456789012345", "?1", ":aGk=:", ":aGk:", ":aGl=:",
    "@1700000000", '%"%c3%a9"', '%"%ff"', "(1 2)", "( a;x )", "()", ";r=0", ";t=5", "; q=1", ";x", ";pk=:YQ==:", ";",
    "=", ",", ", ", "\t,\t", " ", "\t", "limit=100", "remaining=0", "reset=5", "a", "A", "(", ")", '"', "\\", "é", "-",
    ".", "1000000000000000", "*", ":", "?", "@", "%", "\x7f", "\n", "\x00",
]  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text("abrqt*019-._=;:,?@%\"\\() \t/", max_size=30),
    st.text(max_size=10),
)


@given(texts)
@example('"default";r=50;t=30, "day";r=900;t=50000;pk=:dHJpYWwxMjEzMjM=:')
@example("limit=100, remaining=50, reset=5, acme-soft")
@example("@999999999999999")
def test_it_reads_what_http_sf_reads(text: str) -> None:
    for tltype in ("list", "dictionary"):
        mine, other = ours(text, tltype), theirs(text, tltype)
        if other is None and re.search("@-?[0-9]{12}", text):
            return  # its dates end with the year 9999
        assert mine == other


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_broken_here_is_broken_there(text: str) -> None:
    assert theirs(text, "list") is None
