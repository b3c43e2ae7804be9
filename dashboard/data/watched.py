"""Monitoring of one cache: its active alerts, and what alerts would need. No Streamlit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from cache_core.cli.doctor.monitoring import Prometheus, ask_prometheus, shipped_rules
from cache_core.model.exceptions import BackendError
from cache_core.model.urls import without_secrets
from dashboard.data.alerting import (
    Alert,
    alerts_of_alertmanager,
    alerts_of_prometheus,
    merged,
    of_cache,
    redis_servers,
)
from dashboard.data.config import DashboardConfig
from dashboard.data.words import SourceUnavailableError

_SCRAPE = """scrape_configs:
  - job_name: agent
    static_configs: [{targets: ["AGENT:9464"]}]  # where your agent serves /metrics"""
_LOAD = """rule_files: [/etc/prometheus/alerts/recording.yml, /etc/prometheus/alerts/rules.yml]"""


@dataclass(frozen=True, slots=True)
class Gap:
    """Reason why alerts of a cache cannot fire.

    Attributes:
        what: The problem.
        remedy: What to do.
        example: Lines of a configuration; may be empty.
    """

    what: str
    remedy: str
    example: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """Monitoring of a cache.

    Attributes:
        alerts: The cache's active alerts, each once, worst first.
        gaps: Reasons why alerts cannot fire; without any, no alert means no problem.
        errors: Servers that do not answer.
        covered: What monitors it, in words; empty unless there are neither gaps nor errors.
    """

    alerts: list[Alert]
    gaps: list[Gap]
    errors: list[str]
    covered: str


def watch(config: DashboardConfig) -> Watched:
    """Return the monitoring of the app's cache, as Prometheus and Alertmanager describe it."""
    errors: list[str] = []
    gaps: list[Gap] = []
    covered = ""
    servers: set[str] | None = None
    prometheus: list[Alert] = []
    alertmanager: list[Alert] = []
    if config.prometheus_url:
        try:
            prometheus = alerts_of_prometheus(config.prometheus_url)
            servers = redis_servers(config.prometheus_url, config.namespace)
            state = ask_prometheus(config.prometheus_url, config.namespace)
            gaps = missing(state, config.namespace, without_secrets(config.prometheus_url))
            covered = (
                f"Prometheus at {without_secrets(config.prometheus_url)} has all "
                f"{len(_rules())} rules, and data from "
                f"{'1 target' if state.scraped == 1 else f'{state.scraped} targets'} of this cache."
            )
        except SourceUnavailableError as error:
            errors.append(str(error))
        except BackendError as error:
            errors.append(f"{error}.")
    else:
        gaps = [
            Gap(
                "No Prometheus is configured: whether anything watches this cache is unknown.",
                "Let a Prometheus that scrapes the agent load the rules that "
                "`glasscache export alerts DIR` writes, and start this app with `PROMETHEUS_URL`, "
                "for example `http://127.0.0.1:9090`, and with `ALERTMANAGER_URL` to see what is "
                "silenced.",
            )
        ]
    if config.alertmanager_url:
        try:
            alertmanager = alerts_of_alertmanager(config.alertmanager_url)
        except SourceUnavailableError as error:
            errors.append(str(error))

    def ours(alerts: Iterable[Alert]) -> list[Alert]:
        return of_cache(alerts, config.namespace, _rules(), servers)

    found = merged(ours(prometheus), ours(alertmanager))
    return Watched(found, gaps, errors, "" if gaps or errors else covered)


def missing(state: Prometheus, namespace: str, address: str) -> list[Gap]:
    """Return what a Prometheus lacks to watch a cache.

    Args:
        state: Its state.
        namespace: Name of the cache.
        address: Its address, without secrets.
    """
    gaps = []
    if not state.scraped:
        gaps.append(
            Gap(
                f'Prometheus at {address} has no series with cache="{namespace}": no alert on this '
                "cache can fire.",
                "Serve the agent's metrics (`telemetry.serve_metrics(9464)`, or mount `asgi_app`), "
                "and add the agent to a scrape job. Prometheus' page Targets says why one is "
                "missing.",
                _SCRAPE,
            )
        )
    lacking = sorted(_rules() - state.rules.keys())
    if lacking:
        gaps.append(
            Gap(
                f"Prometheus at {address} lacks {len(lacking)} of {len(_rules())} rules of "
                f"glasscache, first {lacking[0]}.",
                "`glasscache export alerts DIR` writes the files. Load both, reload Prometheus.",
                _LOAD,
            )
        )
    failing = sorted(name for name in _rules() if state.rules.get(name))
    if failing:
        gaps.append(
            Gap(
                f"Prometheus at {address} cannot evaluate {failing[0]}: {state.rules[failing[0]]}",
                "Load `recording.yml` and `rules.yml` of one version, unchanged.",
            )
        )
    return gaps


@cache
def _rules() -> frozenset[str]:
    return frozenset(shipped_rules())
