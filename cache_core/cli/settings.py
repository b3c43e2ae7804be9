"""`glasscache settings`: every setting, its variable, its value, and where that is from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cache_core.cli.console import err, fail, out, print_json, table
from cache_core.cli.tune import shown
from cache_core.cli.where import AsJson
from cache_core.config import environment
from cache_core.config.environment import short_name
from cache_core.config.settings import (
    TUNING_VARIABLES,
    Settings,
    load_settings,
    misspelt_lines,
    refused_variables,
)
from cache_core.config.tuning import Tuning
from cache_core.model import durations
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.urls import without_secrets
from cache_core.multilevel_cache import MultiLevelCache

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Stores": ("redis_url", "prefix", "chroma_url", "vectors", "dir", "key", "encryption_keys"),
    "Embedding model": (
        "embedding_model", "embedding_backend", "embedding_url", "embedding_api_key",
        "embedding_window", "embedding_tokenizer", "embedding_identity", "torch_threads",
    ),
    "What is cached": ("tiers", "timezone", "max_message_bytes", "max_value_bytes", "max_entries",
                       "max_bytes", "max_contexts"),
    "Time": ("exact_budget", "embedding_budget", "search_budget", "lookup_budget",
             "approve_budget", "put_budget", "hedge_delay", "compute_lease", "compute_wait",
             "breaker_failures", "breaker_probe"),
    "Observability": ("decisions", "capture_message_content", "trace_background", "otel_metrics",
                      "heartbeat"),
    "Tuning: matching": ("semantic_threshold", "max_wrong", "approve_margin",
                         "approvals_per_minute", "guards"),
    "Tuning: lifetime": ("l1_ttl", "l2_ttl", "l3_ttl", "l4_ttl", "stale_seconds", "refresh_share",
                         "recheck_share"),
    "Tuning: sharing": ("sharing", "shared_intents", "personal", "promote_after",
                        "puts_per_minute", "shared_puts_per_minute"),
    "Tuning: money and quality": (
        "prices", "response_usd", "intent_usd", "retrieval_usd", "embedding_usd",
        "embedding_tokens_usd",
        "verify_share", "verification_usd", "approval_usd", "hit_rate_objective",
    ),
}  # fmt: skip
"""Names of settings and of tuning values, by what they are about."""

_WIDE = 78
"""Fewest columns for the name of a tuning value and its variable on one line."""


def settings(
    about: Annotated[
        str | None,
        typer.Argument(help="Part of a name: only these, with what they mean.", metavar="NAME"),
    ] = None,
    as_document: AsJson = False,
) -> None:
    """Show the settings in force, and where each value is from.

    Values under Tuning can also be changed while the agents run: glasscache tune set. Times may be
    written as 250ms, 90s, 15m, 2h or 7d. Secrets are masked. Arguments that a program passes to
    MultiLevelCache are unknown here. The cache ignores an invalid value, with an error in its log;
    this command exits with 2. If a name belongs to another program, use the one that begins with
    GLASSCACHE_, as in GLASSCACHE_KEY: it takes precedence.

    [bold]glasscache settings ttl[/bold]
        What the settings whose name contains "ttl" mean.

    [bold]CACHE_TIERS=l1,l3,l4 glasscache settings[/bold]
        Try a value before you set it: an invalid one shows what is expected.
    """
    refused = refused_variables()
    # reported once: what reads them below would log them again
    for lines, colour in ((refused, "red"), (misspelt_lines(), "yellow")):
        environment.report(lines, partial(err.print, style=colour, soft_wrap=True, highlight=False))
    try:
        found = load_settings()
        cache = MultiLevelCache(settings=found)
    except ConfigurationError as error:
        fail(str(error))
    values = {name: _shown(name, value) for name, value in found.model_dump(mode="json").items()}
    values["tiers"] = ",".join(sorted(found.tiers))
    tuned = cache.tuning.model_dump(mode="json")
    ignored = {line.partition("=")[0] for line in refused}
    sources = {name: _source(name, ignored) for names in GROUPS.values() for name in names}
    if as_document:
        print_json({"settings": values, "tuning": tuned, "ignored": refused, "sources": sources})
        raise typer.Exit(2 if refused else 0)
    words = {name: _written(name, value) for name, value in values.items()}
    words |= {
        name: shown(value, Tuning.bounds()[name]) for name, value in tuned.items() if name in _TUNED
    }
    if about is None:
        _print_all(words, sources)
    elif not _explain(about.lower(), words, sources):
        fail(f"no setting has {about!r} in its name: glasscache settings lists all")
    if refused:
        raise typer.Exit(2)


_TUNED = frozenset(Tuning.bounds()) - {"intents"}


def _print_all(words: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Print every value in its group."""
    for title, names in GROUPS.items():
        listed = _table(title, ("setting" if names[0] in _TUNED else "variable", "value", "from"))
        for name in names:
            listed.add_row(_named(name), words[name], sources[name])
        out.print(listed, "", sep="\n")
    out.print(
        "glasscache settings NAME explains; glasscache tune set changes what is under Tuning, for "
        "all agents.",
        style="dim",
    )


