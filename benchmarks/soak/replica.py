"""Replica of the soak: agents behind a cache, and a record of all their events.

Its plan is one JSON document; it writes one JSON line per event.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.soak.world import INTENTS, TAGS, TOPICS, USERS, Curiosity, Question, World, wordings
from cache_core import Answer, LookupResult, MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model.exceptions import GlasscacheError
from cache_core.testing import HashEmbedder

BACKEND_ERRORS = frozenset({"timeout", "backend_error", "breaker_open"})
"""Reasons that indicate a failing backend."""

_SAMPLE_SECONDS = 5.0
_AT_ONCE = 200
_VECTORS = 256
_DECISIONS = 500
_PATIENCE = 15.0
_BEAT = 0.02

log = logging.getLogger("soak")


class Replica:
    """Agents behind one cache.

    Args:
        plan: `number`, `seed`, `directory`, `world`, `redis_url`, `chroma_url`, `vectors`,
            `embedder`, `rate` in lookups a second, `ttl` in seconds.
        out: File for the events.
    """

    def __init__(self, plan: dict[str, Any], out: Any) -> None:
        self._plan = plan
        self._out = out
        self._chance = Random(f"{plan['seed']} {plan['number']} {plan['life']}")
        self._curiosity = Curiosity(self._chance, plan["number"] + 100 * plan["life"])
        self._world = World(Path(plan["world"]))
        settings = Settings(
            redis_url=plan["redis_url"],
            chroma_url=plan["chroma_url"],
            vectors=plan["vectors"],
            dir=Path(plan["directory"]),
            key=plan["key"],
            decisions=_DECISIONS,
        )
        # words suffice to distinguish the topics; the real model is the default
        model = HashEmbedder() if plan["embedder"] == "hash" else None
        self.cache = MultiLevelCache(
            settings=settings,
            embedding_model=model,
            namespace="soak",
            shared_intents=[f"intent-{number}" for number in range(0, INTENTS, 2)],
        )
        self._asked: Counter[str] = Counter()
        self._unconfirmed: list[dict[int, int]] = []
        self._invalidating = 0
        self._busy: set[asyncio.Task[None]] = set()
        self._lag = 0.0
        self._beats: deque[tuple[float, float]] = deque(maxlen=200)
        self._due = 0.0

    # ------------------------------------------------------------------------------ life

    async def run(self, ended: asyncio.Event) -> None:
        """Work until *ended*, then close and record what is left."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        await self.cache.initialize()
        with contextlib.suppress(GlasscacheError):
            await self.cache.ready()
        self._bound()
        await self._tune_at_first()
        self._event("ready")
        watching = [
            asyncio.create_task(work()) for work in (self._sample, self._confirm, self._beat)
        ]
        while not ended.is_set():
            await asyncio.sleep(self._chance.expovariate(self._plan["rate"]))
            if len(self._busy) < _AT_ONCE:
                task = asyncio.create_task(self._act())
                self._busy.add(task)
                task.add_done_callback(self._busy.discard)
            else:
                self._event("shed")
        if self._busy:
            await asyncio.wait(self._busy, timeout=_PATIENCE)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self._balance(still=True)
        await self.cache.close()
        await asyncio.sleep(0.2)
        here = asyncio.current_task()
        left = [str(task.get_coro()) for task in asyncio.all_tasks() if task is not here]
        self._event("closed", tasks=left, fds=_files())

    def _bound(self) -> None:
        """Make all bounded structures so small that they are full before memory is measured."""
        parts = self.cache._parts if self.cache.is_open else None
        embedder: Any = getattr(getattr(parts, "semantic", None), "embedder", None)
        while (inner := getattr(embedder, "_inner", None)) is not None:
            embedder = inner
        if hasattr(embedder, "_kept"):
            embedder._kept = _VECTORS

    async def _tune_at_first(self) -> None:
        ttl = self._plan["ttl"]
        values = {"l1_ttl": ttl, "l2_ttl": ttl, "l3_ttl": ttl, "l4_ttl": ttl}
        with contextlib.suppress(GlasscacheError):
            await self.cache.tune(values, author="soak")

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._event("exception", where="unhandled", error=f"{context.get('message')}: {error!r}")

    # ------------------------------------------------------------------------------ agents

    async def _act(self) -> None:
        chance = self._chance.random()
        question = self._curiosity.question()
        if chance < 0.55:
            what, work = "lookup", self._look_up(question)
        elif chance < 0.9:
            what, work = "get_or_compute", self._compute(question)
        elif chance < 0.94:
            what, work = "cancel", self._cancel(question)
        elif chance < 0.955:
            what, work = "explain", self._explain(question)
        elif chance < 0.965:
            what, work = "tune", self._tune()
        else:
            what, work = "invalidate", self._invalidate()
        try:
            await work
        except Exception as error:
            log.exception("%s raised", what)
            self._event("exception", where=what, error=repr(error))

    async def _look_up(self, question: Question) -> None:
        before = self._world.confirmed_before()
        started, at = time.perf_counter(), time.time()
        result = await self.cache.lookup(question.text, question.user_id, **question.where)
        seconds = time.perf_counter() - started
        self._asked["lookups"] += 1
        self._looked_up(at, seconds, self._late(started), result)
        self._judge("lookup", question, result.response, before, result)
        if result.intent is not None and result.intent != question.intent:
            self._violation("wrong", "intent", question, result.intent, result)
        for document in result.rag_results or ():
            self._judge("documents", question, document.get("text"), before, result)
        if result.response is None:
            answer = await self._llm(question)
            started = time.perf_counter()
            await self.cache.put(
                question.text, question.user_id, answer, question.intent,
                _documents(question, answer), tags=_tags(question), lookup=result,
                **question.where,
            )  # fmt: skip
            self._event("put", s=round(time.perf_counter() - started, 6))
        elif self._chance.random() < 0.1:
            await self.cache.feedback(result.lookup_id, correct=True)

    async def _compute(self, question: Question) -> None:
        worked = 0.0

        async def compute() -> Answer:
            nonlocal worked
            started = time.perf_counter()
            answer = await self._llm(question)
            worked = time.perf_counter() - started
            return Answer(
                answer, question.intent, _documents(question, answer), tags=_tags(question)
            )

        before = self._world.confirmed_before()
        started, at = time.perf_counter(), time.time()
        answer = await self.cache.get_or_compute(
            question.text, question.user_id, compute, **question.where
        )
        seconds = time.perf_counter() - started
        self._asked["lookups"] += 1
        self._event("computed", t=at, s=round(seconds - worked, 6), led=worked > 0)
        self._judge("get_or_compute", question, answer, before, None)

    async def _cancel(self, question: Question) -> None:
        before = self._world.confirmed_before()
        lookup = asyncio.ensure_future(
            self.cache.lookup(question.text, question.user_id, **question.where)
        )
        self._asked["lookups"] += 1
        await asyncio.sleep(self._chance.random() * 0.003)
        lookup.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            result = await lookup
            self._judge("lookup", question, result.response, before, result)

    async def _explain(self, question: Question) -> None:
        await self.cache.explain(question.text, question.user_id, **question.where)

    async def _tune(self) -> None:
        chance = self._chance
        changes: dict[str, Any] = {
            "semantic_threshold": round(chance.uniform(0.92, 0.97), 3),
            "l1_ttl": self._plan["ttl"] * chance.uniform(0.5, 1),
            "shared_intents": [
                f"intent-{n}" for n in range(0, INTENTS, 2) if chance.random() < 0.8
            ],
        }
        name = chance.choice(list(changes))
        # an operator learns that the store is unavailable, or that somebody else was first
        with contextlib.suppress(GlasscacheError):
            value = None if chance.random() < 0.3 and name != "l1_ttl" else changes[name]
            await self.cache.tune({name: value}, author=f"replica {self._plan['number']}")
            self._event("tuned")

    async def _invalidate(self) -> None:
        chance, world = self._chance, self._world
        kind = chance.choices(["message", "own", "document", "tag", "user"], [6, 3, 2, 0.3, 0.7])[0]
        topic, variant, user = (
            chance.randrange(TOPICS),
            chance.randrange(2),
            chance.randrange(USERS),
        )
        question = self._curiosity.about(topic, variant, user)
        wording = question.wording or 0
        self._invalidating += 1
        try:
            if kind == "message":
                raised = world.raise_([world.message(wording)])
                done = await self.cache.invalidate(question.text)
            elif kind == "own":
                raised = world.raise_([world.own(wording, user)])
                done = await self.cache.invalidate(question.text, question.user_id)
            elif kind == "document":
                raised = world.raise_([world.message(each) for each in wordings([topic])])
                done = await self.cache.invalidate_document(f"doc-{topic}")
            elif kind == "tag":
                tag = topic % TAGS
                found = wordings(range(tag, TOPICS, TAGS))
                raised = world.raise_([world.message(each) for each in found])
                done = await self.cache.invalidate_tag(f"tag-{tag}")
            else:
                raised = world.raise_([world.user(user)])
                done = await self.cache.forget_user(question.user_id)
        finally:
            self._invalidating -= 1
        self._event("invalidated", what=kind, complete=done.complete, pending=list(done.pending))
        if done.complete:
            world.confirm(raised)
        else:
            self._unconfirmed.append(raised)

    async def _llm(self, question: Question) -> str:
        answer = self._world.answer(question)
        await asyncio.sleep(self._chance.uniform(0.05, 0.3))
        return answer

    # ------------------------------------------------------------------------------ judging

    def _judge(
        self,
        where: str,
        question: Question,
        answer: object,
        before: bytes,
        result: LookupResult | None,
    ) -> None:
        if answer is None:
            return
        wrong = self._world.judge(question, answer, before)
        if wrong:
            self._violation(wrong, where, question, answer, result)

    def _violation(
        self,
        kind: str,
        where: str,
        question: Question,
        answer: object,
        result: LookupResult | None,
    ) -> None:
        """Record an answer that must not have been served.

        One served without its generation, since Redis was unavailable, is counted separately.
        """
        reasons = result.reasons if result is not None else ()
        if kind == "after_invalidation" and "unconfirmed" in reasons:
            kind = "after_invalidation_unconfirmed"
        confirmed = {cell: self._world.confirmed(cell) for cell in self._world.cells(question)}
        self._event(
            kind,
            where=where,
            asked=repr(question),
            said=str(answer),
            tier=result.tier if result is not None else None,
            age=result.age_seconds if result is not None else None,
            reasons=list(reasons),
            confirmed=confirmed,
        )

    def _looked_up(self, at: float, seconds: float, late: float, result: LookupResult) -> None:
        self._event(
            "lookup", t=round(at, 4), s=round(seconds, 6), late=round(late, 4), o=result.outcome,
            r=[reason for reason in result.reasons if reason in BACKEND_ERRORS], tier=result.tier,
        )  # fmt: skip

    async def _confirm(self) -> None:
        """Record as confirmed what the cache has completed since."""
        while True:
            await asyncio.sleep(0.1)
            state = self.cache.state
            if self._unconfirmed and not self._invalidating and state is not None:
                waiting, self._unconfirmed = self._unconfirmed, []
                if state.pending_invalidations:
                    self._unconfirmed = waiting
                for raised in waiting if not state.pending_invalidations else ():
                    self._world.confirm(raised)

    # ------------------------------------------------------------------------------ samples

    async def _beat(self) -> None:
        """Measure the lateness of this event loop, which shows a busy machine."""
        while True:
            self._due = time.perf_counter() + _BEAT
            await asyncio.sleep(_BEAT)
            now = time.perf_counter()
            self._beats.append((now, now - self._due))
            self._lag = max(self._lag, now - self._due)

    def _late(self, since: float) -> float:
        """Return the largest lateness of this event loop since a time, in seconds."""
        now = time.perf_counter()
        beats = [late for at, late in self._beats if at >= since]
        return max(0.0, now - self._due, *beats)

    async def _sample(self) -> None:
        while True:
            self._balance()
            state = self.cache.state
            self._event(
                "sample",
                rss=_resident(),
                heap=_heap(),
                blocks=sys.getallocatedblocks(),
                fds=_files(),
                threads=threading.active_count(),
                tasks=len(asyncio.all_tasks()) - len(self._busy),
                lag=round(self._lag, 4),
                pending=state.pending_invalidations if state is not None else None,
                dropped=sum(state.dropped.values()) if state is not None else None,
                breakers=dict(state.breakers) if state is not None else {},
            )
            self._lag = 0.0
            self._out.flush()
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _balance(self, *, still: bool = False) -> None:
        """Compare the counts with each other and, when idle, with our own."""
        stats = self.cache.metrics
        if sum(stats.outcomes.values()) != stats.lookups:
            self._event("counting", error=f"{dict(stats.outcomes)} of {stats.lookups}")
        if sum(stats.bypass_reasons.values()) != stats.outcomes["bypass"]:
            self._event("counting", error=f"{dict(stats.bypass_reasons)} {dict(stats.outcomes)}")
        for level in ("l1", "l2", "l3", "l4"):
            reasons = sum(n for (of, _), n in stats.miss_reasons.items() if of == level)
            if reasons != stats.misses[level]:
                self._event("counting", error=f"{level}: {reasons} reasons")
        counted = stats.lookups + stats.cancelled
        if still and counted != self._asked["lookups"]:
            self._event("counting", error=f"counted {counted} of {self._asked['lookups']} lookups")
        if still:
            self._event("counts", metrics=self.cache.get_metrics())

    def _event(self, kind: str, **values: Any) -> None:
        values = {"k": kind, "n": self._plan["number"], "life": self._plan["life"], **values}
        values.setdefault("t", round(time.time(), 4))
        self._out.write(json.dumps(values) + "\n")


def _documents(question: Question, answer: str) -> list[dict[str, str]]:
    return [{"id": f"doc-{question.topic}", "text": answer}]


def _tags(question: Question) -> list[str]:
    return [] if question.wording is None else [f"tag-{int(question.topic) % TAGS}"]


def _resident() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _heap() -> int | None:
    """Return the bytes allocated by malloc: RSS without its reserves."""
    with contextlib.suppress(AttributeError, OSError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _Mallinfo2
        found = ask()
        return int(found.uordblks + found.hblkhd)
    return None


async def work(plan: dict[str, Any]) -> None:
    """Run a replica until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with Path(plan["events"]).open("a", encoding="utf-8") as out:
        await Replica(plan, out).run(ended)


def main() -> None:
    """Run the replica that the first argument describes."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(work(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
