"""The shipped alerts: valid, tested, explained, and about metrics that exist."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from telemetry import names
from tests.support import servers
from tests.support.paths import ROOT

ALERTS = ROOT / "alerts"
RUNBOOKS = ROOT / "docs" / "runbooks"
RUNBOOK_BASE = (
    '{{ or $externalLabels.runbook_url "https://github.com/glasscache/glasscache/blob/main/docs/runbooks"'
    " }}/"
)
RULE_FILES = (ALERTS / "recording.yml", ALERTS / "rules.yml")
UNIT_TESTS = sorted((ALERTS / "tests").glob("*.yml"))

GROUPS: list[dict[str, Any]] = [
    group
    for path in RULE_FILES
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
RULES_THAT_ALERT = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in RULES_THAT_ALERT})
MANAGER: dict[str, Any] = yaml.safe_load((ALERTS / "alertmanager.yml").read_text(encoding="utf-8"))

HEADINGS = (
    "What it means",
    "What users notice",
    "How to confirm",
    "What to do",
    "When to ignore it",
)

FOREIGN = {
    "up", "ALERTS", "ALERTS_FOR_STATE", "redis_slave_info", "redis_connected_slave_offset_bytes",
    "redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes",
    "redis_total_system_memory_bytes", "redis_instance_info", "redis_evicted_keys_total",
}  # fmt: skip
"""Metrics of Prometheus and of redis_exporter."""


PATIENT_COLLECTOR = {**os.environ, "GOGC": "off", "GOMEMLIMIT": "512MiB"}
"""Promtool spends a third of its time on collecting what a short run need not free."""


def run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=110, env=PATIENT_COLLECTOR
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def queries(rule: dict[str, Any]) -> list[str]:
    """Return the PromQL of a rule: its expression, and what its annotations ask."""
    asked = [
        json.loads(f'"{text}"')
        for annotation in rule.get("annotations", {}).values()
        for text in re.findall(r'(?:query|printf) "((?:[^"\\]|\\.)*)"', annotation)
        if not text.startswith("%")
    ]
    return [rule["expr"], *asked]


def metrics(promql: str) -> set[str]:
    """Return the metrics that PromQL selects."""
    words = re.sub(r'"[^"]*"', "", promql)
    return set(
        re.findall(
            r"\b(?:cache|redis|process)_[a-z0-9_]+\b|\b(?:up|ALERTS|ALERTS_FOR_STATE)\b", words
        )
    )


@pytest.mark.server
def test_the_rules_are_valid() -> None:
    """Promtool has nothing to say against them."""
    promtool = servers.require("promtool")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES))


@pytest.mark.server
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_unit_tests(path: Path) -> None:
    """Each alert fires, and does not, when it should."""
    run(servers.require("promtool"), "test", "rules", str(path))


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_evaluate_the_groups_in_order(path: Path) -> None:
    """Promtool takes any order otherwise, and results differ by an evaluation."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    loaded = {Path(name).name for name in document["rule_files"]}
    files = [file for file in RULE_FILES if file.name in loaded]
    groups = [yaml.safe_load(file.read_text(encoding="utf-8"))["groups"] for file in files]
    assert document["group_eval_order"] == [group["name"] for found in groups for group in found]


@functools.cache
def unit_tests(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["tests"])


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tested(name: str) -> None:
    """A unit test sees it fire with all its annotations."""
    tests = [test for path in UNIT_TESTS for test in unit_tests(path)]
    fired = [
        alert
        for test in tests
        for check in test.get("alert_rule_test", ())
        for alert in check["exp_alerts"]
        if check["alertname"] == name
    ]
    assert fired


