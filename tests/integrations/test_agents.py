"""OpenAI's Agents SDK behind the cache, by the contract of adapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from glasscache import MultiLevelCache
from glasscache.testing import FakeModel
from glasscache.testing.contracts import AdapterContract, Ask, Bench
from glasscache.testing.contracts.adapter import PICTURE, Feature
from tests.support.asking import tool_of, turns_of
from tests.support.modules import import_or_skip

agents = import_or_skip("agents")
adapter = import_or_skip("glasscache.integrations.agents")
openai = import_or_skip("openai")


@pytest.fixture(autouse=True)
def _no_tracing() -> Iterator[None]:
    """Nothing is sent to OpenAI's trace collector."""
    agents.set_tracing_disabled(True)
    yield
    agents.set_tracing_disabled(False)


class RunnerBench(Bench):
    """A run of an agent whose model is behind the cache."""

    def run_of(self, ask: Ask, client: Any) -> tuple[Any, Any, dict[str, Any]]:
        model = agents.OpenAIResponsesModel(ask.model, openai_client=client)
        tools = []
        if ask.tool:

            async def look_up(_: Any, __: str) -> str:
                return "found"

            tools.append(agents.FunctionTool(
                "look_up", ask.tool, tool_of(ask)["function"]["parameters"], look_up,
                strict_json_schema=False,
            ))  # fmt: skip
        agent = agents.Agent(
            name="agent", instructions=ask.system, model=adapter.CachedModel(model, self.gate),
            tools=tools, model_settings=agents.ModelSettings(temperature=ask.temperature),
        )  # fmt: skip
        more: dict[str, Any] = {"max_turns": 2}
        if ask.stateful:
            more["previous_response_id"] = "resp_1"
        return agent, items(ask), more

    def client(self, ask: Ask) -> Any:
        return openai.AsyncOpenAI(
            base_url=self.url(ask), api_key="k", default_headers=self.headers(ask)
        )

    async def ask(self, ask: Ask) -> tuple[str, int]:
        async with self.client(ask) as client:
            agent, given, more = self.run_of(ask, client)
            done = await agents.Runner.run(agent, given, **more)
        return done.final_output, sum(item.usage.total_tokens for item in done.raw_responses)

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        events: list[Any] = []
        async with self.client(ask) as client:
            agent, given, more = self.run_of(ask, client)
            running = agents.Runner.run_streamed(agent, given, **more)
            async for event in running.stream_events():
                if event.type == "raw_response_event":
                    events.append(event.data)
                if len(events) == stop_after:
                    running.cancel()
                    break
            if running.run_loop_task is not None and stop_after:
                await agents_end(running)
        return events, "".join(getattr(event, "delta", "") for event in events)

    def kinds(self, events: list[Any]) -> list[str]:
        return list(dict.fromkeys(event.type for event in events))


async def agents_end(running: Any) -> None:
    """Wait for the end of a cancelled run."""
    import asyncio

    await asyncio.gather(running.run_loop_task, return_exceptions=True)


def items(ask: Ask) -> list[Any]:
    """Return the input of a request, as the Responses API has it."""
    turns = turns_of(ask)[1:]
    if ask.picture:
        turns[-1]["content"] = [{"type": "input_text", "text": ask.question},
                                {"type": "input_image", "image_url": PICTURE}]  # fmt: skip
    if ask.looped:
        turns[-2:] = [{"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
                      {"type": "function_call_output", "call_id": "c1", "output": "found"}]  # fmt: skip
    return turns


LACKS: dict[Feature, str] = {
    "format": "the format is the agent's output type, not a parameter of a request",
    "cut_short": "the SDK raises for a response that is incomplete",
}


class TestRunner(AdapterContract):
    """OpenAI's Agents SDK, a run."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return RunnerBench(plain_cache, fake_model, LACKS)


async def test_a_provider_has_all_its_models_behind_the_cache(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """The models of a provider ask the cache."""
    from glasscache.integrations.gate import Gate

    async with openai.AsyncOpenAI(base_url=fake_model.url, api_key="k") as client:
        inner = agents.OpenAIProvider(openai_client=client, use_responses=False)
        config = agents.RunConfig(
            model_provider=adapter.CachedProvider(inner, Gate(plain_cache, shared=True))
        )
        agent = agents.Agent(name="agent", model="model-a")
        for _ in range(2):
            done = await agents.Runner.run(agent, "Where do you deliver?", run_config=config)
            assert done.final_output == "Answer 1 to Where do you deliver?"
    assert fake_model.calls == 1


async def test_probabilities_are_more_than_text(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """A run that wants probabilities beside the text bypasses."""
    bench = RunnerBench(plain_cache, fake_model)
    settings = agents.ModelSettings(response_include=["message.output_text.logprobs"])
    async with bench.client(Ask()) as client:
        agent, given, more = bench.run_of(Ask(), client)
        await agents.Runner.run(agent.clone(model_settings=settings), given, **more)
    assert plain_cache.metrics.bypass_reasons == {"not_text": 1}
