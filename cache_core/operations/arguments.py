"""Checks of the callers' arguments: a wrong type or range raises immediately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cache_core.config.intents import MAX_TTL
from cache_core.config.settings import Settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.keys import Keys
from cache_core.model.logs import place_of
from cache_core.model.question.snapshot import settled
from cache_core.model.values import BypassReason, Query, Where, WithheldReason
from cache_core.policy.limits import MAX_WRONG

_TRIPLE = 3
_MOST_USD = 1_000_000.0

MAX_USER_CHARS = 1_024
MAX_INTENT_CHARS = 256
MAX_ANSWER_ID_CHARS = 1_024


class Wants(NamedTuple):
    """A caller's wishes for one call; each as for `MultiLevelCache.get_or_compute`."""

    max_age: float | None = None
    max_wrong: float | None = None
    no_lookup: bool = False
    no_store: bool = False


NO_WISHES = Wants()


class Asked(NamedTuple):
    """A message with its arguments, checked once.

    Attributes:
        message: The user's message.
        user_id: The caller's id of the user; `None` without one.
        where: Its context and history.
        bypass: Reason why it is neither looked up nor stored; `None` if it is.
        wants: What the caller asks for besides.
    """

    message: str
    user_id: str | None
    where: Where
    bypass: BypassReason | WithheldReason | None = None
    wants: Wants = NO_WISHES

    async def settled(self) -> Asked:
        """Return it with the fingerprint of its history."""
        return self._replace(where=await settled(self.where))

    def query(self, keys: Keys) -> Query:
        """Return the query for it, once it is settled."""
        query, wants = keys.query_in(self.message, self.user_id, self.where), self.wants
        if wants.max_age is None and wants.max_wrong is None:
            return query
        return query._replace(max_age=wants.max_age, max_wrong=wants.max_wrong)


def ask(
    message: str, user_id: str | None, where: Where, settings: Settings, wants: Wants = NO_WISHES
) -> Asked:
    """Return a checked message; raises `TypeError` as `check_message`."""
    bypass = check_message(message, user_id, where.standalone, settings)
    if where.too_large and bypass is None:
        bypass = "too_large"
    return Asked(message, user_id, where, bypass, wants)


def check_message(
    message: object,
    user_id: object,
    standalone: object,
    settings: Settings,
) -> BypassReason | None:
    """Return the reason why a message is not cacheable, or `None`.

    A message over `max_message_bytes` or a user id over 1,024 characters is too large.

    Raises:
        TypeError: For an invalid message or user.
    """
    if not isinstance(message, str):
        msg = f"message must be a str, not {type(message).__name__}; decode bytes first"
        raise TypeError(msg)
    if standalone is not None and not isinstance(standalone, str):
        msg = f"standalone must be a str, not {type(standalone).__name__}; decode bytes first"
        raise TypeError(msg)
    if user_id is not None and not isinstance(user_id, str):
        msg = (
            f"user_id must be a str or None, not {type(user_id).__name__}: give the text by which "
            "the application knows its user, and None for a visitor without one"
        )
        raise TypeError(msg)
    if not settings.tiers:
        return "disabled"
    text = message if standalone is None else standalone
    # 4 bytes at most per character: most messages need not be encoded to be measured.
    limit = settings.max_message_bytes
    if 4 * len(text) > limit and len(text.encode("utf-8", "surrogatepass")) > limit:
        return "too_large"
    if user_id is not None and len(user_id) > MAX_USER_CHARS:
        return "too_large"
    return None if text and not text.isspace() else "empty"


def check_put(
    response: object,
    intent: object,
    ttl: object,
    tags: object,
    cost_usd: object,
    personal: object = (),
) -> None:
    """Check an answer to store.

    Raises:
        TypeError: For a value of another type.
        ValueError: For a TTL or cost out of range.
    """
    check_optional("response", response)
    check_optional("intent", intent)
    _check_number("ttl", ttl, MAX_TTL, above_zero=True)
    _check_number("cost_usd", cost_usd, _MOST_USD)
    for name, value in (("tags", tags), ("personal", personal)):
        if not isinstance(value, (list, tuple, set, frozenset)) or not all(
            isinstance(item, str) for item in value
        ):
            msg = f"{name} must be a list of str"
            raise TypeError(msg)


def check_answer_id(value: object) -> None:
    """Check the caller's name of an answer.

    Raises:
        TypeError: For a value that is neither a str nor `None`.
        ValueError: For an empty or overlong one.
    """
    if value is None:
        return
    check_text("answer_id", value)
    if not 0 < len(str(value)) <= MAX_ANSWER_ID_CHARS:
        msg = f"answer_id must have 1 to {MAX_ANSWER_ID_CHARS:,} characters"
        raise ValueError(msg)


def wishes(max_age: object, max_wrong: object, no_lookup: object, no_store: object) -> Wants:
    """Return a caller's wishes for a call.

    Raises:
        TypeError: For a value of another type.
        ValueError: For an age below zero, or a share that is out of range.
    """
    if max_age is None and max_wrong is None and no_lookup is False and no_store is False:
        return NO_WISHES
    return Wants(
        _check_number("max_age", max_age, MAX_TTL),
        _check_number("max_wrong", max_wrong, MAX_WRONG),
        check_flag("no_lookup", no_lookup),
        check_flag("no_store", no_store),
    )


