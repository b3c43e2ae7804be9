"""Record of the embedding models whose vectors a namespace has, and of those in use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cache_core.backends.base import Hashes, RowWrite, Timed
from cache_core.model.keys import Keys
from cache_core.model.stored import Format, Moment

MODELS = "models"
"""Name of the namespace's record of models."""

RENEWED_SECONDS = 60.0
"""Seconds between two renewals by each replica."""

GRACE_SECONDS = 86_400.0
"""Seconds for which the vectors of a model are kept that no replica uses any more.

So a deployment can be reverted, and `glasscache reembed` has time to move what is stored.
"""

_DIGEST = re.compile("[0-9a-f]{1,32}")
_LIFE = 61 * 86_400.0


class Store(Hashes, Timed, Protocol):
    """Hashes, with the clock that all replicas share."""


class Model(NamedTuple):
    """A model whose vectors a namespace may have.

    Attributes:
        digest: Digest of its identity, as in key names.
        identity: See `backends.embedder.identity`.
        first: The store's time when a replica first used it.
        last: The store's time when a replica last reported it.
    """

    digest: str
    identity: str
    first: float
    last: float


class _Row(NamedTuple):
    identity: str
    first: Moment
    last: Moment


_FORMAT = Format(_Row, (1,))


@dataclass(slots=True)
class KnownModels:
    """The models of a namespace.

    Every coroutine raises `BackendError` if the store failed.

    Args:
        store: Holds the record.
        keys: Its name, and the digest of the model in use here.
        identity: Identity of that model.
    """

    store: Store
    keys: Keys
    identity: str

    @property
    def _name(self) -> str:
        return self.keys.own(MODELS)

    async def renew(self) -> None:
        """Record that the model of this process is in use."""
        now = self.store.now()
        (found,) = await self.store.some_rows(self._name, [self.keys.model])
        known = None if found is None else _FORMAT.parse(found)
        row = _Row(self.identity, now if known is None else known.first, now)
        await self.store.put_rows(
            [RowWrite(self._name, {self.keys.model: _FORMAT.text(row)}, _LIFE)]
        )

    async def others(self) -> list[Model]:
        """Return all models but that of this process, the last used first."""
        return sorted(
            (model for model in await self._all() if model.digest != self.keys.model),
            key=lambda model: -model.last,
        )

    async def abandoned(self) -> list[Model]:
        """Return the models that no replica has used for `GRACE_SECONDS`.

        The time begins when they were last reported, and not before another model was in use: a
        fleet may have been off for longer.
        """
        models = await self._all()
        mine = next((model.first for model in models if model.digest == self.keys.model), None)
        if mine is None:
            return []
        limit = self.store.now() - GRACE_SECONDS
        return [
            model
            for model in models
            if model.digest != self.keys.model and max(model.last, mine) < limit
        ]

    async def forget(self, model: Model) -> None:
        """Remove a model from the record: nothing of it is left."""
        await self.store.delete_rows(self._name, [model.digest])

    async def _all(self) -> list[Model]:
        rows = await self.store.rows(self._name)
        parsed = {digest: _FORMAT.parse(text) for digest, text in rows.items()}
        return [
            Model(digest, *row)
            for digest, row in parsed.items()
            if row is not None and _DIGEST.fullmatch(digest)
        ]
