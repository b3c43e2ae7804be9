"""Entries as stored text: a versioned ASCII JSON envelope that carries the key it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, get_args
from zlib import crc32

from pydantic_core import from_json

from cache_core.models import Entry, MissReason, Source
from cache_core.sealing import Sealer, SealError, UnknownKeyError

VERSION = 1

FUTURE_SECONDS = 5.0
"""An entry from further in the future than this was stamped by a clock that jumped: it expires."""

_LARGEST = 10**15
_SOURCES: tuple[str, ...] = get_args(Source)
_BOUND = ("v", "k", "s", "g", "t", "x", "w", "p", "o", "r", "n")
_KINDS: Mapping[str, type] = {
    "response": str, "intent": str, "rag_results": list, "message": str
}  # fmt: skip
_BODY = ("response", "intent", "rag_results", "message", "cost_usd")


class CorruptError(Exception):
    """Stored text that is not an envelope of this key."""


class LockedError(CorruptError):
    """An envelope that was sealed with a key which this process does not have: not to be deleted.

    Others may have that key.
    """


class ForeignError(Exception):
    """An envelope of a scope that the reader may not see: isolation was about to break."""


def encode(entry: Entry, key: str, sealer: Sealer | None = None) -> str:
    """Return *entry* as text that only *key* can be read with.

    Args:
        entry: With its scope, generation and time.
        key: The name that it will be stored under.
        sealer: Encrypts the body; without one it is readable.

    Raises:
        TypeError: If `rag_results` is not JSON.
    """
    body = {name: value for name in _BODY if (value := getattr(entry, name)) is not None}
    envelope: dict[str, Any] = {
        "v": VERSION,
        "k": key,
        "s": entry.scope,
        "g": entry.generation,
        "t": round(entry.created, 3),
        "x": entry.ttl,
        "w": entry.writer,
    }
    if entry.by_policy:
        envelope["p"] = 1
    if entry.source != "put":
        envelope["o"] = entry.source
    if entry.replica:
        envelope["r"] = entry.replica
    if entry.labels:
        envelope["n"] = [entry.known, *entry.labels]
    try:
        if sealer is not None:
            envelope["e"] = sealer.seal(_compact(body), _place(envelope))
        else:
            envelope["b"] = body
        return summed(_compact(envelope))
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"rag_results must be JSON values (dict, list, str, number, bool, None): {error}"
        raise TypeError(msg) from None


def decode(text: str, key: str, readable: Collection[str], sealer: Sealer | None = None) -> Entry:
    """Return the entry in *text*.

    Args:
        text: What the store holds under *key*.
        key: Where it was found: an envelope moved there from elsewhere is refused.
        readable: Digests of the scopes that the reader may see.
        sealer: Opens the body; with one a readable body is refused, as anybody could have made it.

    Raises:
        CorruptError: If it is not an envelope of this version and key.
        LockedError: If it is sealed, and there is no key for it.
        ForeignError: If it is an envelope of another scope.
    """
    try:
        envelope = _parse(text)
        if text[-_TAIL:] != _sum(text[:-_TAIL]):
            raise CorruptError
        if envelope["v"] != VERSION:
            raise CorruptError
        if envelope["s"] not in readable:
            raise ForeignError
        if envelope["k"] != key:
            raise CorruptError
        generation, writer = envelope["g"], envelope["w"]
        source, replica = envelope.get("o", "put"), envelope.get("r", "")
        known, *labels = envelope.get("n") or ("",)
        if not (isinstance(generation, str) and isinstance(writer, str)):
            raise CorruptError
        if source not in _SOURCES or not isinstance(replica, str):
            raise CorruptError
        if not (isinstance(known, str) and all(isinstance(label, str) for label in labels)):
            raise CorruptError
        body = _body(envelope, sealer)
        for name, value in body.items():
            if value is not None and not isinstance(value, _KINDS.get(name, object)):
                raise CorruptError
        found = body.get
        # In the order of the fields: to name them takes as long again.
        return Entry(
            found("response"),
            found("intent"),
            found("rag_results"),
            found("message"),
            _number(found("cost_usd")),
            _number(envelope["t"]) or 0.0,
            _number(envelope["x"]),
            generation,
            envelope["s"],
            writer,
            bool(envelope.get("p")),
            source,
            replica,
            known,
            tuple(labels),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise CorruptError from None


def _body(envelope: dict[str, Any], sealer: Sealer | None) -> Any:
    if sealer is None:
        if "e" in envelope:
            raise LockedError
        return envelope["b"]
    try:
        return _parse(sealer.open(envelope["e"], _place(envelope)))
    except UnknownKeyError:
        raise LockedError from None
    except SealError:
        raise CorruptError from None


def summed(text: str) -> str:
    """Return *text*, a JSON object, with a checksum as its last field.

    What was changed in the store or on the way would else be served, where it still decodes. It is
    CRC-32, against accidents; whoever wants to change an entry is kept from it by sealing alone.
    """
    return text[:-1] + _sum(text[:-1])


def _sum(text: str) -> str:
    return f',"c":"{crc32(text.encode("utf-8", "surrogatepass")):08x}"}}'


_TAIL = len(_sum(""))


def _place(envelope: Mapping[str, Any]) -> str:
    """Return what a sealed body is bound to: everything else in the envelope."""
    return _compact([envelope.get(name) for name in _BOUND])


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def writer(text: str) -> str:
    """Return the digest of who wrote an envelope, without a check of the rest; else empty."""
    try:
        found = _parse(text)["w"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def created(text: str) -> float:
    """Return when an envelope was put, without a check of the rest; else 0."""
    try:
        return float(_parse(text)["t"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return 0.0


def age(entry: Entry, now: float) -> float:
    """Return the seconds since *entry* was put, never negative."""
    return max(0.0, now - entry.created)


def judge(
    entry: Entry, generation: str | None, now: float, ttl: float, grace: float = 0.0
) -> MissReason | None:
    """Return why *entry* must not be served at *now*, or `None`.

    Args:
        entry: What was found.
        generation: The token of the entry's message; `None` if there is none, which fails closed.
        now: The store's time.
        ttl: The tier's TTL in force; the entry's own beats it.
        grace: Seconds past its TTL that it may be.
    """
    if generation is None or entry.generation != generation:
        return "invalidated"
    if now - entry.created > (ttl if entry.ttl is None else entry.ttl) + grace:
        return "expired"
    if entry.created - now > FUTURE_SECONDS:
        return "expired"
    return None


def _parse(text: str) -> Any:
    """Return the JSON value in *text*.

    Raises:
        ValueError, RecursionError: If it is none.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        # The slower parser also reads lone surrogates, and what is nested more than 200 deep.
        return json.loads(text)


def _number(value: Any) -> float | None:
    kind = type(value)
    if value is None or (kind is float and math.isfinite(value)):
        return value  # type: ignore[no-any-return]
    if kind is int and abs(value) <= _LARGEST:
        return float(value)
    raise CorruptError
