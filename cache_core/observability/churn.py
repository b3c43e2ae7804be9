"""Detection of context and history fields that change too often for answers to be found again."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from cache_core.model.question.contexts import ContextWatch, fields_of
from cache_core.model.question.histories import marks_of
from cache_core.model.values import Query, Where

Kind: TypeAlias = Literal["context", "history"]

log = logging.getLogger("glasscache")

_MESSAGES = 256
_LARGEST = 65_536
"""Size of the largest history that is kept for comparison, in characters and bytes."""

_FEW = 3
"""Maximal number of fields named in an explanation."""

_OFTEN = 3
"""Lookups that miss because of one field alone, before it is named."""


class _Place(NamedTuple):
    """Context and history of a lookup, as hashes of their fields, without texts."""

    context: Mapping[str, int]
    history: Mapping[str, int]
    turns: int

    @staticmethod
    def of(where: Where) -> _Place:
        context = {} if where.context is None else fields_of(where.context)
        turns = () if where.history is None else where.history.turns
        return _Place(
            {name: hash(json.dumps(value, sort_keys=True)) for name, value in context.items()},
            {} if where.history is None else marks_of(where.history),
            len(turns),
        )

    def differs(self, other: _Place) -> dict[Kind, list[str]]:
        """Return the differing fields; none if the histories differ in length."""
        if self.turns != other.turns:
            return {}
        return {
            "context": _different(self.context, other.context),
            "history": _different(self.history, other.history),
        }


class ChurnWatch:
    """Compares a lookup that found no answer with the last one of the same message and user.

    If they differ only in one field of the context or the history, then that field alone kept the
    answer from being found.
    """

    def __init__(self) -> None:
        self.contexts = ContextWatch()
        self._last: OrderedDict[tuple[str, str | None], _Place] = OrderedDict()
        self._alone: dict[Kind, Counter[str]] = {"context": Counter(), "history": Counter()}
        self._logged: set[Kind] = set()
        # Two event loops may look up concurrently.
        self._lock = threading.Lock()

    def note(self, query: Query, where: Where) -> None:
        """Record a lookup that found no answer."""
        if where.history is not None and where.history.size > _LARGEST:
            return
        place = _Place.of(where)
        with self._lock:
            if where.context is not None:
                self.contexts.note(fields_of(where.context))
            last = self._last.pop((query.exact, query.user), None)
            self._last[query.exact, query.user] = place
            if len(self._last) > _MESSAGES:
                self._last.popitem(last=False)
            # most repeat the last one exactly, which changes nothing below
            if last is not None and last != place:
                self._compare(last, place)
            elif where.context is None:
                return
            for kind, name in self._fields().items():
                if name and kind not in self._logged:
                    self._logged.add(kind)
                    log.warning("%s", _SAID[kind] % name)

    def _compare(self, last: _Place, place: _Place) -> None:
        found = [(kind, name) for kind, names in last.differs(place).items() for name in names]
        if len(found) != 1:
            return
        [(kind, name)] = found
        # Another last turn is another conversation: a short message answers it.
        if kind == "context" or not name.startswith(f"turn {place.turns}") or "(system)" in name:
            self._alone[kind][name] += 1

    def fields(self) -> dict[Kind, str]:
        """Return the churning field of the `context` and of the `history`; empty for none."""
        with self._lock:
            return self._fields()

    def _fields(self) -> dict[Kind, str]:
        found: dict[Kind, str] = {}
        for kind, counts in self._alone.items():
            name, count = counts.most_common(1)[0] if counts else ("", 0)
            found[kind] = name if count >= _OFTEN else ""
        found["context"] = found["context"] or self.contexts.always_new()
        return found

    def notes(self, query: Query, where: Where) -> list[str]:
        """Return notes on a message with this context and history, for an explanation."""
        fields = self.fields()
        found = [
            _SAID[kind] % fields[kind]
            for kind, given in _given(where).items()
            if given and fields[kind]
        ]
        with self._lock:
            last = self._last.get((query.exact, query.user))
        for kind, names in ({} if last is None else last.differs(_Place.of(where))).items():
            if 0 < len(names) <= _FEW and fields[kind] not in names:
                shown = ", ".join(map(repr, names))
                found.append(
                    f"When it was last asked and not answered, its {kind} had another {shown}."
                )
        return found

    def snapshot(self) -> dict[str, Any]:
        """Return `fields`, with `advice`; empty if there is nothing to do."""
        fields = self.fields()
        advice = " ".join(_SAID[kind] % name for kind, name in fields.items() if name)
        return {"context": fields["context"], "history": fields["history"], "advice": advice}


_SAID: Mapping[Kind, str] = {
    "context": "Messages are asked again with a context that differs in %r only, and are not "
    "answered for it: leave out of context= what changes with every request.",
    "history": "Messages are asked again after a history that differs in %r only, and are not "
    "answered for it: leave out of history= what changes with every request, or give standalone=.",
}


def _given(where: Where) -> dict[Kind, bool]:
    return {"context": where.context is not None, "history": where.history is not None}


def _different(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
