"""A user's own questions as vectors: packed for the keyed store, and scored against another."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from cache_core.embedder import Vector
from cache_core.intent_tuning import MAX_TTL
from cache_core.keys import PARTITIONS, Keys
from cache_core.models import Query
from cache_core.stores.base import RowWrite
from cache_core.tiers.keyed import KEPT

KEPT_VECTORS = 64
"""Questions remembered per user and context; the newest."""

QUANTISED = 0.001
"""By what a private similarity may be too low: its vector is kept in 8 bits a value."""


def private_rows(keys: Keys, query: Query, packed: str) -> list[RowWrite]:
    """Return the rows that keep the packed vector of a user's question, and tell where it is.

    Args:
        keys: Names them.
        query: The question; of a user.
        packed: See `pack`.
    """
    user = query.scope("user")
    vectors = keys.vectors(user, query.context)
    owner = {vectors: f"{user} {query.context}"}
    return [
        RowWrite(keys.own(PARTITIONS + keys.model), owner, KEPT * MAX_TTL),
        RowWrite(vectors, {query.tag: packed}, KEPT * MAX_TTL, KEPT_VECTORS),
    ]


def pack(vector: Vector) -> str:
    """Return *vector* as int8 in base64, scaled to its largest value.

    The scale is not kept: it cancels out in a cosine, which changes by 0.0003.
    """
    import numpy as np

    scale = float(np.abs(vector).max()) / 127 or 1.0
    quantised = np.rint(vector / scale).astype(np.int8)
    return base64.b64encode(quantised.tobytes()).decode("ascii")


def nearest(rows: Mapping[str, str], vector: Vector) -> list[tuple[str, float]]:
    """Return (tag, cosine 0..1) of packed *rows*, nearest first; unreadable rows are left out."""
    import numpy as np

    tags: list[str] = []
    matrix: list[np.ndarray] = []
    for tag, packed in rows.items():
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
