"""OpenAI's client behind the cache, by the contract of adapters: both APIs, sync and async."""

from __future__ import annotations

import asyncio
from typing import Any

import pydantic
import pytest

from glasscache import MultiLevelCache
from glasscache.integrations.gate import Gate, as_user
from glasscache.testing import FakeModel, Said
from glasscache.testing.contracts import AdapterContract, Ask, Bench
from glasscache.testing.contracts.adapter import PICTURE, TOOL, Feature
from tests.support.asking import tool_of, turns_of
from tests.support.modules import import_or_skip

openai = import_or_skip("openai")
httpx2 = import_or_skip("httpx2")
adapter = import_or_skip("glasscache.integrations.openai")


class ChatBench(Bench):
    """Chat completions of the async client."""

    def parameters(self, ask: Ask) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": ask.model, "temperature": ask.temperature, "messages": turns_of(ask),
        }  # fmt: skip
        if ask.tool:
            found["tools"] = [tool_of(ask)]
        if ask.format:
            found["response_format"] = {"type": "json_object"}
        return found

    def client(self, ask: Ask) -> Any:
        return adapter.cached(
            openai.AsyncOpenAI(
                base_url=self.url(ask), api_key="k", default_headers=self.headers(ask)
            ),
            self.gate,
        )

    async def ask(self, ask: Ask) -> tuple[str, int]:
        async with self.client(ask) as client:
            made = await client.chat.completions.create(**self.parameters(ask))
        return made.choices[0].message.content, made.usage.total_tokens

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        events: list[Any] = []
        async with self.client(ask) as client:
            stream = await client.chat.completions.create(stream=True, **self.parameters(ask))
            async for event in stream:
                events.append(event)
                if len(events) == stop_after:
                    break
        return events, "".join(event.choices[0].delta.content or "" for event in events)

    def kinds(self, events: list[Any]) -> list[str]:
        fields = [sorted(event.choices[0].delta.model_dump(exclude_none=True)) for event in events]
        return list(dict.fromkeys(map(str, fields)))


