"""The commands and their options; each is carried out by the file of its name."""

from __future__ import annotations

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


def _header(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [(name.strip(), value.strip()) for name, colon, value in (text.partition(":") for text in values) if colon]
    if len(pairs) < len(values) or not all(name.isascii() and value.isprintable() for name, value in pairs):
        raise click.BadParameter("a header is written 'Name: value'", ctx, param)
    return pairs


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="throttle")
def commands() -> None:
    """Stay under an API's rate limit, and recover by yourself."""


@commands.command()
@click.option("--items", type=click.IntRange(1), default=300, show_default=True, help="How many items to scrape.")
@click.option("--limit", callback=_rate, metavar="RATE", default="20/s", show_default=True, help="The server's limit.")
@click.option("--rate", callback=_rate, metavar="RATE", help="The client's own limit.  [default: the server's]")
@click.option("--unknown", is_flag=True, help="The client does not know the limit, and learns it.")
@click.option("--concurrency", type=click.IntRange(1), default=10, show_default=True, help="Requests at once.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the picture into this PNG file."
)
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


@commands.command()
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
@click.option("--concurrency", type=click.IntRange(1), default=10, show_default=True, help="Requests at once.")
@click.option(
    "--attempts", type=click.IntRange(1), default=5, show_default=True, help="Tries of each URL, the first included."
)
@click.option(
    "--max-size", type=click.IntRange(1), default=64, show_default=True, metavar="MIB", help="Largest body taken."
)
@TIMEOUT
@HEADER
def fetch(**options: Any) -> int:
    """Download URLs politely, one line of JSON each, written as they come.

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
def probe(url: str, timeout: float, headers: list[tuple[str, str]]) -> int:
    """Ask once, and show which limits the server announces."""
    from .probe import run_probe

    return run_probe(url, timeout=timeout, headers=headers)


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int]:
    """Whole numbers: `10,50,100`."""
    try:
        numbers = [int(part) for part in (value or "").split(",") if value]
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"whole numbers from 1 on, such as 10,50,100, not {value!r}", ctx, param)
    return numbers


def _picture(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".png", ".svg"):
        raise click.BadParameter(f"a picture is a .png or .svg file, not {str(value)!r}", ctx, param)
    return value


@commands.command()
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Runs of each kind.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same numbers.")
@click.option("--clients", callback=_numbers, metavar="N,N...", help="How many contend.  [default: 10,20,... to 190]")
@click.option("--jobs", type=click.IntRange(1), help="Processes at once.  [default: one for each processor]")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_picture,
    help="Also draw the picture into this .png or .svg file.",
)
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
