"""The command `glasscache`."""

from __future__ import annotations

import typer

from cache_core.cli import demo, operate, replay
from cache_core.cli.console import flowing

app = typer.Typer(
    name="glasscache",
    help=(
        "The cache for LLM agents that you can see through.\n\n"
        "Start with [bold]glasscache demo[/bold] to watch it work, then "
        "[bold]glasscache replay FILE.jsonl[/bold] to see what it would save on your own traffic."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

for name, command in {
    "demo": demo.demo,
    "replay": replay.replay,
    "warm": operate.warm,
    "invalidate": operate.invalidate,
    "explain": operate.explain,
    "stats": operate.stats,
    "settings": operate.settings,
}.items():
    app.command(name, help=flowing(command))(command)


def main() -> None:
    """Run the command line."""
    app()
