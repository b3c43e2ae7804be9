"""PydanticAI behind the cache, by the contract of adapters."""

from __future__ import annotations

from typing import Any

import pytest

from glasscache import MultiLevelCache
from glasscache.testing import FakeModel
from glasscache.testing.contracts import AdapterContract, Ask, Bench
from glasscache.testing.contracts.adapter import Feature
from tests.support.asking import tool_of
from tests.support.modules import import_or_skip

pydantic_ai = import_or_skip("pydantic_ai")
adapter = import_or_skip("glasscache.integrations.pydantic_ai")
models = import_or_skip("pydantic_ai.models.openai")
providers = import_or_skip("pydantic_ai.providers.openai")
parts = import_or_skip("pydantic_ai.messages")
openai = import_or_skip("openai")


class AgentBench(Bench):
    """An agent with the capability."""

    def agent(self, ask: Ask, client: Any) -> Any:
        provider = providers.OpenAIProvider(openai_client=client)
        tools = []
        if ask.tool:
            tools.append(pydantic_ai.Tool.from_schema(
                lambda what: "found", "look_up", ask.tool, tool_of(ask)["function"]["parameters"]
            ))  # fmt: skip
        return pydantic_ai.Agent(
            models.OpenAIChatModel(ask.model, provider=provider), instructions=ask.system,
            tools=tools, capabilities=[adapter.Glasscache(self.gate)],
            model_settings={"temperature": ask.temperature},
        )  # fmt: skip

    def given(self, ask: Ask) -> tuple[Any, list[Any]]:
        history: list[Any] = []
        for at, text in enumerate(ask.history):
            if at % 2:
                history.append(parts.ModelResponse(parts=[parts.TextPart(text)], run_id=ask.ids))
            else:
                history.append(
                    parts.ModelRequest(parts=[parts.UserPromptPart(text)], run_id=ask.ids)
                )
        prompt: Any = ask.question
        if ask.picture:
            prompt = [ask.question, parts.ImageUrl(url="https://localhost/a.png")]
        if ask.looped:
            call = parts.ToolCallPart("look_up", {"what": "it"}, tool_call_id="c1")
            back = parts.ToolReturnPart("look_up", "found", tool_call_id="c1")
            history += [parts.ModelRequest(parts=[parts.UserPromptPart(ask.question)]),
                        parts.ModelResponse(parts=[call]),
                        parts.ModelRequest(parts=[back])]  # fmt: skip
            prompt = None
        return prompt, history

    async def ask(self, ask: Ask) -> tuple[str, int]:
        async with openai.AsyncOpenAI(
            base_url=self.url(ask), api_key="k", default_headers=self.headers(ask)
        ) as client:
            prompt, history = self.given(ask)
            limits = pydantic_ai.UsageLimits(request_limit=2)
            done = await self.agent(ask, client).run(
                prompt, message_history=history, usage_limits=limits
            )
        return done.output, done.usage.total_tokens

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        events: list[Any] = []
        async with openai.AsyncOpenAI(
            base_url=self.url(ask), api_key="k", default_headers=self.headers(ask)
        ) as client:
            prompt, history = self.given(ask)
            agent = self.agent(ask, client)
            async with agent.run_stream(prompt, message_history=history) as running:
                async for piece in running.stream_text(delta=True, debounce_by=None):
                    events.append(piece)
                    if len(events) == stop_after:
                        break
        return events, "".join(events)


LACKS: dict[Feature, str] = {
    "format": "the format is the agent's output type, not a parameter of a request",
    "stateful": "chat completions continue no conversation",
}


class TestAgent(AdapterContract):
    """PydanticAI, an agent."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return AgentBench(plain_cache, fake_model, LACKS)
