"""Firing alerts, from Prometheus and Alertmanager. No Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cache_core.backends.web import fetch_json
from cache_core.model.exceptions import BackendError
from dashboard.data.words import SourceAwayError

_HIDDEN = {"alertname", "severity"}
_ORDER = {"critical": 0, "page": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Alert:
    """Alert of Prometheus or Alertmanager.

    Attributes:
        name: The rule's name.
        state: `firing`, `pending` or `suppressed`.
        severity: The severity label.
        summary, description: Texts for people.
        runbook: URL of the runbook.
        since: Start in seconds since the epoch; `None` if unknown.
        labels: The other labels.
    """

    name: str
    state: str
    severity: str
    summary: str
    description: str
    runbook: str
    since: float | None
    labels: Mapping[str, str]


def alerts_of_prometheus(url: str, timeout: float = 3.0) -> list[Alert]:
    """Return the firing and pending alerts of a Prometheus server, worst first.

    Raises:
        SourceAwayError: If it does not answer.
    """
    found = _fetch(url, "/api/v1/alerts", timeout)
    items = found.get("data", {}).get("alerts", []) if isinstance(found, dict) else []
    return _by_severity(
        [_alert(item, str(item.get("state", "firing")), item.get("activeAt")) for item in items]
    )


def alerts_of_alertmanager(url: str, timeout: float = 3.0) -> list[Alert]:
    """Return the alerts of an Alertmanager, worst first.

    Raises:
        SourceAwayError: If it does not answer.
    """
    found = _fetch(url, "/api/v2/alerts", timeout)
    items = found if isinstance(found, list) else []
    return _by_severity(
        [
            _alert(
                item,
                "suppressed" if item.get("status", {}).get("state") == "suppressed" else "firing",
                item.get("startsAt"),
            )
            for item in items
        ]
    )


def _fetch(url: str, path: str, timeout: float) -> Any:
    try:
        return fetch_json(url, path, timeout=timeout)
    except BackendError as error:
        raise SourceAwayError(f"{error}.") from None


def _alert(item: Mapping[str, Any], state: str, since: str | None) -> Alert:
    labels = {str(name): str(value) for name, value in item.get("labels", {}).items()}
    notes = item.get("annotations", {})
    return Alert(
        name=labels.get("alertname", "(no name)"),
        state=state,
        severity=labels.get("severity", "none"),
        summary=str(notes.get("summary", "")),
        description=str(notes.get("description", "")),
        runbook=str(notes.get("runbook_url", "")),
        since=_seconds(since),
        labels={name: value for name, value in labels.items() if name not in _HIDDEN},
    )


def _seconds(moment: str | None) -> float | None:
    if not moment:
        return None
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def _by_severity(alerts: Sequence[Alert]) -> list[Alert]:
    return sorted(
        alerts,
        key=lambda item: (item.state != "firing", _ORDER.get(item.severity, 3), item.name),
    )