def seconds(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def counted(name: str) -> dict[str, list[bool]]:
    """Return, for every unit test that counts an alert, whether it fired, in the order of time."""
    found: dict[str, list[bool]] = {}
    for path in UNIT_TESTS:
        for test in unit_tests(path):
            checks = [
                (seconds(check["eval_time"]), any(one["value"] for one in check["exp_samples"]))
                for check in test.get("promql_expr_test", ())
                if f'alertname="{name}"' in check["expr"]
            ]
            if checks:
                found[f"{path.stem}: {test['name']}"] = [fires for _, fires in sorted(checks)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_fires_resolves_does_not_fire_and_was_tried_at_low_traffic(name: str) -> None:
    """Four cases for each: the unit tests that count it have them all."""
    found = counted(name)
    assert any(any(fires) for fires in found.values()), "fires"
    assert any(not any(fires) for fires in found.values()), "does not fire"
    assert any(
        before and not after
        for fires in found.values()
        for before, after in itertools.pairwise(fires)
    ), "resolves"
    assert any("low traffic" in test for test in found), "low traffic"


@pytest.mark.parametrize("rule", RULES_THAT_ALERT, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_its_reader_needs(rule: dict[str, Any]) -> None:
    """Severity, summary, description with the value, runbook and dashboard."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "$value" in annotations["description"]
    assert annotations["runbook_url"] == f"{RUNBOOK_BASE}{rule['alert']}.md"
    assert re.match(
        r"\{\{ or \$externalLabels\.grafana_url \"http://localhost:3000\" \}\}/d/glasscache-",
        annotations["dashboard_url"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_links_to_a_dashboard_that_is_shipped(name: str) -> None:
    """The uid in the link is that of a dashboard."""
    dashboards = ROOT / "grafana" / "dashboards"
    if not dashboards.is_dir():
        pytest.skip("the dashboards are not here")
    for rule in RULES_THAT_ALERT:
        if rule["alert"] == name:
            found = re.search(r"/d/([a-z-]+)", rule["annotations"]["dashboard_url"])
            assert found is not None
            assert (dashboards / f"{found[1]}.json").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_runbook(name: str) -> None:
    """One page, with all its headings, a query, a command, and a line in the index."""
    page = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    assert tuple(re.findall(r"^## (.+)$", page, re.MULTILINE)) == HEADINGS
    confirm = page[page.index("## How to confirm") : page.index("## What to do")]
    assert "```promql\n" in confirm
    assert "```console\n" in confirm
    assert f"[{name}]({name}.md)" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


def test_a_runbook_has_an_alert() -> None:
    """No page is left of an alert that is gone."""
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem != "README") == NAMES


@pytest.mark.server
@pytest.mark.parametrize("name", NAMES)
def test_a_runbooks_queries_are_promql(name: str, tmp_path: Path) -> None:
    """Every query of a page is accepted by Prometheus' parser, and is about metrics that exist."""
    promtool = servers.require("promtool")
    page = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    asked = [
        query
        for block in re.findall(r"```promql\n(.*?)```", page, re.DOTALL)
        for query in block.strip().split("\n")
    ]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(asked)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")
    run(promtool, "check", "rules", str(path))
    assert unknown(" ".join(asked)) == set()


def known_metrics() -> set[str]:
    """Return every name under which a series of the cache can be selected."""
    suffixes = {"histogram": ("", "_bucket", "_count", "_sum")}
    ours = {
        metric.name + suffix
        for metric in names.METRICS
        for suffix in suffixes.get(metric.kind, ("",))
    }
    return ours | FOREIGN


def unknown(promql: str) -> set[str]:
    """Return the metrics and recorded series in *promql* that nobody provides."""
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    series = set(re.findall(r"\b[a-z_]+:[a-z0-9_]+(?::[a-z0-9_]+)?\b", promql))
    series = {name for name in series if name.startswith(("job_", "job:", "glasscache:"))}
    return (metrics(re.sub(r"\b[a-z_]+(:[a-z0-9_]+)+\b", "", promql)) - known_metrics()) | (
        series - recorded
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_is_about_metrics_that_exist(rule: dict[str, Any]) -> None:
    """Each is in `telemetry.names`, recorded by our rules, or in the list of others' metrics."""
    assert [unknown(query) for query in queries(rule)] == [set()] * len(queries(rule))


@pytest.mark.parametrize("window", ["5m", "30m", "1d"])
def test_the_overall_hit_rate_is_the_one_of_the_contract(window: str) -> None:
    """Hits of lookups that could be answered, kept by job and cache, nothing where there are none."""
    (rule,) = (
        rule
        for rule in RULES
        if rule.get("record") == f"job_cache:cache_hit_rate:ratio_rate{window}"
    )
    by = "sum by (cluster, namespace, job, cache)"
    planned = (
        f'{by} (rate(cache_lookups_total{{cache!="", outcome="hit"}}[w])) / '
        f'({by} (rate(cache_lookups_total{{cache!="", '
        'outcome=~"hit|partial|miss|error"}[w])) > 0)'
    )
    assert " ".join(rule["expr"].split()) == planned.replace("[w]", f"[{window}]")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_on_redis_is_about_our_servers(rule: dict[str, Any]) -> None:
    """No rule selects an exporter by its job, and each is limited to the servers of caches."""
    expr = re.sub(r'limit="[^"]*"', "", rule["expr"])
    if re.search(r"(?<![:_])\bredis_[a-z_]+\b", expr):
        assert 'job="redis"' not in expr
        assert re.search(r"glasscache:redis_|cache_redis_server|redis_memory_used:ratio", expr)


CACHE = ("cluster", "namespace", "job", "cache")
SERVER = ("cluster", "namespace", "job", "instance", "pod")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_keeps_the_labels_that_tell_environments_apart(rule: dict[str, Any]) -> None:
    """Whatever is grouped or matched by job is so by cluster and namespace, too."""
    for labels in re.findall(r"(?:\bby|\bon) \(([^)]*)\)", rule["expr"]):
        if "job" in labels.split(", ") and "limit" not in labels:
            assert labels.startswith("cluster, namespace, job"), labels


@pytest.mark.parametrize("rule", RULES_THAT_ALERT, ids=lambda rule: rule["alert"])
def test_a_summary_says_where(rule: dict[str, Any]) -> None:
    """It names the namespace and the cluster where there are any, and so do queries and links."""
    summary, link = (rule["annotations"][name] for name in ("summary", "dashboard_url"))
    if rule["alert"] in {"CacheNotScraped", "CacheLimitsIncomplete"}:
        return
    for label in ("namespace", "cluster"):
        assert f"{{{{ with $labels.{label} }}}}" in summary
        assert "var-redis_instance" in link or f"&var-{label}=" in link
    for query in queries(rule)[1:]:
        assert "{cluster=%q,namespace=%q,job=%q,cache=%q" in query or "limit=" in query, query


def test_every_limit_is_used_and_every_used_limit_is_set() -> None:
    """The limits stand in one place, and none is left over."""
    found = [rule for rule in RULES if rule.get("record") == "glasscache:limit"]
    defaults = {rule["labels"]["limit"]: rule["expr"] for rule in found}
    alerts = " ".join(rule["expr"] for rule in RULES_THAT_ALERT)
    recorded = [rule for rule in RULES if rule.get("record") == "job_cache:default_limit"]
    used = set(re.findall(r'job_cache:limit\{limit="(\w+)"\}', alerts))
    assert used == {rule["labels"]["limit"] for rule in recorded}
    assert used | {"redis_memory_ratio"} == set(defaults)
    # Where a limit is missing, the same value is the last resort.
    for rule in recorded:
        name = rule["labels"]["limit"]
        assert f'limit="{name}"' in rule["expr"]
        assert f"or {defaults[name]}" in rule["expr"]
        assert f'absent(glasscache:limit{{limit="{name}"}})' in alerts
    assert "scalar(glasscache" not in alerts


@pytest.mark.server
def test_the_alertmanager_configuration_is_valid() -> None:
    """Amtool accepts it."""
    run(servers.require("amtool"), "check-config", str(ALERTS / "alertmanager.yml"))


@pytest.mark.server
@pytest.mark.parametrize(
    ("severity", "receiver"),
    [
        ("critical", "page"),
        ("warning", "team"),
        ("info", "record"),
        ("none", "nobody"),
        ("x", "team"),
    ],
)
def test_a_severity_goes_to_its_receiver(severity: str, receiver: str) -> None:
    """Critical wakes somebody; what has an unknown severity is seen by the team."""
    config = f"--config.file={ALERTS / 'alertmanager.yml'}"
    amtool = servers.require("amtool")
    told = run(amtool, "config", "routes", "test", config, f"severity={severity}")
    assert told.split()[0].removesuffix("Warning:") == receiver


def test_secrets_are_read_from_files() -> None:
    """No secret stands in the configuration, and e-mail, Slack and a webhook are all there."""
    text = (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    assert not re.search(
        r"^\s*(smtp_auth_password|slack_api_url|api_url|password|credentials):", text, re.MULTILINE
    )
    assert {"smtp_auth_password_file", "slack_api_url_file"} <= MANAGER["global"].keys()
    (page,) = (item for item in MANAGER["receivers"] if item["name"] == "page")
    assert {"email_configs", "slack_configs", "webhook_configs"} <= page.keys()


def test_inhibitions_name_alerts_that_exist() -> None:
    """A renamed alert would otherwise silently not be inhibited."""
    text = yaml.safe_dump(MANAGER["inhibit_rules"])
    assert set(re.findall(r"\bCache[A-Z][A-Za-z]+\b", text)) <= set(NAMES)


def test_an_inhibition_compares_labels_that_both_sides_have() -> None:
    """Two alerts without a label count as equal in it: that would silence other people's alerts."""
    by_redis = {"CacheRedisMemoryFull", "CacheRedisMemoryUnlimited"}
    for rule in MANAGER["inhibit_rules"]:
        named = set(re.findall(r"Cache[A-Z][A-Za-z]+", yaml.safe_dump(rule["target_matchers"])))
        wanted = SERVER if named & by_redis else CACHE
        assert tuple(rule["equal"][: len(wanted)]) == wanted


@pytest.mark.server
@pytest.mark.parametrize("rule", RULES_THAT_ALERT, ids=lambda rule: rule["alert"])
def test_an_alert_goes_to_the_receiver_of_its_severity(rule: dict[str, Any]) -> None:
    """The labels that it really has, through the shipped routes."""
    config = f"--config.file={ALERTS / 'alertmanager.yml'}"
    labels = {"alertname": rule["alert"], **rule["labels"], "job": "agent", "cache": "shop"}
    told = run(
        servers.require("amtool"), "config", "routes", "test", config,
        *(f"{name}={value}" for name, value in labels.items()),
    )  # fmt: skip
    wanted = {"critical": "page", "warning": "team", "info": "record", "none": "nobody"}
    assert told.split()[0].removesuffix("Warning:") == wanted[rule["labels"]["severity"]]
