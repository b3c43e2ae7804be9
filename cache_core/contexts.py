"""Which part of the context changes so often that there are too many contexts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from itertools import islice

from cache_core.models import Context

_KEYS = 64
_VALUES = 100
_LOOKED_AT = 8


class ContextWatch:
    """Remembers a few values of each context key, as hashes, to find the one that churns.

    At most 64 keys with 100 values each. A list or mapping is told apart by its size and its first
    plain values: every lookup pays for this.
    """

    def __init__(self) -> None:
        self._values: dict[str, set[int]] = {}
        self._other_keys = False

    def note(self, context: Context) -> None:
        """Take note of a context."""
        if not context:
            return
        if isinstance(context, str):
            context = {"(text)": context}
        for name, value in islice(context.items(), _KEYS):
            seen = self._values.get(name)
            if seen is None:
                if len(self._values) >= _KEYS:
                    self._other_keys = True
                    continue
                seen = self._values[name] = set()
            if len(seen) < _VALUES:
                seen.add(hash(_mark(value)))

    def churning(self) -> str:
        """Return the key with the most values, or the empty string.

        `(the keys themselves)` when those change more than any key's values.
        """
        name = max(self._values, key=lambda name: len(self._values[name]), default="")
        if self._other_keys and len(self._values[name]) < _KEYS:
            return "(the keys themselves)"
        return str(name)


def _mark(value: object) -> Hashable:
    """Return something cheap that mostly differs when *value* does."""
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return (len(value), *_plain(value.keys()), *_plain(value.values()))
    if isinstance(value, (list, tuple)):
        return (len(value), *_plain(value))
    return None


def _plain(values: Iterable[object]) -> list[Hashable]:
    first = islice(values, _LOOKED_AT)
    return [value for value in first if isinstance(value, (str, int, float))]
