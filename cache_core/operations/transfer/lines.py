"""Lines of a dump: JSON objects, one for each entry of a tier, between a first and a last line.

Digests in it are those of the cache it comes from. They mean something to a cache with the same
key (`CACHE_KEY`, or the one in its store); every other cache needs the texts.

A cache with encryption keys seals every line: the first one for any dump, the others for the
namespace and the random id in the first. A line of another dump does not open among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from cache_core.model.keys import Keys
from cache_core.model.sealing import Sealer, SealError, UnknownKeyError
from cache_core.model.stored import Flag, Format, Moment, Number, Plain, from_store
from cache_core.model.values import Generation, Level, Scope, Source

VERSION: Literal[2] = 2
_FIRST = "glasscache dump header"
"""Place to which the first line is sealed."""
_OTHERS = "glasscache dump"
"""Place to which the other lines are sealed, with those of their dump from version 2 on."""

Text = Annotated[str, Field(strict=True)]
Life = Annotated[Number, Field(ge=0)]


class DamagedError(Exception):
    """A line that is none of a dump."""


class LockedLineError(DamagedError):
    """A line sealed with a key that this process lacks."""


class UnsealedError(DamagedError):
    """A line that anybody can have written, in a cache whose lines are sealed."""


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a dump.

    Attributes:
        dump: Version of the format.
        namespace: Namespace of the cache.
        key: Digest by which a cache with the same key of digests is recognised.
        store: Random id of the store.
        position: Position up to which invalidations were known before the first entry was read.
        at: The store's time of the dump, in seconds since the epoch.
        private: Whether answers of single users are among them.
        contexts: Kind and text of known contexts, by their digest.
        id: Random id of the dump, to which its other lines are sealed; empty in version 1.
    """

    dump: Literal[1, 2]
    namespace: Text
    key: Plain
    store: Plain
    position: Plain
    at: Moment
    private: Flag = False
    contexts: Mapping[str, tuple[Text, Text]] = field(default_factory=dict)
    id: Plain = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of one tier.

    Attributes:
        level: Its tier.
        scope: Who may read it.
        message: The question's text; `None` where no tier keeps it.
        response, intent, documents: What it holds; the other two are `None`.
        tags, document_ids: Names that invalidate it, as far as they are known.
        created: The store's time of the put, in seconds since the epoch.
        life: Seconds from then until it expires, by the tuning in force at the dump.
        ttl: Its own TTL in seconds; `None` for the tuning's.
        until: Time after which it is no longer true; `None` if it does not age with the day.
        cost_usd: Cost of computing it; `None` for the tuning's price.
        by_policy, source: As in `Entry`.
        context: Digest of its context; empty for none.
        user: Digest of its owner, or of the user who put a shared one; empty without one.
        tag, exact, history: Digests of the message, its exact form and the earlier turns.
        labels: Digests of documents and tags whose names are not known.
        answer: Digest of the name of the answer.
        tokens: Those of its `Generation`.
        known: Position up to which invalidations were known at its put.
        tagged: Whether documents are tagged values.
        replica: Name of the process that stored it.
    """

    level: Level
    scope: Scope
    message: Text | None
    response: Text | None
    intent: Text | None
    documents: list[Any] | None
    tags: list[Text]
    document_ids: list[Text]
    created: Moment
    life: Life
    ttl: Life | None
    until: Number | None
    cost_usd: Number | None
    by_policy: Flag
    source: Source
    context: Plain
    user: Plain
    tag: Plain
    exact: Plain
    history: Plain
    labels: list[Plain]
    answer: Plain
    tokens: tuple[Plain | None, Plain | None, Plain | None]
    known: Plain
    tagged: Flag
    replica: Text

    @property
    def generation(self) -> Generation:
        """The tokens under which it was served when it was dumped."""
        return Generation(*self.tokens)


_HEADER = Format(Header)
_LINE = Format(Line)


def identity(keys: Keys) -> str:
    """Return the digest by which a cache with the same key of digests is recognised."""
    return keys.label("dump", "")


def first(dump: Header, sealer: Sealer | None) -> str:
    """Return the first line, sealed if there is a sealer."""
    return _written(_HEADER.text(dump), _FIRST, sealer)


def entry(record: Line, dump: Header, sealer: Sealer | None) -> str:
    """Return the line of an entry, sealed for its dump if there is a sealer."""
    return _written(_LINE.text(record), _place(dump), sealer)


def last(lines: int, dump: Header, sealer: Sealer | None) -> str:
    """Return the last line, by which a file that was cut is recognised."""
    return _written(json.dumps({"lines": lines}), _place(dump), sealer)


def header(text: str, sealer: Sealer | None, *, plain: bool = False) -> Header:
    """Return the first line.

    Args:
        text: The line.
        sealer: Opens it.
        plain: Whether it need not be sealed although there is a sealer.

    Raises:
        UnsealedError: If it is not sealed, and has to be.
        LockedLineError: If it is sealed with an unknown key.
        DamagedError: If it is none.
    """
    value = _opened(text, _FIRST, sealer, plain=plain)
    try:
        return _HEADER.checked(value)
    except (TypeError, ValueError):
        raise DamagedError from None


def line(text: str, dump: Header, sealer: Sealer | None, *, plain: bool = False) -> Line | int:
    """Return an entry of a dump; of the last line, the number of lines before it.

    Args:
        text: The line.
        dump: The first line.
        sealer: Opens it.
        plain: Whether it need not be sealed although there is a sealer.

    Raises:
        UnsealedError: If it is not sealed, and has to be.
        LockedLineError: If it is sealed with an unknown key.
        DamagedError: If it is neither, or of another dump.
    """
    value = _opened(text, _place(dump), sealer, plain=plain)
    try:
        return int(value["lines"]) if list(value) == ["lines"] else _LINE.checked(value)
    except (TypeError, ValueError):
        raise DamagedError from None


def _written(text: str, place: str, sealer: Sealer | None) -> str:
    return text if sealer is None else json.dumps({"sealed": sealer.seal(text, place)})


def _place(dump: Header) -> str:
    return json.dumps([_OTHERS, dump.namespace, dump.id]) if dump.id else _OTHERS


def _opened(text: str, place: str, sealer: Sealer | None, *, plain: bool) -> Any:
    """Return the JSON value of a line."""
    try:
        value = from_store(text)
        if not isinstance(value, dict) or list(value) != ["sealed"]:
            if sealer is not None and not plain:
                raise UnsealedError
            return value
        if sealer is None:
            raise LockedLineError
        return from_store(sealer.open(value["sealed"], place))
    except UnknownKeyError:
        raise LockedLineError from None
    except (SealError, TypeError, ValueError, AttributeError):
        raise DamagedError from None


def names_of(digests: Sequence[str], named: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the names of those *digests* that have one, and the other digests."""
    return (
        [named[digest] for digest in digests if digest in named],
        [digest for digest in digests if digest not in named],
    )
