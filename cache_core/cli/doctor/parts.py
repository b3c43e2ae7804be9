"""Checks of settings, the data directory and the semantic tier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cache_core.backends.redis.batches import is_before
from cache_core.backends.redis.vector_sets import LEAST_VERSION
from cache_core.cli.doctor.finding import Finding, skipped
from cache_core.cli.doctor.words import size
from cache_core.config.settings import Settings
from cache_core.model.exceptions import BackendError
from cache_core.model.remedies import remedy, said
from cache_core.model.urls import without_secrets
from cache_core.runtime.problems import Problem

_LITTLE = 100_000_000


@dataclass(frozen=True, slots=True)
class Disk:
    """Data directory.

    Attributes:
        path: The one in the settings.
        error: Reason why it cannot be used; empty if it can.
        free: Free bytes on its file system.
        new: Whether it did not exist before.
    """

    path: Path
    error: str = ""
    free: int = 0
    new: bool = False


@dataclass(frozen=True, slots=True)
class Semantic:
    """State of L2's parts.

    Attributes:
        problems: Backends that do not work, by name.
        index: Backend of the shared answers: `chroma` or `vectors`; empty while unknown.
        replicas: Number of running replicas.
        redis_version: Version of Redis; empty without one.
        model_error: Reason why the model cannot be loaded; empty if it can.
        embedding: Median seconds of an embedding; `None` if it failed, or was not tried.
        embedding_error: Failure of an embedding.
        verified: Way in which the model is identified, in words.
    """

    problems: dict[str, Problem] = field(default_factory=dict)
    index: str = ""
    replicas: int = 0
    redis_version: str = ""
    model_error: str = ""
    embedding: float | None = None
    embedding_error: BackendError | None = None
    verified: str = ""


def check_settings(
    settings: Settings, rejected: Sequence[str], misspelt: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield the findings on the environment's variables.

    Args:
        settings: Those in force.
        rejected: A line for each invalid variable.
        misspelt: Variables that are not read, with the name that was probably meant.
    """
    if rejected:
        yield Finding(
            "settings", "failure", "; ".join(rejected), "glasscache settings shows every variable."
        )
    elif misspelt:
        meant = ", ".join(f"{name} (did you mean {known}?)" for name, known in misspelt.items())
        yield Finding(
            "settings", "warning", f"not read: {meant}",
            "Correct the name: glasscache settings shows every variable.",
        )  # fmt: skip
    else:
        yield Finding("settings", "ok", "every variable that is set is valid")
    if settings.key:
        yield Finding("cache-key", "ok", "CACHE_KEY is set")
    elif not settings.redis_url:
        yield Finding("cache-key", "ok", "kept with the answers, in the embedded store")
    else:
        yield Finding(
            "cache-key", "note", "the secret is random, and kept in Redis alone",
            "Give all replicas, the tuner and the commands the same CACHE_KEY (openssl rand -hex "
            "32). The answers stored until now are not found again.",
        )  # fmt: skip


def check_disk(settings: Settings, disk: Disk, stored: int = 0) -> Finding:
    """Return the finding on the data directory; the embedded store has *stored* bytes there."""
    embedded = not settings.redis_url
    if disk.error:
        lost = (
            "each process keeps its answers to itself, until it ends"
            if embedded
            else "an invalidation that is pending when a process ends is lost"
        )
        return Finding(
            "disk", "failure" if embedded else "warning",
            f"{disk.path} cannot be used ({disk.error}): {lost}",
            "Set CACHE_DIR to a local directory that this user may write to.",
        )  # fmt: skip
    found = f"{disk.path}: writable, {size(disk.free)} free"
    if embedded and disk.new:
        return Finding(
            "disk", "note", f"{disk.path} did not exist: no agent has stored anything there",
            "If an agent runs, name its directory: --dir or CACHE_DIR.",
        )  # fmt: skip
    limit = settings.max_bytes
    if disk.free >= (max(limit - stored, min(limit, _LITTLE)) if embedded else _LITTLE):
        return Finding("disk", "ok", found)
    return Finding(
        "disk", "failure" if disk.free < _LITTLE else "warning", found,
        "Free some space, set CACHE_DIR to a larger disk, or lower CACHE_MAX_BYTES.",
    )  # fmt: skip


