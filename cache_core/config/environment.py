"""Environment variables of the cache: their names and values.

Only the names returned by `names` are read, with their exact spelling: many programs use the prefix
`CACHE_`. An empty variable counts as unset. An invalid one is ignored, with an error in the log: it
may be another program's, and a cache must not stop an agent from starting.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from cache_core.model.urls import without_secrets

log = logging.getLogger("glasscache")

_SHORT = frozenset(
    {"redis_url", "chroma_url", "semantic_threshold", "embedding_model", "embedding_backend",
     "embedding_url", "embedding_api_key", "embedding_window", "embedding_tokenizer",
     "embedding_identity"}
)  # fmt: skip
_MORE = {"capture_message_content": "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"}
_PREFIXES = ("CACHE_", "GLASSCACHE_", "EMBEDDING_", "SEMANTIC_")
_ALIKE = 0.9
"""Ratio of `difflib` from which a name is a misspelt one: one letter in ten."""
_SECRET = frozenset({"key", "encryption_keys", "embedding_api_key"})

_reported: set[str] = set()


class Variable(NamedTuple):
    """A variable that is set.

    Attributes:
        name: The variable's name.
        field: The setting or tuning value that it sets.
        text: The value, without outer white space.
    """

    name: str
    field: str
    text: str


def short_name(field: str) -> str:
    """Return the usual variable of a field."""
    return field.upper() if field in _SHORT else f"CACHE_{field.upper()}"


def names(field: str) -> tuple[str, ...]:
    """Return the variables that set a field, strongest first.

    `GLASSCACHE_` and the field's name is for an environment whose usual name is another program's.
    """
    usual = (f"GLASSCACHE_{field.upper()}", short_name(field))
    return (*usual, _MORE[field]) if field in _MORE else usual


def given(fields: Iterable[str]) -> Iterator[Variable]:
    """Yield the strongest variable of each field that is set."""
    for field in fields:
        for name in names(field):
            text = os.environ.get(name, "").strip()
            if text:
                yield Variable(name, field, text)
                break


def misspelt(fields: Iterable[str]) -> dict[str, str]:
    """Return the set variables that nearly have the name of one of *fields*, with that name."""
    known = {name for field in fields for name in names(field)}
    others = [name for name in os.environ if name.startswith(_PREFIXES) and name not in known]
    near = {name: difflib.get_close_matches(name, known, 1, _ALIKE) for name in others}
    return {name: found[0] for name, found in near.items() if found}


def origin(field: str, value: str | None) -> str:
    """Return the variable or argument that an operator changes to correct *value*."""
    for variable in given([field]):
        if variable.text == value:
            return variable.name
    return f"{field}="


def accepted(
    variables: Iterator[Variable],
    check: Callable[[str, str], Any],
    expected: Callable[[str], str] = lambda _: "",
) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values of *variables* by field, and a line for each invalid one.

    Args:
        variables: The set variables.
        check: Returns a field's value from its text; raises `ValidationError`.
        expected: Returns an addition to the error about a field.
    """
    values: dict[str, Any] = {}
    refused: list[str] = []
    for variable in variables:
        try:
            values[variable.field] = check(variable.field, variable.text)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            refused.append(_refusal(variable, why + expected(variable.field)))
    return values, refused


def report(refused: list[str], write: Callable[[str], None] = log.error) -> None:
    """Log each line once in this process, or *write* it instead."""
    for line in refused:
        if line not in _reported:
            _reported.add(line)
            write(line)


def shown(field: str, value: object) -> str:
    """Return a value for the log, without keys and passwords."""
    if field in _SECRET:
        return f"*** ({len(value)} characters)" if isinstance(value, str) else "***"
    if field.endswith("_url") and isinstance(value, str):
        return repr(without_secrets(value))
    return repr(value)


def _refusal(variable: Variable, why: str) -> str:
    name, own = variable.name, names(variable.field)[0]
    what = "is ignored"
    if variable.field == "redis_url":
        what = "cannot be used, and nothing is cached"
    line = f"{name}={shown(variable.field, variable.text)} {what}: {why}. Correct it"
    if name.startswith("CACHE_"):
        other = " (a CI's cache step sets CACHE_KEY)" if variable.field == "key" else ""
        return f"{line}; if it is another program's{other}, set {own} for glasscache"
    return f"{line}, or unset it"
