"""Stored entries of one message, as an operator may see them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache_core.backends.base import Keyed
from cache_core.config.tuning import Tuning
from cache_core.model import envelope
from cache_core.model.batches import batched
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Level

_TOGETHER = 20
_MOST = 200


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry.

    Attributes:
        level: The tier that holds it.
        scope: `shared`, or `user` with the beginning of the user's digest.
        follow_up: Whether it answers a message with a history.
        locked: Whether it was encrypted with a key that this process does not have; intent and text
            are empty then.
        age_seconds: Time since it was put.
        ttl_seconds: Time from then until it expires; `None` if it is locked.
        intent: Its label.
        text: The response, or the number of documents; empty unless capture is on.
    """

    level: Level
    scope: str
    follow_up: bool
    locked: bool
    age_seconds: float
    ttl_seconds: float | None
    intent: str = ""
    text: str = ""

    @property
    def expired(self) -> bool:
        """True if it is kept only so that `expired` differs from `cold`."""
        return self.ttl_seconds is not None and self.age_seconds > self.ttl_seconds


async def stored_entries(
    store: Keyed, keys: Keys, message: str, tuning: Tuning, *, with_text: bool
) -> list[StoredEntry]:
    """Return the entries of a message, by tier, newest first; 200 at most.

    What is damaged is left out: nothing of it is served.

    Args:
        store: Holds them.
        keys: Made their names.
        message: All its variants in letter case, spaces and final signs are included.
        tuning: In force, for the TTLs.
        with_text: Whether what they hold may be shown.

    Raises:
        BackendError: If the store failed.
    """
    listed = await store.rows(keys.index("message", keys.tag(message)))
    names = [name for name in listed if keys.names_entry(name)][:_MOST]
    found: list[StoredEntry] = []
    for page in batched(names, _TOGETHER):
        for name, text in zip(page, await store.read(page), strict=True):
            item = None if text is None else _stored(keys, name, text, store.now(), tuning)
            if item is not None:
                found.append(item if with_text else replace(item, text=""))
    return sorted(found, key=lambda item: (item.level, item.age_seconds))


def _stored(keys: Keys, name: str, text: str, now: float, tuning: Tuning) -> StoredEntry | None:
    level, scope = keys.level_and_scope(name)
    shown = "shared" if scope == keys.shared else f"user {scope[:8]}"
    follow_up = keys.has_history(name)
    try:
        entry = envelope.decode(text, name, {scope}, keys.sealer)
    except envelope.LockedError:
        age = max(0.0, now - envelope.created(text))
        return StoredEntry(level, shown, follow_up, locked=True, age_seconds=age, ttl_seconds=None)
    except (envelope.CorruptError, envelope.ForeignError):
        return None
    return StoredEntry(
        level,
        shown,
        follow_up,
        locked=False,
        age_seconds=envelope.age(entry, now),
        ttl_seconds=entry.life(tuning.ttl(level, entry.intent)),
        intent=entry.intent or "",
        text=_text(entry),
    )


def _text(entry: Entry) -> str:
    if entry.response is not None:
        return entry.response
    if entry.rag_results is not None:
        count = len(entry.rag_results)
        return "1 document" if count == 1 else f"{count} documents"
    return entry.intent or ""
