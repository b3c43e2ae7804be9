"""Tiny agent with glasscache in front of it: `python examples/agent.py`.

Its "LLM" is three functions that sleep. No network, no key; without REDIS_URL no server either.
"""

import asyncio
import time
from typing import Any

from glasscache import LookupResult, MultiLevelCache

# questions of this shop's customers: the intent, the documents, and the LLM's answer
KNOWLEDGE: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    "opening": ("opening_hours", [{"id": "doc-hours"}], "Monday to Saturday, 9 to 18."),
    "return": ("returns", [{"id": "doc-returns"}], "Yes, within 30 days of delivery."),
    "order": ("order_status", [{"id": "doc-orders"}], "{user}, it arrives tomorrow."),
}


async def classify(message: str) -> str:
    """Return the intent of a message; a small LLM call."""
    await asyncio.sleep(0.05)
    return KNOWLEDGE[topic(message)][0]


async def retrieve(message: str) -> list[dict[str, Any]]:
    """Return the documents for a message; a vector search."""
    await asyncio.sleep(0.05)
    return KNOWLEDGE[topic(message)][1]


async def generate(message: str, user_id: str) -> str:
    """Return the answer to a message; the LLM call that costs."""
    await asyncio.sleep(0.3)
    return KNOWLEDGE[topic(message)][2].format(user=user_id)


def topic(message: str) -> str:
    """Return the topic of the message."""
    return next(word for word in KNOWLEDGE if word in message.lower())


async def simple_agent(cache: MultiLevelCache, message: str, user_id: str) -> str:
    """Answer in the simplest way: from the cache completely, or not at all."""
    response = await cache.get_multilevel(message, user_id)
    if response is None:
        response = await generate(message, user_id)
        await cache.put(message=message, user_id=user_id, response=response)
    return response


async def agent(cache: MultiLevelCache, message: str, user_id: str) -> tuple[str, LookupResult]:
    """Answer, also using partial results: a known intent or documents save their steps."""
    result = await cache.lookup(message, user_id)
    if result.response is not None:
        return result.response, result
    intent = result.intent or await classify(message)
    documents = result.rag_results or await retrieve(message)
    response = await generate(message, user_id)
    await cache.put(message, user_id, response, intent, documents)
    return response, result


QUESTIONS = [
    ("ann", "What are your opening hours?"),
    ("ann", "what are your opening hours"),  # the same but for case and punctuation: L1
    ("bob", "What are your opening hours, please?"),  # the same meaning, and a shared intent: L2
    ("ann", "Where is my order?"),
    ("bob", "Where is my order?"),  # private: Bob never gets Ann's answer, but the intent is known
    ("ann", "Where is my order?"),
    ("ann", "Can I return 2 bikes that I bought online last week?"),
    ("ann", "Can I return 3 bikes that I bought online last week?"),  # vetoed: other number
]


async def main() -> None:
    """Ask the questions, and print the cache's decisions."""
    # an application would write `cache = await get_cache()`, configured by the environment
    async with MultiLevelCache(
        namespace="example", shared_intents=["opening_hours", "returns"]
    ) as cache:
        print("Loading the embedding model ...")
        await cache.ready()

        for user, message in QUESTIONS:
            started = time.perf_counter()
            response, result = await agent(cache, message, user)
            milliseconds = (time.perf_counter() - started) * 1000
            said = [result.outcome, f"{milliseconds:.0f} ms"]
            if result.tier is not None:
                said.append(f"from {result.tier}, similarity {result.similarity:.3f}")
            if result.reasons:
                said.append(f"reasons: {', '.join(result.reasons)}")
            print(f"\n{user}: {message}\n  -> {response}\n  {'; '.join(said)}")

        print("\nThe simple agent asks, too:")
        for _ in range(2):
            print(f"  {await simple_agent(cache, 'Where is my second order?', 'ann')}")

        print("\nWhy would 'When are you opening?' not be answered for Ann?")
        for tier in await cache.explain("When are you opening?", "ann"):
            print(f"  {tier.level} {tier.outcome}: {tier.detail or tier.reason}")

        metrics = cache.get_metrics()
        print(f"\nHit rates in percent: {metrics['hit_rates']}")
        print(f"Lookups: {metrics['operations']}, {metrics['outcomes']}")
        print(f"Saved: {metrics['cost_savings_usd']:.3f} USD")
        print(metrics["sharing"]["advice"])


if __name__ == "__main__":
    asyncio.run(main())
