"""Protocol of a loaded model, and the model that comes with the `semantic` extra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # numpy comes with the `semantic` extra; the other tiers work without it
    import numpy as np
    import numpy.typing as npt

ORGANISATION = "sentence-transformers/"
PACKAGED_MODEL = "all-MiniLM-L6-v2"
"""The model whose weights come with a package."""


class Encoder(Protocol):
    """A loaded model; called from as many threads at a time as its pool has workers."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension)."""
        ...

    def fits(self, text: str) -> bool:
        """Return whether the model reads the whole *text*."""
        ...

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text*: unknown parts are all alike."""
        ...


def is_packaged(name: str) -> bool:
    """Return whether *name* is one of the packaged model's two names."""
    return name.removeprefix(ORGANISATION) == PACKAGED_MODEL
