"""Start commands and configurations of the stack's servers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cache_core.cli.demo.stack.processes import Part, Servers, free_port
from cache_core.cli.shipped import shipped

REDIS = Part("redis", ("redis-server",))
EXPORTER = Part("redis_exporter", ("prometheus-redis-exporter", "redis_exporter"))
ALERTMANAGER = Part("alertmanager", ("prometheus-alertmanager", "alertmanager"), "/-/ready")
PROMETHEUS = Part("prometheus", ("prometheus",), "/-/ready")
PARTS = (REDIS, EXPORTER, ALERTMANAGER, PROMETHEUS)


def start_redis(servers: Servers, program: str, directory: Path) -> int:
    """Start a Redis without persistence; return its port."""
    port = free_port()
    options = ("--save", "", "--appendonly", "no", "--dir", str(directory))
    # small, so that memory and evictions have something to show
    limit = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    servers.start(
        REDIS, port, [program, "--port", str(port), "--bind", "127.0.0.1", *options, *limit]
    )
    return port


def start_exporter(servers: Servers, program: str, redis_url: str) -> int:
    """Start redis_exporter on a Redis; return its port."""
    port = free_port()
    where = ("-redis.addr", redis_url, "-web.listen-address", f"127.0.0.1:{port}")
    # a Redis that hangs is reported as down before Prometheus gives up on the scrape
    options = ("-include-system-metrics", "-connection-timeout", "1s")
    servers.start(EXPORTER, port, [program, *where, *options])
    return port


def start_alertmanager(servers: Servers, program: str, directory: Path, receiver: str) -> int:
    """Start Alertmanager with the shipped routes, all to *receiver*, a URL; return its port."""
    port = free_port()
    config = directory / "alertmanager.yml"
    config.write_text(
        for_one_receiver(shipped("alerts") / "alertmanager.yml", receiver), encoding="utf-8"
    )
    servers.start(
        ALERTMANAGER,
        port,
        [
            program,
            f"--config.file={config}",
            f"--storage.path={directory / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
    )
    return port


def prometheus_config(
    targets: dict[str, int], alertmanager: int | None, scrape: str
) -> dict[str, Any]:
    """Return a configuration with the shipped rules; *targets* are ports by job."""
    often = ("scrape_interval", "scrape_timeout", "evaluation_interval")
    return {
        "global": dict.fromkeys(often, scrape),
        "rule_files": [str(shipped("alerts") / name) for name in ("recording.yml", "rules.yml")],
        "alerting": {"alertmanagers": [] if alertmanager is None else [_static(alertmanager)]},
        "scrape_configs": [{"job_name": job, **_static(to)} for job, to in targets.items()],
    }


def start_prometheus(
    servers: Servers, program: str, directory: Path, config: dict[str, Any]
) -> int:
    """Start Prometheus; return its port."""
    port = free_port()
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML
    servers.start(
        PROMETHEUS,
        port,
        [
            program,
            f"--config.file={path}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ],
    )
    return port


def _static(port: int) -> dict[str, Any]:
    return {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}


def for_one_receiver(source: Path, url: str) -> str:
    """Return Alertmanager's configuration with its routes and inhibitions, all to one webhook.

    Args:
        source: The shipped configuration, whose receivers need accounts and secrets.
        url: URL of the webhook.
    """
    # top-level keys begin a line; PyYAML is no dependency of the command
    text = source.read_text(encoding="utf-8")
    parts = re.split(r"^(?=[a-z_]+:)", text, flags=re.MULTILINE)
    blocks = {part.split(":", 1)[0]: part for part in parts}
    names = re.findall(r"^  - name: (\w+)", blocks["receivers"], flags=re.MULTILINE)
    receiving = [
        {"name": name, "webhook_configs": [{"url": url, "send_resolved": True}]}
        if name != "nobody"
        else {"name": name}
        for name in names
    ]
    receivers = json.dumps(receiving)
    return f"{blocks['route']}\n{blocks['inhibit_rules']}\nreceivers: {receivers}\n"
