"""Backends of an open cache that do not work: what each said, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from cache_core.model.remedies import CONNECTING, LOADING, NO_MODEL, remedy, said
from cache_core.observability.instruments import CacheState
from cache_core.runtime.assembly import Parts


@dataclass(frozen=True, slots=True)
class Problem:
    """A backend that does not work.

    Attributes:
        backend: Its name.
        do: What to do, in words.
        error: What it said, without secrets; empty if it said nothing.
    """

    backend: str
    do: str
    error: str = ""


def problems(parts: Parts, state: CacheState) -> list[Problem]:
    """Return the backends that do not work."""
    return [_problem(parts, name) for name, works in state.backends.items() if not works]


def _problem(parts: Parts, backend: str) -> Problem:
    breaker = parts.breakers.get(backend)
    if backend in parts.missing:
        return Problem(backend, parts.off)
    if breaker is not None and breaker.last is not None:
        last = breaker.last
        return Problem(backend, f"{remedy(last)}; it is tried again by itself", said(last))
    if backend == "embedder":
        failed = parts.semantic is not None and parts.semantic.embedder.failed
        return Problem(backend, NO_MODEL if failed else LOADING)
    return Problem(backend, CONNECTING)
