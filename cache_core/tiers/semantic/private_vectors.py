"""Vectors of a user's own questions: packed for the keyed store, and compared with another."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from zlib import crc32

from cache_core.backends.base import RowWrite, Vector
from cache_core.model.keys import PARTITIONS, Keys
from cache_core.model.values import Query

KEPT_VECTORS = 64
"""Number of newest questions kept per user and context."""

QUANTISED = 0.001
"""Amount by which a private similarity may be too low: vectors have 8 bits a value."""

_APART = "."
"""Separator of a packed vector and its checksum; not in the alphabet of base64."""


def private_rows(keys: Keys, query: Query, packed: str, life: float) -> list[RowWrite]:
    """Return the rows of a user's packed question, and of the list of its partitions.

    Args:
        keys: Names of the hashes.
        query: The user's question.
        packed: See `pack`.
        life: Seconds that its answer is kept.
    """
    user = query.scope("user")
    vectors = keys.vectors(user, query.context)
    owner = {vectors: f"{user} {query.context}"}
    question = {query.tag: _summed(vectors, query.tag, packed)}
    return [
        RowWrite(keys.own(PARTITIONS + keys.model), owner, life, longest=True),
        RowWrite(vectors, question, life, KEPT_VECTORS, longest=True),
    ]


def _summed(key: str, tag: str, packed: str) -> str:
    """Return a packed vector with a CRC-32 that binds it to its key and tag."""
    place = f"{key} {tag} {packed}".encode("utf-8", "surrogatepass")
    return f"{packed}{_APART}{crc32(place):08x}"


def sound(key: str, rows: Mapping[str, str]) -> dict[str, str]:
    """Return those of a hash's *rows* whose checksum matches.

    An entry is checked against its key, but its vector alone decides for which questions it is
    served: the vector of another question would serve it for that one. Rows of earlier versions
    have no checksum and are accepted.

    Args:
        key: The hash's key.
        rows: Packed vectors by tag.
    """
    return {
        tag: row
        for tag, row in rows.items()
        if _APART not in row or row == _summed(key, tag, row.partition(_APART)[0])
    }


def pack(vector: Vector) -> str:
    """Return *vector* as int8 in base64, scaled to its largest value.

    The scale is not stored, since it cancels out in a cosine; quantisation changes that by 0.0003.
    """
    import numpy as np

    scale = float(np.abs(vector).max()) / 127 or 1.0
    quantised = np.rint(vector / scale).astype(np.int8)
    return base64.b64encode(quantised.tobytes()).decode("ascii")


def nearest(rows: Mapping[str, str], vector: Vector) -> list[tuple[str, float]]:
    """Return (tag, cosine 0..1) of packed *rows*, nearest first; unreadable rows are omitted.

    Checksums are not checked: see `sound`.
    """
    import numpy as np

    tags: list[str] = []
    matrix: list[np.ndarray] = []
    for tag, row in rows.items():
        packed = row.partition(_APART)[0]
        try:
            values = np.frombuffer(base64.b64decode(packed, validate=True), dtype=np.int8)
        except (binascii.Error, ValueError):
            continue
        if values.shape == vector.shape:
            tags.append(tag)
            matrix.append(values)
    if not matrix:
        return []
    stacked = np.stack(matrix).astype(np.float32)
    cosines = (stacked @ vector) / np.linalg.norm(stacked, axis=1).clip(1e-9)
    order = np.argsort(-cosines)
    return [(tags[i], min(1.0, max(0.0, float(cosines[i])))) for i in order]
