"""Default instruments: this distribution's own telemetry."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType

from cache_core.observability.instruments import Instrument

log = logging.getLogger("glasscache")

_ALIAS = "glasscache_telemetry"


def telemetry() -> ModuleType:
    """Return this distribution's `telemetry` package.

    An application may have its own top-level module of that name; then ours is loaded from its
    place beside this package, under another name.
    """
    ours = Path(__file__).parents[2] / "telemetry" / "__init__.py"
    try:
        spec = importlib.util.find_spec("telemetry")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin and Path(spec.origin).resolve() == ours.resolve():
        return importlib.import_module("telemetry")
    if _ALIAS in sys.modules:
        return sys.modules[_ALIAS]
    aliased = importlib.util.spec_from_file_location(
        _ALIAS, ours, submodule_search_locations=[str(ours.parent)]
    )
    if aliased is None or aliased.loader is None:
        msg = f"no telemetry package at {ours}"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(aliased)
    sys.modules[_ALIAS] = module
    aliased.loader.exec_module(module)
    return module


def default_instruments(namespace: str, *, otel_metrics: bool = True) -> list[Instrument]:
    """Return the instruments of an unconfigured cache; none if telemetry cannot be loaded."""
    try:
        made: list[Instrument] = telemetry().default_instruments(
            namespace, otel_metrics=otel_metrics
        )
    except Exception as error:  # noqa: BLE001 - a cache works without telemetry
        log.warning("telemetry is off: %s: %s", type(error).__name__, error)
        return []
    return made
