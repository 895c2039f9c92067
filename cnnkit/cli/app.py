"""All commands in one place, and what happens when one fails: exit code 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

import cnnkit
from cnnkit.cli import (
    bench,
    conforming,
    exchanging,
    explaining,
    inspecting,
    judging,
    looking,
    plotting,
    reporting,
    scaffolding,
    training,
)
from cnnkit.errors import BackendNotFound, CnnkitError, DatasetNotFound, ModelError, OptionError

WRONG_USE = (OptionError, ModelError, DatasetNotFound, BackendNotFound)
"""Errors in what was asked for, as against errors in doing it."""

app = typer.Typer(
    name="cnnkit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(cnnkit.__version__)
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Convolutional networks as data, run by interchangeable backends."""


app.command()(training.train)
app.command()(reporting.report)
app.command()(judging.evaluate)
app.command()(judging.predict)
app.command()(exchanging.export)
app.command("import")(exchanging.import_)
app.command()(inspecting.summary)
app.command()(inspecting.models)
app.command()(inspecting.backends)
app.command()(inspecting.doctor)
app.add_typer(bench.bench, name="bench")
app.command()(conforming.conformance)
app.command()(explaining.why)
app.command()(explaining.compare)
app.command()(explaining.repro)
app.command()(looking.trace)
app.command()(scaffolding.new_backend)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
data_app.command("show")(inspecting.data_show)
app.add_typer(data_app, name="data")
app.add_typer(plotting.plot_app, name="plot")


def main() -> None:
    """The `cnnkit` command."""
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")  # where the terminal knows no "─", a "?" is better than a traceback
    try:
        app()
    except CnnkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, WRONG_USE) else 1)
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "Stopped.", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does; nobody is left to be told
        sys.stderr.close()
        sys.exit(1)
