"""`glasscache export`: alerts, dashboards and Kubernetes objects as files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from cache_core.cli import workloads
from cache_core.cli.console import PlainCommand, PlainGroup, fail, flowing, out
from cache_core.cli.shipped import shipped
from cache_core.model.exceptions import ConfigurationError

app = typer.Typer(
    cls=PlainGroup,
    help="Write alerts, dashboards or Kubernetes objects as files, for your own monitoring.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

RUNBOOKS = "https://github.com/glasscache/glasscache/blob/main/docs/runbooks"
"""Base of the runbooks' addresses in the shipped files."""

_LABEL = re.compile(r"\A([a-zA-Z_][a-zA-Z0-9_]*)=(.+)")
_OBJECT_LABEL = re.compile(r"\A([a-zA-Z0-9][\w./-]*)=([\w.-]*)")

Folder = Annotated[Path, typer.Argument(file_okay=False, help="Directory to write to.")]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A label to add; can be repeated."),
]
RunbookUrl = Annotated[
    str,
    typer.Option(
        "--runbook-url",
        metavar="URL",
        help="Base of the links to runbooks.",
        show_default="those of this project",
    ),
]
Datasource = Annotated[
    str | None,
    typer.Option(
        "--datasource",
        metavar="UID",
        help="Grafana's Prometheus data source that the dashboards start with. Default: Grafana's "
        "default one.",
    ),
]


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes to the shipped files.

    Attributes:
        runbook_url: Base of the links to runbooks.
        labels: Added to every alert.
        datasource: uid of the data source that dashboards start with; `None` for Grafana's default.
    """

    runbook_url: str = RUNBOOKS
    labels: Mapping[str, str] = field(default_factory=dict)
    datasource: str | None = None


def alerts(folder: Folder, label: Label = None, runbook_url: RunbookUrl = RUNBOOKS) -> None:
    """Write the rules, their tests, Alertmanager's configuration and the runbooks.

    --label is added to every alert, for your routes.

    [bold]glasscache export alerts monitoring/ --label team=search[/bold]
        Then load recording.yml and rules.yml into Prometheus.
    """
    changes = Changes(_base(runbook_url), _labels(label, _LABEL))
    _write(folder, alert_files(changes))


def grafana(
    folder: Folder, datasource: Datasource = None, runbook_url: RunbookUrl = RUNBOOKS
) -> None:
    """Write the dashboards and Grafana's provisioning.

    With --datasource no data source is provisioned; without it, Prometheus and traces are.

    [bold]glasscache export grafana grafana/ --datasource prometheus[/bold]
        Then mount both folders as docs/dashboards.md says.
    """
    changes = Changes(_base(runbook_url), datasource=datasource)
    _write(folder, grafana_files(changes))


def kubernetes(
    folder: Folder,
    label: Label = None,
    datasource: Datasource = None,
    runbook_url: RunbookUrl = RUNBOOKS,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of the objects. Default: none is named.")
    ] = None,
    select: Annotated[
        str, typer.Option(metavar="NAME=VALUE", help="Label of the agent's Service and pods.")
    ] = "app=agent",
    port: Annotated[str, typer.Option(help="Name of the port that serves metrics.")] = "metrics",
    image: Annotated[
        str | None,
        typer.Option(help="Image with glasscache: also write the tuner, and the proxy."),
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(metavar="URL", help="The proxy's provider, with /v1.")
    ] = None,
    secret: Annotated[
        str, typer.Option(help="Secret with redis-url and dashboard-token.")
    ] = "glasscache",  # noqa: S107 - its name
    cache: Annotated[str, typer.Option(help="The namespace= of the agents' cache.")] = "default",
) -> None:
    """Write objects for Kubernetes: for the Prometheus operator, Grafana's sidecar, and workloads.

    A PrometheusRule; a ServiceMonitor and a PodMonitor, of which you need one; and a ConfigMap for
    each dashboard. --label is added to every object: operators select by labels.

    With --image also a Deployment and a Service of the tuner and, with --upstream, of the proxy,
    which has a PodMonitor of its own.

    [bold]glasscache export kubernetes k8s/ --label release=monitoring[/bold]
        Then kubectl apply -f k8s/ without the monitor that you do not use.

    [bold]glasscache export kubernetes k8s/ --image registry.example.com/glasscache:0.2[/bold]
        With the tuner. Its Secret is yours: docs/kubernetes.md.
    """
    if upstream is not None and image is None:
        fail("--upstream needs --image: the proxy is run from it")
    changes = Changes(_base(runbook_url), datasource=datasource)
    meta = Meta(_labels(label, _OBJECT_LABEL), namespace)
    agents = _labels([select], _OBJECT_LABEL)
    _write(folder, kubernetes_files(changes, meta, agents, port))
    if image is not None:
        _write(folder, workload_files(meta, image, secret, cache, upstream))


def _base(url: str) -> str:
    return url.rstrip("/")


def _labels(given: list[str] | None, allowed: re.Pattern[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or ():
        parsed = allowed.fullmatch(text)
        if parsed is None:
            fail(f"{text!r} is no label: expected NAME=VALUE, such as team=search")
        found[parsed[1]] = parsed[2]
    return found


def _write(folder: Path, files: Iterator[tuple[str, str]]) -> None:
    """Write the files into *folder*, over those of an earlier export, and list them."""
    try:
        for name, text in files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            out.print(str(path), highlight=False, soft_wrap=True)
    except (OSError, ConfigurationError) as error:
        fail(f"{folder}: {error}", 1)


def alert_files(changes: Changes) -> Iterator[tuple[str, str]]:
    """Yield the files of the alerts with their names."""
    source = shipped("alerts")
    for path in sorted(source.rglob("*.yml")):
        text = path.read_text(encoding="utf-8").replace(RUNBOOKS, changes.runbook_url)
        if path.name == "rules.yml":
            text = _with_labels(text, changes.labels)
        elif path.parent.name == "tests":
            expected = "".join(f"{key}: {json.dumps(it)}, " for key, it in changes.labels.items())
            text = text.replace("exp_labels: {", f"exp_labels: {{{expected}")
        yield path.relative_to(source).as_posix(), text
    for path in sorted(shipped("runbooks").glob("*.md")):
        yield f"runbooks/{path.name}", path.read_text(encoding="utf-8")


def _with_labels(rules: str, labels: Mapping[str, str]) -> str:
    more = "".join(f"          {name}: {json.dumps(value)}\n" for name, value in labels.items())
    return rules.replace("        labels:\n", f"        labels:\n{more}")


def grafana_files(changes: Changes) -> Iterator[tuple[str, str]]:
    """Yield the dashboards and their provisioning with their names.

    With a data source of one's own, none is provisioned.
    """
    source = shipped("grafana")
    for path in sorted((source / "dashboards").glob("*.json")):
        yield f"dashboards/{path.name}", dashboard(path, changes)
    for path in sorted((source / "provisioning").rglob("*.yml")):
        name = path.relative_to(source).as_posix()
        if changes.datasource is None or "datasources" not in name:
            yield name, path.read_text(encoding="utf-8")


def dashboard(path: Path, changes: Changes) -> str:
    """Return a dashboard as JSON, changed."""
    text = path.read_text(encoding="utf-8").replace(RUNBOOKS, changes.runbook_url)
    if changes.datasource is None:
        return text
    found: dict[str, Any] = json.loads(text)
    for variable in found["templating"]["list"]:
        if variable["type"] == "datasource":
            variable["current"] = {"text": changes.datasource, "value": changes.datasource}
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Meta:
    """Metadata of all objects.

    Attributes:
        labels: Their labels, besides those that say whose they are.
        namespace: Their namespace; `None` to name none.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None

    def head(self, kind: str, version: str, name: str, **labels: str) -> str:
        """Return the begin of an object, up to its metadata."""
        every = {"app.kubernetes.io/name": "glasscache", **labels, **self.labels}
        lines = [f"apiVersion: {version}", f"kind: {kind}", "metadata:", f"  name: {name}"]
        if self.namespace is not None:
            lines.append(f"  namespace: {self.namespace}")
        lines += ["  labels:", *(f"    {key}: {json.dumps(it)}" for key, it in every.items())]
        return "\n".join(lines) + "\n"


