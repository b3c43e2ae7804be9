"""The command `glasscache`."""

from __future__ import annotations

import typer

from cache_core.cli import demo, operate, replay

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

app.command("demo")(demo.demo)
app.command("replay")(replay.replay)
app.command("warm")(operate.warm)
app.command("invalidate")(operate.invalidate)
app.command("explain")(operate.explain)
app.command("stats")(operate.stats)
app.command("settings")(operate.settings)


def main() -> None:
    """Run the command line."""
    app()
