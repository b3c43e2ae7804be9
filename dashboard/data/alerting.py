"""Active alerts of one cache, from Prometheus and Alertmanager. No Streamlit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from cache_core.backends.web import fetch_json
from cache_core.model.exceptions import BackendError
from dashboard.data.words import SourceUnavailableError

_HIDDEN = {"alertname", "severity"}
_ORDER = {"critical": 0, "page": 0, "warning": 1, "info": 2}
_ONLY_SILENCES = "none"
"""Severity of alerts that notify nobody."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Alert of Prometheus or Alertmanager.

    Attributes:
        name: The rule's name.
        state: `firing`, `pending` or `suppressed`.
        severity: The severity label.
        summary, description: Texts for people.
        runbook: URL of the runbook.
        dashboard: URL of the Grafana dashboard.
        since: Start in seconds since the epoch; `None` if unknown.
        labels: All labels.
        sources: Servers that report it.
    """

    name: str
    state: str
    severity: str
    summary: str
    description: str
    runbook: str
    dashboard: str
    since: float | None
    labels: Mapping[str, str]
    sources: tuple[str, ...]

    @property
    def about(self) -> dict[str, str]:
        """The labels besides name and severity, by name."""
        return {name: self.labels[name] for name in sorted(self.labels.keys() - _HIDDEN)}


def alerts_of_prometheus(url: str, timeout: float = 3.0) -> list[Alert]:
    """Return the firing and pending alerts of a Prometheus server.

    Raises:
        SourceUnavailableError: If it does not answer.
    """
    found = _fetch(url, "/api/v1/alerts", timeout)
    items = found.get("data", {}).get("alerts", []) if isinstance(found, dict) else []
    return [
        _alert(item, str(item.get("state", "firing")), item.get("activeAt"), "Prometheus")
        for item in items
    ]


def alerts_of_alertmanager(url: str, timeout: float = 3.0) -> list[Alert]:
    """Return the alerts of an Alertmanager.

    Raises:
        SourceUnavailableError: If it does not answer.
    """
    found = _fetch(url, "/api/v2/alerts", timeout)
    items = found if isinstance(found, list) else []
    return [
        _alert(
            item,
            "suppressed" if item.get("status", {}).get("state") == "suppressed" else "firing",
            item.get("startsAt"),
            "Alertmanager",
        )
        for item in items
    ]


def redis_servers(url: str, namespace: str, timeout: float = 3.0) -> set[str]:
    """Return the `instance` labels of the Redis servers that a cache uses, and of their replicas.

    Raises:
        SourceUnavailableError: If Prometheus does not answer.
    """
    name = namespace.replace("\\", "\\\\").replace('"', '\\"')
    # while a server is down the cache reports no run id: an hour is remembered
    used = f'max by (run_id) (max_over_time(cache_redis_server{{cache="{name}"}}[1h])) > 0'
    query = f"group by (instance) (glasscache:redis_server and on (run_id) {used})"
    found = _fetch(url, f"/api/v1/query?query={quote(query)}", timeout)
    rows = found.get("data", {}).get("result", []) if isinstance(found, dict) else []
    return {str(row["metric"].get("instance", "")) for row in rows}


def of_cache(
    alerts: Iterable[Alert], namespace: str, names: Collection[str], servers: Collection[str] | None
) -> list[Alert]:
    """Return the alerts that concern one cache.

    An alert with the label `cache` concerns that cache; one of our rules without it concerns a
    server that caches share, or all caches.

    Args:
        alerts: Alerts of all that is monitored.
        namespace: Name of the cache.
        names: Names of the rules that are shipped.
        servers: Result of `redis_servers`; `None` if unknown.
    """
    found = []
    for item in alerts:
        if item.severity == _ONLY_SILENCES:
            continue
        if "cache" in item.labels:
            concerned = item.labels["cache"] == namespace
        else:
            instance = item.labels.get("instance")
            shared = servers is None or instance is None or instance in servers
            concerned = item.name in names and shared
        if concerned:
            found.append(item)
    return found


def merged(prometheus: Iterable[Alert], alertmanager: Iterable[Alert]) -> list[Alert]:
    """Return each alert once, worst first.

    Alertmanager's has the external labels of its Prometheus besides, so its fingerprint is another:
    it is the same as the alert of Prometheus of whose labels it has the most, and all.

    Args:
        prometheus: Alerts of Prometheus.
        alertmanager: Alerts of Alertmanager, which knows what is silenced.
    """
    found = {_fingerprint(item): item for item in prometheus}
    for item in alertmanager:
        same = [key for key in found if key <= _fingerprint(item)]
        if not same:
            found[_fingerprint(item)] = item
            continue
        key = max(same, key=len)
        known = found[key]
        silenced = "suppressed" in {known.state, item.state}
        sources = tuple(dict.fromkeys((*known.sources, *item.sources)))
        found[key] = replace(
            known, state="suppressed" if silenced else known.state, sources=sources
        )
    return sorted(
        found.values(),
        key=lambda item: (item.state != "firing", _ORDER.get(item.severity, 3), item.name),
    )


def _fingerprint(alert: Alert) -> frozenset[tuple[str, str]]:
    return frozenset(alert.labels.items())


def _fetch(url: str, path: str, timeout: float) -> Any:
    try:
        return fetch_json(url, path, timeout=timeout)
    except BackendError as error:
        raise SourceUnavailableError(f"{error}.") from None


def _alert(item: Mapping[str, Any], state: str, since: str | None, source: str) -> Alert:
    labels = {str(name): str(value) for name, value in item.get("labels", {}).items()}
    notes = item.get("annotations", {})
    return Alert(
        name=labels.get("alertname", "(no name)"),
        state=state,
        severity=labels.get("severity", "unknown"),
        summary=str(notes.get("summary", "")),
        description=str(notes.get("description", "")),
        runbook=str(notes.get("runbook_url", "")),
        dashboard=str(notes.get("dashboard_url", "")),
        since=_seconds(since),
        labels=labels,
        sources=(source,),
    )


def _seconds(moment: str | None) -> float | None:
    if not moment:
        return None
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