_OPERATOR = "monitoring.coreos.com/v1"


def kubernetes_files(
    changes: Changes, meta: Meta, agents: Mapping[str, str], port: str
) -> Iterator[tuple[str, str]]:
    """Yield the objects with the names of their files.

    Args:
        changes: Changes to rules and dashboards.
        meta: Metadata of the objects.
        agents: Labels of the agent's Service and pods.
        port: Name of the port that serves metrics.
    """
    yield "prometheusrule.yaml", _rules(changes, meta)
    chosen = "".join(f"      {key}: {json.dumps(it)}\n" for key, it in agents.items())
    ends = f"    - port: {json.dumps(port)}\n      path: /metrics\n      interval: 15s\n"
    for kind, endpoints in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        yield (
            f"{kind.lower()}.yaml",
            meta.head(kind, _OPERATOR, "glasscache")
            + f"spec:\n  selector:\n    matchLabels:\n{chosen}  {endpoints}:\n{ends}",
        )
    for path in sorted((shipped("grafana") / "dashboards").glob("*.json")):
        head = meta.head("ConfigMap", "v1", path.stem, grafana_dashboard="1")
        text = _indented(dashboard(path, changes), 4)
        yield f"{path.stem}.yaml", f"{head}data:\n  {path.name}: |\n{text}"


def workload_files(
    meta: Meta, image: str, secret: str, cache: str, upstream: str | None
) -> Iterator[tuple[str, str]]:
    """Yield what runs the tuner and, before a provider, the proxy.

    Args:
        meta: Metadata of the objects.
        image: Image that has the command `glasscache`.
        secret: Name of the Secret with what they may not show.
        cache: Namespace of the cache.
        upstream: Base URL of the provider; `None` for no proxy.
    """
    yield "tuner.yaml", workloads.workload(workloads.tuner(cache), meta.head, image, secret)
    if upstream is None:
        return
    program = workloads.proxy(cache, upstream)
    monitor = meta.head("PodMonitor", _OPERATOR, program.name) + (
        "spec:\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: glasscache\n"
        "      app.kubernetes.io/component: proxy\n  podMetricsEndpoints:\n"
        "    - port: http\n      path: /ops/metrics\n      interval: 15s\n"
    )
    written = workloads.workload(program, meta.head, image, secret)
    yield "proxy.yaml", f"{written}---\n{monitor}"


def _rules(changes: Changes, meta: Meta) -> str:
    """Return all groups as one PrometheusRule."""
    groups = ""
    for name in ("recording.yml", "rules.yml"):
        text = (shipped("alerts") / name).read_text(encoding="utf-8")
        groups += text.partition("\ngroups:\n")[2]
    groups = _with_labels(groups.replace(RUNBOOKS, changes.runbook_url), changes.labels)
    return (
        meta.head("PrometheusRule", _OPERATOR, "glasscache")
        + "spec:\n  groups:\n"
        + _indented(groups, 2)
    )


def _indented(text: str, by: int) -> str:
    return "".join(
        " " * by + line if line.strip() else line for line in text.splitlines(keepends=True)
    )


for _name, _command in (("alerts", alerts), ("grafana", grafana), ("kubernetes", kubernetes)):
    app.command(_name, cls=PlainCommand, help=flowing(_command))(_command)
