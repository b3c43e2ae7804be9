"""`glasscache export`: files for one's own Prometheus, Grafana and Kubernetes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from cache_core.cli.app import app
from cache_core.cli.export import RUNBOOKS
from tests.support import servers
from tests.support.modules import import_or_skip
from tests.support.paths import ROOT

SCHEMAS = Path(__file__).with_name("schemas")
"""Schemas of the Prometheus operator's objects, from its CRDs at commit 6adcebc5076c, without texts, and
with no field beside those that they name."""

WIKI = "https://wiki.example.com/runbooks"


def export(*words: str) -> Result:
    return CliRunner().invoke(app, ["export", *words])


def groups(*names: str) -> list[dict[str, Any]]:
    """Return the groups of the shipped rule files."""
    texts = [(ROOT / "alerts" / name).read_text(encoding="utf-8") for name in names]
    return [group for text in texts for group in yaml.safe_load(text)["groups"]]


@pytest.mark.server
def test_alerts_get_labels_and_links_and_pass_their_own_tests(tmp_path: Path) -> None:
    """Exported rules have the label and the base that were given, and so have their tests."""
    done = export("alerts", str(tmp_path), "--label", "team=search", "--runbook-url", f"{WIKI}/")
    assert done.exit_code == 0, done.output
    rules = yaml.safe_load((tmp_path / "rules.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert {rule["labels"]["team"] for rule in alerts} == {"search"}
    assert all(f'"{WIKI}" }}}}/' in rule["annotations"]["runbook_url"] for rule in alerts)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert {"recording.yml", "alertmanager.yml", "runbooks/CacheNoData.md"} <= written
    promtool = servers.require("promtool")
    for words in (
        ("check", "rules", "rules.yml", "recording.yml"),
        ("test", "rules", "tests/without_recording.yml"),
    ):
        ran = subprocess.run(
            [promtool, *words], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_without_options_the_files_are_the_shipped_ones(tmp_path: Path) -> None:
    """Alerts and dashboards come out as they are in the project."""
    assert export("alerts", str(tmp_path / "a")).exit_code == 0
    assert export("grafana", str(tmp_path / "g")).exit_code == 0
    for path in (ROOT / "alerts").rglob("*.yml"):
        assert (tmp_path / "a" / path.relative_to(ROOT / "alerts")).read_text() == path.read_text()
    for folder in ("dashboards", "provisioning"):
        for path in (ROOT / "grafana" / folder).rglob("*.*"):
            written = tmp_path / "g" / path.relative_to(ROOT / "grafana")
            assert written.read_text() == path.read_text()


def test_dashboards_start_with_the_data_source_that_was_named(tmp_path: Path) -> None:
    """Then none is provisioned; panels still use the variable, and links lead to one's runbooks."""
    words = ("--datasource", "mimir", "--runbook-url", WIKI)
    assert export("grafana", str(tmp_path), *words).exit_code == 0
    assert not (tmp_path / "provisioning" / "datasources").exists()
    assert (tmp_path / "provisioning" / "dashboards").is_dir()
    for path in (tmp_path / "dashboards").glob("*.json"):
        board = json.loads(path.read_text(encoding="utf-8"))
        (source,) = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
        assert source["current"] == {"text": "mimir", "value": "mimir"}
        assert RUNBOOKS not in path.read_text(encoding="utf-8")


def test_no_provisioned_data_source_claims_to_be_the_default() -> None:
    """Beside another default Grafana does not start."""
    path = ROOT / "grafana" / "provisioning" / "datasources" / "glasscache.yml"
    sources = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    assert not [one["name"] for one in sources if one.get("isDefault")]


def test_kubernetes_objects_are_valid_and_hold_what_is_shipped(tmp_path: Path) -> None:
    """The operator's schemas accept them; rules and dashboards in them are the shipped ones."""
    words = ("--label", "release=monitoring", "--namespace", "prod", "--select", "app=shop")
    assert export("kubernetes", str(tmp_path), *words).exit_code == 0
    objects = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in tmp_path.glob("*.yaml")
    }
    for found in objects.values():
        assert found["metadata"]["labels"]["release"] == "monitoring"
        assert found["metadata"]["namespace"] == "prod"
        schema = SCHEMAS / f"{found['kind']}.json"
        if found["kind"] != "ConfigMap":
            jsonschema.validate(found, json.loads(schema.read_text(encoding="utf-8")))
    rule = objects.pop("prometheusrule")
    assert rule["spec"]["groups"] == groups("recording.yml", "rules.yml")
    for monitor in ("servicemonitor", "podmonitor"):
        assert objects.pop(monitor)["spec"]["selector"] == {"matchLabels": {"app": "shop"}}
    assert len(objects) == 4
    for name, found in objects.items():
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        shipped = ROOT / "grafana" / "dashboards" / f"{name}.json"
        assert found["data"] == {f"{name}.json": shipped.read_text(encoding="utf-8")}


