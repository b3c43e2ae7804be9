"""Changes of single fields, as functions on everything that is tuned."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from cache_core.config.intents import INTENT_FIELDS, INTENT_PREFIX, flatten
from cache_core.config.trail import MAX_AUTHOR, MAX_NOTE
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import ConfigurationError

Edit: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Function from everything that is tuned to everything that is to be tuned; flat."""


def check_words(author: str, note: str) -> None:
    """Check the author and the note of a change; raise `ConfigurationError`."""
    if not isinstance(author, str) or not 0 < len(author.strip()) <= MAX_AUTHOR:
        raise ConfigurationError(f"author={author!r} is refused: 1 to {MAX_AUTHOR} characters")
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise ConfigurationError(f"the note is refused: {MAX_NOTE:,} characters at most")


def edit_of(changes: Mapping[str, Any]) -> Edit:
    """Return *changes* as an edit; `None` resets a field to its untuned value.

    Raises:
        ConfigurationError: If a name is no field.
    """
    if not changes:
        raise ConfigurationError("there is nothing to change: name a field and its value")
    for name in changes:
        _check_name(name)

    def edit(tuned: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(tuned)
        for name, value in changes.items():
            if name == "intents":
                _drop(found, INTENT_PREFIX)
                found.update(flatten({"intents": value}))
            elif _is_intent(name):
                _drop(found, f"{name}.")
                if value is not None:
                    found.update(flatten({"intents": {name.removeprefix(INTENT_PREFIX): value}}))
            elif value is None:
                found.pop(name, None)
            else:
                found[name] = value
        return {name: value for name, value in found.items() if value is not None}

    return edit


def _is_intent(name: str) -> bool:
    """Return whether *name* names all overrides of an intent, not one of them."""
    return name.startswith(INTENT_PREFIX) and name.rpartition(".")[2] not in INTENT_FIELDS


def _drop(found: dict[str, Any], prefix: str) -> None:
    for name in [name for name in found if name.startswith(prefix)]:
        # a label may begin with another's: drop intent.a.* but not intent.a.b.*
        if prefix == INTENT_PREFIX or name.removeprefix(prefix) in INTENT_FIELDS:
            del found[name]


def _check_name(name: str) -> None:
    if isinstance(name, str) and (name in Tuning.bounds() or name.startswith(INTENT_PREFIX)):
        return
    near = difflib.get_close_matches(str(name), [*Tuning.bounds(), INTENT_PREFIX], 1)
    guess = f"; probably {near[0]!r} is meant" if near else ""
    raise ConfigurationError(
        f"{name!r} cannot be tuned{guess}. Fields: {', '.join(Tuning.bounds())}, and "
        f"intent.LABEL.FIELD with FIELD one of {', '.join(INTENT_FIELDS)}"
    )
