"""Choice of what encodes a model's texts, and the embedder that all caches of a process share."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Literal, TypeAlias

from cache_core.backends.embedder import endpoint as endpoints
from cache_core.backends.embedder import onnx, sentence_transformers
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.endpoint import Endpoint
from cache_core.backends.embedder.identity import is_published, model_identity
from cache_core.backends.embedder.pool import Meter, ThreadEmbedder
from cache_core.model.exceptions import ConfigurationError

Backend: TypeAlias = Literal["auto", "onnx", "torch", "http"]

_shared: dict[tuple[str, Backend, Endpoint | None], ThreadEmbedder] = {}
_shared_lock = threading.Lock()


def chosen(model: str, backend: Backend, endpoint: Endpoint | None = None) -> Backend:
    """Return what *backend* stands for, given *model*, *endpoint* and what is installed."""
    if backend != "auto":
        return backend
    if endpoint is not None:
        return "http"
    # With neither, the error should name what is lighter to install.
    able = onnx.is_installed() or not sentence_transformers.is_installed()
    return "onnx" if able and is_published(model) else "torch"


def _resolved(model: str, backend: Backend, endpoint: Endpoint | None) -> tuple[str, Backend]:
    """Return the model's name, the packaged one's for a directory of it, and what runs it."""
    kind = chosen(model, backend, endpoint)
    # By itself `auto` takes onnxruntime for the packaged model alone.
    if kind == "onnx" and (backend == "auto" or is_published(model)):
        return PACKAGED_MODEL, kind
    return model, kind


def make_embedder(
    model: str = PACKAGED_MODEL,
    backend: Backend = "auto",
    torch_threads: int = 1,
    endpoint: Endpoint | None = None,
) -> ThreadEmbedder:
    """Return an embedder of *model* for one user alone; it is not loaded yet.

    Args:
        model: Name of the model.
        backend: Library that runs it, or `http` for *endpoint*.
        torch_threads: See `SentenceTransformerEncoder`.
        endpoint: Address of a server that runs it.

    Raises:
        ConfigurationError: For `http` without an endpoint.
    """
    model, kind = _resolved(model, backend, endpoint)
    if kind == "http":
        if endpoint is None:
            raise ConfigurationError("EMBEDDING_BACKEND=http needs EMBEDDING_URL")
        return _remote(model, endpoint)
    if kind == "onnx":
        return ThreadEmbedder(
            model, onnx.OnnxEncoder, identify=_onnx_identity, workers=onnx.workers()
        )
    return ThreadEmbedder(
        model,
        partial(sentence_transformers.SentenceTransformerEncoder, threads=torch_threads),
        identify=partial(model_identity, model),
        batch=sentence_transformers.BATCH,
    )


def _remote(model: str, endpoint: Endpoint) -> ThreadEmbedder:
    meter = Meter()
    return ThreadEmbedder(
        model,
        partial(endpoints.EndpointEncoder, endpoint=endpoint, meter=meter),
        identify=partial(endpoint.identity_of, model),
        workers=endpoints.WORKERS,
        batch=endpoints.BATCH,
        meter=meter,
    )


def shared_embedder(
    model: str = PACKAGED_MODEL,
    backend: Backend = "auto",
    torch_threads: int = 1,
    endpoint: Endpoint | None = None,
) -> ThreadEmbedder:
    """Return this process's embedder of *model*: its weights are large, so all caches share it.

    The arguments are those of `make_embedder`; the first cache of a model decides on the threads.
    """
    model, kind = _resolved(model, backend, endpoint)
    key = (model, kind, endpoint if kind == "http" else None)
    with _shared_lock:
        embedder = _shared.get(key)
        if embedder is None or embedder.failed:
            embedder = _shared[key] = make_embedder(model, kind, torch_threads, endpoint)
        return embedder


def _onnx_identity() -> str:
    return onnx.IDENTITY


def _forked() -> None:
    global _shared_lock  # noqa: PLW0603 - the parent's may have been held
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