def check_semantic(settings: Settings, semantic: Semantic) -> Iterator[Finding]:
    """Yield the findings on the vector index and the model."""
    if "l2" not in settings.tiers:
        yield from skipped(("vectors", "model", "embedding-time"), "L2 is off (CACHE_TIERS)")
        return
    yield _vectors(settings, semantic)
    yield from _model(settings, semantic)


def _vectors(settings: Settings, semantic: Semantic) -> Finding:
    for name in ("chroma", "vectors"):
        if name in semantic.problems:
            problem = semantic.problems[name]
            what = f"{name} does not work" + (f": {problem.error}" if problem.error else "")
            return Finding("vectors", "failure", what, f"{problem.do}.")
    if not semantic.index:
        why = "the model is not loaded" if semantic.model_error else "the store is not reached"
        return Finding("vectors", "skipped", why)
    if semantic.index == "vectors":
        return Finding("vectors", "ok", "vector sets in Redis, shared by all replicas")
    if settings.chroma_url:
        return _server(settings.chroma_url)
    capable = semantic.redis_version and not is_before(semantic.redis_version, LEAST_VERSION)
    better = (
        "Grant the rights for vector sets in docs/servers.md: this Redis has them."
        if capable
        else "Set CHROMA_URL, or use Redis 8.2 or later."
    )
    if semantic.replicas > 1:
        return Finding(
            "vectors", "note",
            f"Chroma in each of {semantic.replicas} processes, which follow each other and keep "
            "the newest answers only",
            better,
        )  # fmt: skip
    if capable:
        return Finding("vectors", "note", "Chroma in the process, though Redis could do it", better)
    return Finding("vectors", "ok", "Chroma in the process")


def _server(url: str) -> Finding:
    shown, parts = without_secrets(url), urlsplit(url)
    login = parts.password is not None or "api_key=" in parts.query
    if login or parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return Finding("vectors", "ok", f"Chroma at {shown} answers")
    return Finding(
        "vectors", "note", f"Chroma at {shown} answers, without a login",
        "Everybody who reaches it can read all shared answers: keep it on a private network, or "
        "put a proxy with a login in front.",
    )  # fmt: skip


def _model(settings: Settings, semantic: Semantic) -> Iterator[Finding]:
    name = settings.embedding_model
    if semantic.model_error:
        yield Finding(
            "model", "failure", semantic.model_error,
            "Install what is missing, correct EMBEDDING_MODEL and EMBEDDING_BACKEND, or set "
            "CACHE_TIERS=l1,l3,l4 to do without L2.",
        )  # fmt: skip
        yield from skipped(("embedding-time",), "the model is not loaded")
        return
    failed = semantic.embedding_error
    if failed is not None:
        yield Finding(
            "model", "failure", f"{name} embeds nothing: {said(failed)}",
            f"{remedy(failed)}.",
        )  # fmt: skip
        yield from skipped(("embedding-time",), "the model embeds nothing")
        return
    yield Finding("model", "ok", f"{name}: {semantic.verified}")
    if semantic.embedding is None:
        yield from skipped(("embedding-time",), "no embedding was made")
        return
    budget = settings.embedding_budget
    found = f"{1000 * semantic.embedding:,.0f} ms; a lookup waits {1000 * budget:,.0f} ms"
    if semantic.embedding <= budget / 2:
        yield Finding("embedding-time", "ok", found)
    else:
        yield Finding(
            "embedding-time", "failure" if semantic.embedding > budget else "warning", found,
            "Give the process more CPU, use a nearer or faster model, or raise "
            "CACHE_EMBEDDING_BUDGET and CACHE_LOOKUP_BUDGET.",
        )  # fmt: skip
