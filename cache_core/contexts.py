"""Which part of the context changes so often that there are too many contexts."""

from __future__ import annotations

from cache_core.models import Context

_VALUES = 100


class ContextWatch:
    """Remembers a few values of each context key, as hashes, to find the one that churns."""

    def __init__(self) -> None:
        self._values: dict[str, set[int]] = {}

    def note(self, context: Context) -> None:
        """Take note of a context."""
        if isinstance(context, str):
            context = {"(text)": context}
        for name, value in (context or {}).items():
            seen = self._values.setdefault(str(name), set())
            if len(seen) < _VALUES:
                seen.add(hash(str(value)))

    def churning(self) -> str:
        """Return the key with the most values, or the empty string."""
        return max(self._values, key=lambda name: len(self._values[name]), default="")
