"""A store and an index with answers in them, and an invalidation's parts, without a cache."""

from __future__ import annotations

from typing import Any

from cache_core.backends.base import Row, RowWrite, Write
from cache_core.backends.memory_index import MemoryIndex
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Query, Scope
from cache_core.observability.decisions import DecisionLog
from cache_core.operations.invalidate.entries import StoredEntries
from cache_core.operations.invalidate.erase import Forgetter
from cache_core.operations.invalidate.execute import Executor
from cache_core.operations.invalidate.outbox import Outbox
from cache_core.operations.invalidate.retries import Done, Worklist
from cache_core.operations.invalidate.run import Invalidator
from cache_core.operations.invalidate.semantic import Semantic
from cache_core.operations.invalidate.steps import Sought, Step
from cache_core.testing import HashEmbedder
from cache_core.tiers.denylist import Denylist
from cache_core.tiers.journal import Journal
from cache_core.tiers.semantic.private_vectors import pack, private_rows
from cache_core.tiers.semantic.replication import IndexFeed
from cache_core.tiers.semantic.similar import SimilarQuestions
from tests.support.vectors import PlainVectors

LIFE = 600.0


class Bench:
    """A store with entries in it, an index, and what executes steps on them."""

    def __init__(self, store: Any, *, l2: bool = True, index: Any = None) -> None:
        self.store = store
        self.keys = Keys("bench", b"k" * 32)
        self.keys.model = "m"
        self.denied = Denylist()
        self.journal = Journal(store, self.keys, self.denied)
        self.index = index or MemoryIndex()
        self.embedder = HashEmbedder()
        self.vectors = PlainVectors(self.embedder, self.index)
        self.questions = SimilarQuestions(store, self.keys, self.vectors)
        self.feed = IndexFeed(store, self.keys, self.vectors, "", "me")
        semantic = None
        if l2:
            semantic = Semantic(self, self.questions, self.feed)  # type: ignore[arg-type]
        self.forgotten: list[str] = []
        self.alive = False
        decisions = DecisionLog(store, self.keys.own("decisions"), 10, None)
        self.semantic = semantic
        self.entries = StoredEntries(store, self.keys, semantic.questions if semantic else None)
        self.execute = Executor(
            store,
            self.keys,
            self.journal,
            self.entries,
            Forgetter(store, self.keys, decisions, self.journal, self.entries, semantic, lambda: 5),
            semantic,
            self,
        )

    def invalidator(self, outbox: Outbox) -> Invalidator:
        steps = Worklist(self.execute, self.denied, outbox, "store")
        return Invalidator(
            steps, self.execute, self.keys, self.journal, self.entries, self.semantic
        )

    async def somebody_has_l2(self) -> bool:
        return self.alive

    def forget(self, user: str) -> None:
        self.forgotten.append(user)

    def query(self, message: str, user: str | None = "ann") -> Query:
        return self.keys.query(message, user)

    def like(self, message: str) -> Sought:
        return Sought.of(self.query(message), Tuning(semantic_threshold=0.9))

    async def fill(self, message: str, scope: Scope = "user", user: str = "ann") -> str:
        """Store an answer as a put does; return the name of its entry."""
        query = self.query(message, user)
        digest = query.scope(scope)
        key = self.keys.similar_entry(query.tag, digest, query.context)
        entry = Entry(
            "answer", scope=digest, message=message, generation="p1",
            created=self.store.now(), writer=self.keys.user(user),
        )  # fmt: skip
        text = envelope.encode(entry, key, None)
        vector = await self.embedder.embed(message)
        writes = [
            RowWrite(self.keys.index("message", query.tag), {key: scope}, LIFE),
            RowWrite(self.keys.index("tag", self.keys.label("tag", "t")), {query.tag: ""}, LIFE),
            RowWrite(
                self.keys.index("document", self.keys.label("document", "d")), {query.tag: ""}, LIFE
            ),
        ]
        if scope == "shared":
            await self.index.add(query.context, Row(query.tag, vector, text, entry.created + LIFE))
            writes.append(RowWrite(self.keys.index("writer", entry.writer), {key: query.tag}, LIFE))
        else:
            writes.append(RowWrite(self.keys.index("user", digest), {key: query.tag}, LIFE))
            writes += private_rows(self.keys, query, pack(vector), LIFE)
        await self.store.put_rows(writes)
        await self.store.write([Write(key, text, LIFE), Write(self.token(message), "p1", LIFE)])
        return key

    def token(self, message: str) -> str:
        return self.keys.generation(self.query(message).tag)

    async def value(self, name: str) -> str | None:
        (found,) = await self.store.read([name])
        return found

    async def logged(self, name: str) -> int:
        return len(await self.store.after(self.keys.own(name), "", 100))

    async def do(self, step: Step, *, again: bool = False) -> Done:
        return await self.execute(step, again=again)
