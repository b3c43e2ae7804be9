"""Names of the vector sets of a namespace, and the record of them in Redis.

A set's name contains a random token, which one hash keeps by model, dimension and context. An
invalidation looks for similar questions in all contexts of that hash. If it is lost, or a row of
it, a new token names new and empty sets: rows that an invalidation may have missed are never found
again, and expire.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

from cache_core.backends.redis.replies import text_of

LEAST_VERSION = (8, 2)
"""First version of Redis whose searches return attributes."""

_FIELD = re.compile(r"(?P<model>[^.]*)\.(?P<dimension>[0-9]{1,5})\.(?P<context>.+)", re.DOTALL)
_VALUE = re.compile(r"[0-9a-f]{16}\.(?P<shards>[1-9][0-9]?)")


class Place(NamedTuple):
    """The sets of one model, dimension and context.

    Attributes:
        field: Their row in the record.
        value: Its value: the token and the number of sets.
    """

    field: str
    value: str

    @property
    def shards(self) -> int:
        """Number of sets: a row is in that of its id."""
        return int(self.value.partition(".")[2])

    def shard(self, identity: str) -> int:
        """Return the number of the set of a row."""
        return crc32(identity.encode("utf-8", "surrogatepass")) % self.shards


def field_of(model: str, dimension: int, context: str) -> str:
    """Return the row of the record for a model, a dimension and a context."""
    return f"{model}.{dimension}.{context}"


def context_of(field: str, model: str) -> str | None:
    """Return the context of a row of the record; `None` if it is another model's."""
    found = _FIELD.fullmatch(field)
    return found["context"] if found is not None and found["model"] == model else None


def new_value(shards: int) -> str:
    """Return the value of a new row of the record, for so many sets."""
    return f"{secrets.token_hex(8)}.{shards}"


def is_value(value: str | None) -> bool:
    """Return whether *value* is one of a row of the record."""
    return value is not None and _VALUE.fullmatch(value) is not None


def places_of(reply: Any) -> tuple[list[Place], list[str]]:
    """Return the rows of the record, and the names of its invalid ones.

    Args:
        reply: The reply to HGETALL, of either protocol.
    """
    pairs: Iterable[tuple[Any, Any]] = (
        reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    )
    places: list[Place] = []
    invalid: list[str] = []
    for name, value in pairs:
        field, text = text_of(name) or "", text_of(value)
        if text is not None and is_value(text) and _FIELD.fullmatch(field):
            places.append(Place(field, text))
        else:
            invalid.append(field)
    return places, invalid
