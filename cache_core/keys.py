"""Messages, users, contexts and histories as keyed digests, and the names of stored keys.

Nothing that a user wrote appears in a key. Every key of one message carries the same hash tag, so
that a Redis Cluster reads them in one round trip.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from cache_core.models import Context, Level, Query, Turn
from cache_core.sealing import Sealer

PREFIX = "gc1"
"""First part of every key; the digit is the layout's version."""

APART = " "
"""Between what a row of an index names and the invalidation that set it apart."""

PARTITIONS = "partitions"
"""Name of the namespace's record of all private vector hashes."""

NAMESPACE_PATTERN = re.compile(r"[\w.-]{1,64}", re.ASCII)

_USERS = 4_096
_MESSAGES = 4_096
_SHORT = 512
"""Characters of the longest message whose digest is kept: so they take some megabytes at most."""

_FINAL = " .!?…。！？؟।"


def normalise(message: str) -> str:
    """Return *message* as exact matching sees it.

    NFC, casefolded, whitespace collapsed, final sentence punctuation dropped unless nothing else
    is left.
    """
    if message.isascii():
        text = message.lower()
    else:
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", message).casefold())
    text = " ".join(text.split())
    return text.rstrip(_FINAL) or text


def digest(secret: bytes, *parts: str) -> str:
    """Return the keyed BLAKE2b digest (16 bytes, hex) of *parts*; their borders count."""
    bordered = "".join([f"{len(part)}:{part}" for part in parts])
    data = bordered.encode("utf-8", "surrogatepass")
    return blake2b(data, key=secret, digest_size=16).hexdigest()


