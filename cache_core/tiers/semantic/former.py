"""Answers whose vectors are of a model that this process does not use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from cache_core.backends.base import FormerRow, KeepsFormer, KeyValueStore, VectorIndex
from cache_core.backends.embedder import onnx
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.log import Log
from cache_core.model import envelope
from cache_core.model.batches import batched
from cache_core.model.keys import PARTITIONS, Keys
from cache_core.tiers.semantic.models import KnownModels, Model
from cache_core.tiers.semantic.private_vectors import KEPT_VECTORS
from cache_core.tiers.semantic.replication import FORMAT, ROWS_KEPT

_TOGETHER = 200


class Former(NamedTuple):
    """An answer of L2 with no vector of the model in use, as far as is known.

    Attributes:
        tag: Digest of its message.
        scope: Digest of its user, or of the shared scope.
        context: Digest of its context.
        text: Its envelope; `None` if it was erased.
        dropped: The store's time after which its row may be swept; 0 for a private one.
    """

    tag: str
    scope: str
    context: str
    text: str | None
    dropped: float = 0.0


class FormerAnswers:
    """Answers of other models: found in their indexes, and dropped with them.

    Every coroutine raises `BackendError` if the store or the index failed.

    Args:
        store: Holds private answers, and all of them where indexes are not shared.
        keys: Their names.
        index: The index in use, without a wrapper.
        models: The models of the namespace.
        own_index: Whether the index is this process's alone.
    """

    def __init__(
        self,
        store: KeyValueStore,
        keys: Keys,
        index: VectorIndex,
        models: KnownModels,
        *,
        own_index: bool,
    ) -> None:
        self._store = store
        self._keys = keys
        self._index = index if isinstance(index, KeepsFormer) else None
        self._own_index = own_index
        self._dropped: set[str] = set()
        self.models = models

    async def known(self) -> list[Model]:
        """Return the models that may have vectors here, besides the one in use."""
        found = await self.models.others()
        digests = {self._keys.model, *(model.digest for model in found)}
        # Versions before the record existed used one of these.
        for identity in (PACKAGED_MODEL, onnx.IDENTITY):
            digest = self._keys.model_digest(identity)
            if digest not in digests:
                found.append(Model(digest, identity, 0.0, 0.0))
        return found

    async def shared(self) -> AsyncIterator[Sequence[Former]]:
        """Yield shared answers, some at a time; none twice where indexes are not shared."""
        seen: set[tuple[str, str]] = set()
        for model in await self.known():
            if self._index is not None:
                async for page in self._index.rows_of(model.digest, model.identity):
                    yield await self._stored(page, seen)
            if self._own_index:
                # Each process has its own index; what others put is in the log of them all.
                async for records in self._feed(model).pages():
                    rows = [
                        FormerRow(record.context, record.tags[0], "", record.dropped)
                        for _, record in records
                        if record.kind == "put" and record.tags
                    ]
                    yield await self._stored(rows, seen)

    async def _stored(self, rows: Sequence[FormerRow], seen: set[tuple[str, str]]) -> list[Former]:
        """Return the answers of *rows*; where indexes are not shared, as they are in the store."""
        shared = self._keys.shared
        if not self._own_index:
            return [Former(row.id, shared, row.context, row.text, row.dropped) for row in rows]
        fresh = {(row.context, row.id): row for row in rows if (row.context, row.id) not in seen}
        seen.update(fresh)
        names = [self._keys.similar_entry(row.id, shared, row.context) for row in fresh.values()]
        values = await self._store.read(names) if names else []
        return [
            Former(row.id, shared, row.context, text, row.dropped)
            for row, text in zip(fresh.values(), values, strict=True)
        ]

    def _feed(self, model: Model) -> Log:  # type: ignore[type-arg]
        name = self._keys.own(f"feed{model.digest}")
        return Log(self._store, name, FORMAT, ROWS_KEPT, sealed=("text",), sealer=self._keys.sealer)

    async def private(self) -> AsyncIterator[Sequence[Former]]:
        """Yield the answers of each user and context, oldest first."""
        for model in await self.known():
            for key, owner in (await self._partitions(model)).items():
                user, _, context = owner.partition(" ")
                tags = list(await self._store.row_names(key))
                found: list[Former] = []
                for chunk in batched(tags, KEPT_VECTORS):
                    names = [self._keys.similar_entry(tag, user, context) for tag in chunk]
                    values = await self._store.read(names)
                    found += [
                        Former(tag, user, context, text)
                        for tag, text in zip(chunk, values, strict=True)
                    ]
                found.sort(key=lambda item: envelope.created(item.text or ""))
                yield found[-KEPT_VECTORS:]

    async def _partitions(self, model: Model) -> dict[str, str]:
        """Return the hashes of private vectors of a model, with user and context of each."""
        rows = await self._store.rows(self._keys.own(PARTITIONS + model.digest))
        return {
            key: owner
            for key, owner in rows.items()
            if key == self._keys.vectors_of(model.digest, *owner.partition(" ")[::2])
        }

    async def sweep(self) -> int:
        """Remove the vectors of models that no replica uses any more; return how many models.

        Where indexes are not shared each process removes its own. The record of a model is kept
        until all had the time to.
        """
        swept, abandoned = 0, await self.models.abandoned()
        # One that came back into use is swept again once it is abandoned again.
        self._dropped &= {model.digest for model in abandoned}
        for model in abandoned:
            if model.digest in self._dropped:
                continue
            if self._index is not None:
                await self._index.drop_model(model.digest, model.identity)
            partitions = await self._partitions(model)
            for batch in batched(list(partitions), _TOGETHER):
                await self._store.delete(batch)
            await self._store.delete([self._keys.own(PARTITIONS + model.digest)])
            await self._feed(model).remove_where(lambda _: True)
            self._dropped.add(model.digest)
            swept += 1
            if not self._own_index:
                await self.models.forget(model)
        return swept
