"""The dashboards: what the script makes, what Grafana's linter asks, what a Prometheus answers."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from cache_core.model.values import MISS_REASONS
from cache_core.operations.invalidate.outbox import RequestKind
from grafana import generate
from grafana.builder import queries as queries_shared
from grafana.builder.panels import COLORS
from grafana.live import Prometheus, Target, targets
from telemetry import names
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

FILES = sorted(generate.DIRECTORY.glob("*.json"))
Json = dict[str, Any]
BOARDS: dict[str, Json] = {path.stem: json.loads(path.read_text()) for path in FILES}

UIDS = {"glasscache-overview", "glasscache-tiers", "glasscache-semantic", "glasscache-stores"}
UNITS = {
    "none", "percentunit", "s", "bytes", "currencyUSD", "reqps", "cps", "ops", "wps", "Bps",
    "suffix:x", "suffix:USD/h", "dthms",
}  # fmt: skip
"""Ids of Grafana's units that are used here, each looked up in its list."""

REDIS_METRICS = {
    "redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_instance_info",
    "redis_uptime_in_seconds", "redis_db_keys", "redis_connected_clients",
    "redis_config_maxclients", "redis_evicted_keys_total", "redis_expired_keys_total",
    "redis_rejected_connections_total", "redis_commands_total",
    "redis_commands_duration_seconds_total",
    "redis_commands_processed_total", "redis_keyspace_hits_total", "redis_keyspace_misses_total",
    "redis_memory_used_rss_bytes", "redis_net_input_bytes_total", "redis_net_output_bytes_total",
    "redis_db_keys_expiring", "redis_connected_slaves", "redis_master_link_up", "redis_blocked_clients",
}  # fmt: skip
"""Metrics of redis_exporter 1.45 for a Redis 7.0."""

AGENT_METRICS = {
    "process_cpu_seconds_total", "process_resident_memory_bytes", "scrape_duration_seconds",
}  # fmt: skip
"""Metrics of a process and of its scrape."""

AT_PRESENT = {
    "Which alerts fire?", "Replicas", "Lookup time, p99", "Replicas agree?", "Releases running",
    "Which TTLs are in force?", "Which backends answer?", "Are breakers open?", "Chroma up",
    "Redis up", "Memory used", "Policy when full", "Up for", "Keys", "Clients used",
}  # fmt: skip
"""Panels that show the present, whatever the time range."""

BURN = "How fast is the error budget used?"
OURS = (
    'cluster=~"$cluster",namespace=~"$namespace",job=~"$job",cache=~"$cache",instance=~"$instance"'
)

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_STRING = re.compile(r'"[^"]*"')
_GROUPING = re.compile(r"\b(?:by|on|group_left|group_right|without|ignoring)\s*\([^)]*\)")
_RANGED = re.compile(r"\b(\w+)\(([a-zA-Z_:][\w:]*)\{[^}]*\}\[([^\]]+)\]")
_NAME = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()")
_KEYWORDS = {"or", "and", "unless", "offset", "bool"}


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> list[Target]:
    return [target for board in BOARDS.values() for target in targets(board)]


def expressions() -> list[str]:
    """Every query of panels and annotations."""
    asked = [note["expr"] for board in BOARDS.values() for note in board["annotations"]["list"]]
    return [target.expr for target in queries()] + asked


def base(metric: str) -> str:
    """The name in the catalogue of a sample's metric."""
    stem = re.sub(r"_(bucket|sum|count)$", "", metric)
    histograms = {known.name for known in names.METRICS if known.kind == "histogram"}
    return stem if stem in histograms else metric


def mentioned(expr: str) -> set[str]:
    """Every metric in a query, selected with braces or without."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", _GROUPING.sub(" ", _STRING.sub(" ", expr)))
    bare = re.sub(r"\$\w+|\b\d[\w.]*", " ", bare)
    return set(_NAME.findall(bare)) - _KEYWORDS


each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


# ---------------------------------------------------------------- the script and the files


def test_the_committed_files_are_what_the_script_makes() -> None:
    """The committed dashboards are as `grafana.generate` writes them."""
    assert generate.main(["--check"]) == 0


def test_the_check_finds_a_changed_a_missing_and_a_foreign_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` names each file that was changed, removed or added."""
    assert generate.main(["--directory", str(tmp_path)]) == 0
    (tmp_path / "glasscache-tiers.json").write_text("{}")
    (tmp_path / "glasscache-stores.json").unlink()
    (tmp_path / "by-hand.json").write_text("{}")
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert [name in said for name in ("tiers", "stores", "by-hand")] == [True] * 3
    assert "overview" not in said


