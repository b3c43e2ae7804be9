"""Rows of a vector set, as one attribute each: checksum, expiry, exact vector and text."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from cache_core.backends.base import Neighbour, Row, Vector
from cache_core.backends.redis.replies import text_of

_HEAD = struct.Struct("<IdH")
"""Checksum, expiry in seconds, number of values."""

_CHECKSUM = 4
_HALF = np.dtype("<f2")
"""Half precision: a cosine changes by 0.00004 at most. The set's own 8 bits change it by 0.005."""


class Found(NamedTuple):
    """A row that a vector set returned.

    Attributes:
        key: The set.
        id: The row's id.
        score: The set's own similarity, 0..1 for cosines of -1..1.
        packed: Its attribute; `None` if it has none.
    """

    key: str
    id: str
    score: float
    packed: bytes | None


def pack(key: str, row: Row) -> bytes:
    """Return the attribute of *row* in the set *key*.

    Raises:
        ValueError: If it has no direction, or its text no encoding.
    """
    length = float(np.linalg.norm(row.vector))
    if not 0 < length < float("inf"):
        raise ValueError("the vector has no direction")
    values = (row.vector / length).astype(_HALF).tobytes()
    body = _HEAD.pack(0, row.dropped, row.vector.size)[_CHECKSUM:] + values + row.text.encode()
    return _checksum(key, row.id, body) + body


def _checksum(key: str, identity: str, body: bytes) -> bytes:
    """Return a CRC-32 that binds *body* to its set and id.

    An entry is checked against its key, but its vector alone decides for which questions it is
    served: the vector of another question would serve it for that one.
    """
    place = f"{key} {identity} ".encode("utf-8", "surrogatepass")
    return crc32(body, crc32(place)).to_bytes(_CHECKSUM, "little")


def neighbours(found: Sequence[Found], vector: Vector) -> list[Neighbour]:
    """Return *found* with exact similarities to *vector*, nearest first.

    A row whose checksum does not match has an empty text, which is no envelope, and the set's own
    similarity.
    """
    sound: list[tuple[str, str]] = []
    values: list[bytes] = []
    near: list[Neighbour] = []
    for row in found:
        parts = _parts(row, vector.size)
        if parts is None:
            near.append(Neighbour(row.id, _clipped(2 * row.score - 1), ""))
        else:
            sound.append((row.id, parts[1]))
            values.append(parts[0])
    if values:
        stored = np.frombuffer(b"".join(values), _HALF).reshape(len(values), -1).astype(np.float32)
        cosines = (stored @ vector) / np.linalg.norm(stored, axis=1)
        near += [
            Neighbour(identity, _clipped(cosine), text)
            for (identity, text), cosine in zip(sound, cosines.tolist(), strict=True)
        ]
    return sorted(near, key=_rank)


def _parts(row: Found, dimension: int) -> tuple[bytes, str] | None:
    """Return the values and the text of a row; `None` if it is not sound."""
    packed, start = row.packed or b"", _HEAD.size
    end = start + dimension * _HALF.itemsize
    if len(packed) < end or _checksum(row.key, row.id, packed[_CHECKSUM:]) != packed[:_CHECKSUM]:
        return None
    if _HEAD.unpack_from(packed)[2] != dimension:
        return None
    return packed[start:end], packed[end:].decode()


def text_in(key: str, identity: str, packed: bytes) -> str:
    """Return the text of a row of the set *key*; empty if it is not sound."""
    size = _HEAD.unpack_from(packed)[2] if len(packed) >= _HEAD.size else 0
    parts = _parts(Found(key, identity, 0.0, packed), size)
    return "" if parts is None else parts[1]


def content(key: str, identity: str, packed: bytes | None) -> tuple[str, float] | None:
    """Return the text and the expiry of a row from its attribute; `None` if it is not sound."""
    if packed is None or len(packed) < _HEAD.size:
        return None
    _, dropped, dimension = _HEAD.unpack_from(packed)
    parts = _parts(Found(key, identity, 0.0, packed), dimension)
    return None if parts is None else (parts[1], dropped)


def _clipped(cosine: float) -> float:
    return min(1.0, max(0.0, cosine))


def _rank(near: Neighbour) -> float:
    return -near.similarity


def found_in(key: str, reply: Any) -> list[Found]:
    """Return the rows in the reply to VSIM WITHSCORES WITHATTRIBS, of either protocol."""
    if isinstance(reply, Mapping):
        triples = [(name, *pair) for name, pair in reply.items()]
    else:
        triples = list(zip(reply[::3], reply[1::3], reply[2::3], strict=True))
    return [
        Found(key, text_of(name) or "", float(score), packed) for name, score, packed in triples
    ]
