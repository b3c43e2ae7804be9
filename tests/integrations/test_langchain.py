"""LangChain behind the cache, by the contract of adapters and by LangChain's own suites."""

from __future__ import annotations

import asyncio
from typing import Any

import pydantic
import pytest

from glasscache import MultiLevelCache
from glasscache.integrations.gate import Gate, as_user
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
            model=ask.model, temperature=ask.temperature, base_url=self.url(ask), api_key="k", default_headers=self.headers(ask),
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


async def test_an_object_parsed_from_a_reply_is_not_stored(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """`with_structured_output` returns its object every time: a text has none."""
    bench = ModelBench(plain_cache, fake_model)
    fake_model.reply = lambda received, number: adapter_said('{"town": "Bonn"}')
    model = bench.model_of(Ask(), cache=adapter.GlasscacheCache(bench.gate))
    asked = model.with_structured_output(Place)
    with as_user("ann"):
        assert [await asked.ainvoke("Where?") for _ in range(2)] == [Place(town="Bonn")] * 2
    assert plain_cache.metrics.put_outcome_reasons == {("bypass", "not_text"): 2}


class Place(pydantic.BaseModel):
    """A place."""

    town: str


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": [{"type": "text", "text": "x", "annotations": [{"type": "url_citation"}]}]},
         "not_text"),
        ({"content": [{"type": "text", "text": "x", "citations": [{"type": "page"}]}]}, "not_text"),
        ({"content": "x", "additional_kwargs": {"tool_outputs": [{"type": "web_search_call"}]}},
         "not_text"),
        ({"content": "x", "response_metadata": {"logprobs": {"content": []}}}, "not_text"),
        ({"content": "x", "additional_kwargs": {"function_call": {"name": "f"}}}, "tool_calls"),
        ({"content": "x"}, None),
    ],
)  # fmt: skip
def test_a_reply_with_more_than_text_is_not_stored(
    message: dict[str, Any], reason: str | None
) -> None:
    """Citations, results of the provider's tools, probabilities and old calls of functions."""
    assert adapter._of_message(messages.AIMessage(**message)).why_not == reason


def adapter_said(text: str) -> Any:
    from glasscache.testing import Said

    return Said(text)
