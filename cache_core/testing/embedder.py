"""Embedder without a model."""

from __future__ import annotations

import re
from hashlib import blake2b

from cache_core.backends.base import Vector


class HashEmbedder:
    """Embedder without a model: texts are similar as far as they share words.

    Deterministic and instant. Two texts with the same words, in any order, have similarity 1.

    Args:
        model: Name that separates its vectors from those of others.
        window: Maximal number of words; longer texts do not fit.
    """

    def __init__(self, model: str = "hash", window: int = 256) -> None:
        self._model = model
        self._window = window
        self.ready = True
        self.failed = False
        self.calls: list[str] = []
        """Every text that was embedded, in order."""
        self.failure: Exception | None = None
        """Raised by `embed` while it is set."""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    def start(self) -> None:
        """Do nothing: there is no model to load."""

    async def wait_ready(self) -> None:
        """Return immediately."""

    def fits(self, text: str) -> bool:
        """Return whether *text* has no more words than the window."""
        return len(_words(text)) <= self._window

    def knows(self, text: str) -> bool:
        """Return True: all words are known."""
        return True

    async def embed(self, text: str) -> Vector:
        """Return the sum of the words' vectors, scaled to length 1, shape (64,)."""
        self.calls.append(text)
        if self.failure is not None:
            raise self.failure
        import numpy as np  # of the `semantic` extra: the other doubles work without it

        vector = np.zeros(64, dtype=np.float32)
        # A text without words counts as one word.
        for word in _words(text) or [text]:
            data = word.encode("utf-8", "surrogatepass")
            seed = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
            vector += np.random.default_rng(seed).standard_normal(64).astype(np.float32)
        return vector / float(np.linalg.norm(vector))

    def close(self) -> None:
        """Do nothing: there is no worker."""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