def test_the_addresses_never_change() -> None:
    """The uids of dashboards, which links depend on, are fixed."""
    assert {board["uid"] for board in BOARDS.values()} == UIDS == set(BOARDS)


@each_board
def test_grafanas_own_model_knows_every_key(board: Json) -> None:
    """Reading a dashboard with Grafana's SDK and writing it loses no key."""
    assert not list(lost(board, read_and_written(board)))


def test_a_misspelt_key_would_be_found() -> None:
    """A misspelt key is lost by the SDK's model, so the check above finds it."""
    board = json.loads(FILES[0].read_text())
    board["panels"][1]["fieldConfig"]["defaults"]["untit"] = "s"
    assert list(lost(board, read_and_written(board))) == ["/panels/1/fieldConfig/defaults/untit"]


def read_and_written(board: Json) -> Json:
    """Return the SDK's form of a dashboard, without the keys that it does not know."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    read: Json = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    return read


def lost(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield what is in *wanted* and not in *found*."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            if not isinstance(found, dict) or key not in found:
                yield f"{path}/{key}"
            else:
                yield from lost(value, found[key], f"{path}/{key}")
    elif isinstance(wanted, list):
        if len(wanted) != len(found):
            yield path
        for index, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from lost(one, other, f"{path}/{index}")
    elif wanted != found:
        yield path


# ---------------------------------------------------------------- the rules of dashboard-linter


@each_board
def test_the_data_source_is_a_variable(board: Json) -> None:
    """Every panel uses the data source that the reader chose."""
    sources = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    assert [(one["name"], one["label"], one["query"]) for one in sources] == [
        ("datasource", "Data source", "prometheus")
    ]
    marked = re.findall(r'"uid": "([^"]*)"', json.dumps({**board, "uid": "${datasource}"}))
    assert set(marked) == {"${datasource}"}
    for panel in panels(board):
        assert panel["datasource"]["uid"] == "${datasource}"


@each_board
def test_the_other_variables_choose_several_values_and_follow_the_time(board: Json) -> None:
    """Query variables allow several values, all by default, and are refreshed with the time range."""
    variables = {one["name"]: one for one in board["templating"]["list"] if one["type"] == "query"}
    assert list(variables)[:5] == ["cluster", "namespace", "job", "cache", "instance"]
    for name, variable in variables.items():
        assert variable["label"] == name.replace("_", " ")
        assert variable["datasource"]["uid"] == "${datasource}"
        assert (variable["multi"], variable["includeAll"]) == (True, True)
        # All jobs are those that are listed, and not those of others. A label that is not there
        # matches, too.
        every = {"cluster": ".*", "namespace": ".*", "instance": ".+", "redis_instance": ".+"}
        assert variable.get("allValue") == every.get(name), name
        assert variable["refresh"] == 2, "on a change of the time"
        assert re.fullmatch(r"label_values\(\w+(\{.*\})?, \w+\)", variable["query"])


@each_board
def test_every_variable_is_used(board: Json) -> None:
    """No variable of a dashboard is without use."""
    said = json.dumps(board)
    for variable in board["templating"]["list"]:
        assert re.search(rf"\$\{{?{variable['name']}\b", said), variable["name"]


@each_board
def test_every_panel_has_a_title_a_description_a_unit_and_queries(board: Json) -> None:
    """Panels have a title of their own, a description, a known unit and named queries."""
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    for panel in panels(board):
        assert panel["title"]
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references)), panel["title"]


@each_board
def test_generated_dashboards_are_not_edited_by_hand(board: Json) -> None:
    """Dashboards are not editable in Grafana."""
    assert board["editable"] is False


def test_rates_are_taken_over_grafanas_interval_and_counters_are_rates() -> None:
    """Ranges follow Grafana's interval, and each counter is within a rate or an increase."""
    for target in queries():
        ranged = _RANGED.findall(target.expr)
        for function, metric, over in ranged:
            assert function in {"rate", "increase"}, target
            if target.panel == BURN:
                assert (function, over in {"5m", "1h", "6h", "1d", "3d"}) == ("rate", True), target
                continue
            assert over in {"$__rate_interval", "$__range"}, target
            assert function == "increase" or over == "$__rate_interval", target
            assert metric.endswith(("_total", "_bucket", "_sum", "_count")), target
        assert target.expr.count("[") == len(ranged), target
        assert target.instant == ("$__range" in target.expr or target.panel in AT_PRESENT)
        counters = [name for name, _ in _SELECTOR.findall(target.expr) if name.endswith("_total")]
        assert len(counters) == sum(name.endswith("_total") for _, name, _ in ranged), target


