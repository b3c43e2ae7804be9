"""LangGraph's node cache on the cache."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest

from glasscache import MultiLevelCache
from glasscache.integrations.gate import Gate, as_user
from tests.support.modules import import_or_skip

adapter = import_or_skip("glasscache.integrations.langgraph")
graphs = import_or_skip("langgraph.graph")
types = import_or_skip("langgraph.types")


class State(TypedDict):
    question: str
    documents: list[str]


def graph_on(gate: Gate, calls: list[str]) -> Any:
    def retrieve(state: State) -> dict[str, Any]:
        calls.append(state["question"])
        return {"documents": [f"about {state['question']}"]}

    builder = graphs.StateGraph(State)
    policy = types.CachePolicy(ttl=60)
    builder.add_node("retrieve", retrieve, cache_policy=policy)
    builder.add_edge(graphs.START, "retrieve")
    return builder.compile(cache=adapter.GlasscacheNodeCache(gate))


async def test_a_node_runs_once_for_its_user(plain_cache: MultiLevelCache) -> None:
    """Sync and async runs share a node's result; another user, or none, has it computed."""
    calls: list[str] = []
    graph = graph_on(Gate(plain_cache), calls)
    with as_user("ann"):
        first = await graph.ainvoke({"question": "x"})
        assert await asyncio.to_thread(graph.invoke, {"question": "x"}) == first
    assert first["documents"] == ["about x"]
    assert calls == ["x"]
    with as_user("bob"):
        await graph.ainvoke({"question": "x"})
    await graph.ainvoke({"question": "x"})
    assert calls == ["x"] * 3


async def test_results_are_shared_and_cleared(plain_cache: MultiLevelCache) -> None:
    """With shared=True all users share them; clearing invalidates them."""
    calls: list[str] = []
    graph = graph_on(Gate(plain_cache, shared=True), calls)
    with as_user("ann"):
        await graph.ainvoke({"question": "x"})
    await graph.ainvoke({"question": "x"})
    assert calls == ["x"]
    await graph.aclear_cache()
    await graph.ainvoke({"question": "x"})
    assert calls == ["x"] * 2


@pytest.mark.parametrize("value", [{"a": {1, 2}}, b"bytes", [{"x": None}], "text"])
async def test_values_come_back_as_they_were(plain_cache: MultiLevelCache, value: Any) -> None:
    """A value of LangGraph's serializer is equal, and has a TTL of its own."""
    store = adapter.GlasscacheNodeCache(Gate(plain_cache, shared=True))
    key = (("place", "node"), "k")
    await store.aset({key: (value, 60)})
    assert await store.aget([key, (("place", "node"), "other")]) == {key: value}
    await store.aclear([("another",)])
    assert await store.aget([key]) == {key: value}
    await store.aclear([("place", "node")])
    assert await store.aget([key]) == {}
