"""The measured tables in the documentation are as the commands write them, and complete."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import _docs_table
    import faults
    import peers

    return faults, peers, _docs_table


def _rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_faults_names_each_with_its_figures(commands) -> None:
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
    _, peers, docs = commands
    rows = _rows(docs.between(docs.RELIABILITY.read_text(encoding="utf-8"), "peers"))
    assert rows[0] == list(peers.HEADER)
    caches = list(peers.PEERS)
    body = rows[2:]
    assert [row[0] for row in body[:: len(caches)]] == [one.name for one in peers.COMPARED]
    assert {row[1].strip("*") for row in body} == set(caches)


def test_what_a_command_writes_is_read_back(commands, tmp_path: Path) -> None:
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
    import lookup

    text = docs.PERFORMANCE.read_text(encoding="utf-8")
    exact, semantic = (_rows(docs.between(text, name)) for name in ("exact", "semantic"))
    assert exact[0] == list(lookup.EXACT_HEADER)
    assert [exact[2][0], exact[2][2], exact[2][4]] == ["raw GET", "1.00", "1.00"]
    assert {"L1 hit, metrics", "L1 hit, metrics, unsampled"} <= {row[0] for row in exact}
    assert semantic[0] == list(lookup.SEMANTIC_HEADER)
    assert [semantic[2][0], semantic[2][3]] == ["bare embedding", "1.00"]
