"""300 texts, and the vectors that sentence-transformers makes of them with the fp32 weights.

`python -m tests.backends.embedder.reference.make` makes the vectors.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

_TEXTS = Path(__file__).parent / "texts.json"
VECTORS = Path(__file__).parent / "vectors.npz"


def texts() -> list[str]:
    """Return the texts: many languages, code, signs, of one letter to more than the window."""
    found: list[str] = json.loads(_TEXTS.read_text())
    return found


def vectors() -> npt.NDArray[np.float32]:
    """Return their vectors, shape (300, 384), of unit length to three digits."""
    with np.load(VECTORS) as stored:
        found: npt.NDArray[np.float32] = stored["vectors"].astype(np.float32)
    return found
