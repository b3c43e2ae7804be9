"""LangChain behind the cache, by the contract of adapters and by LangChain's own suites."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glasscache import MultiLevelCache
from glasscache.integrations.gate import Gate
from glasscache.testing import FakeModel
from glasscache.testing.contracts import AdapterContract, Ask, Bench
from glasscache.testing.contracts.adapter import Feature
from tests.support.asking import tool_of, turns_of
from tests.support.modules import import_or_skip

adapter = import_or_skip("glasscache.integrations.langchain")
suites: Any = import_or_skip("langchain_tests.integration_tests")
langchain_openai = import_or_skip("langchain_openai")
agents = import_or_skip("langchain.agents")
messages = import_or_skip("langchain_core.messages")
tools = import_or_skip("langchain_core.tools")

LACKS: dict[Feature, str] = {
    "stream": "LangChain asks neither a cache nor a middleware for a stream of pieces",
    "stateful": "chat completions continue no conversation",
}
OF_AGENTS: dict[Feature, str] = {
    **LACKS, "format": "an agent with a response format bypasses: its answer is an object",
}  # fmt: skip


class ModelBench(Bench):
    """A chat model with the cache."""

    def model_of(self, ask: Ask, **more: Any) -> Any:
        return langchain_openai.ChatOpenAI(
            model=ask.model, temperature=ask.temperature, base_url=self.url(ask), api_key="k",
            **more,
        )  # fmt: skip

    async def ask(self, ask: Ask) -> tuple[str, int]:
        model = self.model_of(ask, cache=adapter.GlasscacheCache(self.gate))
        if ask.tool:
            model = model.bind_tools([tool_of(ask)])
        if ask.format:
            model = model.bind(response_format={"type": "json_object"})
        return said(await model.ainvoke(messages.convert_to_messages(turns_of(ask))))


class AgentBench(ModelBench):
    """An agent with the middleware, async."""

    def agent(self, ask: Ask) -> Any:
        given = []
        if ask.tool:
            given.append(tools.StructuredTool.from_function(
                lambda what: "found", name="look_up", description=ask.tool,
                args_schema=tool_of(ask)["function"]["parameters"],
            ))  # fmt: skip
        middleware = [adapter.GlasscacheMiddleware(self.gate)]
        return agents.create_agent(
            self.model_of(ask), given, system_prompt=ask.system, middleware=middleware
        ).with_config(recursion_limit=8)

    async def ask(self, ask: Ask) -> tuple[str, int]:
        given = {"messages": messages.convert_to_messages(turns_of(ask)[1:])}
        return said((await self.agent(ask).ainvoke(given))["messages"][-1])


class BlockingAgentBench(AgentBench):
    """The same agent, sync."""

    async def ask(self, ask: Ask) -> tuple[str, int]:
        given = {"messages": messages.convert_to_messages(turns_of(ask)[1:])}
        done = await asyncio.to_thread(self.agent(ask).invoke, given)
        return said(done["messages"][-1])


def said(message: Any) -> tuple[str, int]:
    return str(message.text), message.usage_metadata["total_tokens"]


class TestModel(AdapterContract):
    """LangChain, a model."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return ModelBench(plain_cache, fake_model, LACKS)


class TestAgent(AdapterContract):
    """LangChain, an agent."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return AgentBench(plain_cache, fake_model, OF_AGENTS)


class TestBlockingAgent(AdapterContract):
    """LangChain, an agent, blocking."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return BlockingAgentBench(plain_cache, fake_model, OF_AGENTS)


class TestTheirSyncSuite(suites.SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, plain_cache: MultiLevelCache) -> Any:
        return adapter.GlasscacheCache(Gate(plain_cache, shared=True))


class TestTheirAsyncSuite(suites.AsyncCacheTestSuite):
    @pytest.fixture
    def cache(self, plain_cache: MultiLevelCache) -> Any:
        return adapter.GlasscacheCache(Gate(plain_cache, shared=True))


async def test_an_object_as_the_answer_bypasses(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """An agent with a response format is not answered with a text."""
    bench = AgentBench(plain_cache, fake_model)
    fake_model.reply = lambda received, number: adapter_said('{"what": "it"}')
    agent = agents.create_agent(
        bench.model_of(Ask()),
        response_format=agents.structured_output.ProviderStrategy(tool_of(Ask())["function"]),
        middleware=[adapter.GlasscacheMiddleware(bench.gate)],
    )
    await agent.ainvoke({"messages": [("user", "What is it?")]})
    assert plain_cache.metrics.bypass_reasons == {"not_text": 1}


def adapter_said(text: str) -> Any:
    from glasscache.testing import Said

    return Said(text)