def test_every_query_is_limited_to_the_chosen_jobs_caches_and_instances() -> None:
    """Each selector has the matchers of the variables that apply to its metric."""
    for target in queries():
        for metric, matchers in _SELECTOR.findall(target.expr):
            if metric == "ALERTS":
                # What is aggregated has no instance, and Redis has neither cache nor our job.
                assert 'alertname=~"Cache' in matchers
            elif metric.startswith("redis_"):
                # It is redis_exporter's target that has these labels, and not the agent's.
                assert matchers.startswith(
                    'cluster=~"$cluster",job=~"$redis_job",instance=~"$redis_instance"'
                )
            elif metric in AGENT_METRICS:
                assert matchers == OURS.replace('cache=~"$cache",', "")
            else:
                assert matchers.startswith(OURS)


def test_a_selector_asks_for_a_label_that_only_our_metric_has() -> None:
    """Others have metrics of some of our names, even with a label `cache`."""
    labels = {metric.name: metric.labels for metric in names.METRICS}
    for target in queries():
        for metric, matchers in _SELECTOR.findall(target.expr):
            if labels.get(base(metric)):
                assert any(f"{label}=" in matchers or f"{label}!=" in matchers
                           for label in labels[base(metric)]), (metric, matchers)  # fmt: skip


# ---------------------------------------------------------------- and ours


@each_board
def test_only_kinds_of_panels_that_can_be_shown_to_work(board: Json) -> None:
    """Dashboards use only the panel types whose results are tested."""
    kinds = {panel["type"] for panel in board["panels"]}
    assert kinds <= {"row", "stat", "timeseries", "bargauge", "table"}


