"""The page *Alerts*: this cache's alerts, each once, and green only where something watches it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from cache_core.cli.doctor.monitoring import Prometheus, shipped_rules
from dashboard.data.alerting import Alert, merged, of_cache
from dashboard.data.config import DashboardConfig
from dashboard.data.watched import missing, watch
from tests.support import servers
from tests.support.dashboard import Open, open_app, texts
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

__all__ = ["open_app"]

RULE = "CacheHitRateLow"


def alert(
    name: str = RULE, state: str = "firing", source: str = "Prometheus", **labels: str
) -> Alert:
    """Return an alert with these labels."""
    severity = labels.get("severity", "warning")
    everything = {"alertname": name, "severity": severity, **labels}
    return Alert(name, state, severity, "", "", "", "", None, everything, (source,))


def test_an_alert_of_both_servers_is_one() -> None:
    """Alertmanager's has external labels besides; that it is silenced is known only there."""
    here = [alert(cache="shop"), alert(cache="shop", namespace="prod", state="pending")]
    there = [
        alert(source="Alertmanager", cache="shop", cluster="eu"),
        alert(source="Alertmanager", cache="shop", cluster="eu", replica="b"),
        alert(source="Alertmanager", cache="shop", namespace="prod", state="suppressed", cluster="eu"),
        alert("CacheRedisDown", source="Alertmanager", cache="shop", severity="critical"),
    ]  # fmt: skip
    found = merged(here, there)
    assert [(item.name, item.state) for item in found] == [
        ("CacheRedisDown", "firing"),
        (RULE, "firing"),
        (RULE, "suppressed"),
    ]
    assert [item.sources for item in found] == [
        ("Alertmanager",),
        ("Prometheus", "Alertmanager"),
        ("Prometheus", "Alertmanager"),
    ]
    assert found[1].about == {"cache": "shop"}


@pytest.mark.parametrize(
    ("labels", "concerned"),
    [
        ({"cache": "shop"}, True),
        ({"cache": "faq"}, False),
        ({"cache": "shop", "name": "OfAnotherTeam"}, True),
        ({"name": "OfAnotherTeam"}, False),
        ({"name": "CacheNotScraped"}, True),
        ({"name": "CacheRedisMemoryFull", "instance": "redis:6379"}, True),
        ({"name": "CacheRedisMemoryFull", "instance": "theirs:6379"}, False),
        ({"cache": "shop", "severity": "none"}, False),
    ],
)
def test_only_this_caches_alerts_are_shown(labels: dict[str, str], concerned: bool) -> None:
    """Neither those of other caches and teams, nor of a Redis server that this cache does not use."""
    found = of_cache([alert(**labels)], "shop", shipped_rules(), {"redis:6379"})
    assert bool(found) is concerned


def test_what_is_missing_is_said_with_its_remedy() -> None:
    """Series, rules, and rules that fail are each a gap; a Prometheus that has all has none."""
    rules = dict.fromkeys(shipped_rules(), "")
    assert missing(Prometheus(scraped=2, rules=rules), "shop", "here") == []
    bare = missing(Prometheus(), "shop", "http://prometheus")
    assert bare[0].what.startswith(
        'Prometheus at http://prometheus has no series with cache="shop"'
    )
    assert f"lacks {len(rules)} of {len(rules)} rules" in bare[1].what
    assert "scrape_configs" in bare[0].example
    assert "glasscache export alerts" in bare[1].remedy
    (failing,) = missing(Prometheus(2, {**rules, RULE: "many-to-many"}), "shop", "here")
    assert failing.what.endswith(f"cannot evaluate {RULE}: many-to-many")


def test_an_alertmanager_alone_is_no_proof() -> None:
    """Without a Prometheus to ask, no alert does not mean no problem."""
    found = watch(DashboardConfig(prometheus_url=None, alertmanager_url=None))
    assert found.gaps
    assert not found.covered


@pytest.fixture
def metrics() -> Iterator[int]:
    """Return the port of an exporter with the series of one cache, `default`."""
    registry = CollectorRegistry()
    Gauge("cache_build_info", "Always 1.", ["cache"], registry=registry).labels("default").set(1)
    port = servers.free_port()
    server, thread = start_http_server(port, "127.0.0.1", registry)
    yield port
    server.shutdown()
    thread.join(5)
    server.server_close()


def _prometheus(stack: ExitStack, directory: Path, config: dict[str, object]) -> str:
    """Start a Prometheus; return its URL."""
    directory.mkdir()
    port, file = servers.free_port(), directory / "prometheus.yml"
    file.write_text(json.dumps(config))
    command = [
        servers.require("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={directory}",
        f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=1s",
    ]  # fmt: skip
    stack.enter_context(servers.running(command, port))
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: httpx.get(f"{url}/-/ready").status_code == 200)
    return url


