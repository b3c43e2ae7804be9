"""Makes the vectors of the reference with sentence-transformers and the packaged fp32 weights."""

from __future__ import annotations

import numpy as np

from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.sentence_transformers import SentenceTransformerEncoder
from tests.backends.embedder.reference import VECTORS, texts


def main() -> None:
    """Write the vectors as float16: 230 kB, each value right to three digits."""
    encoder = SentenceTransformerEncoder(PACKAGED_MODEL)
    # Each by itself: in a batch, padding changes the last digits.
    made = np.concatenate([encoder.encode([text]) for text in texts()])
    np.savez_compressed(VECTORS, vectors=made.astype(np.float16))


if __name__ == "__main__":
    main()