@each_board
def test_panels_have_an_id_each_and_do_not_overlap(board: Json) -> None:
    """Panel ids are unique, and no two panels overlap on the grid."""
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@each_board
def test_every_line_of_panels_fills_the_grid(board: Json) -> None:
    """The panels of a row have one height and 24 columns together."""
    lines: dict[int, list[Json]] = {}
    for panel in board["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    for y, places in lines.items():
        assert sum(place["w"] for place in places) == 24, y
        assert len({place["h"] for place in places}) == 1, y


@each_board
def test_every_panel_leads_to_another_dashboard_and_the_dashboards_to_each_other(
    board: Json,
) -> None:
    """Panels link to another dashboard, and dashboards to their siblings, with time and variables."""
    for panel in panels(board):
        (link,) = panel["links"]
        led = re.fullmatch(
            r"/d/([\w-]+)\?\$\{__url_time_range\}&\$\{__all_variables\}", link["url"]
        )
        assert led is not None
        assert led[1] in UIDS - {board["uid"]}, panel["title"]
    (siblings,) = board["links"]
    assert (siblings["type"], siblings["tags"]) == ("dashboards", ["glasscache"])
    assert (siblings["includeVars"], siblings["keepTime"]) == (True, True)
    assert board["tags"] == ["glasscache"]
    assert "placement" not in siblings, "in a menu nobody would find them"


@each_board
def test_alerts_and_changes_of_the_tuning_are_marked_on_the_graphs(board: Json) -> None:
    """Annotations for alerts and tuning changes are on."""
    notes = {note["name"]: note for note in board["annotations"]["list"]}
    assert "ALERTS" in notes["Alerts"]["expr"]
    assert "changes(cache_tuning_version" in notes["Tuning"]["expr"]
    for note in notes.values():
        assert note["enable"]
        assert note["target"]["expr"] == note["expr"]


@each_board
def test_thresholds_rise_and_the_first_colour_has_no_bound(board: Json) -> None:
    """Threshold steps are sorted, and the first one has no lower bound."""
    for panel in panels(board):
        first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert first["value"] is None
        values = [step["value"] for step in others]
        assert values == sorted(values), panel["title"]


def test_every_metric_is_one_of_ours_or_one_of_redis_exporter() -> None:
    """Queries use exported metrics only, each with matchers."""
    known = {metric.name for metric in names.METRICS} | REDIS_METRICS | AGENT_METRICS | {"ALERTS"}
    used: set[str] = set()
    for expr in expressions():
        selected = {metric for metric, _ in _SELECTOR.findall(expr)}
        assert mentioned(expr) == selected, "a metric without matchers, or of a recording rule"
        used |= {base(metric) for metric in selected}
    assert used <= known
    assert used >= REDIS_METRICS, "named here, and not used"


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    """Every metric of the cache is shown somewhere."""
    used = {base(name) for expr in expressions() for name, _ in _SELECTOR.findall(expr)}
    unseen = {metric.name for metric in names.METRICS} - used
    # One is for rules that join it with redis_exporter, one begins at 0 with each deploy, and what
    # an endpoint's tokens cost is in cache_spent_usd_total.
    assert unseen == {
        "cache_redis_server", "cache_cost_saved_usd", "cache_embedding_tokens_total",
    }  # fmt: skip


def test_a_number_is_of_now_or_of_the_whole_time() -> None:
    """No number is the last one of a series that has ended: a server that is gone is not "up"."""
    for board in BOARDS.values():
        for panel in panels(board):
            if panel["type"] == "stat":
                for target in panel["targets"]:
                    always = target["expr"].endswith(" or vector(0)")
                    assert target.get("instant", False) != always, panel["title"]


def test_counts_have_no_decimals() -> None:
    """An axis of a count has whole numbers only: there is no half of a replica."""
    for board in BOARDS.values():
        for panel in panels(board):
            defaults = panel["fieldConfig"]["defaults"]
            if (panel["type"], defaults["unit"]) == ("timeseries", "none"):
                cores = panel["title"] == "Are agents short of CPU?"
                assert (defaults.get("decimals") == 0) != cores, panel["title"]


def test_the_overall_hit_rate_comes_from_lookups() -> None:
    """The overview computes the hit rate from the outcomes of lookups, without bypasses."""
    by = "sum by (cluster, namespace, job, cache)"
    wanted = (
        f'{by} (rate(cache_lookups_total{{{OURS},outcome="hit"}}[$__rate_interval])) / ({by} (rate('
        f'cache_lookups_total{{{OURS},outcome=~"hit|partial|miss|error"}}[$__rate_interval])) > 0)'
    )
    overview = [target.expr for target in targets(BOARDS["glasscache-overview"])]
    assert wanted in overview
    shown = wanted.replace("rate(", "increase(").replace("$__rate_interval", "$__range")
    assert any(shown in expr for expr in overview)


def test_the_overview_changes_colour_where_alerts_do() -> None:
    """Each coloured number is red from the limit of its alert on, or below its cache's objective."""
    rules = yaml.safe_load((ROOT / "alerts/recording.yml").read_text())["groups"][0]["rules"]
    limits = {
        rule["labels"]["limit"]: float(rule["expr"][7:-1])
        for rule in rules
        if rule["record"] == "glasscache:limit"
    }
    overview = {one["title"]: one for one in panels(BOARDS["glasscache-overview"])}

    def steps(title: str) -> list[tuple[float | None, str]]:
        found = overview[title]["fieldConfig"]["defaults"]["thresholds"]["steps"]
        return [(step["value"], step["color"]) for step in found]

    assert steps("Furthest from objective") == [(None, "red"), (0, "green")]
    for title, limit in (
        ("Lookup time, p99", "latency_p99_seconds"),
        ("How long does a lookup take?", "latency_p99_seconds"),
        ("Wrong hits, at least", "wrong_hit_ratio"),
    ):
        assert steps(title) == [(None, "green"), (limits[limit], "red")]
    assert limits["availability"] == queries_shared.AVAILABILITY


def test_quantiles_of_latencies_have_exemplars_and_nothing_else_has() -> None:
    """Exemplars are asked for exactly where the quantile of a metric that has them is shown."""
    having = r"cache_(lookup|latency|embedding)_seconds_bucket"
    for target in queries():
        timed = re.search(rf"histogram_quantile.*{having}", target.expr)
        is_latency = timed is not None and not target.instant  # only time graphs have dots
        assert target.exemplar == is_latency, target


def test_what_replicas_share_is_not_added_up() -> None:
    """Gauges that all replicas report of one thing are combined by `max`."""
    for expr in expressions():
        for gauge in ("cache_entries{", "cache_semantic_threshold{", "cache_ttl_seconds{"):
            largest = re.findall(r"max by \([\w, ]+\) \(" + gauge, expr)
            assert len(largest) == expr.count(gauge), expr


def test_the_bars_of_the_similarities_are_buckets_of_the_metric() -> None:
    """The bounds that are shown are buckets of the histogram."""
    from telemetry.buckets import SIMILARITIES

    used = {
        float(bound) for target in queries() for bound in re.findall(r'le="([\d.]+)"', target.expr)
    }
    assert used <= set(SIMILARITIES)


def test_what_went_wrong_is_red_and_what_the_cache_is_for_is_green() -> None:
    """Colours have a meaning, and the same one on every dashboard."""
    shown: dict[str, set[str]] = {}
    for board in BOARDS.values():
        for panel in panels(board):
            for override in panel["fieldConfig"].get("overrides", ()):
                if override["matcher"]["id"] == "byName":
                    if panel["type"] == "table":
                        continue
                    (color,) = [one["value"] for one in override["properties"]]
                    shown.setdefault(override["matcher"]["options"], set()).add(color["fixedColor"])
    assert all(len(colors) == 1 for colors in shown.values()), shown
    assert (shown["hit"], shown["error"], shown["wrong (verify)"]) == ({"green"}, {"red"}, {"red"})


def test_every_kind_that_a_panel_splits_by_has_a_colour() -> None:
    """Reasons for a miss and kinds of invalidations do not get an arbitrary colour."""
    assert set(MISS_REASONS) <= COLORS.keys()
    assert {f"by {kind}" for kind in get_args(RequestKind)} <= COLORS.keys()


def test_an_alert_on_a_dashboard_opens_its_runbook() -> None:
    """Each firing alert on the overview links to its runbook."""
    overview = panels(BOARDS["glasscache-overview"])
    (alerts,) = [one for one in overview if one["title"] == "Which alerts fire?"]
    (link,) = alerts["fieldConfig"]["defaults"]["links"]
    assert link["url"] == (
        "https://github.com/glasscache/glasscache/blob/main/docs/runbooks/"
        "${__field.labels.alertname}.md"
    )
    assert {"alertname"} == set(re.findall(r"count by \((\w+)\)", alerts["targets"][0]["expr"]))


def test_no_file_holds_what_one_installation_gave_it() -> None:
    """Dashboards have no id, version or inputs of one Grafana."""
    for board in BOARDS.values():
        assert not {"id", "version", "__inputs"} & set(board)


# ---------------------------------------------------------------- provisioning and documentation


def test_the_provisioned_data_source_opens_the_trace_of_an_exemplar() -> None:
    """The data source links the label `trace_id` to a provisioned trace store."""
    file = ROOT / "grafana/provisioning/datasources/glasscache.yml"
    sources = {one["uid"]: one for one in yaml.safe_load(file.read_text())["datasources"]}
    prometheus = sources["glasscache-prometheus"]
    assert (prometheus["isDefault"], prometheus["type"]) == (False, "prometheus"), (
        "beside another default Grafana does not start"
    )
    (destination,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["name"] == "trace_id", "the exemplars' label"
    assert destination["datasourceUid"] in set(sources) - {"glasscache-prometheus"}


def test_the_provisioned_dashboards_are_read_only_files() -> None:
    """Dashboards are provisioned from files, and the UI cannot save them."""
    file = ROOT / "grafana/provisioning/dashboards/glasscache.yml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    assert Path(provider["options"]["path"]).is_absolute()


def test_the_documentation_names_every_dashboard_and_every_section() -> None:
    """docs/dashboards.md has every uid and every section title."""
    said = (ROOT / "docs/dashboards.md").read_text()
    for board in BOARDS.values():
        assert f"`{board['uid']}`" in said
        for panel in board["panels"]:
            assert panel["type"] != "row" or panel["title"] in said, panel["title"]


def test_the_documentation_shows_every_dashboard_and_says_how_it_was_drawn() -> None:
    """docs/dashboards.md has a picture of each dashboard, and says that it is drawn."""
    text = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    assert "Not a screenshot of Grafana" in text
    for uid in UIDS:
        assert f"(images/dashboards/{uid}.png)" in text
        size = (ROOT / "docs" / "images" / "dashboards" / f"{uid}.png").stat().st_size
        assert 20_000 < size < 250_000


# ---------------------------------------------------------------- against a live Prometheus


@pytest.mark.server
@pytest.mark.timeout(120)
def test_every_panel_shows_something(live: tuple[Prometheus, str]) -> None:
    """On a live Prometheus every query returns numbers."""
    prometheus, _ = live
    assert [target for target in queries() if not prometheus.numbers(target)] == []


@pytest.mark.server
def test_every_query_of_a_latency_has_traces_behind_it(live: tuple[Prometheus, str]) -> None:
    """On a live Prometheus every latency query has exemplars with trace ids."""
    prometheus, _ = live
    asked = [target for target in queries() if target.exemplar]
    assert asked
    for target in asked:
        labels = prometheus.exemplars(target)
        assert labels, target
        assert all(re.fullmatch(r"[0-9a-f]{32}", one["trace_id"]) for one in labels)


@pytest.mark.server
def test_alerts_that_only_silence_others_are_not_counted(live: tuple[Prometheus, str]) -> None:
    """The count of firing alerts leaves out alerts that exist for inhibition alone."""
    prometheus, _ = live
    (firing,) = [one for one in queries() if one.panel == "Alerts firing"]
    assert max(prometheus.numbers(firing)) == 1, "each name once, and not what only silences"


@pytest.mark.server
def test_a_process_with_two_caches_is_counted_once(live: tuple[Prometheus, str]) -> None:
    """Processes are counted, and not their caches."""
    prometheus, _ = live
    counting = {"Releases running", "How many processes reach each backend?"}
    asked = [target for target in queries() if target.panel in counting]
    assert [max(prometheus.numbers(target)) for target in asked] == [1, 1]


@pytest.mark.server
def test_a_backend_is_down_if_half_of_the_processes_lack_it(tmp_path: Path) -> None:
    """A process lacks a backend as soon as one of its caches does, and counts once."""
    promtool = servers.require("promtool")
    up: dict[str, dict[str, tuple[int, ...]]] = {
        "redis": {"a": (0, 1, 1), "b": (1, 1, 1)},  # half of the processes
        "chroma": {"a": (0,), "b": (1,), "c": (1,)},  # one of three
    }
    series = [
        {"series": f'cache_backend_up{{job="agent",instance="{instance}",cache="{number}",'
                   f'backend="{backend}"}}', "values": str(value)}
        for backend, processes in up.items()
        for instance, values in processes.items()
        for number, value in enumerate(values)
    ]  # fmt: skip
    (down,) = [one for one in queries() if one.panel == "Backends down"]
    expr = Prometheus("", 1.0, time.time()).filled(down.expr, {})
    expected = {"expr": expr, "eval_time": "0s", "exp_samples": [{"labels": "{}", "value": 1}]}
    file = tmp_path / "down.yml"
    file.write_text(yaml.safe_dump({"tests": [
        {"interval": "1s", "input_series": series, "promql_expr_test": [expected]}
    ]}))  # fmt: skip
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.server
@pytest.mark.parametrize(("wrong", "verified"), [(0, 100), (3, 120), (40, 40)])
def test_the_ends_of_the_interval_are_wilsons(
    live: tuple[Prometheus, str], wrong: int, verified: int
) -> None:
    """At least and at most: as the textbook has it, within 0..1, around what was found."""
    prometheus, _ = live
    share, z = wrong / verified, 1.96
    middle = (share + z**2 / (2 * verified)) / (1 + z**2 / verified)
    spread = z * math.sqrt(share * (1 - share) / verified + z**2 / (4 * verified**2))
    spread /= 1 + z**2 / verified
    for sign, end in (("-", middle - spread), ("+", middle + spread)):
        asked = queries_shared.wilson(f"vector({wrong})", f"vector({verified})", sign)
        (found,) = prometheus.get("query", query=asked)["result"]
        assert float(found["value"][1]) == pytest.approx(end, abs=1e-4)
    nothing = queries_shared.wilson("vector(0)", "vector(0)", "-")
    assert prometheus.get("query", query=nothing)["result"] == []


@pytest.mark.server
def test_all_is_what_is_listed(live: tuple[Prometheus, str]) -> None:
    """Other services' metrics of the same names are left out, as in Grafana."""
    prometheus, _ = live
    (memory,) = [one for one in queries() if one.panel == "How much memory do agents use?"]
    listed = prometheus.all_of(BOARDS["glasscache-overview"], {})
    assert (listed["job"], listed["cache"], listed["cluster"]) == ("agent", "faq|shop", ".*")
    jobs = [
        {one["metric"]["job"] for one in prometheus.get("query", query=expr)["result"]}
        for expr in (prometheus.filled(memory.expr, chosen) for chosen in ({}, listed))
    ]
    assert jobs == [{"agent", "redis"}, {"agent"}]


@pytest.mark.server
@each_board
def test_every_variable_has_values(live: tuple[Prometheus, str], board: Json) -> None:
    """On a live Prometheus every variable finds its values."""
    prometheus, _ = live
    chosen: dict[str, str] = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = prometheus.values(variable["query"], chosen)
            if variable["name"] in {"cluster", "namespace"}:
                assert found == [], "this Prometheus gives its targets no such labels"
                continue
            wanted = ["faq", "shop"] if variable["name"] == "cache" else found[:1]
            assert found == wanted != [], variable["name"]
            chosen[variable["name"]] = found[-1]
    assert (chosen["job"], chosen["cache"]) == ("agent", "shop")
    if "redis_job" in chosen:
        assert chosen["redis_job"] == "redis"


@pytest.mark.server
def test_every_annotation_marks_what_happened(live: tuple[Prometheus, str]) -> None:
    """On a live Prometheus every annotation has an event, with the labels that its text names."""
    prometheus, _ = live
    (notes,) = {
        json.dumps(board["annotations"]["list"], sort_keys=True) for board in BOARDS.values()
    }
    for note in json.loads(notes):
        asked = Target("", note["name"], note["expr"], exemplar=False, instant=False)
        assert prometheus.numbers(asked), note["name"]
        labels = set(re.findall(r"\{\{(\w+)\}\}", note["titleFormat"]))
        found = prometheus.get(
            "query_range",
            query=prometheus.filled(note["expr"], {}),
            start=prometheus.start,
            end=time.time(),
            step=1,
        )["result"]
        assert found, note["name"]
        assert all(labels <= set(one["metric"]) for one in found), note["name"]


@pytest.mark.server
def test_a_redis_without_a_limit_of_its_memory_is_not_infinitely_full(
    live: tuple[Prometheus, str],
) -> None:
    """Without `maxmemory` the panel says so, instead of infinity."""
    prometheus, url = live
    (memory,) = [one for one in queries() if one.panel == "Memory used"]
    with servers.admin(url) as client:
        client.config_set("maxmemory", 0)
        unlimited = "redis_memory_max_bytes == 0"
        wait_until(lambda: prometheus.get("query", query=unlimited)["result"], unlimited)
        assert prometheus.numbers(memory) == [-2]
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "64mb")
        wait_until(lambda: prometheus.numbers(memory) == [-1], "all servers evict")
        client.config_set("maxmemory-policy", "noeviction")
        wait_until(lambda: 0 < prometheus.numbers(memory)[0] < 1, "the share of the limit")


@pytest.mark.server
def test_the_command_says_which_panels_are_empty(live: tuple[Prometheus, str]) -> None:
    """`grafana.live` reports how many queries have data."""
    prometheus, _ = live
    hours = str((time.time() - prometheus.start) / 3_600)
    done = subprocess.run(
        [sys.executable, "-m", "grafana.live", prometheus.url, "--scrape", "1", "--hours", hours],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"(\d+) of \1 queries have data\n", done.stdout)
