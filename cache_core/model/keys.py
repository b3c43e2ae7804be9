"""Keyed digests of messages, users, contexts and histories, and the names of stored keys.

No text of a user appears in a key. All keys of one message carry the same hash tag, so that a
Redis Cluster reads them in one round trip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, cast

from cache_core.model.question.contexts import FixedContext
from cache_core.model.question.histories import fingerprint
from cache_core.model.question.snapshot import take
from cache_core.model.question.users import is_nobody
from cache_core.model.question.wording import exact_form, loose_form
from cache_core.model.sealing import Sealer
from cache_core.model.values import Context, Entry, Level, Query, Turn, Where

PREFIX = "gc1"
"""Beginning of every key; the digit is the layout's version."""

APART = " "
"""Separator between an index row's entry and the invalidation that set it apart."""

PARTITIONS = "partitions"
"""Name of the namespace's record of all private vector hashes."""

NAMESPACE_PATTERN = re.compile(r"[\w.-]{1,64}", re.ASCII)

_USERS = 4_096
_MESSAGES = 4_096
_SHORT = 512
"""Longest message, in characters, whose digest is kept: the cache of digests takes a few MB."""


def digest(secret: bytes, *parts: str) -> str:
    """Return the keyed BLAKE2b digest (16 bytes, hex) of *parts* and their boundaries."""
    bordered = "".join([f"{len(part)}:{part}" for part in parts])
    data = bordered.encode("utf-8", "surrogatepass")
    return blake2b(data, key=secret, digest_size=16).hexdigest()


class Place(NamedTuple):
    """Key of an entry, in its parts: digests, except for the tier.

    *exact* is empty in L2's keys, *history* without earlier turns.
    """

    level: Level
    tag: str
    scope: str
    context: str
    exact: str
    history: str


