"""Audit trail of the tuning: a hash in the keyed store with one row per version.

A row is claimed once and never changed, and each contains the whole tuning as of its version. So
the trail is the state, its newest valid row is in force, and claiming the next version is the
compare-and-set: plain commands, one key, the same on a server, a Cluster and in SQLite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cache_core.backends.base import Hashes, Notices, Timed
from cache_core.config.intents import unflatten
from cache_core.config.layers import make_tuning
from cache_core.config.stage import Stage
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.stored import Format, Moment, Whole, from_store

CHANGES_KEPT = 1_000
"""Most versions in the trail."""

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
        version: The version it created; 0 is the state before any change.
        at: Time of the change, in seconds since the epoch by the store's clock.
        author, note: Author and reason.
        before, after: The changed fields, as JSON values; an override per intent is named
            `intent.LABEL.FIELD`. An `after` of `None` means "no longer tuned". A `before` that
            was not tuned is the value in force, as far as the changing process could see.
        reverts: The version whose state was restored; `None` for an ordinary change.
        stage: The watch that began with it; `None` without one. It ends with the next version,
            which takes the change back or, without changing a value, confirms it.
    """

    version: Whole
    at: Moment
    author: str
    note: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    reverts: Whole | None = None
    stage: Stage | None = None

    @property
    def until(self) -> float | None:
        """Time at which the stage ends, in seconds since the epoch."""
        return None if self.stage is None else self.at + self.stage.seconds


_CHANGE = Format(TuningChange)


@dataclass(frozen=True, slots=True)
class TrailRecord:
    """Row of the trail: a change, and the whole tuning after it.

    Attributes:
        change: The change.
        tuned: JSON values by name, flat.
    """

    change: TuningChange
    tuned: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The stored form of the record."""
        change = asdict(self.change)
        if self.change.stage is None:
            # an older release rejects a row with a field that it does not know
            del change["stage"]
        return json.dumps({"format": _FORMAT, **change, "tuned": self.tuned}, sort_keys=True)


class TrailStore(Hashes, Notices, Timed, Protocol):
    """Store that keeps rows, notifies followers, and has a clock."""


class Trail:
    """Audit trail of one namespace.

    Every coroutine raises `BackendError` if the store fails.

    Args:
        store: The store.
        key: The trail's key, and the channel that announces a new version.
    """

    def __init__(self, store: TrailStore, key: str) -> None:
        self.store = store
        self.key = key

    async def versions(self) -> tuple[list[int], list[str]]:
        """Return the versions in the trail, oldest first, and invalid row names."""
        names = await self.store.row_names(self.key)
        found = sorted(int(name) for name in names if _NAME.fullmatch(name))
        return found, [name for name in names if not _NAME.fullmatch(name)]

    async def texts(self, versions: Sequence[int]) -> Sequence[str | None]:
        """Return the stored rows of *versions* in order."""
        return await self.store.some_rows(self.key, [str(version) for version in versions])

    async def claim(self, record: TrailRecord) -> bool:
        """Append *record*; return False if its version is taken."""
        return await self.store.claim_row(self.key, str(record.change.version), record.text)

    async def trim(self, versions: Sequence[int]) -> None:
        """Delete all of *versions* but the newest."""
        oldest = [str(version) for version in versions[:-CHANGES_KEPT]]
        await self.store.delete_rows(self.key, oldest)

    async def last(self, limit: int) -> list[TuningChange]:
        """Return the newest changes, newest first, without invalid rows."""
        versions = (await self.versions())[0][-limit:][::-1] if limit > 0 else []
        texts = await self.texts(versions)
        found = (parse(version, text or "") for version, text in zip(versions, texts, strict=True))
        return [record.change for record in found if record is not None]


def parse(version: int, text: str) -> TrailRecord | None:
    """Return the record in *text*; `None` if it is invalid, or would be refused today."""
    try:
        values = from_store(text)
        if values.pop("format") != _FORMAT or values["version"] != version:
            return None
        tuned = values.pop("tuned")
        change = _CHANGE.checked(values)
        make_tuning(("the store", unflatten(tuned)))
    except (AttributeError, KeyError, TypeError, ValueError, ConfigurationError):
        return None
    return None if "version" in tuned else TrailRecord(change, tuned)
