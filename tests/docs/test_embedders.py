"""The recipes of docs/embedders.md, run as they are written, against a real endpoint."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.endpoint import embedding_server
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "embedders.md").read_text(encoding="utf-8")
ENDPOINT, FUNCTION = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
VARIABLES = dict(
    re.findall(r"\b([A-Z_]+)=(\S+)", re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)[0])
)


@pytest.mark.slow
async def test_the_recipe_of_an_endpoint(tmp_path: Path) -> None:
    """Its variables and its code find a rephrased question by the endpoint's vectors."""
    assert {"EMBEDDING_URL", "EMBEDDING_MODEL", "EMBEDDING_API_KEY"} <= VARIABLES.keys()
    async with embedding_server() as server:
        budgets = {
            name: processes.ENVIRONMENT[name] for name in VARIABLES.keys() & processes.ENVIRONMENT
        }
        environment = {**VARIABLES, **budgets, "EMBEDDING_URL": server.url}
        shown = await asyncio.to_thread(processes.run, ENDPOINT, tmp_path, **environment)
    assert shown == "From nine.\n"
    assert server.headers[0]["authorization"] == "Bearer ..."
    assert {request["model"] for request in server.requests} == {"text-embedding-3-small"}


@pytest.mark.slow
def test_the_recipe_of_a_function(tmp_path: Path) -> None:
    """The function's vectors find a rephrased question."""
    assert processes.run(FUNCTION, tmp_path) == "From nine.\n"
