"""Protocol of a loaded model, and the model that comes with the `semantic` extra."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from cache_core.backends.base import Vector
from cache_core.model.exceptions import BackendError

ORGANISATION = "sentence-transformers/"
PACKAGED_MODEL = "all-MiniLM-L6-v2"
"""The model whose weights come with a package."""


class Encoder(Protocol):
    """A loaded model; called from as many threads at a time as its pool has workers."""

    def encode(self, texts: Sequence[str]) -> Iterable[Vector | BackendError]:
        """Return a unit vector for each text, or the reason why it has none.

        Raises:
            Exception: If none has one.
        """
        ...

    def fits(self, text: str) -> bool:
        """Return whether the model reads the whole *text*."""
        ...

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text*: unknown parts are all alike."""
        ...


@runtime_checkable
class ClosingEncoder(Encoder, Protocol):
    """An encoder that holds connections."""

    def close(self) -> None:
        """Close them."""
        ...


def is_packaged(name: str) -> bool:
    """Return whether *name* is one of the packaged model's two names."""
    return name.removeprefix(ORGANISATION) == PACKAGED_MODEL
