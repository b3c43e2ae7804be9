"""What the keyed store holds for one message. No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from cache_core import envelope
from cache_core.models import Entry, Level
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.tuning import Tuning

_AT_ONCE = 20
_MOST = 200


@dataclass(frozen=True, slots=True)
class Stored:
    """One entry.

    Attributes:
        level: The tier.
        scope: `shared`, or the beginning of a user's digest.
        follow_up: Whether it answers a message with a history.
        age_seconds, ttl_seconds: Since it was put, and until it expires.
        intent: Its label.
        text: The response, or how many documents there are; empty unless capture is on.
    """

    level: Level
    scope: str
    follow_up: bool
    age_seconds: float
    ttl_seconds: float
    intent: str
    text: str

    @property
    def expired(self) -> bool:
        """Whether it is only kept to tell `expired` from `cold`."""
        return self.age_seconds > self.ttl_seconds


async def stored(cache: MultiLevelCache, message: str, tuning: Tuning) -> list[Stored]:
    """Return the entries for exactly *message*, of all users and contexts, 200 at most.

    Args:
        cache: On the agents' store.
        message: In the words in which it was stored; case and final punctuation don't matter.
        tuning: In force, for the TTLs.

    Raises:
        BackendError: If the store is away.
    """
    parts = cache.parts
    tag = parts.keys.query(message, None).tag
    index = parts.keys.index("message", tag)
    names = list(await parts.store.rows(index))[:_MOST]
    found: list[Stored] = []
    for start in range(0, len(names), _AT_ONCE):
        page = names[start : start + _AT_ONCE]
        for name, text in zip(page, await parts.store.read(page), strict=True):
            item = None if text is None else _stored(cache, tuning, name, text)
            if item is not None:
                found.append(item)
    return sorted(found, key=lambda item: (item.level, item.age_seconds))


def _stored(cache: MultiLevelCache, tuning: Tuning, name: str, text: str) -> Stored | None:
    parts = cache.parts
    level, scope, _, history = name.partition("}:")[2].split(":", 3)
    try:
        entry = envelope.decode(text, name, {scope})
    except (envelope.CorruptError, envelope.ForeignError):
        return None
    ttl = tuning.ttl(cast("Level", level), entry.intent)
    return Stored(
        level=cast("Level", level),
        scope="shared" if scope == parts.keys.shared else f"user {scope[:8]}",
        follow_up=bool(history),
        age_seconds=envelope.age(entry, parts.store.now()),
        ttl_seconds=ttl if entry.ttl is None else entry.ttl,
        intent=entry.intent or "",
        text=_text(entry) if cache.settings.capture_message_content else "",
    )


def _text(entry: Entry) -> str:
    if entry.response is not None:
        return entry.response
    if entry.rag_results is not None:
        count = len(entry.rag_results)
        return "1 document" if count == 1 else f"{count} documents"
    return entry.intent or ""
