"""MCP's response cache on the cache."""

from __future__ import annotations

import time

from glasscache import MultiLevelCache
from glasscache.integrations.gate import Gate
from tests.support.modules import import_or_skip

adapter = import_or_skip("glasscache.integrations.mcp")
caching = import_or_skip("mcp.client.caching")
mcp_types = import_or_skip("mcp_types")
servers = import_or_skip("mcp.server")
clients = import_or_skip("mcp")


def tools_list() -> object:
    tool = mcp_types.Tool(name="look_up", input_schema={"type": "object"})
    return mcp_types.ListToolsResult(tools=[tool], ttl_ms=60_000, cache_scope="private")


async def test_a_response_is_its_partitions(plain_cache: MultiLevelCache) -> None:
    """A response comes back as its type, for its method, parameters and partition alone."""
    store = adapter.GlasscacheResponseStore(Gate(plain_cache))
    key = caching.CacheKey("tools/list", "", "ann")
    entry = caching.CacheEntry(tools_list(), "private", time.time() + 60)
    await store.set(key, entry)
    assert await store.get(key) == entry
    for other in (
        ("tools/list", "", "bob"),
        ("tools/list", "x", "ann"),
        ("prompts/list", "", "ann"),
    ):
        assert await store.get(caching.CacheKey(*other)) is None


async def test_deleting_and_clearing(plain_cache: MultiLevelCache) -> None:
    """A deleted response is not served, others are; clearing takes all; a stale one is not stored."""
    store = adapter.GlasscacheResponseStore(Gate(plain_cache))
    one, other = (caching.CacheKey("resources/read", uri, "ann") for uri in ("a://1", "a://2"))
    entry = caching.CacheEntry(tools_list(), "private", time.time() + 60)
    await store.set(one, entry)
    await store.set(other, entry)
    await store.delete(one)
    assert await store.get(one) is None
    assert await store.get(other) == entry
    await store.clear()
    assert await store.get(other) is None
    await store.set(one, caching.CacheEntry(tools_list(), "private", time.time() - 1))
    assert await store.get(one) is None


async def test_a_client_lists_tools_once(plain_cache: MultiLevelCache) -> None:
    """Clients of one partition share a server's list of tools; another partition asks for it."""
    asked = []

    async def list_tools(context: object, params: object) -> object:
        asked.append(params)
        return tools_list()

    server = servers.Server("shop", on_list_tools=list_tools)
    for partition, count in (("ann", 1), ("ann", 1), ("bob", 2)):
        config = caching.CacheConfig(
            store=adapter.GlasscacheResponseStore(Gate(plain_cache)), partition=partition,
            target_id="shop",
        )  # fmt: skip
        async with clients.Client(server, cache=config) as client:
            found = await client.list_tools()
        assert [tool.name for tool in found.tools] == ["look_up"]
        assert len(asked) == count
