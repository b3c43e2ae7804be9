"""docs/integrations.md: every program in it runs, and asks the model once for each answer."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from benchmarks.support import docs_table
from glasscache.testing import FakeModel
from tests.support import contract_table, processes
from tests.support.modules import import_or_skip
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## ([^\n]+)\n|```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)


def programs() -> list[tuple[str, str]]:
    """Return each program with the title of its section."""
    found, title = [], ""
    for heading, code in BLOCKS:
        title = heading or title
        if code:
            found.append((title, code))
    return found


CALLS = {"Whose answer it is": 2, "OpenAI's client": 2, "MCP": 0}
"""Requests that reach the model, where it is not one."""

THEN = {
    "FastAPI": """
from fastapi.testclient import TestClient

with TestClient(app) as client:
    for _ in range(2):
        print(client.get("/ask", params={"question": "When do you open?"}).json())
"""
}
"""Code that follows a program that serves."""

NEEDS = {"OpenAI's client": "openai", "LangChain": "langchain_openai", "LangGraph": "langgraph",
         "OpenAI's Agents SDK": "agents", "PydanticAI": "pydantic_ai", "LiteLLM": "litellm",
         "MCP": "mcp.client.caching"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "code"), programs(), ids=[title.replace(" ", "-") for title, _ in programs()]
)
def test_a_program_runs(title: str, code: str, tmp_path: Path) -> None:
    """The second of two equal questions is answered by the cache."""
    if title != "LiteLLM":  # its import asks the network
        import_or_skip(NEEDS.get(title, "openai"))
    with FakeModel() as model:
        printed = processes.run(
            code + THEN.get(title, ""), tmp_path, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="k",
            OPENAI_API_BASE=model.url, CACHE_TIERS="l1", LITELLM_LOCAL_MODEL_COST_MAP="True",
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        )  # fmt: skip
    assert model.calls == CALLS.get(title, 1)
    lines = [line for line in printed.splitlines() if line]
    if title not in CALLS:
        assert len(lines) == 2
        assert lines[0] == lines[1]


def test_the_page_names_what_is_tested() -> None:
    """Every section of the table exists, and every reason of the contract is in the page."""
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
               for title, _ in BLOCKS if title}  # fmt: skip
    assert set(re.findall(r"^\| \[.*?\]\(#(.*?)\)", TEXT, re.MULTILINE)) <= anchors
    for reason in ("not_users_turn", "not_text", "stateful", "several_answers", "opaque",
                   "declined", "tool_calls", "refused", "cut_short"):  # fmt: skip
        assert f"`{reason}`" in TEXT


def test_the_table_of_rules_has_every_adapter_and_every_rule() -> None:
    """Rules and rows are those of the suite; each row is checked by the adapter's own tests."""
    written = docs_table.between(TEXT, contract_table.NAME)
    rules = contract_table.legend()
    assert written.splitlines()[: len(rules)] == rules
    of_suite = re.compile(
        r"^class Test\w+\((?:AdapterContract|Streams)\):\n    \"{3}(.*)\.\"{3}$", re.MULTILINE
    )
    titles = [found for path in contract_table.FOLDER.glob("test_*.py")
              for found in of_suite.findall(path.read_text(encoding="utf-8"))]  # fmt: skip
    rows = contract_table.documented()
    assert sorted(rows) == sorted(titles)
    assert all(len(row.cells) == len(rules) + 1 for row in rows.values())
