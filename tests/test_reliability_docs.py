"""The tables of docs/reliability.md are as the commands write them, and name every fault."""

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
