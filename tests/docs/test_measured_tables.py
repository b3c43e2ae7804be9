"""The measured tables in the documentation are as the commands write them, and complete."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.paths import ROOT


@pytest.fixture
def commands() -> tuple[ModuleType, ModuleType, ModuleType]:
    from benchmarks import faults
    from benchmarks.peers import faults as peers
    from benchmarks.support import docs_table

    return faults, peers, docs_table


def _rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_faults_names_each_with_its_figures(commands) -> None:
    """The documented table of faults has every scenario, no exception and no wrong answer."""
    faults, _, docs = commands
    rows = _rows(docs.between(docs.RELIABILITY.read_text(encoding="utf-8"), "faults"))
    assert rows[0] == list(faults.HEADER)
    named = [row[0] for row in rows[2:]]
    assert named == [f"{one.name} ({one.what})" for one in faults.SCENARIOS]
    columns = faults.HEADER
    for row in rows[2:]:
        assert len(row) == len(columns)
        assert int(row[columns.index("lookups")]) > 0
        assert row[columns.index("exceptions")] == row[columns.index("wrong")] == "0"


def test_the_comparison_names_each_fault_and_each_cache(commands) -> None:
    """The documented comparison has every fault, and every cache within it."""
    _, peers, docs = commands
    rows = _rows(docs.between(docs.RELIABILITY.read_text(encoding="utf-8"), "peers"))
    assert rows[0] == list(peers.HEADER)
    caches = list(peers.PEERS)
    body = rows[2:]
    assert [row[0] for row in body[:: len(caches)]] == [one.name for one in peers.COMPARED]
    assert {row[1].strip("*") for row in body} == set(caches)


def test_what_a_command_writes_is_read_back(commands, tmp_path: Path) -> None:
    """A table is written between its markers, and nothing else on the page changes."""
    _, _, docs = commands
    path = tmp_path / "page.md"
    begin, end = docs.markers("faults")
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    docs.write(path, "faults", docs.markdown(["a", "b"], [["1", "2"]]))
    text = path.read_text()
    assert docs.between(text, "faults") == "| a | b |\n|---|---:|\n| 1 | 2 |"
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    docs.write(path, "faults", "new")
    assert docs.between(path.read_text(), "faults") == "new"


def test_a_page_without_markers_is_refused(commands, tmp_path: Path) -> None:
    """Writing to a page that has no markers is an error."""
    _, _, docs = commands
    path = tmp_path / "page.md"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="markers"):
        docs.write(path, "faults", "new")


def test_the_tables_of_lookups_are_complete(
    commands: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    """Each has the header that its command writes, a row for each contender, and its baseline 1."""
    docs = commands[2]
    from benchmarks import lookup

    text = docs.PERFORMANCE.read_text(encoding="utf-8")
    exact, semantic = (_rows(docs.between(text, name)) for name in ("exact", "semantic"))
    assert exact[0] == list(lookup.EXACT_HEADER)
    assert [exact[2][0], exact[2][2], exact[2][4]] == ["raw GET", "1.00", "1.00"]
    assert {"L1 hit, metrics", "L1 hit, metrics, unsampled"} <= {row[0] for row in exact}
    assert semantic[0] == list(lookup.SEMANTIC_HEADER)
    assert [semantic[2][0], semantic[2][3]] == ["bare embedding", "1.00"]


def test_the_table_of_adapters_is_complete(
    commands: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    """It has the header that its command writes, its baseline 1, and each adapter with its ratio."""
    docs = commands[2]
    from benchmarks import adapters

    rows = _rows(docs.between(docs.PERFORMANCE.read_text(encoding="utf-8"), "adapters"))
    assert rows[0] == list(adapters.HEADER)
    assert [rows[2][0], rows[2][2]] == [adapters.BASELINE, "1.0 (1.0-1.0)"]
    named = " ".join(row[0] for row in rows[3:]).lower()
    for each in ("agents sdk", "blocking", "langchain", "langgraph", "litellm", "mcp", "openai",
                 "proxy", "pydanticai", "decorator"):  # fmt: skip
        assert each in named
    assert all(float(row[2].split()[0]) > 1 for row in rows[3:])


def test_the_comparison_of_lookups_is_as_recorded(
    commands: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    """Chart and table are those of the recorded results, with every cache measured or explained."""
    from benchmarks.peers import chart, report
    from benchmarks.peers.lookup_worker import CONTENDERS

    found = json.loads(report.RECORDED.read_text("utf-8"))
    documented = commands[2].between(commands[2].PERFORMANCE.read_text("utf-8"), "peers")
    assert documented == f"{chart.html(found)}\n\n{report.body(found)}"
    named = [each["title"] for each in (*found["contenders"], *found["left_out"])]
    assert sorted(named) == sorted(each.title for each in CONTENDERS.values())
    assert all(each["reason"] for each in found["left_out"])


def test_the_figures_of_scaling_are_as_recorded(
    commands: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    """Hit rates, constants and what they add up to are those of the recorded results."""
    from benchmarks import scaling, zipf

    between, page = commands[2].between, commands[2].SCALING.read_text("utf-8")
    assert between(page, "zipf") == zipf.body(json.loads(zipf.RECORDED.read_text("utf-8")))
    found = json.loads(scaling.RECORDED.read_text("utf-8"))
    assert between(page, "constants") == scaling.constants_table(found)
    assert between(page, "plan") == scaling.plan_table(found)
    growth = json.loads((commands[2].MEASURED / "growth-chroma.json").read_text("utf-8"))
    assert between(page, "paper") == scaling.paper_table(found, growth)


def test_the_tables_of_growth_are_as_recorded(
    commands: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    """Each recorded vector engine has its table, in which every question was found."""
    from benchmarks import growth

    _, _, docs = commands
    recorded = sorted(docs.MEASURED.glob("growth-*.json"))
    assert recorded
    for path in recorded:
        found = json.loads(path.read_text("utf-8"))
        documented = docs.between(docs.SCALING.read_text("utf-8"), path.stem)
        assert documented == growth.table(found)


@pytest.mark.parametrize("page", ["performance", "scaling"])
def test_every_chart_is_drawn_for_both_themes_and_described(page: str) -> None:
    """Each chart has a picture for light and for dark pages, and a text for those who see none."""
    shown = re.findall(
        r'srcset="([^"]+)">\s*<img alt="([^"]*)" src="([^"]+)"',
        (ROOT / f"docs/{page}.md").read_text(),
    )
    assert shown
    for dark, alt, light in shown:
        assert len(alt) > 40
        for picture in (dark, light):
            assert "</svg>" in (ROOT / "docs" / picture).read_text("utf-8")


def test_the_curves_of_the_policies_are_as_recorded(
    commands: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    """Picture and tables are those of the recorded results, and the learned policy is above."""
    from benchmarks.policy import chart
    from benchmarks.policy.__main__ import RECORDED

    docs = commands[2]
    found = json.loads(RECORDED.read_text("utf-8"))
    documented = docs.between(docs.ANSWER_QUALITY.read_text("utf-8"), chart.NAME)
    assert documented == chart.body(found)
    for policy, better in (("threshold", "guarded"), ("guarded", "learned")):
        assert _hits_within(found[policy]) < _hits_within(found[better])


def _hits_within(points: list[dict[str, float]], wrong: float = 0.007) -> float:
    return max(point["hit_rate"] for point in points if point["wrong_share"] <= wrong)
