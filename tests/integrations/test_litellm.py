"""LiteLLM behind the cache, by the contract of adapters."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from glasscache import MultiLevelCache
from glasscache.integrations.gate import as_user
from glasscache.testing import FakeModel
from glasscache.testing.contracts import AdapterContract, Ask, Bench
from glasscache.testing.contracts.adapter import Feature
from tests.support.asking import tool_of, turns_of
from tests.support.modules import import_or_skip

# It warns of its own types, deprecations and connections.
pytestmark = pytest.mark.filterwarnings("ignore")

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else the import asks the network
litellm: Any = import_or_skip("litellm")
adapter = import_or_skip("glasscache.integrations.litellm")


@pytest.fixture(autouse=True)
def _no_cache_is_left() -> Iterator[None]:
    """LiteLLM's cache is one for the process."""
    yield
    litellm.cache = None


class CompletionBench(Bench):
    """Async completions."""

    def parameters(self, ask: Ask) -> dict[str, Any]:
        litellm.cache = adapter.GlasscacheCache(self.gate)
        litellm.telemetry = False
        found: dict[str, Any] = {
            "model": f"openai/{ask.model}", "temperature": ask.temperature,
            "messages": turns_of(ask), "api_base": self.url(ask), "api_key": "k", "caching": True,
            "extra_headers": self.headers(ask),
        }  # fmt: skip
        if ask.tool:
            found["tools"] = [tool_of(ask)]
        if ask.format:
            found["response_format"] = {"type": "json_object"}
        return found

    async def ask(self, ask: Ask) -> tuple[str, int]:
        made = await litellm.acompletion(**self.parameters(ask))
        await settled()
        return made.choices[0].message.content, made.usage.total_tokens

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        events: list[Any] = []
        async for event in await litellm.acompletion(stream=True, **self.parameters(ask)):
            events.append(event)
            if len(events) == stop_after:
                break
        await settled()
        return events, text_of(events)


class BlockingBench(CompletionBench):
    """Sync completions, in a thread."""

    async def ask(self, ask: Ask) -> tuple[str, int]:
        made = await asyncio.to_thread(litellm.completion, **self.parameters(ask))
        return made.choices[0].message.content, made.usage.total_tokens

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        def work() -> list[Any]:
            made = litellm.completion(stream=True, **self.parameters(ask))
            return list(itertools.islice(made, stop_after))

        events = await asyncio.to_thread(work)
        return events, text_of(events)


def text_of(events: list[Any]) -> str:
    return "".join(event.choices[0].delta.content or "" for event in events)


async def settled() -> None:
    """Let the tasks end in which LiteLLM stores a reply."""
    while storing := [
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if "cache" in getattr(task.get_coro(), "__qualname__", "")
    ]:
        # one of a stream starts another
        await asyncio.gather(*storing)


LACKS: dict[Feature, str] = {"stateful": "chat completions continue no conversation"}


class Streams(AdapterContract):
    """The contract, and what LiteLLM's streams have of their own."""

    async def test_a_cancelled_stream_stores_nothing(self, bench: Bench) -> None:
        """A stream that is left early is asked for again; LiteLLM does not report it."""
        with as_user("ann"):
            await bench.stream(Ask(), stop_after=2)
            assert not bench.cache.metrics.put_outcomes.total()
            assert (await bench.ask(Ask()))[0] == "Answer 2 to Where do you deliver?"

    async def test_a_stream_is_of_the_user_who_asked_for_it(self, bench: Bench) -> None:
        """Another user may read it; one that was not looked up has no user, and is not stored."""
        assert isinstance(bench, CompletionBench)
        asked = {**bench.parameters(Ask()), "stream": True}
        with as_user("ann"):
            one = await litellm.acompletion(**asked)
            other = await litellm.acompletion(**asked, cache={"no-cache": True})
        with as_user("bob"):
            assert text_of([event async for event in other])
            await settled()
            assert bench.cache.metrics.put_outcome_reasons["bypass", "declined"] == 1
            text = text_of([event async for event in one])
            await settled()
            assert (await bench.ask(Ask()))[0] != text
        assert await bench.as_ann(Ask()) == text


@pytest.mark.parametrize(
    "more",
    [{"extra_body": {"top_k": 2}}, {"extra_headers": {"x-a": "b"}}, {"headers": {"x-a": "b"}},
     {"vertex_location": "europe-west1"}, {"mock_response": "Yes."}],
    ids=lambda more: next(iter(more)),
)  # fmt: skip
async def test_parameters_of_single_providers_are_context(
    plain_cache: MultiLevelCache, fake_model: FakeModel, more: dict[str, Any]
) -> None:
    """Also those that LiteLLM's own key leaves out."""
    asked = CompletionBench(plain_cache, fake_model).parameters(Ask())
    with as_user("ann"):
        for given in ({}, more, {}, more):
            await litellm.acompletion(**{**asked, **given})
            await settled()
    assert plain_cache.metrics.put_outcomes["stored"] == 2


async def test_the_address_in_the_environment_is_context(
    plain_cache: MultiLevelCache, fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another base URL of the process is another provider."""
    asked = CompletionBench(plain_cache, fake_model).parameters(Ask())
    del asked["api_base"]
    with as_user("ann"):
        for host in ("127.0.0.1", "localhost", "localhost"):
            monkeypatch.setenv("OPENAI_BASE_URL", fake_model.url.replace("127.0.0.1", host))
            await litellm.acompletion(**asked)
            await settled()
    assert fake_model.calls == 2


class TestCompletions(Streams):
    """LiteLLM."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return CompletionBench(plain_cache, fake_model, LACKS)


class TestBlocking(Streams):
    """LiteLLM, blocking."""

    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return BlockingBench(plain_cache, fake_model, LACKS)
