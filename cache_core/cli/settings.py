"""`glasscache settings`: every setting, its environment variable and its value."""

from __future__ import annotations

from typing import Any

import typer

from cache_core.cli.console import err, fail, out, print_json, table
from cache_core.cli.tune import shown
from cache_core.cli.where import AsJson
from cache_core.config import environment
from cache_core.config.environment import short_name
from cache_core.config.settings import TUNING_VARIABLES, Settings, load_settings, refused_variables
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.urls import without_secrets
from cache_core.multilevel_cache import MultiLevelCache


def settings(as_document: AsJson = False) -> None:
    """Show the settings in force, and the environment variable of each.

    Values in the second table can also be changed while the agents run. Secrets are masked.
    Arguments that a program passes to MultiLevelCache are unknown here. The cache ignores an
    invalid value, with an error in its log; this command exits with 2. If a name belongs to another
    program, use the one that begins with GLASSCACHE_, as in GLASSCACHE_KEY: it takes precedence.

    [bold]CACHE_TIERS=l1,l3,l4 glasscache settings[/bold]
        Try a value before you set it: an invalid one shows what is expected.
    """
    refused = refused_variables()
    environment.report(refused, lambda line: err.print(line, style="red", soft_wrap=True))
    try:
        found = load_settings()
        cache = MultiLevelCache(settings=found)
    except ConfigurationError as error:
        fail(str(error))
    values = {name: _shown(name, value) for name, value in found.model_dump(mode="json").items()}
    values["tiers"] = ",".join(sorted(found.tiers))
    tuned = cache.tuning.model_dump(mode="json")
    if as_document:
        print_json({"settings": values, "tuning": tuned, "ignored": refused})
        raise typer.Exit(2 if refused else 0)
    fixed = table(title="Settings, fixed at start")
    for name in ("environment", "value", "what it is"):
        fixed.add_column(name, no_wrap=name == "environment", overflow="fold")
    for name, field in Settings.model_fields.items():
        fixed.add_row(short_name(name), _written(values[name]), field.description or "")
    live = table(
        "environment", "glasscache tune set", "value", title="Tuning, as this environment starts it"
    )
    for name, value in tuned.items():
        if name in Tuning.bounds() and name != "intents":
            given = "languages" if name == "guards" else name
            variable = short_name(given) if given in TUNING_VARIABLES else ""
            live.add_row(variable, name, shown(value, Tuning.bounds()[name]))
    out.print(fixed, "", live, sep="\n")
    if refused:
        raise typer.Exit(2)


def _written(value: Any) -> str:
    """Return a value in the environment's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None or value == [] else str(value)


def _shown(name: str, value: Any) -> Any:
    """Return a value for display, without keys and passwords."""
    if name == "key":
        return "set" if value else "random, kept in the store"
    return without_secrets(value) if value and name.endswith("_url") else value