def test_workloads_are_valid_and_run_what_exists(tmp_path: Path) -> None:
    """Kubernetes' own models accept them; commands, probes, ports and the Secret fit together."""
    words = ("--image", "example.com/glasscache:1", "--upstream", "https://api.example.com/v1",
             "--cache", "shop", "--secret", "ours", "--namespace", "prod")  # fmt: skip
    assert export("kubernetes", str(tmp_path), *words).exit_code == 0
    for name in ("tuner", "proxy"):
        text = (tmp_path / f"{name}.yaml").read_text(encoding="utf-8")
        deployment, service, *monitors = yaml.safe_load_all(text)
        check(deployment, "V1Deployment")
        check(service, "V1Service")
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == labels
        assert labels.items() >= deployment["spec"]["selector"]["matchLabels"].items()
        (port,) = container["ports"]
        assert service["spec"]["ports"][0]["targetPort"] == port["name"]
        named = [
            item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item
        ]
        assert {item["name"] for item in named} == {"ours"}
        keys = {item["key"] for item in named if item.get("optional")}
        assert keys == {"cache-key", "encryption-keys"}
        program, command, *options = container["args"]
        help_ = CliRunner().invoke(app, [command, "--help"]).output
        assert program == "glasscache"
        assert {word for word in options if word.startswith("--")} <= set(help_.split())
        assert options[options.index("--namespace") + 1] == "shop"
        for monitor in monitors:
            schema = SCHEMAS / "PodMonitor.json"
            jsonschema.validate(monitor, json.loads(schema.read_text(encoding="utf-8")))
            assert labels.items() >= monitor["spec"]["selector"]["matchLabels"].items()
        assert len(monitors) == (name == "proxy")
    assert export("kubernetes", str(tmp_path), "--upstream", "https://a/v1").exit_code == 2


def test_every_program_of_the_page_has_the_same_keys(tmp_path: Path) -> None:
    """The page's Secret and agent have the key of digests and that of encryption as ours do."""
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (agent,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    words = ("--image", "example.com/glasscache:1", "--upstream", "https://api.example.com/v1")
    assert export("kubernetes", str(tmp_path), *words).exit_code == 0
    files = [(tmp_path / f"{name}.yaml").read_text(encoding="utf-8") for name in ("tuner", "proxy")]
    for deployment in (agent, *(next(iter(yaml.safe_load_all(text))) for text in files)):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        secrets = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in container["env"]
                   if "valueFrom" in item}  # fmt: skip
        for variable, key in (("CACHE_KEY", "cache-key"),
                              ("CACHE_ENCRYPTION_KEYS", "encryption-keys")):  # fmt: skip
            assert secrets[variable] == {"name": "glasscache", "key": key, "optional": True}
            assert f"--from-literal={key}=" in page


def test_the_agent_of_the_page_is_valid() -> None:
    """The Deployment in docs/kubernetes.md is one, and its probes ask for what is served."""
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    deployment = yaml.safe_load(text)
    check(deployment, "V1Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert probes == {"/ops/health/live", "/ops/health/ready"}


def check(value: Any, kind: str) -> None:
    """Assert that an object has only fields of a model of Kubernetes, of the right types."""
    models = import_or_skip("kubernetes.client.models")
    listed, mapped = re.fullmatch(r"list\[(.+)\]", kind), re.fullmatch(r"dict\[str, (.+)\]", kind)
    if listed:
        assert isinstance(value, list)
        for item in value:
            check(item, listed[1])
    elif mapped:
        assert isinstance(value, dict)
        for item in value.values():
            check(item, mapped[1])
    elif hasattr(models, kind):
        model = getattr(models, kind)
        fields = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
        assert set(value) <= set(fields), f"{kind} has no {set(value) - set(fields)}"
        for name, item in value.items():
            check(item, fields[name])
    else:
        allowed = {"str": str, "int": int, "bool": bool, "object": (str, int, dict)}[kind]
        assert isinstance(value, allowed), f"{value!r} is no {kind}"


def test_the_schemas_would_find_a_misspelt_key(tmp_path: Path) -> None:
    """A monitor with a misspelt key is refused, so the check above finds one."""
    assert export("kubernetes", str(tmp_path)).exit_code == 0
    monitor = yaml.safe_load((tmp_path / "servicemonitor.yaml").read_text(encoding="utf-8"))
    monitor["spec"]["endpoints"][0]["intervall"] = "15s"
    schema = json.loads((SCHEMAS / "ServiceMonitor.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, schema)


@pytest.mark.parametrize("words", [("alerts", "--label", "team"), ("kubernetes", "--select", "=x")])
def test_what_is_no_label_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    """A label without a name or a value ends with 2, and writes nothing."""
    command, *options = words
    done = export(command, str(tmp_path / "out"), *options)
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error says which, without a traceback."""
    (tmp_path / "file").write_text("")
    done = export("alerts", str(tmp_path / "file" / "sub"))
    assert done.exit_code == 1
    assert "Traceback" not in done.output