class Keys:
    """Digests and key names of one namespace.

    Args:
        namespace: `[A-Za-z0-9_.-]`, 1 to 64 characters.
        secret: 16 to 64 bytes; without it nobody can learn from the keys who asked what.
        sealer: Encrypts the stored values; `None` leaves them readable.
        prefix: Beginning of every key.
    """

    def __init__(
        self, namespace: str, secret: bytes, sealer: Sealer | None = None, prefix: str = PREFIX
    ) -> None:
        self.namespace = namespace
        self.sealer = sealer
        self._secret = secret
        self._prefix = f"{prefix}:{namespace}"
        self._shared = digest(secret, "scope", "shared")
        self._no_context = digest(secret, "context", "")
        self.model = ""
        """Digest of the embedding model: vectors of different models are never compared."""
        self.user = lru_cache(_USERS)(self._user)
        self._somebody = lru_cache(_USERS)(self._scope_of)
        self._short = lru_cache(_MESSAGES)(self._names)

    def forget(self) -> None:
        """Drop all cached user ids and messages, but not the secret."""
        self.user.cache_clear()
        self._somebody.cache_clear()
        self._short.cache_clear()

    @property
    def shared(self) -> str:
        """The digest of the shared scope."""
        return self._shared

    @property
    def no_context(self) -> str:
        """The digest of no context."""
        return self._no_context

    def query(
        self,
        message: str,
        user_id: str | None,
        context: Context = None,
        history: Sequence[Turn] | None = None,
        standalone: str | None = None,
    ) -> Query:
        """Return the query for *message*; an id that names nobody counts as no user.

        Raises:
            TypeError: For a message, user, context or history of another type.
        """
        where = take(context, history, standalone)
        if where.history is not None:
            where = where._replace(after=fingerprint(where.history))
        return self.query_in(message, user_id, where)

    def query_in(self, message: str, user_id: str | None, where: Where) -> Query:
        """Return the query for *message*; the fingerprint of its history must be there already."""
        if where.standalone is not None:
            message = where.standalone
        tag, exact = self.names(message)
        if type(user_id) is not str and user_id is not None:
            user_id = str.__str__(user_id)
        user = self._somebody(user_id) if user_id else None
        context = self._no_context if where.context is None else self._context(where.context)
        after = digest(self._secret, "history", where.after) if where.after else ""
        return Query(message, tag, user, self._shared, context, after, exact)

    def tag(self, message: str) -> str:
        """Return the digest that *message* shares with its variants in this namespace."""
        return self.names(message)[0]

    def names(self, message: str) -> tuple[str, str]:
        """Return `Query.tag` and `Query.exact` of *message*."""
        if type(message) is not str:
            message = str.__str__(message)  # a subclass may lie about what it equals
        return self._short(message) if len(message) <= _SHORT else self._names(message)

    def _names(self, message: str) -> tuple[str, str]:
        return (
            digest(self._secret, "message", self.namespace, loose_form(message)),
            digest(self._secret, "exact", self.namespace, exact_form(message)),
        )

    def _user(self, user_id: str) -> str:
        """Return the digest of a user's scope; its type keeps it apart from the shared scope."""
        return digest(self._secret, "scope", "user", user_id)

    def _scope_of(self, user_id: str) -> str | None:
        """Return the digest of a user's scope; `None` for an id that names nobody."""
        return None if is_nobody(user_id) else self.user(user_id)

    def label(self, kind: str, value: str) -> str:
        """Return the digest of a document id or a tag."""
        return digest(self._secret, kind, value)

    def answer(self, kind: str, name: str) -> str:
        """Return the digest of an answer's name, after its kind; empty without a name."""
        return kind + digest(self._secret, "answer", kind, name) if name else ""

    def _context(self, context: FixedContext) -> str:
        kind, text = context
        return digest(self._secret, "context", kind, text)

    def generation(self, tag: str) -> str:
        """Return the key of a message's generation token."""
        return f"{self._prefix}:{{{tag}}}:g"

    def own_generation(self, tag: str, user: str) -> str:
        """Return the key of the generation token of a user's answers to a message."""
        return f"{self.generation(tag)}:{user}"

    def user_generation(self, user: str) -> str:
        """Return the key of the generation token of everything of a user."""
        return f"{self._prefix}:{{{user}}}:g"

    def generations(self, query: Query) -> list[str]:
        """Return the keys of the tokens that make up a `Generation`, in its order."""
        message, user = f"{self._prefix}:{{{query.tag}}}:g", query.user
        if user is None:
            return [message]
        return [message, f"{message}:{user}", f"{self._prefix}:{{{user}}}:g"]

    def similar_entry(self, tag: str, scope: str, context: str) -> str:
        """Return the key of L2's entry for a message in one scope."""
        return f"{self._prefix}:{{{tag}}}:l2:{scope}:{context}:"

    def entry(self, level: Level, query: Query, scope: str) -> str:
        """Return the key of one tier's entry for *query* in one scope.

        L2 keeps one for all variants of a message: it matches by meaning, and its guards compare
        the stored text.
        """
        if level == "l2":
            return self.similar_entry(query.tag, scope, query.context)
        return f"{self._prefix}:{{{query.tag}}}:{level}:{scope}:{_rest(query)}"

    def entries(self, level: Level, query: Query) -> list[str]:
        """Return the keys of a keyed tier's entries, in the order of `Query.readable`."""
        head = f"{self._prefix}:{{{query.tag}}}:{level}:"
        rest = f":{_rest(query)}"
        if query.user is None:
            return [f"{head}{query.shared}{rest}"]
        return [f"{head}{query.user}{rest}", f"{head}{query.shared}{rest}"]

    @staticmethod
    def is_entry(name: str, level: Level) -> bool:
        """Return whether *name* is the key of a tier's entry."""
        return f"}}:{level}:" in name

    def owns(self, name: str) -> bool:
        """Return whether *name* is a key of a message or a user in this namespace.

        An index may list anything. Keys of others must be neither read nor deleted.
        """
        return name.startswith(f"{self._prefix}:{{") and "}:" in name

    def names_entry(self, name: str) -> bool:
        """Return whether *name* has the form of an entry's key in this namespace."""
        return self.owns(name) and name.partition("}:")[2].count(":") >= 3

    @staticmethod
    def listed_by(row: str) -> str:
        """Return the key in a row of an index, whether an invalidation set it apart or not."""
        return row.partition(APART)[0]

    def marker(self, query: Query) -> str:
        """Return the key of the user who last got a private answer to this message."""
        return f"{self._prefix}:{{{query.tag}}}:m:{_rest(query)}"

    @staticmethod
    def is_vectors(name: str) -> bool:
        """Return whether *name* is the key of a user's private vectors."""
        return "}:v" in name

    @staticmethod
    def is_marker(name: str) -> bool:
        """Return whether *name* is the key of a marker."""
        return "}:m:" in name

    @staticmethod
    def is_votes(name: str) -> bool:
        """Return whether *name* is the key of votes on an answer."""
        return "}:p:" in name

    def votes(self, query: Query) -> str:
        """Return the key of the votes: which user got which answer to this message."""
        return f"{self._prefix}:{{{query.tag}}}:p:{_rest(query)}"

    def approval(self, near: str, scope: str, query: Query) -> str:
        """Return the key of the approval of an entry of L2 for the message of *query*.

        Args:
            near: Tag of the message that the entry is stored for.
            scope: Digest of the entry's scope, which is the approval's.
            query: The asked message.
        """
        what = digest(self._secret, "approval", scope, query.context, query.exact)
        return f"{self._prefix}:{{{near}}}:a:{what}"

    def doubt(self, key: str, entry: Entry) -> str:
        """Return the name of the doubt whether an entry may be served, by its approval's key.

        Another put of the same answer is another entry: its approval ends with it.
        """
        made = (entry.generation, repr(entry.created), entry.message or "", entry.response or "")
        return digest(self._secret, "doubt", key, *made)

    def generation_beside(self, name: str) -> str:
        """Return the key of the generation token of the message to which a key belongs."""
        return f"{name.partition('}:')[0]}}}:g"

    def index_of_messages(self) -> tuple[str, str]:
        """Return beginning and end of the keys of all messages' indexes; the tag is in between."""
        begin, end = self.index("message", "\0").split("\0")
        return begin, end

    @staticmethod
    def place(entry: str) -> Place:
        """Return what the key of an entry says."""
        head, _, rest = entry.partition("}:")
        level, scope, context, *exact, history = rest.split(":")
        tag = head.rpartition("{")[2]
        return Place(cast("Level", level), tag, scope, context, "".join(exact), history)

    @staticmethod
    def level_and_scope(entry: str) -> tuple[Level, str]:
        """Return the tier of an entry's key, and the digest of its scope."""
        level, scope, _ = entry.partition("}:")[2].split(":", 2)
        return cast("Level", level), scope

    @staticmethod
    def marker_beside(entry: str) -> str:
        """Return the key of the marker that belongs to an entry's key."""
        head, _, rest = entry.partition("}:")
        _, _, where = rest.split(":", 2)
        return f"{head}}}:m:{where}"

    @staticmethod
    def beside_in_l2(entry: str) -> str:
        """Return the key of L2's entry that is put with the entry of L1 or L2 of this key.

        Empty for other tiers' entries, and for those of a history.
        """
        head, _, rest = entry.partition("}:")
        level, scope, context, *_, history = rest.split(":")
        return f"{head}}}:l2:{scope}:{context}:" if level in {"l1", "l2"} and not history else ""

    @staticmethod
    def has_history(entry: str) -> bool:
        """Return whether an entry's key belongs to a message with a history."""
        return not entry.endswith(":")

    def lease(self, query: Query, since: str) -> str:
        """Return the key of the lease on computing an answer; *since* names the last invalidation.

        Without a user there is no lease: the answer could be anybody's.
        """
        whose = f"{query.user}:{_rest(query)}"
        return f"{self._prefix}:{{{query.tag}}}:lease:{whose}:{since}"

    def vectors(self, user: str, context: str) -> str:
        """Return the key of a user's private vectors in one context."""
        return self.vectors_of(self.model, user, context)

    def vectors_of(self, model: str, user: str, context: str) -> str:
        """Return the key of a user's private vectors of a model, by its digest."""
        return f"{self._prefix}:{{{user}{context}}}:v{model}"

    def model_digest(self, identity: str) -> str:
        """Return the digest of an embedding model's identity."""
        return self.label("model", identity)[:12]

    def index(self, kind: str, label: str) -> str:
        """Return the key of the index of all entries from a document, tag or user."""
        return f"{self._prefix}:{{{label}}}:i:{kind}"

    def own(self, name: str) -> str:
        """Return the key of one of the namespace's own records: `contexts`, `decisions`, ..."""
        return f"{self._prefix}:{{{name}}}"


def _rest(query: Query) -> str:
    """Return the part of a key that distinguishes the answers to variants of one message."""
    return f"{query.context}:{query.exact}:{query.history}"
