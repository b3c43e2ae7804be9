"""The command `glasscache`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from cache_core.cli import dashboard, demo, operate, replay, tune
from cache_core.cli.console import flowing

app = typer.Typer(
    name="glasscache",
    help=(
        "The cache for LLM agents that you can see through.\n\n"
        "Four tiers: L1 answers the same message again, L2 one that means the same, L3 remembers "
        "its intent and L4 its documents. An answer is its user's alone, unless it is shared.\n\n"
        "Start with [bold]glasscache demo[/bold] to watch it work, then "
        "[bold]glasscache replay FILE.jsonl[/bold] to see what it would save on your own traffic."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "replay": replay.replay,
    "dashboard": dashboard.dashboard,
    "warm": operate.warm,
    "invalidate": operate.invalidate,
    "explain": operate.explain,
    "stats": operate.stats,
    "settings": operate.settings,
}
app.add_typer(tune.app, name="tune")
for name, command in _COMMANDS.items():
    app.command(name, help=flowing(command))(command)


def main() -> None:
    """Run the command line."""
    app()
