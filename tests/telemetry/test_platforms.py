"""The recipes of docs/platforms.md: what their variables send, to receivers of each protocol."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.collector import Collector, collector, grpc_collector
from tests.support.paths import ROOT

AGENT = """
import asyncio
from opentelemetry import trace
from glasscache import MultiLevelCache, telemetry
from glasscache.testing import HashEmbedder

async def compute(found):
    return "Click the link."

async def main():
    sent = telemetry.configure("shop-agent")
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        with trace.get_tracer("agent").start_as_current_span("support agent"):
            await cache.get_or_compute("how do I reset my password", "ann", compute)
        found = await cache.lookup("how do I reset my password", "ann")
    assert sent.shutdown()
    print(found.lookup_id)

asyncio.run(main())
"""


RECEIVERS: dict[str, Callable[[], AbstractContextManager[Collector]]] = {
    "http://localhost:4318": collector,
    "http://localhost:4317": grpc_collector,
}
"""The collectors of the protocols, by the address at which Jaeger takes each."""


def recipes(platform: str) -> list[dict[str, str]]:
    """Return the variables of each block of a platform's section."""
    page = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {platform}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    found = [dict(re.findall(r"^export (\w+)=(\S+)$", block, re.MULTILINE)) for block in blocks]
    return [variables for variables in found if variables]


@pytest.mark.parametrize("number", [0, 1], ids=["http", "grpc"])
def test_jaeger_gets_the_tree_and_the_tags_that_are_searched(number: int, tmp_path: Path) -> None:
    """Over HTTP and gRPC: the service, a miss below the agent's span, and the id of a lookup."""
    variables = recipes("Jaeger")[number]
    with RECEIVERS[variables["OTEL_EXPORTER_OTLP_ENDPOINT"]]() as received:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = received.url
        lookup_id = processes.run(AGENT, tmp_path, **variables).strip()
    assert {span.resource["service.name"] for span in received.spans} == {"shop-agent"}
    found = {
        (span.attributes["cache.lookup_id"] == lookup_id, span.attributes["cache.outcome"])
        for span in received.named("cache.lookup")
    }
    assert found == {(False, "miss"), (True, "hit")}
    (computed,) = received.named("cache.compute")
    assert received.ancestors(computed) == ["support agent"]
