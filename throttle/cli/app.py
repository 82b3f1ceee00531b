"""The commands and their options; each is carried out by the file of its name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..rates import Rate

__all__ = ["run"]


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> Rate | None:
    """Any spelling of `Rate`, or a number of requests per second."""
    try:
        number = None if value is None else _number(value)
        return None if value is None else Rate.of(value if number is None else number)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_LINE = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*([\t -~]*)")  # RFC 9110 section 5.6.2: a name is a token


def _header(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[tuple[str, str]]:
    lines = [_LINE.fullmatch(text) for text in values]
    if None in lines:  # which one is not said: its value may be a secret
        raise click.BadParameter("a header is written 'Name: value', in plain ASCII", ctx, param)
    return [(line[1], line[2].strip()) for line in lines if line]


def _picture(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".png", ".svg"):
        raise click.BadParameter(f"a picture is a .png or .svg file, not {str(value)!r}", ctx, param)
    return value


def _count(name: str, default: int | None, text: str, metavar: str = "N") -> Callable[[Any], Any]:
    """An option that takes a whole number of at least 1."""
    shown = default is not None
    return click.option(name, type=click.IntRange(1), default=default, show_default=shown, metavar=metavar, help=text)


HEADER: Callable[[Any], Any] = click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    callback=_header,
    metavar="'NAME: VALUE'",
    help="Sent with each request.",
)
TIMEOUT: Callable[[Any], Any] = click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, metavar="SECONDS",
    help="How long a server may be silent."
)  # fmt: skip
PLOT: Callable[[Any], Any] = click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_picture,
    help="Also draw the picture into this .png or .svg file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="throttle")
def commands() -> None:
    """Stay under an API's rate limit, and recover by yourself."""


@commands.command(short_help="Scrape a rate-limited server of its own, live.")
@_count("--items", 300, "How many items to scrape.")
@click.option("--limit", callback=_rate, metavar="RATE", default="20/s", show_default=True, help="The server's limit.")
@click.option("--rate", callback=_rate, metavar="RATE", help="The client's own limit.  [default: the server's]")
@click.option("--unknown", is_flag=True, help="The client does not know the limit, and learns it.")
@_count("--concurrency", 10, "Requests at once.")
@PLOT
def demo(items: int, limit: Rate, rate: Rate | None, unknown: bool, concurrency: int, plot: Path | None) -> int:
    """Scrape a real rate-limited server, started for this on a free local port.

    Try --rate 60/s: the client then asks for more than it may, and recovers. Or --unknown: it finds the limit out.
    """
    if unknown and rate is not None:
        raise click.UsageError("a client that is told a --rate has none to learn: leave out --unknown or --rate")
    missing = [name for name in ("slowapi", "starlette", "uvicorn") if find_spec(name) is None]
    missing += ["matplotlib"] if plot and find_spec("matplotlib") is None else []
    if missing:
        raise click.ClickException(f"the demo needs {', '.join(missing)}: pip install 'throttle-async[cli]'")
    from .demo import run_demo

    rate = None if unknown else rate or limit
    return run_demo(items=items, limit=limit, rate=rate, concurrency=concurrency, plot=plot)


@commands.command(short_help="Download URLs politely, one line of JSON each.")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--from", "source", metavar="FILE", help="Read URLs from this file, one a line; - is standard input.")
@click.option(
    "--out",
    default="-",
    metavar="FILE",
    help="Append results here, and go on where it ends.  [default: standard output]",
)
@click.option(
    "--rate",
    callback=_rate,
    metavar="RATE",
    help='All requests together: "10/s", "100/min".  [default: what servers say]',
)
@click.option("--per-host", callback=_rate, metavar="RATE", help="The requests to each host.")
@_count("--concurrency", 10, "Requests at once.")
@_count("--attempts", 5, "Tries of each URL, the first included.")
@click.option(
    "--max-retry-after", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
    help="Longest pause that is waited out when a server asks for it."
)  # fmt: skip
@TIMEOUT
@click.option(
    "--max-time", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True, metavar="SECONDS",
    help="Longest that a body may take."
)  # fmt: skip
@_count("--max-size", 64, "Largest body taken.", "MIB")
@HEADER
def fetch(**options: Any) -> int:
    """Download URLs politely, one line of JSON each, written as they come.

    \b
      throttle fetch --from urls.txt --rate 10/s --out results.jsonl

    A line has url, status, type, seconds, at, and the body: as text where its charset reads it, else as base64. A URL
    that failed has error instead; it never stops the others. Ctrl-C stops cleanly: the same command goes on where it
    was, and tries again what had failed. Exit status: 0 all is there, 1 something failed, 130 stopped.
    """
    if not options["urls"] and options["source"] is None:
        raise click.UsageError("nothing to fetch: give URLs, --from FILE, or - for standard input")
    from .fetch import Options, run_fetch

    return run_fetch(Options(**options))