def _alertmanager(stack: ExitStack, directory: Path) -> int:
    """Start an Alertmanager; return its port."""
    port, config = servers.free_port(), directory / "alertmanager.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    command = [
        servers.require("prometheus-alertmanager"), f"--config.file={config}",
        f"--storage.path={directory}/am", f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]  # fmt: skip
    stack.enter_context(servers.running(command, port))
    return port


def _rules(directory: Path) -> list[str]:
    """Write rules that fire at once, of this cache, another, and another team; return all files."""
    notes = {
        "summary": "too few answers",
        "runbook_url": "https://runbooks.test/low",
        "dashboard_url": "https://grafana.test/d/1",
    }
    firing = [
        {"alert": name, "expr": "vector(1)", "labels": {"severity": "warning", **labels},
         "annotations": notes}
        for name, labels in (
            (RULE, {"cache": "default"}), (RULE, {"cache": "other"}), ("OfAnotherTeam", {}),
        )
    ]  # fmt: skip
    file = directory / "firing.yml"
    file.write_text(json.dumps({"groups": [{"name": "x", "interval": "200ms", "rules": firing}]}))
    return [str(ROOT / "alerts" / name) for name in ("recording.yml", "rules.yml")] + [str(file)]


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_real_servers_are_asked(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metrics: int, store_kind: str
) -> None:
    """Amber with what is missing; then this cache's alert once, with its links; then green."""
    with ExitStack() as stack:
        bare = _prometheus(stack, tmp_path / "bare", {})
        monkeypatch.setenv("PROMETHEUS_URL", bare)
        app = open_app("alerts")
        assert not app.exception
        assert ["no series" in item.value for item in app.warning[:2]] == [True, False]
        assert "rules of" in app.warning[1].value
        assert "scrape_configs" in app.code[0].value
        assert not [item for item in app.success if "No alert is active" in item.value]

        port = _alertmanager(stack, tmp_path)
        config = {
            "global": {
                "scrape_interval": "200ms",
                "evaluation_interval": "1s",
                "external_labels": {"cluster": "eu"},
            },
            "scrape_configs": [
                {"job_name": "agent", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}
            ],
            "rule_files": _rules(tmp_path),
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]
            },
        }
        full = _prometheus(stack, tmp_path / "full", config)
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("PROMETHEUS_URL", full)
        monkeypatch.setenv("ALERTMANAGER_URL", url)

        def known() -> bool:
            found = watch(DashboardConfig())
            both = [item for item in found.alerts if len(item.sources) == 2]
            return bool(both) and not found.gaps

        wait_until(known, "the alert in both servers")
        assert len(httpx.get(f"{url}/api/v2/alerts").json()) == 3
        app = open_app("alerts")
        assert not app.exception
        shown = [item.value for item in app.markdown if "firing" in item.value]
        assert [text.split("**")[1] for text in shown] == [RULE]
        assert "from Prometheus and Alertmanager" in texts(app)
        # "Not scraped" may be pending behind it: the rules may come before the first scrape.
        assert [item.proto.url for item in app.get("link_button")][:2] == [
            "https://runbooks.test/low",
            "https://grafana.test/d/1",
        ]
        silence = {
            "matchers": [{"name": "cache", "value": "default", "isRegex": False}],
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
            "createdBy": "ada", "comment": "known",
        }  # fmt: skip
        assert httpx.post(f"{url}/api/v2/silences", json=silence).status_code == 200
        wait_until(lambda: watch(DashboardConfig()).alerts[0].state == "suppressed", "the silence")
        assert "silenced" in texts(open_app("alerts"))

        calm = {**config, "rule_files": config["rule_files"][:2]}  # type: ignore[index]
        monkeypatch.setenv("PROMETHEUS_URL", _prometheus(stack, tmp_path / "calm", calm))
        monkeypatch.delenv("ALERTMANAGER_URL")

        def calm_down() -> bool:
            found = watch(DashboardConfig())
            return bool(found.covered) and not found.alerts

        # What is about the set-up is evaluated once a minute, and may be pending after a first time
        # that came before the first scrape or the recording rules, which are evaluated every second.
        wait_until(calm_down, "the series, and no alert", seconds=90)
        app = open_app("alerts")
        (green,) = [item.value for item in app.success if "No alert is active" in item.value]
        assert "data from 1 target" in green
