"""Choice of what encodes a model's texts, and the embedder that all caches of a process share."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Literal, TypeAlias

from cache_core.backends.embedder import onnx, sentence_transformers
from cache_core.backends.embedder.encoder import PACKAGED_MODEL, is_packaged
from cache_core.backends.embedder.identity import model_identity
from cache_core.backends.embedder.pool import ThreadEmbedder

Backend: TypeAlias = Literal["auto", "onnx", "torch"]

_shared: dict[tuple[str, Backend], ThreadEmbedder] = {}
_shared_lock = threading.Lock()


def chosen(model: str, backend: Backend) -> Backend:
    """Return `onnx` or `torch`: what *backend* stands for with *model* and what is installed."""
    if backend != "auto":
        return backend
    # With neither, the error should name what is lighter to install.
    able = onnx.is_installed() or not sentence_transformers.is_installed()
    return "onnx" if is_packaged(model) and able else "torch"


def make_embedder(
    model: str = PACKAGED_MODEL, backend: Backend = "auto", torch_threads: int = 1
) -> ThreadEmbedder:
    """Return an embedder of *model* for one user alone; it is not loaded yet.

    Args:
        model: Name of the model.
        backend: Library that runs it.
        torch_threads: See `SentenceTransformerEncoder`.
    """
    if chosen(model, backend) == "onnx":
        return ThreadEmbedder(
            model, onnx.OnnxEncoder, identify=_onnx_identity, workers=onnx.workers()
        )
    return ThreadEmbedder(
        model,
        partial(sentence_transformers.SentenceTransformerEncoder, threads=torch_threads),
        identify=partial(model_identity, model),
        batch=sentence_transformers.BATCH,
    )


def shared_embedder(
    model: str = PACKAGED_MODEL, backend: Backend = "auto", torch_threads: int = 1
) -> ThreadEmbedder:
    """Return this process's embedder of *model*: its weights are large, so all caches share it.

    Args:
        model: Name of the model.
        backend: Library that runs it.
        torch_threads: See `SentenceTransformerEncoder`; the first cache of a model decides.
    """
    key = (model, chosen(model, backend))
    with _shared_lock:
        embedder = _shared.get(key)
        if embedder is None or embedder.failed:
            embedder = _shared[key] = make_embedder(model, key[1], torch_threads)
        return embedder


def _onnx_identity() -> str:
    return onnx.IDENTITY


def _forked() -> None:
    global _shared_lock  # noqa: PLW0603 - the parent's may have been held
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
