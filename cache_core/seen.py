"""Which generation of a message this task's lookups saw.

A value computed before an invalidation is stamped with the generation from before it, and so is
never served. Lookup leaves the token in a context variable, put takes it: nobody has to carry it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

_KEPT = 16

_Name = tuple[str, str]
_UNSEEN = "unseen"
_NOTHING: Mapping[_Name, str | None] = {}
_seen: ContextVar[Mapping[_Name, str | None]] = ContextVar("glasscache_seen", default=_NOTHING)


@dataclass(frozen=True, slots=True)
class Seen:
    """The generation that a lookup saw; `None` when the message had none."""

    generation: str | None


def remember(replica: str, tag: str, generation: str | None) -> None:
    """Leave the generation of a message to the put that may follow in this task."""
    seen = _seen.get()
    if seen.get((replica, tag), _UNSEEN) == generation:
        return
    kept = itertools.islice(seen.items(), max(0, len(seen) - _KEPT + 1), None)
    _seen.set({**dict(kept), (replica, tag): generation})


def take(replica: str, tag: str) -> Seen | None:
    """Return what the last lookup of a message in this task saw, once."""
    name = (replica, tag)
    seen = _seen.get()
    if name not in seen:
        return None
    _seen.set({key: value for key, value in seen.items() if key != name})
    return Seen(seen[name])


def invalidation(replica: str, tag: str) -> str:
    """Return the token that an invalidation gave a message, if the last lookup here saw one."""
    generation = _seen.get().get((replica, tag)) or ""
    return generation if generation.startswith("i") else ""


def forget() -> None:
    """Forget everything: what this task puts from now on is no result of an earlier lookup."""
    _seen.set(_NOTHING)
