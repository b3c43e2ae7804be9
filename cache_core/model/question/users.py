"""User ids that name nobody: placeholders for a missing user."""

from __future__ import annotations

import logging
import re
import unicodedata

from cache_core.model.logs import RateLimited

log = RateLimited(logging.getLogger("glasscache"), 86_400.0)

_PLACEHOLDERS = (
    "anon anonym anonymous anonymousid blank default empty false guest missing na nan nil nobody "
    "none nonetype notset null nulo placeholder tbd true undefined unknown unset visitor void "
    "dummy example sample todo nouser xxx "
    "invalid public string unauth unauthenticated notauthenticated notloggedin loggedout "
    # In other languages.
    "anonimo anonyme anônimo anónimo besucher convidado desconhecido desconocido gast inconnu "
    "invitado invité ospite sconosciuto unbekannt аноним гость "
    "неизвестно неизвестный anonim gosc gość gæst gäst vieras misafir ziyaretçi tamu khách "
    "ανώνυμος επισκέπτης אורח אנונימי ضيف مجهول अतिथि अज्ञात "
    "匿名 匿名用户 游客 访客 訪客 未知 ゲスト 익명 비회원 손님"
)  # fmt: skip
_KINDS = frozenset({"guid", "id", "uid", "user", "userid", "username", "uuid"})
_BESIDE = frozenset({"a", "enter", "here", "insert", "my", "no", "optional", "the", "your"})
"""Words that add nothing beside one of those; alone they may be an id."""

_MISSING = frozenset({"anon", "anonymous", "nan", "nil", "none", "null", "undefined"})
"""Placeholders that no user is called: one part of a composed id suffices."""

_STRINGIFIED = re.compile(
    r"\[object \w+\]|function\b.*\{.*\}|\(.*\) ?=>.*|<(?:function|bound method|property|class) .*>"
)
"""The text of something that is no text: `[object Promise]`."""
_COMPOSED = re.compile(r"[:/|#@=]")
_LONGEST = 64
_PARTS = re.compile(r"[\W_]+")
_NOBODY = frozenset("".join(_PARTS.split(word.casefold())) for word in _PLACEHOLDERS.split())
_SENTINELS = frozenset({"-1", "%s", "%d", "\\n", "#ref!", "#value!", "#name?", "f" * 32})
"""Texts for a missing id as a whole; the last is the Max UUID of RFC 9562, without hyphens."""


_IGNORED = re.compile(
    r"[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Control characters, and those that are not displayed (Default_Ignorable_Code_Point)."""


def is_nobody(user_id: str) -> bool:
    """Return whether a user id is blank or a placeholder: `None`, `null`, `guest`, `0`, ...

    All visitors without an id share such a text, so an answer private to it would be everybody's.
    """
    if not _visible(user_id):
        return True
    if len(user_id) > _LONGEST:
        return False
    text = unicodedata.normalize("NFKC", user_id).casefold().strip()
    if _STRINGIFIED.fullmatch(text) or text in _SENTINELS or text.replace("-", "") in _SENTINELS:
        return True
    if any(part.strip() in _MISSING for part in _COMPOSED.split(text)):
        return True
    parts = [part for part in _PARTS.split(text) if part]
    joined = "".join(parts)
    if not joined:
        return text.isascii()
    if not joined.strip("0") or joined in _NOBODY:
        return True
    named = [part for part in parts if part not in _BESIDE]
    return bool(named) and all(map(_says_nothing, named))


def without_spelling(user_id: str) -> str:
    """Return *user_id* without case, width, outer space and invisible characters.

    One person may have several spellings.

    Scopes compare ids unchanged; this is for counting users.
    """
    # Decomposed first: two cases of a letter with several marks would have them in two orders.
    folded = _IGNORED.sub("", unicodedata.normalize("NFKD", user_id).casefold())
    return unicodedata.normalize("NFKC", folded).strip()


NOBODY = (
    "The user id is blank or a placeholder, so it names nobody: only shared answers are read and "
    "stored."
)


def warn_of_nobody() -> None:
    """Log, once a day, that a placeholder was passed as a user id."""
    log.limited(
        "nobody",
        "a user_id is blank or a placeholder, such as the text of None or 'anonymous': it counts "
        "as no user, so only shared answers are read and stored. Pass None for visitors without an "
        "id, or an id of their own",
    )


def _visible(text: str) -> bool:
    """Return whether *text* has more than spaces, control and format characters."""
    return any(unicodedata.category(letter)[0] != "Z" and unicodedata.category(letter) not in
               {"Cc", "Cf"} for letter in text)  # fmt: skip


def _says_nothing(part: str) -> bool:
    """Return whether a word is a placeholder, with or without `user` before or after it."""
    kinds = _NOBODY | _KINDS
    return bool({part, part.removesuffix("user"), part.removeprefix("user")} & kinds)
