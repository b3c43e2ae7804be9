"""A customer-service agent in front of a simulated LLM, and the score of what it says.

`Agent.answer` is the pattern for an agent of your own: look up, do only what is not known, put.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cache_core import LookupResult, MultiLevelCache
from cache_core.demo import Knowledge
from cache_core.demo.traffic import Request


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that an agent pays for.

    Attributes:
        name: Of the step.
        seconds: It takes in the middle; single calls differ by a third.
        usd: It costs.
    """

    name: str
    seconds: float
    usd: float


CLASSIFY = Step("classify", 0.15, 0.001)
RETRIEVE = Step("retrieve", 0.12, 0.005)
ANSWER = Step("answer", 0.8, 0.03)
STEPS = (CLASSIFY, RETRIEVE, ANSWER)

_KEPT = 5_000


@dataclass(slots=True)
class Bill:
    """What the simulated LLM took for one request.

    Attributes:
        seconds: As an LLM of the stated latency would have needed.
        usd: At the stated prices.
    """

    seconds: float = 0.0
    usd: float = 0.0


class SimulatedLLM:
    """An LLM that always knows the right answer, and takes its time and money for it.

    It understands a message by the truth that the request carries. How long a step takes depends
    on the request alone, so that a run can be repeated.

    Args:
        knowledge: For the texts of the documents.
        seed: Of the latencies.
        speed: How many times faster it really answers; the bill does not change.
    """

    def __init__(self, knowledge: Knowledge, seed: int = 0, speed: float = 1.0) -> None:
        self._documents = knowledge.documents
        self._seed = seed
        self._speed = speed

    def seconds(self, step: Step, request: Request) -> float:
        """Return how long a step takes for a request."""
        chance = Random(f"{self._seed} {step.name} {request.user_id} {request.message}")
        return step.seconds * math.exp(chance.gauss(0.0, 0.3))

    def full_price(self, request: Request) -> Bill:
        """Return what the request takes without a cache."""
        return Bill(
            sum(self.seconds(step, request) for step in STEPS), sum(step.usd for step in STEPS)
        )

    async def classify(self, request: Request, bill: Bill) -> str:
        """Return the intent of a message."""
        await self._work(CLASSIFY, request, bill)
        return request.intent

    async def retrieve(self, request: Request, bill: Bill) -> list[dict[str, str]]:
        """Return the documents that a message is about."""
        await self._work(RETRIEVE, request, bill)
        return [{"id": name, "text": self._documents[name]} for name in request.documents]

    async def answer(self, request: Request, documents: Sequence[Any], bill: Bill) -> str:
        """Return the answer that *documents* give; without the right ones there is none."""
        await self._work(ANSWER, request, bill)
        if [item["id"] for item in documents] != list(request.documents):
            return "I am sorry, I could not find anything about that."
        return request.response

    async def _work(self, step: Step, request: Request, bill: Bill) -> None:
        seconds = self.seconds(step, request)
        bill.seconds += seconds
        bill.usd += step.usd
        await asyncio.sleep(seconds / self._speed)


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was answered.

    Attributes:
        request: What was asked, and what is true.
        response: What the agent said.
        result: What the cache knew.
        at: When, in seconds since the epoch.
        cache_seconds: What the lookup and the put took, measured.
        bill: Of the LLM.
        full_price: What the LLM would have taken without a cache.
    """

    request: Request
    response: str
    result: LookupResult
    at: float
    cache_seconds: float
    bill: Bill
    full_price: Bill

    @property
    def wrong(self) -> bool:
        """Whether the agent did not say what is true."""
        return self.response != self.request.response


class Agent:
    """Answers customers, from the cache where it can.

    Args:
        cache: In front of the LLM.
        llm: Does what the cache does not know.
        share_documents: Whether documents serve every customer even where the answer does not;
            those of a public knowledge base may.
    """

    def __init__(
        self, cache: MultiLevelCache, llm: SimulatedLLM, *, share_documents: bool = False
    ) -> None:
        self._cache = cache
        self._llm = llm
        self._share_documents = share_documents or None

    async def answer(self, request: Request) -> Served:
        """Answer a customer."""
        message, user, history = request.message, request.user_id, request.history
        bill = Bill()
        started = time.perf_counter()
        result = await self._cache.lookup(message, user, history=history)
        cache_seconds = time.perf_counter() - started

        response = result.response
        if response is None:
            intent = result.intent or await self._llm.classify(request, bill)
            documents = result.rag_results or await self._llm.retrieve(request, bill)
            response = await self._llm.answer(request, documents, bill)
            started = time.perf_counter()
            await self._cache.put(
                message, user, response, intent, documents,
                history=history, share_documents=self._share_documents,
            )  # fmt: skip
            cache_seconds += time.perf_counter() - started

        full_price = self._llm.full_price(request)
        return Served(request, response, result, time.time(), cache_seconds, bill, full_price)


@dataclass(slots=True)
class Score:
    """What came of the requests so far, held against the truth.

    Attributes:
        owners: Every private answer, and the only customer who may read it.
        requests: Answered so far.
        wrong: Answers that were not true; the LLM knows better, so each is the cache's fault.
        leaks: Answers about one customer that another one got.
        cached_seconds: Of the last requests, with the cache.
        llm_seconds: Of the last requests, had there been none.
        spent_usd: On the LLM, with the cache.
        full_usd: On the LLM, had there been none.
    """

    owners: Mapping[str, str]
    requests: int = 0
    wrong: int = 0
    leaks: int = 0
    cached_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    llm_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    spent_usd: float = 0.0
    full_usd: float = 0.0

    def add(self, served: Served) -> None:
        """Count a request."""
        self.requests += 1
        self.wrong += served.wrong
        owner = self.owners.get(served.response)
        self.leaks += owner is not None and owner != served.request.user_id
        self.cached_seconds.append(served.cache_seconds + served.bill.seconds)
        self.llm_seconds.append(served.full_price.seconds)
        self.spent_usd += served.bill.usd
        self.full_usd += served.full_price.usd


def quantile(values: Iterable[float], share: float) -> float:
    """Return a quantile of *values*, 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
