"""Customer-service agent with a simulated LLM, and the score of its answers.

`Agent.answer` is the pattern for your own agent: look up, compute only the missing parts, put.
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
from cache_core.cli.demo.shop import Knowledge
from cache_core.cli.demo.traffic import Request


@dataclass(frozen=True, slots=True)
class Step:
    """Paid step of an agent.

    Attributes:
        name: The step's name.
        seconds: Median duration; single calls differ by a third.
        usd: Price in USD.
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
    """Time and cost of the simulated LLM for one request.

    Attributes:
        seconds: Seconds that an LLM of the stated latency would have needed.
        usd: Cost in USD at the stated prices.
    """

    seconds: float = 0.0
    usd: float = 0.0


class SimulatedLLM:
    """Simulated LLM that always knows the right answer, and costs time and money.

    It reads the truth from the request. The duration of a step depends only on the request, so that
    a run can be repeated.

    Args:
        knowledge: Knowledge base with the texts of the documents.
        seed: Seed of the latencies.
        speed: Factor by which it really answers faster; the bill does not change.
    """

    def __init__(self, knowledge: Knowledge, seed: int = 0, speed: float = 1.0) -> None:
        self._documents = knowledge.documents
        self._seed = seed
        self._speed = speed

    def seconds(self, step: Step, request: Request) -> float:
        """Return the duration of a step for a request, in seconds."""
        chance = Random(f"{self._seed} {step.name} {request.user_id} {request.message}")
        return step.seconds * math.exp(chance.gauss(0.0, 0.3))

    def full_price(self, request: Request) -> Bill:
        """Return the bill of a request without a cache."""
        return Bill(
            sum(self.seconds(step, request) for step in STEPS), sum(step.usd for step in STEPS)
        )

    async def classify(self, request: Request, bill: Bill) -> str:
        """Return the intent of a message."""
        await self._work(CLASSIFY, request, bill)
        return request.intent

    async def retrieve(self, request: Request, bill: Bill) -> list[dict[str, str]]:
        """Return the documents for a message."""
        await self._work(RETRIEVE, request, bill)
        return [{"id": name, "text": self._documents[name]} for name in request.documents]

    async def answer(self, request: Request, documents: Sequence[Any], bill: Bill) -> str:
        """Return the answer from *documents*; an apology if they are not the right ones."""
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
    """Answered request.

    Attributes:
        request: The request, with the true answer.
        response: The agent's answer.
        result: The cache's result.
        at: Time of the answer, in seconds since the epoch.
        cache_seconds: Measured time of the lookup and the put.
        bill: Bill of the LLM.
        full_price: Bill of the LLM had there been no cache.
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
        """True if the answer was not the right one."""
        return self.response != self.request.response


class Agent:
    """Agent that answers customers, from the cache where it can.

    Args:
        cache: Cache in front of the LLM.
        llm: Computes the missing parts.
        share_documents: Whether documents are shared with all customers even if the answer is
            not, as a public knowledge base permits.
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
    """Score of the requests so far, compared with the truth.

    Attributes:
        owners: The only permitted reader of each private answer.
        requests: Number of answered requests.
        wrong: Number of wrong answers; the LLM is always right, so each is the cache's fault.
        leaks: Number of answers about one customer that another one got.
        cached_seconds: Durations of the last requests, with the cache.
        llm_seconds: Durations of the last requests, had there been no cache.
        spent_usd: Cost of the LLM with the cache.
        full_usd: Cost of the LLM had there been no cache.
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
    """Return a quantile of *values*; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