@commands.command()
@click.argument("url")
@TIMEOUT
@HEADER
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in seconds, instead of tables.")
def probe(url: str, timeout: float, headers: list[tuple[str, str]], as_json: bool) -> int:
    """Ask once, and show which limits the server announces."""
    from .probe import run_probe

    return run_probe(url, timeout=timeout, headers=headers, as_json=as_json)


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int]:
    """Whole numbers: `10,50,100`."""
    try:
        numbers = [int(part) for part in (value or "").split(",") if value]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"whole numbers from 1 on, such as 10,50,100, not {value!r}", ctx, param)
    return numbers


@commands.command(short_help="Which backoff? The study of clients that contend.")
@_count("--runs", 100, "Runs of each kind.")
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="The same seed, the same numbers.")
@click.option("--clients", callback=_numbers, metavar="N,N...", help="How many contend.  [default: 10,20,... to 190]")
@_count("--jobs", None, "Processes at once.  [default: one for each processor]")
@PLOT
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with standard errors, instead of tables.")
def simulate(plot: Path | None, **options: Any) -> int:
    """Which backoff? The published study of clients that contend, with this library's own backoffs.

    N clients update one row by optimistic locking: read it, write it, and back off and start again when another was
    faster. Each message takes |Normal(10, 2)| ms; backoffs have base 5 ms and cap 2000 ms. Shown are the writes and the
    milliseconds until all N are done, as in Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog,
    2015).
    """
    if plot and find_spec("matplotlib") is None:
        raise click.ClickException("--plot needs matplotlib: pip install 'throttle-async[cli]'")
    from .simulate import run_simulate

    return run_simulate(plot=plot, **options)


def _store(command: Callable[..., Any]) -> Any:
    """The options that say which counter."""
    for option in (
        click.option("--prefix", default="throttle", show_default=True, help="What its keys in Redis begin with."),
        click.option("--redis", metavar="URL", help="The counter in Redis or Valkey: redis://host:6379/0."),
        click.option(
            "--sqlite", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The counter in this file."
        ),
    ):
        command = option(command)
    return command


@commands.group()
def counter() -> None:
    """Look at the limits that processes share, and reset them."""


@counter.command("list")
@_store
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_(as_json: bool, **where: Any) -> int:
    """All limits in use, by the name they were given.

    A key that is as new is not kept, so it is not counted.
    """
    from .counter import run_list, store_of

    return run_list(store_of(**where), as_json=as_json)


@counter.command()
@click.argument("name")
@_store
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in seconds, instead of a table.")
def show(name: str, as_json: bool, **where: Any) -> int:
    """What is left of the limit NAME, key by key."""
    from .counter import run_show, store_of

    return run_show(store_of(**where), name, as_json=as_json)


@counter.command()
@click.argument("name")
@_store
@click.option("--key", help="Only this key.  [default: every key]")
@click.option("-y", "--yes", "sure", is_flag=True, help="Do not ask.")
def reset(name: str, key: str | None, sure: bool, **where: Any) -> int:
    """Forget what was used of the limit NAME."""
    from .counter import run_reset, store_of

    return run_reset(store_of(**where), name, key, sure=sure)


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; every error is one line on standard error. The exit status."""
    try:
        return commands.main(list(arguments), prog_name="throttle", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"throttle: {error.format_message()}", err=True)
        return error.exit_code
    except click.Abort:
        return 130
    except OSError as error:
        what = error.filename
        if what is None:
            what = "cannot write standard output"
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # or Python would complain, too, of what is in it
        click.echo(f"throttle: {what}: {error.strerror or error}", err=True)
        return 1
