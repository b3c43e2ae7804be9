"""Everything that this package raises.

    GlasscacheError
    ├── ConfigurationError (also a ValueError)   a setting, an extra or a model that cannot work
    ├── TuningConflict                           somebody else changed the tuning meanwhile
    └── BackendError                             a store, the vector index or the embedder failed

`lookup` and `put` let neither out: a failing backend becomes an outcome, and is counted.
`ConfigurationError` comes from constructors and from `ready()`; a value of the wrong type raises
`TypeError`, a value out of its range `ValueError`, wherever it is passed.
"""

from __future__ import annotations

from typing import Literal

ErrorReason = Literal["timeout", "backend_error", "breaker_open", "overloaded", "isolation"]
"""Why a tier could not answer: the closed set behind `cache_errors_total{reason}`."""


class GlasscacheError(Exception):
    """Base of every error raised by glasscache."""


class ConfigurationError(GlasscacheError, ValueError):
    """A setting, a missing extra or an unknown model: says what, why and what to do."""


class TuningConflict(GlasscacheError):  # noqa: N818 - named after what it tells
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
    """A backend did not do what it was asked.

    Attributes:
        reason: The counted cause.
        error_type: Name of the original exception's type, for logs and spans.
        backend: Which one, where that is known: `redis`, `embedded`, `chroma` or `embedder`.
    """

    def __init__(self, reason: ErrorReason, error_type: str = "", message: str = "") -> None:
        super().__init__(message or reason)
        self.reason: ErrorReason = reason
        self.error_type = error_type or reason
        self.backend = ""

    def copy(self) -> BackendError:
        """Return another one that says the same: one object raised twice mixes tracebacks."""
        other = BackendError(self.reason, self.error_type, str(self))
        other.backend = self.backend
        return other


class CorruptValueError(BackendError):
    """What the store held cannot be one of its values, and was deleted."""