class ResponsesBench(ChatBench):
    """Responses of the async client."""

    def parameters(self, ask: Ask) -> dict[str, Any]:
        roles = (("user", "input_text"), ("assistant", "output_text"))
        turns: list[dict[str, Any]] = [
            {"role": roles[at % 2][0], "id": f"{ask.ids}-{at}",
             "content": [{"type": roles[at % 2][1], "text": text}]}
            for at, text in enumerate(ask.history)
        ]  # fmt: skip
        content: list[dict[str, Any]] = [{"type": "input_text", "text": ask.question}]
        if ask.picture:
            content.append({"type": "input_image", "image_url": PICTURE})
        turns.append({"role": "user", "content": content})
        if ask.looped:
            turns += [{"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
                      {"type": "function_call_output", "call_id": "c1", "output": "found"}]  # fmt: skip
        found = {"model": ask.model, "temperature": ask.temperature, "input": turns,
                 "instructions": ask.system, "store": False}  # fmt: skip
        if ask.tool:
            found["tools"] = [{"type": "function", "name": "look_up", "description": ask.tool,
                               "parameters": dict(TOOL), "strict": False}]  # fmt: skip
        if ask.format:
            found["text"] = {"format": {"type": "json_object"}}
        if ask.stateful:
            found["previous_response_id"] = "resp_1"
        return found

    async def ask(self, ask: Ask) -> tuple[str, int]:
        async with self.client(ask) as client:
            made = await client.responses.create(**self.parameters(ask))
        return made.output_text, made.usage.total_tokens

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        events: list[Any] = []
        async with self.client(ask) as client:
            async for event in await client.responses.create(stream=True, **self.parameters(ask)):
                events.append(event)
                if len(events) == stop_after:
                    break
        return events, "".join(getattr(event, "delta", "") for event in events)

    def kinds(self, events: list[Any]) -> list[str]:
        return list(dict.fromkeys(event.type for event in events))


class BlockingBench(ChatBench):
    """Chat completions of the sync client, in a thread."""

    def client(self, ask: Ask) -> Any:
        return adapter.cached(
            openai.OpenAI(base_url=self.url(ask), api_key="k", default_headers=self.headers(ask)),
            self.gate,
        )

    async def ask(self, ask: Ask) -> tuple[str, int]:
        def work() -> tuple[str, int]:
            with self.client(ask) as client:
                made = client.chat.completions.create(**self.parameters(ask))
            return made.choices[0].message.content, made.usage.total_tokens

        return await asyncio.to_thread(work)

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        def work() -> list[Any]:
            events: list[Any] = []
            with self.client(ask) as client:
                for event in client.chat.completions.create(stream=True, **self.parameters(ask)):
                    events.append(event)
                    if len(events) == stop_after:
                        break
            return events

        events = await asyncio.to_thread(work)
        return events, "".join(event.choices[0].delta.content or "" for event in events)


NO_STATE: dict[Feature, str] = {"stateful": "chat completions continue no conversation"}


class TestChat(AdapterContract):
    """OpenAI's client, chat."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return ChatBench(plain_cache, fake_model, NO_STATE)


class TestResponses(AdapterContract):
    """OpenAI's client, responses."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return ResponsesBench(plain_cache, fake_model)


class TestBlocking(AdapterContract):
    """OpenAI's client, chat, blocking."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return BlockingBench(plain_cache, fake_model, NO_STATE)


TURNS = [{"role": "user", "content": "Where do you deliver?"}]


async def test_turns_that_can_be_read_once_reach_the_provider(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """A generator of messages is read by the cache and by the client."""
    bench = ChatBench(plain_cache, fake_model)
    async with bench.client(Ask()) as client:
        await client.chat.completions.create(model="m", messages=(turn for turn in TURNS))
    assert fake_model.received[0].body["messages"] == TURNS


async def test_a_client_with_other_options_is_behind_the_cache(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """`with_options` of a cached client hits what the client itself has stored."""
    bench = ChatBench(plain_cache, fake_model)
    with as_user("ann"):
        async with bench.client(Ask()) as client:
            for asked in (client, client.with_options(timeout=9), client.copy(max_retries=0)):
                await asked.chat.completions.create(model="m", messages=TURNS)
    assert fake_model.calls == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"extra_body": {"n": 2}}, "several_answers"),
        ({"extra_body": {"logprobs": True}}, "not_text"),
        ({"extra_body": {"store": True}}, "stateful"),
        ({"messages": [{"role": "user", "content": [5]}]}, "opaque"),
        ({"messages": None}, "opaque"),
        ({"tools": 5}, "opaque"),
    ],
)
async def test_a_request_of_another_shape_is_for_the_provider(
    plain_cache: MultiLevelCache, fake_model: FakeModel, more: dict[str, Any], reason: str
) -> None:
    """It reaches the provider as it is, and is counted; the cache raises nothing."""
    fake_model.reply = lambda received, number: Said("Yes.")
    async with ChatBench(plain_cache, fake_model).client(Ask()) as client:
        for _ in range(2):
            await client.chat.completions.create(**{"model": "m", "messages": TURNS, **more})
    assert fake_model.calls == 2
    assert plain_cache.metrics.bypass_reasons == {reason: 2}


async def test_parsed_replies_are_counted(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """`parse` asks the provider, and is counted as declined."""
    fake_model.reply = lambda received, number: Said('{"town": "Bonn"}')
    async with ChatBench(plain_cache, fake_model).client(Ask()) as client:
        made = await client.chat.completions.parse(model="m", messages=TURNS, response_format=Place)
    assert made.choices[0].message.parsed == Place(town="Bonn")
    assert plain_cache.metrics.bypass_reasons == {"declined": 1}


class Place(pydantic.BaseModel):
    town: str


@pytest.mark.parametrize("body", ["<p>Busy</p>", "[1]", "null", '{"choices": [5]}'])
async def test_a_reply_of_another_shape_is_returned(
    plain_cache: MultiLevelCache, body: str
) -> None:
    """The caller gets what the client makes of it; nothing is stored."""
    kind = "text/html" if body.startswith("<") else "application/json"
    answered = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": kind}, text=body)
    )
    plain = openai.AsyncOpenAI(
        base_url="http://provider/v1", api_key="k",
        http_client=httpx2.AsyncClient(transport=answered),
    )  # fmt: skip
    async with plain, adapter.cached(plain, Gate(plain_cache)) as client:
        made = await client.chat.completions.create(model="m", messages=TURNS)
        assert made == await plain.chat.completions.create(model="m", messages=TURNS)
    assert plain_cache.metrics.put_outcomes["stored"] == 0
