"""The command `glasscache`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from cache_core.cli import (
    dashboard,
    demo,
    evaluate,
    explain,
    export,
    invalidate,
    proxy,
    reembed,
    replay,
    settings,
    stats,
    transfer,
    tune,
    warm,
)
from cache_core.cli.console import PlainCommand, PlainGroup, flowing, taking
from cache_core.cli.doctor import command as doctor
from cache_core.cli.report.command import report

app = typer.Typer(
    cls=PlainGroup,
    name="glasscache",
    help=(
        "The cache for LLM agents that you can see through.\n\n"
        "Four tiers: L1 answers the same message again, L2 one that means the same, L3 remembers "
        "its intent and L4 its documents. An answer stays private to its user unless you "
        "share it.\n\n"
        "Start with [bold]glasscache demo[/bold] to watch it work, then "
        "[bold]glasscache replay FILE.jsonl[/bold] to see what it would save on your own traffic."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"glasscache {version('glasscache')}")
        raise typer.Exit


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": taking(demo.Options, demo.demo),
    "replay": replay.replay,
    "evaluate": evaluate.evaluate,
    "dashboard": dashboard.dashboard,
    "proxy": proxy.proxy,
    "warm": warm.warm,
    "invalidate": invalidate.invalidate,
    "explain": explain.explain,
    "reembed": reembed.reembed,
    "dump": transfer.dump,
    "load": transfer.load,
    "stats": stats.stats,
    "report": report,
    "doctor": taking(doctor.Options, doctor.doctor),
    "settings": settings.settings,
}
app.add_typer(tune.app, name="tune")
app.add_typer(export.app, name="export")
for name, command in _COMMANDS.items():
    app.command(name, cls=PlainCommand, help=flowing(command))(command)


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Show the version."),
    ] = False,
) -> None:
    """Global options."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal without the character for a bar shows a question mark
            stream.reconfigure(errors="replace")
    app()
