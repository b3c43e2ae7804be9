"""The audit trail of the tuning: a hash in the keyed store with one row per version.

A row is claimed once and never changed, and each holds everything that was tuned as of it. So the
trail is the state, its newest good row is what is in force, and claiming the next version is the
compare-and-set: plain commands, one key, the same on a server, a Cluster and in SQLite.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache_core.exceptions import ConfigurationError
from cache_core.intent_tuning import unflatten
from cache_core.stores.base import KeyValueStore
from cache_core.tuning_layers import make_tuning

KEPT = 1_000
"""Versions that the trail keeps."""

TUNING = "tuning"
"""Name of the trail among the namespace's own records."""

MAX_AUTHOR = 200
MAX_NOTE = 2_000

_FORMAT = 1
_NAME = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TuningChange:
    """One entry of the audit trail.

    Attributes:
        version: That it made; 0 is the state before any change.
        at: When, in seconds since the epoch by the store's clock.
        author, note: Who made it, and why.
        before, after: The fields that changed, as JSON values; an override per intent is named
            `intent.LABEL.FIELD`. An `after` of `None` means "no longer tuned". A `before` that
            was not tuned is what was in force, as far as whoever made the change could see.
        reverts: The version whose state was restored; `None` for an ordinary change.
    """

    version: int
    at: float
    author: str
    note: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    reverts: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the trail: a change, and everything that was tuned once it was made.

    Attributes:
        change: What somebody did.
        tuned: Name to JSON value, flat.
    """

    change: TuningChange
    tuned: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The record as it is stored."""
        change = {name: getattr(self.change, name) for name in TuningChange.__slots__}
        return json.dumps({"format": _FORMAT, **change, "tuned": self.tuned}, sort_keys=True)


class Trail:
    """The audit trail of one namespace.

    Every coroutine raises `BackendError` when the store failed.

    Args:
        store: Where it is.
        key: Its key, and the channel on which a new version is told.
    """

    def __init__(self, store: KeyValueStore, key: str) -> None:
        self.store = store
        self.key = key

    async def versions(self) -> tuple[list[int], list[str]]:
        """Return the versions there are, oldest first, and row names that are none."""
        names = await self.store.row_names(self.key)
        found = sorted(int(name) for name in names if _NAME.fullmatch(name))
        return found, [name for name in names if not _NAME.fullmatch(name)]

    async def texts(self, versions: Sequence[int]) -> Sequence[str | None]:
        """Return the rows of *versions* in order, as they are stored."""
        return await self.store.some_rows(self.key, [str(version) for version in versions])

    async def claim(self, record: Record) -> bool:
        """Add *record* and tell the others; return False if its version is taken."""
        return await self.store.claim_row(self.key, str(record.change.version), record.text)

    async def trim(self, versions: Sequence[int]) -> None:
        """Forget all of *versions* but the newest."""
        oldest = [str(version) for version in versions[:-KEPT]]
        await self.store.delete_rows(self.key, oldest)

    async def last(self, limit: int) -> list[TuningChange]:
        """Return the newest changes, newest first; rows that are none are left out."""
        versions = (await self.versions())[0][-limit:][::-1] if limit > 0 else []
        texts = await self.texts(versions)
        found = (parse(version, text or "") for version, text in zip(versions, texts, strict=True))
        return [record.change for record in found if record is not None]


def parse(version: int, text: str) -> Record | None:
    """Return the record in *text*, or `None` for what is none, or would be refused today."""
    try:
        values: Any = json.loads(text)
        if values.pop("format") != _FORMAT or values["version"] != version:
            return None
        tuned = values.pop("tuned")
        change = TuningChange(**values)
        make_tuning(("the store", unflatten(tuned)))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, ConfigurationError):
        return None
    sound = (
        _is_number(change.at)
        and isinstance(change.author, str)
        and isinstance(change.note, str)
        and isinstance(change.before, dict)
        and isinstance(change.after, dict)
        and (change.reverts is None or type(change.reverts) is int)
        and "version" not in tuned
    )
    return Record(change, tuned) if sound else None


def _is_number(value: object) -> bool:
    return type(value) in {int, float} and math.isfinite(value)  # type: ignore[arg-type]
