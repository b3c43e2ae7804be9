"""Vectors of a model that this process does not use."""

from __future__ import annotations

from cache_core.backends.base import KeepsFormer, KeyValueStore, VectorIndex
from cache_core.backends.log import Log
from cache_core.model.batches import batched
from cache_core.model.keys import PARTITIONS, Keys
from cache_core.tiers.semantic.models import KnownModels, Model
from cache_core.tiers.semantic.replication import FORMAT, ROWS_KEPT

_TOGETHER = 200


class FormerAnswers:
    """Answers of other models, whose vectors are dropped once no replica uses them.

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

    def _feed(self, model: Model) -> Log:  # type: ignore[type-arg]
        name = self._keys.own(f"feed{model.digest}")
        return Log(self._store, name, FORMAT, ROWS_KEPT, sealed=("text",), sealer=self._keys.sealer)

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
