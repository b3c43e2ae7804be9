"""Typed log of records in the keyed store: validated when read, some fields encrypted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Generic

from cache_core.backends.base import Logs
from cache_core.model.sealing import Sealer, SealError
from cache_core.model.stored import Format, Record, changed

PAGE = 200
"""Rows read, and parsed, together: a millisecond."""


class Log(Generic[Record]):
    """Records of one type, oldest first. Invalid rows are skipped.

    Every coroutine raises `BackendError` when the store fails.

    Args:
        store: Store of the log.
        name: The log's key.
        form: Stored form of a record.
        keep: About how many records are kept.
        sealed: Text fields that *sealer* encrypts.
        bound_to: Field to whose value, with its own field's name, an encrypted text is bound; empty
            to bind it to the log alone.
        sealer: Encrypts; `None` to store readable text.
    """

    def __init__(
        self,
        store: Logs,
        name: str,
        form: Format[Record],
        keep: int,
        *,
        sealed: Sequence[str] = (),
        bound_to: str = "",
        sealer: Sealer | None = None,
    ) -> None:
        self._store = store
        self.name = name
        self._form = form
        self._keep = keep
        self._sealed = sealed
        self._bound_to = bound_to
        self._sealer = sealer

    async def append(self, records: Iterable[Record]) -> None:
        """Append *records*, their *sealed* fields encrypted."""
        await self._append([self._closed(record) for record in records])

    async def _append(self, records: Sequence[Record]) -> None:
        texts = [self._form.text(record) for record in records]
        await self._store.append(self.name, texts, keep=self._keep)

    async def last(self, count: int, containing: str = "") -> list[Record]:
        """Return the records in the newest *count* rows, opened; see `pages` for *containing*."""
        rows = await self._store.last(self.name, count)
        return [self.opened(item) for _, item in self._parsed(rows, containing)]

    async def since(self, position: str, count: int = PAGE) -> list[tuple[str, Record | None]]:
        """Return up to *count* (position, record) pairs after a position; `""` is the start.

        Records are as stored: see `opened`. `None` stands for an invalid row.
        """
        rows = await self._store.after(self.name, position, count)
        return [(at, self._form.parse(text)) for at, text in rows]

    async def pages(self, containing: str = "") -> AsyncIterator[list[tuple[str, Record]]]:
        """Yield all records as stored, page by page, each with its position.

        Rows may be removed and appended meanwhile.

        Args:
            containing: Only rows with this text are parsed: the log may have 100,000.
        """
        position = ""
        while rows := await self._store.after(self.name, position, PAGE):
            position = rows[-1][0]
            yield self._parsed(rows, containing)
            # Lets lookups run between two pages: the embedded store reads without yielding.
            await asyncio.sleep(0)

    def _parsed(self, rows: Sequence[tuple[str, str]], containing: str) -> list[tuple[str, Record]]:
        return [
            (at, item)
            for at, text in rows
            if containing in text and (item := self._form.parse(text)) is not None
        ]

    async def rewrite(self, change: Callable[[Record], Record | None], containing: str = "") -> int:
        """Change or remove records; return how many were removed.

        Args:
            change: Called with each record as stored; returns the same one to keep it, another to
                append in its place, or `None` to remove it.
            containing: See `pages`.
        """
        removed = 0
        async for page in self.pages(containing):
            changes = [(at, new) for at, old in page if (new := change(old)) is not old]
            # Appended before the others are removed: a failure in between duplicates, not loses.
            if instead := [new for _, new in changes if new is not None]:
                await self._append(instead)
            await self.remove([at for at, _ in changes])
            removed += len(changes) - len(instead)
        return removed

    async def remove_where(self, predicate: Callable[[Record], bool], containing: str = "") -> int:
        """Remove the records that satisfy *predicate*, as stored; return how many."""
        return await self.rewrite(lambda item: None if predicate(item) else item, containing)

    async def remove(self, positions: Sequence[str]) -> None:
        """Remove the rows at *positions*."""
        if positions:
            await self._store.remove(self.name, positions)

    def opened(self, record: Record) -> Record:
        """Return *record* decrypted; fields that cannot be decrypted are empty."""
        if self._sealer is None:
            return record
        found = self._sealed_in(record)
        return changed(record, **{name: self._open(text, place) for name, text, place in found})

    def _closed(self, record: Record) -> Record:
        if self._sealer is None:
            return record
        seal, found = self._sealer.seal, self._sealed_in(record)
        return changed(record, **{name: seal(text, place) for name, text, place in found})

    def _sealed_in(self, record: Record) -> list[tuple[str, str, str]]:
        """Return name, text and binding of each encrypted field."""
        bound = getattr(record, self._bound_to) if self._bound_to else ""
        return [
            (name, text, f"{bound}{name}" if self._bound_to else self.name)
            for name in self._sealed
            if (text := getattr(record, name))
        ]

    def _open(self, text: str, place: str) -> str:
        try:
            return self._sealer.open(text, place) if self._sealer is not None else text
        except SealError:
            return ""
