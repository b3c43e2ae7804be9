"""`glasscache settings`: every setting, its environment variable and its value."""

from __future__ import annotations

from typing import Any

from cache_core.cli.console import fail, out, print_json, table
from cache_core.cli.tune_values import shown
from cache_core.cli.where import AsJson
from cache_core.exceptions import ConfigurationError
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.settings import Settings, TuningEnvironment, load_settings, without_secrets
from cache_core.tuning import Tuning


def settings(as_document: AsJson = False) -> None:
    """Show the settings in force, and the environment variable of each.

    Those of the second table can also be changed while the agents run. Secrets are masked. What a
    program passes to MultiLevelCache is not known here.

    [bold]CACHE_TIERS=l1,l3,l4 glasscache settings[/bold]
        Try a value before you set it: one that is refused says what is expected.
    """
    try:
        found = load_settings()
        cache = MultiLevelCache(settings=found)
    except ConfigurationError as error:
        fail(str(error))
    values = {name: _shown(name, value) for name, value in found.model_dump(mode="json").items()}
    values["tiers"] = ",".join(sorted(found.tiers))
    tuned = cache.tuning.model_dump(mode="json")
    if as_document:
        print_json({"settings": values, "tuning": tuned})
        return
    fixed = table(title="Settings, fixed at start")
    for name in ("environment", "value", "what it is"):
        fixed.add_column(name, no_wrap=name == "environment", overflow="fold")
    for name, field in Settings.model_fields.items():
        fixed.add_row(_variable(name), _written(values[name]), field.description or "")
    live = table(
        "environment", "glasscache tune set", "value", title="Tuning, as this environment starts it"
    )
    for name, value in tuned.items():
        if name in Tuning.bounds() and name != "intents":
            variable = _variable(name) if name in TuningEnvironment.model_fields else ""
            live.add_row(variable, name, shown(value, Tuning.bounds()[name]))
    out.print(fixed, "", live, sep="\n")


def _written(value: Any) -> str:
    """Return a value as the environment would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None or value == [] else str(value)


def _variable(name: str) -> str:
    short = {"redis_url", "chroma_url", "embedding_model", "semantic_threshold"}
    return name.upper() if name in short else f"CACHE_{name.upper()}"


def _shown(name: str, value: Any) -> Any:
    """Return a value as it may be shown: no key, no password."""
    if name == "key":
        return "set" if value else "random, kept in the store"
    return without_secrets(value) if value and name.endswith("_url") else value
