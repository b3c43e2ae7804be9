"""Checks of Prometheus, Alertmanager and Grafana, and the questions asked of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cache_core.backends.web import fetch_json
from cache_core.cli.doctor.finding import Finding, skipped
from cache_core.cli.shipped import shipped
from cache_core.model.exceptions import BackendError

_RULE = re.compile(r"^[ \t]+- (?:alert|record): (\S+)", re.MULTILINE)
_INTEGRATION = re.compile(r"^[ \t]*(?:- )?\w+_configs:", re.MULTILINE)
_EXAMPLE = re.compile(r"@example\.com|//example\.com|\.example\.com")

_KINDS: Mapping[str, str] = {
    "HitRate": "the hit rate", "RedisDown": "an unavailable Redis", "RedisMemory": "Redis' memory",
}  # fmt: skip
"""Parts of alerts' names, with what they watch."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """State of a Prometheus.

    Attributes:
        scraped: Replicas of this cache that it has data from.
        rules: Names of its rules, with the error of their last evaluation; empty if it succeeded.
        firing: Names of our alerts that fire.
        alertmanagers: Number of Alertmanagers that it sends to.
    """

    scraped: int = 0
    rules: Mapping[str, str] = field(default_factory=dict)
    firing: Collection[str] = ()
    alertmanagers: int = 0


def ask_prometheus(url: str, namespace: str) -> Prometheus:
    """Return the state of the Prometheus at *url*.

    Raises:
        BackendError: If it does not answer.
    """
    # Of a target, any series with the label: the names of metrics are telemetry's.
    series = f'{{__name__=~"cache_.+",cache={_quoted(namespace)}}}'
    query = f"count(count by (job, instance) ({series}))"
    counted = _data(fetch_json(url, f"/api/v1/query?query={quote(query)}"), "result", [])
    groups = _data(fetch_json(url, "/api/v1/rules"), "groups", [])
    rules = [rule for group in groups for rule in group.get("rules", [])]
    receivers = _data(fetch_json(url, "/api/v1/alertmanagers"), "activeAlertmanagers", [])
    names = {str(rule.get("name", "")) for rule in rules}
    return Prometheus(
        int(float(counted[0]["value"][1])) if counted else 0,
        dict.fromkeys(names, "")
        | {str(rule["name"]): str(rule["lastError"]) for rule in rules if rule.get("lastError")},
        sorted({str(rule["name"]) for rule in rules if rule.get("state") == "firing"}),
        len(receivers),
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _data(document: Any, name: str, otherwise: Any) -> Any:
    data = document.get("data") if isinstance(document, dict) else None
    return data.get(name, otherwise) if isinstance(data, dict) else otherwise


def ask_alertmanager(url: str) -> str:
    """Return the configuration of the Alertmanager at *url*, as YAML without secrets.

    Raises:
        BackendError: If it does not answer.
    """
    found = fetch_json(url, "/api/v2/status")
    config = found.get("config", {}) if isinstance(found, dict) else {}
    return str(config.get("original", ""))


def ask_grafana(url: str, token: str | None) -> list[str]:
    """Return the uids of the dashboards in the Grafana at *url*.

    Raises:
        BackendError: If it does not answer, or does not let this user in.
    """
    found = fetch_json(url, "/api/search?type=dash-db&limit=5000", token=token)
    return [str(item.get("uid")) for item in found] if isinstance(found, list) else []


def check_prometheus(
    answer: Prometheus | BackendError | None, namespace: str, replicas: int
) -> Iterator[Finding]:
    """Yield the findings on scraping and rules; *answer* is `None` without an address."""
    names = ("metrics", "alert-rules")
    if answer is None:
        yield from skipped(names, "no --prometheus (PROMETHEUS_URL) is given")
        return
    if isinstance(answer, BackendError):
        yield Finding("metrics", "failure", str(answer), "Correct --prometheus or PROMETHEUS_URL.")
        yield from skipped(names[1:], "Prometheus does not answer")
        return
    found = f"{answer.scraped} of {replicas} running replicas of {namespace!r} are scraped"
    if answer.scraped and answer.scraped >= replicas:
        yield Finding("metrics", "ok", found)
    else:
        targets = "1 target" if answer.scraped == 1 else f"{answer.scraped} targets"
        shared = (
            f"{targets} for {replicas} running replicas of {namespace!r}: right if workers share "
            "files (PROMETHEUS_MULTIPROC_DIR)"
        )
        yield Finding(
            "metrics", "note" if answer.scraped else "warning", shared if answer.scraped else found,
            "Serve the metrics (docs/telemetry.md), and add every agent to a scrape job: "
            "Prometheus' page Targets says why one is missing.",
        )  # fmt: skip
    yield _rules(answer)


def _rules(answer: Prometheus) -> Finding:
    name = "alert-rules"
    wanted = shipped_rules()
    missing = sorted(wanted - answer.rules.keys())
    failing = sorted(name for name in wanted if answer.rules.get(name))
    if missing:
        unwatched = [what for part, what in _KINDS.items() if any(part in rule for rule in missing)]
        watched = f": nothing watches {', '.join(unwatched)}" if unwatched else ""
        return Finding(
            name, "warning",
            f"{len(missing)} of {len(wanted)} rules are missing, first {missing[0]}{watched}",
            "glasscache export alerts DIR, and load recording.yml and rules.yml.",
        )  # fmt: skip
    if failing:
        return Finding(
            name, "failure", f"{failing[0]} cannot be evaluated: {answer.rules[failing[0]]}",
            "Load recording.yml and rules.yml of one version, unchanged.",
        )  # fmt: skip
    firing = [rule for rule in answer.firing if rule in wanted]
    if firing:
        return Finding(
            name, "warning", f"{len(wanted)} rules are loaded; firing: {', '.join(firing)}",
            "Each alert has a page of its name in docs/runbooks.",
        )  # fmt: skip
    return Finding(name, "ok", f"{len(wanted)} rules are loaded, none fires")


def shipped_rules() -> set[str]:
    """Return the names of the shipped rules."""
    texts = [Path(shipped("alerts"), name) for name in ("rules.yml", "recording.yml")]
    return {name for path in texts for name in _RULE.findall(path.read_text(encoding="utf-8"))}


def check_receiver(
    prometheus: Prometheus | BackendError | None, config: str | BackendError | None
) -> Finding:
    """Return the finding on Alertmanager; *config* is `None` without an address."""
    name = "alert-receiver"
    if isinstance(prometheus, Prometheus) and not prometheus.alertmanagers:
        return Finding(
            name, "warning", "Prometheus sends its alerts to no Alertmanager",
            "Name it under alerting: in Prometheus' configuration.",
        )  # fmt: skip
    if isinstance(config, BackendError):
        return Finding(name, "failure", str(config), "Correct --alertmanager or ALERTMANAGER_URL.")
    if config is None:
        return Finding(name, "skipped", "no --alertmanager (ALERTMANAGER_URL) is given")
    if not _INTEGRATION.search(config):
        return Finding(
            name, "warning", "no receiver sends anything anywhere",
            "Give a receiver an e-mail, chat or webhook: glasscache export alerts DIR has a "
            "configuration to start with.",
        )  # fmt: skip
    if _EXAMPLE.search(config):
        return Finding(
            name, "warning", "a receiver still has an address of example.com",
            "Put your own addresses into Alertmanager's configuration.",
        )  # fmt: skip
    return Finding(name, "ok", "a receiver is set up")


def check_dashboards(answer: Collection[str] | BackendError | None) -> Finding:
    """Return the finding on Grafana; *answer* is `None` without an address."""
    name = "dashboards"
    if answer is None:
        return Finding(name, "skipped", "no --grafana (GRAFANA_URL) is given")
    if isinstance(answer, BackendError):
        return Finding(
            name, "failure", str(answer),
            "Correct --grafana or GRAFANA_URL; where a login is needed set GRAFANA_TOKEN.",
        )  # fmt: skip
    wanted = {path.stem for path in shipped("grafana/dashboards").glob("*.json")}
    missing = sorted(wanted - set(answer))
    if missing:
        return Finding(
            name, "warning", f"{len(missing)} of {len(wanted)} are missing: {', '.join(missing)}",
            "glasscache export grafana DIR, and provision or import them.",
        )  # fmt: skip
    return Finding(name, "ok", f"all {len(wanted)} are there")
