"""Stored form of an entry: a versioned ASCII JSON envelope that contains its own key."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, get_args
from zlib import crc32

from cache_core.model.sealing import Sealer, SealError, UnknownKeyError
from cache_core.model.stored import from_store
from cache_core.model.values import Entry, MissReason, Source

VERSION = 1

FUTURE_SECONDS = 5.0
"""Longest time in the future that an entry may be from; a later one is of a clock that jumped."""

_LARGEST = 10**15
_SOURCES: tuple[str, ...] = get_args(Source)
_BOUND = ("v", "k", "s", "g", "t", "x", "w", "p", "o", "r", "n")
_KINDS: Mapping[str, type] = {
    "response": str, "intent": str, "rag_results": list, "message": str,
    "tagged_results": list, "left_out": str, "answer": str,
}  # fmt: skip
_BODY = ("response", "intent", "rag_results", "message", "cost_usd")


class CorruptError(Exception):
    """Stored text that is not an envelope of this key."""


class LockedError(CorruptError):
    """An envelope sealed with a key that this process lacks: do not delete it.

    Other processes may have the key.
    """


class ForeignError(Exception):
    """An envelope of a scope that the reader may not see: isolation stopped it."""


def encode(entry: Entry, key: str, sealer: Sealer | None = None) -> str:
    """Return *entry* as text that decodes only under *key*.

    Args:
        entry: The entry, with its scope, generation and time.
        key: The key to store it under.
        sealer: Encrypts the body; `None` leaves it readable.

    Raises:
        TypeError: If `rag_results` is not JSON.
    """
    body = {name: value for name in _BODY if (value := getattr(entry, name)) is not None}
    if entry.tagged:
        # a version that cannot restore them must not serve them
        body["tagged_results"] = body.pop("rag_results", [])
    if entry.left_out:
        body["left_out"] = entry.left_out
    if entry.until is not None:
        body["until"] = entry.until
    if entry.answer:
        body["answer"] = entry.answer
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
    if entry.labels or entry.known:
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
        text: The text stored under *key*.
        key: The key it was found under: an envelope moved there from elsewhere is rejected.
        readable: Digests of the scopes that the reader may see.
        sealer: Opens the body; it rejects a readable body, which anybody could have written.

    Raises:
        CorruptError: If it is not an envelope of this version and key.
        LockedError: If it is sealed with an unknown key.
        ForeignError: If it is an envelope of another scope.
    """
    try:
        envelope = from_store(text)
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
        # positional: keywords take twice as long
        entry = Entry(
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
        if "until" in body:
            entry = entry._replace(until=_number(body["until"]))
        if "answer" in body:
            entry = entry._replace(answer=body["answer"])
        if "tagged_results" in body:
            return entry._replace(rag_results=body["tagged_results"], tagged=True)
        return entry._replace(left_out=body["left_out"]) if "left_out" in body else entry
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise CorruptError from None


def _body(envelope: dict[str, Any], sealer: Sealer | None) -> Any:
    if sealer is None:
        if "e" in envelope:
            raise LockedError
        return envelope["b"]
    try:
        return from_store(sealer.open(envelope["e"], _place(envelope)))
    except UnknownKeyError:
        raise LockedError from None
    except SealError:
        raise CorruptError from None


def summed(text: str) -> str:
    """Return *text*, a JSON object, with a checksum appended as its last field.

    A damaged value that still decodes would be served otherwise. CRC-32 detects accidents; only
    sealing prevents tampering.
    """
    return text[:-1] + _sum(text[:-1])


def _sum(text: str) -> str:
    return f',"c":"{crc32(text.encode("utf-8", "surrogatepass")):08x}"}}'


_TAIL = len(_sum(""))


def _place(envelope: Mapping[str, Any]) -> str:
    """Return the rest of the envelope, which a sealed body is bound to."""
    return _compact([envelope.get(name) for name in _BOUND])


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def may_be_by(text: str, user: str) -> bool:
    """Return whether *text* may be an answer of *user*: not if it is readable and another's.

    Args:
        text: Text stored as an envelope; of it only the writer is read, without a key.
        user: The user's digest.
    """
    try:
        found = from_store(text)["w"]
    except (KeyError, TypeError, ValueError):
        return True
    return not isinstance(found, str) or found == user


def created(text: str) -> float:
    """Return the time of an envelope's put, the rest unchecked; 0 if there is none."""
    try:
        return float(from_store(text)["t"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def is_of(text: str, entry: Entry) -> bool:
    """Return whether *text* may have been encoded from *entry*: not if another put's is readable.

    Args:
        text: Text stored as an envelope.
        entry: Its time, writer and generation are compared.
    """
    try:
        found = from_store(text)
        put = found["t"], found["w"], found["g"]
    except (KeyError, TypeError, ValueError):
        return True
    return put == (round(entry.created, 3), entry.writer, entry.generation)


def age(entry: Entry, now: float) -> float:
    """Return the seconds since *entry* was put, never negative."""
    return max(0.0, now - entry.created)


def judge(
    entry: Entry,
    generation: str | None,
    now: float,
    ttl: float,
    grace: float = 0.0,
    max_age: float | None = None,
) -> MissReason | None:
    """Return the reason why *entry* must not be served at *now*, or `None`.

    Args:
        entry: The entry found.
        generation: The token of the entry's message; `None`, which fails closed, if there is none.
        now: The store's time.
        ttl: The tier's TTL; the entry's own overrides it.
        grace: Seconds past its TTL that are allowed.
        max_age: Greatest age in seconds, whatever its TTL; `None` for any.
    """
    if generation is None or entry.generation != generation:
        return "invalidated"
    if now - entry.created > (ttl if entry.ttl is None else entry.ttl) + grace:
        return "expired"
    if entry.created - now > FUTURE_SECONDS:
        return "expired"
    if entry.until is not None and now >= entry.until:
        return "day_over"
    return "too_old" if max_age is not None and age(entry, now) > max_age else None


def _number(value: Any) -> float | None:
    kind = type(value)
    if value is None or (kind is float and math.isfinite(value)):
        return value  # type: ignore[no-any-return]
    if kind is int and abs(value) <= _LARGEST:
        return float(value)
    raise CorruptError
