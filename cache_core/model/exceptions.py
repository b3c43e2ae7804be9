"""Exceptions of this package.

    GlasscacheError
    ├── ConfigurationError (also a ValueError)   a setting, an extra or a model that cannot work
    ├── TuningConflict                           somebody else has changed the tuning
    └── BackendError                             a store, the vector index or the embedder failed

`lookup` and `put` raise neither: a failing backend becomes an outcome, and is counted.
`ConfigurationError` comes from constructors and from `ready()`; a value of the wrong type raises
`TypeError`, a value out of its range `ValueError`, wherever it is passed.
"""

from __future__ import annotations

from typing import Literal

ErrorReason = Literal["timeout", "backend_error", "breaker_open", "overloaded", "isolation"]
"""Reasons why a tier could not answer: the closed set behind `cache_errors_total{reason}`."""


class GlasscacheError(Exception):
    """Base of every error raised by glasscache."""


class ConfigurationError(GlasscacheError, ValueError):
    """A setting, a missing extra or an unknown model: the message says why and what to do."""


class TuningConflict(GlasscacheError):  # noqa: N818 - named after what it reports
    """Somebody else changed the tuning meanwhile; nothing was changed.

    Attributes:
        expected: The version that the change was made for.
        found: The version in force.
    """

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(
            f"the tuning is at version {found}, not {expected}: somebody changed it meanwhile. "
            "Look at what they changed, then try again"
        )
        self.expected = expected
        self.found = found


class BackendError(GlasscacheError):
    """A backend failed to do its work.

    Attributes:
        reason: The counted cause.
        error_type: Name of the original exception's type, for logs and spans.
        backend: The backend, if known: `redis`, `embedded`, `chroma` or `embedder`; for one node of
            a Cluster, that node.
        where: The setting that an operator changes to reach it: `REDIS_URL` or `redis_pool=`.
    """

    def __init__(self, reason: ErrorReason, error_type: str = "", message: str = "") -> None:
        super().__init__(message or reason)
        self.reason: ErrorReason = reason
        self.error_type = error_type or reason
        self.backend = ""
        self.where = ""

    def copy(self) -> BackendError:
        """Return an equal error: one object raised twice mixes tracebacks."""
        other = type(self)(self.reason, self.error_type, str(self))
        other.backend, other.where = self.backend, self.where
        return other


class CorruptValueError(BackendError):
    """A stored value was invalid, and was deleted."""


class InputTooLongError(BackendError):
    """An embedding model refused a text for its length; the model itself is well."""
