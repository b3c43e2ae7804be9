"""LiteLLM behind the cache, by the contract of adapters."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from glasscache import MultiLevelCache
from glasscache.testing import FakeModel
from glasscache.testing.contracts import AdapterContract, Ask, Bench
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


class BlockingBench(CompletionBench):
    """Sync completions, in a thread."""

    async def ask(self, ask: Ask) -> tuple[str, int]:
        made = await asyncio.to_thread(litellm.completion, **self.parameters(ask))
        return made.choices[0].message.content, made.usage.total_tokens


async def settled() -> None:
    """Let the tasks end in which LiteLLM stores a reply."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    storing = [task for task in others if "cache" in getattr(task.get_coro(), "__qualname__", "")]
    await asyncio.gather(*storing)


LACKS = frozenset({"stateful", "stream"})


class TestCompletions(AdapterContract):
    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return CompletionBench(plain_cache, fake_model, LACKS)


class TestBlocking(AdapterContract):
    @pytest.fixture
    def bench(self, plain_cache: MultiLevelCache, fake_model: FakeModel) -> Bench:
        return BlockingBench(plain_cache, fake_model, LACKS)