class Keys:
    """Digests and key names of one namespace.

    Args:
        namespace: `[A-Za-z0-9_.-]`, 1 to 64 characters.
        secret: 16 to 64 bytes; whoever lacks it cannot find out who asked what from the keys.
        sealer: Encrypts what is stored under the keys; `None` leaves it readable.
    """

    def __init__(self, namespace: str, secret: bytes, sealer: Sealer | None = None) -> None:
        self.namespace = namespace
        self.sealer = sealer
        self._secret = secret
        self._prefix = f"{PREFIX}:{namespace}"
        self._shared = digest(secret, "scope", "shared")
        self._no_context = digest(secret, "context", "")
        self.model = ""
        """Digest of the embedding model: vectors of different models are never compared."""
        self.user = lru_cache(_USERS)(self._user)
        self._short = lru_cache(_MESSAGES)(self._tag)

    def forget(self) -> None:
        """Keep no user's id and no message, only what they are digested with."""
        self.user.cache_clear()
        self._short.cache_clear()

    @property
    def shared(self) -> str:
        """The digest of the shared scope."""
        return self._shared

    @property
    def no_context(self) -> str:
        """The digest of having no context."""
        return self._no_context

    def query(
        self,
        message: str,
        user_id: str | None,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> Query:
        """Return the query for *message*.

        Raises:
            TypeError: For a message, user, context or history of another type.
        """
        if standalone is not None:
            message, history = standalone, None
        tag, user = self.tag(message), self.user(user_id) if user_id else None
        where = self._context(context) if context else self._no_context
        after = self._history(history) if history else ""
        return Query(message, tag, user, self._shared, where, after)

    def tag(self, message: str) -> str:
        """Return the digest that names *message* in this namespace."""
        return self._short(message) if len(message) <= _SHORT else self._tag(message)

    def _tag(self, message: str) -> str:
        return digest(self._secret, "message", self.namespace, normalise(message))

    def _user(self, user_id: str) -> str:
        """Return the digest of a user's scope; typed, so no user id equals the shared scope."""
        return digest(self._secret, "scope", "user", user_id)

    def label(self, kind: str, value: str) -> str:
        """Return the digest of a document id or a tag."""
        return digest(self._secret, kind, value)

    def _context(self, context: Context) -> str:
        if isinstance(context, str):
            return digest(self._secret, "context", "text", context)
        if isinstance(context, Mapping):
            return digest(self._secret, "context", "mapping", canonical(context, "context"))
        msg = f"context must be a str or a JSON mapping, not {type(context).__name__}"
        raise TypeError(msg)

    def _history(self, history: Sequence[Turn]) -> str:
        if isinstance(history, (str, bytes)) or not isinstance(history, Sequence):
            msg = (
                "history must be a list of str or of {'role', 'content'}, "
                f"not {type(history).__name__}"
            )
            raise TypeError(msg)
        turns: list[str] = []
        for turn in history:
            if isinstance(turn, str):
                turns.append("text:" + normalise(turn))
            elif isinstance(turn, Mapping):
                turns.append("turn:" + canonical(turn, "history"))
            else:
                msg = f"a turn must be a str or a mapping, not {type(turn).__name__}"
                raise TypeError(msg)
        return digest(self._secret, "history", *turns)

    def generation(self, tag: str) -> str:
        """Return the key of a message's generation token."""
        return f"{self._prefix}:{{{tag}}}:g"

    def own_generation(self, tag: str, user: str) -> str:
        """Return the key of the generation token of one user's answers to a message."""
        return f"{self.generation(tag)}:{user}"

    def user_generation(self, user: str) -> str:
        """Return the key of the generation token of everything that is a user's."""
        return f"{self._prefix}:{{{user}}}:g"

    def generations(self, query: Query) -> list[str]:
        """Return the keys of the tokens that make up a `Generation`, in its order."""
        message, user = f"{self._prefix}:{{{query.tag}}}:g", query.user
        if user is None:
            return [message]
        return [message, f"{message}:{user}", f"{self._prefix}:{{{user}}}:g"]

    def entry(self, level: Level, tag: str, scope: str, context: str, history: str = "") -> str:
        """Return the key of one tier's entry for a message in one scope."""
        return f"{self._prefix}:{{{tag}}}:{level}:{scope}:{context}:{history}"

    def entries(self, level: Level, query: Query) -> list[str]:
        """Return the keys of one tier's entries for *query*, in the order of `Query.readable`."""
        head = f"{self._prefix}:{{{query.tag}}}:{level}:"
        rest = f":{query.context}:{query.history}"
        if query.user is None:
            return [f"{head}{query.shared}{rest}"]
        return [f"{head}{query.user}{rest}", f"{head}{query.shared}{rest}"]

    @staticmethod
    def is_entry(name: str, level: Level) -> bool:
        """Whether *name* is the key of an entry of a tier."""
        return f"}}:{level}:" in name

    def owns(self, name: str) -> bool:
        """Whether *name* is a key beside a message or a user in this namespace.

        An index may list anything. What is not the cache's own must be neither read nor deleted.
        """
        return name.startswith(f"{self._prefix}:{{") and "}:" in name

    def names_entry(self, name: str) -> bool:
        """Whether *name* is made as the key of an entry of this namespace is."""
        return self.owns(name) and name.partition("}:")[2].count(":") >= 3

    @staticmethod
    def listed_by(row: str) -> str:
        """Return what a row of an index names, whether an invalidation set it apart or not."""
        return row.partition(APART)[0]

    def marker(self, query: Query) -> str:
        """Return the key that says who last got a private answer to this message."""
        return f"{self._prefix}:{{{query.tag}}}:m:{query.context}:{query.history}"

    @staticmethod
    def is_vectors(name: str) -> bool:
        """Whether *name* is the key of a user's private vectors."""
        return "}:v" in name

    @staticmethod
    def is_votes(name: str) -> bool:
        """Whether *name* is the key of votes on an answer."""
        return "}:p:" in name

    def votes(self, query: Query) -> str:
        """Return the key of who got which answer to this message."""
        return f"{self._prefix}:{{{query.tag}}}:p:{query.context}:{query.history}"

    @staticmethod
    def marker_beside(entry: str) -> str:
        """Return the key of the marker of the message, context and history of an entry's key."""
        head, _, rest = entry.partition("}:")
        _, _, context, history = rest.split(":", 3)
        return f"{head}}}:m:{context}:{history}"

    def lease(self, query: Query, since: str) -> str:
        """Return the key of the lease on computing an answer, of the time since an invalidation.

        Without a user there is none: the answer could be anybody's.
        """
        whose = f"{query.user}:{query.context}:{query.history}"
        return f"{self._prefix}:{{{query.tag}}}:lease:{whose}:{since}"

    def vectors(self, user: str, context: str) -> str:
        """Return the key of a user's private vectors in one context."""
        return f"{self._prefix}:{{{user}{context}}}:v{self.model}"

    def index(self, kind: str, label: str) -> str:
        """Return the key of the index of everything that came from a document, tag or user."""
        return f"{self._prefix}:{{{label}}}:i:{kind}"

    def own(self, name: str) -> str:
        """Return the key of one of the namespace's own records: `contexts`, `decisions`, ..."""
        return f"{self._prefix}:{{{name}}}"


def canonical(value: Any, name: str) -> str:
    """Return *value* as JSON with sorted keys.

    Raises:
        TypeError: If it is not JSON, naming the argument. Neither is a key that is no str, or NaN:
            1 and "1" would become the same.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        _check_keys(value)
        return text
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"{name} must be JSON: {error}"
        raise TypeError(msg) from None


def _check_keys(value: Any) -> None:
    """Raise `TypeError` for a key that is no str, anywhere in a value that is otherwise JSON."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise TypeError(f"keys must be str, not {type(key).__name__} ({key!r})")
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