def check_sharing(shared: object, share_documents: object) -> None:
    """Check the scopes of an answer: a value other than a bool would share it by accident.

    Raises:
        TypeError: For a value that is neither a bool nor `None`.
    """
    for name, value in (("shared", shared), ("share_documents", share_documents)):
        if value is not None:
            check_flag(name, value)


def check_flag(name: str, value: object) -> bool:
    """Return *value*; raise `TypeError` unless it is `True` or `False`."""
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, not {type(value).__name__}"
        raise TypeError(msg)
    return value


def check_function(name: str, value: object) -> None:
    """Raise `TypeError` unless *value* can be called."""
    if not callable(value):
        msg = f"{name} must be a function, not {type(value).__name__}"
        raise TypeError(msg)


def check_text(name: str, value: object) -> None:
    """Raise `TypeError` unless *value* is a str."""
    if not isinstance(value, str):
        msg = f"{name} must be a str, not {type(value).__name__}"
        raise TypeError(msg)


def check_optional(name: str, value: object) -> None:
    """Raise `TypeError` unless *value* is a str or `None`."""
    if value is not None:
        check_text(name, value)


def check_whole(name: str, value: object) -> None:
    """Raise `TypeError` unless *value* is an int, `ValueError` if it is negative."""
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name} must be an int, not {type(value).__name__}"
        raise TypeError(msg)
    if value < 0:
        msg = f"{name}={value!r} is refused: expected 0 or more"
        raise ValueError(msg)


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `TypeError` unless *value* is a *kind*."""
    if not isinstance(value, kind):
        msg = f"{name} must be a {kind.__name__}, not {type(value).__name__}"
        raise TypeError(msg)


def _check_number(
    name: str, value: object, most: float, *, above_zero: bool = False
) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name} must be a number, not {type(value).__name__}"
        raise TypeError(msg)
    if not 0 <= value <= most or (above_zero and value == 0):
        least = "more than 0 and up to" if above_zero else "a number from 0 to"
        msg = f"{name}={value!r} is refused: expected {least} {most:.10g}"
        raise ValueError(msg)
    return value


def reason_of(error: Exception) -> str:
    """Return why an answer was rejected, for a log line.

    That is the text of an error that this file raised: it has names, types and numbers. Another
    error's may quote what was rejected.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    ours = last is not None and last.tb_frame.f_globals.get("__name__") == __name__
    return str(error) if ours else place_of(error)


def check_threshold(value: object) -> None:
    """Raise `TypeError` unless *value* is a number or `None`; its range is the tuning's."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        msg = f"semantic_threshold must be a number from 0 to 1, not {type(value).__name__}"
        raise TypeError(msg)


def check_intents(values: object) -> frozenset[str]:
    """Return the intents in *values*; raises `TypeError` unless it is a collection of str."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        msg = f"shared_intents must be a list of intents, not one {type(values).__name__}"
        raise TypeError(msg)
    found = list(values)
    for item in found:
        check_text("each of shared_intents", item)
    return frozenset(found)


_NEEDED: Mapping[str, tuple[str, str]] = {
    "settings": ("model_copy", "Settings"),
    "embedding_model": ("embed", "a model's name or an Embedder"),
    "instruments": ("__len__", "a list of Instrument"),
    "verify": ("__call__", "a function"),
    "cacheable": ("__call__", "a function"),
    "approve": ("__call__", "a function"),
    "clock": ("time", "a Clock"),
    "wrap_store": ("__call__", "a function"),
    "wrap_index": ("__call__", "a function"),
}
"""Attribute that each constructor argument needs, and the name of such an object."""


def check_parts(**parts: object) -> None:
    """Check a cache's constructor arguments.

    Raises:
        TypeError: For an object without the attribute needed; `None` is accepted.
    """
    for name, part in parts.items():
        attribute, kind = _NEEDED[name]
        if name == "embedding_model" and callable(part) and not hasattr(part, attribute):
            msg = (
                "an embedding function needs a name and a version, so that its vectors are never "
                "compared with another model's: embedding_model=FunctionEmbedder(function, "
                'name="...", version="...")'
            )
            raise ConfigurationError(msg)
        if part is not None and (isinstance(part, str) or not hasattr(part, attribute)):
            msg = f"{name} must be {kind}, not {type(part).__name__}"
            raise TypeError(msg)
    for item in parts.get("instruments") or ():  # type: ignore[attr-defined]  # checked above
        if not hasattr(item, "record"):
            msg = f"each of instruments must be an Instrument, not {type(item).__name__}"
            raise TypeError(msg)


def check_label(kind: str, value: object) -> str:
    """Return a document id, tag or user id; raises `TypeError` unless it is a non-empty str."""
    if not isinstance(value, str) or not value:
        msg = f"the {kind} must be a non-empty str"
        raise TypeError(msg)
    return value


def warm_item(number: int, item: object) -> tuple[str, str | None, str]:
    """Return one answer for `warm_cache`.

    Raises:
        TypeError, ValueError: Naming the item.
    """
    if not isinstance(item, (tuple, list)) or len(item) != _TRIPLE:
        msg = f"item {number} must be (query, user_id, response), got {item!r}"
        raise ValueError(msg)
    query, user_id, response = item
    if not isinstance(query, str) or not isinstance(response, str):
        msg = f"item {number}: query and response must be str"
        raise TypeError(msg)
    if user_id is not None and not isinstance(user_id, str):
        msg = f"item {number}: user_id must be a str or None, not {type(user_id).__name__}"
        raise TypeError(msg)
    return query, user_id, response