def _explain(about: str, words: Mapping[str, str], sources: Mapping[str, str]) -> bool:
    """Print the settings whose name has a part *about*, with their meaning; return if any has."""
    fields: dict[str, FieldInfo] = {**Settings.model_fields, **Tuning.model_fields}
    named = [name for names in GROUPS.values() for name in names
             if about in name or about in variable_of(name).lower()]  # fmt: skip
    for name in named:
        out.print(Text.assemble((_title(name), "bold"), f" = {words[name]}  ({sources[name]})"))
        bounds = Tuning.bounds().get(name)
        more = f" Range: {bounds.expected}." if bounds is not None else ""
        meaning = Text(f"{fields[name].description or ''}{more}")
        out.print(Padding(meaning, (0, 0, 1, 4)))
    return bool(named)


def variable_of(name: str) -> str:
    """Return the variable of a setting or a tuning value; empty without one."""
    given = "languages" if name == "guards" else name
    return "" if name in _TUNED and given not in TUNING_VARIABLES else short_name(given)


def _title(name: str) -> str:
    variable = variable_of(name)
    return ", ".join(filter(None, (name if name in _TUNED else "", variable)))


def _named(name: str) -> str:
    if name not in _TUNED:
        return variable_of(name)
    return name if out.width < _WIDE else f"{name:22} {variable_of(name)}".rstrip()


def _table(title: str, columns: tuple[str, ...]) -> Table:
    listed = table(title=title)
    for column in columns:
        listed.add_column(column, overflow="fold", no_wrap=column not in {"value", "from"})
    return listed


def _source(name: str, ignored: set[str]) -> str:
    """Return where the value of a setting is from: another variable than the usual by its name.

    Args:
        name: The setting.
        ignored: Variables whose values are invalid.
    """
    given = "languages" if name == "guards" else name
    for variable in environment.given([given]):
        if variable.name in ignored:
            continue
        return "environment" if variable.name == short_name(given) else variable.name
    return "default"


def _written(name: str, value: Any) -> str:
    """Return a value for display, with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value in (None, "", []):
        return "none"
    if isinstance(value, float):
        return durations.text(value)
    if isinstance(value, int):
        return _size(value) if name.endswith("bytes") else f"{value:,}"
    return str(value)


def _size(number: int) -> str:
    """Return a number of bytes in the largest unit that shows it exactly."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= length and number % length == 0:
            return f"{number // length:,} {unit}"
    return f"{number:,} bytes"


def _shown(name: str, value: Any) -> Any:
    """Return a value for display, without keys and passwords."""
    if name == "key":
        return "set" if value else "random, kept in the store"
    return without_secrets(value) if value and name.endswith("_url") else value
