"""Answers that are not worth storing: refusals, errors, truncated and empty ones.

A model's own finish reason decides first, then the structure of the text, and last a few openings
of English refusals: lists of phrases in many languages would be wrong in all of them. What these
rules do not know, the application's `cacheable=` does. Answers that age with the day are stored,
and end with it: see `cache_core.model.question.days`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import TypeAlias

from cache_core.model.values import WithheldReason

Cacheable: TypeAlias = Callable[[str, str], bool | None]
"""Function of a message and its response: `True` to store it, `False` not to, `None` to leave the
decision to the rules here. It runs in the event loop, so it must not wait."""

_WHOLE = frozenset(
    {"stop", "end_turn", "stop_sequence", "complete", "completed", "eos", "eos_token", "finish"}
)
_REFUSED = frozenset({"content_filter", "refusal", "safety", "guardrail_intervened"})
_CALLS = frozenset({"tool_calls", "tool_use", "function_call"})

_SHORT = 300
"""Characters of the longest answer that its opening makes a refusal or an error: a longer one says
more than that."""

_OF_ERROR = frozenset(
    {"error", "message", "code", "status", "detail", "type", "request_id", "timestamp", "path"}
)
"""Keys of a JSON object that is an error, as services and frameworks send one: an answer about an
error, such as one that analyses logs, has others beside them."""

_PARSED = 65_536
"""Characters of the longest JSON that is parsed, which takes 1 ms."""

_FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?```+(?=[^`\n]*$)", re.MULTILINE)
"""Line that opens or ends a block of code, also in a list or a quotation."""

_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[{"\[])')
_ERROR = re.compile(
    r"\s*(?:(?:http )?(?:error )?(?:429|50[0234])[ :]+)?"
    r"(?:(?:error|exception)\s*:|traceback \(most recent call last\)|internal server error"
    r"|bad gateway|service unavailable|gateway time-?out|too many requests"
    r"|rate limit (?:exceeded|reached))"
    r"(?!(?: \(?\d+\)?)? (?:means|is|are|indicates|happens|says)\b"
    r"|[\w ]{0,20} (?:means|indicates|happens)\b)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\s*(?:(?:i['’]?m|i am) (?:really |very |so )?sorry[,.]? (?:but )?|sorry[,.]? (?:but )?"
    r"|unfortunately,? |i apologi[sz]e,? (?:but )?|as an ai(?: language model| assistant)?,? )?"
    r"i(?:['’]?m| am)? (?:can['’]?t|cannot|can not|won['’]?t|will not|not able to|unable to) "
    r"(?:help|assist|answer|comply|fulfil+|discuss|do that|continue with)\b(?! (?:but|feeling)\b)",
    re.IGNORECASE,
)


def ended_badly(finish_reason: str) -> WithheldReason | None:
    """Return why an answer is not stored, by a model's reason for its end; `None` if it is.

    A reason that is unknown counts as an answer that was cut short, an empty one as none.
    """
    # Of an enumeration's member, such as "FinishReason.STOP" or "FINISH_REASON_STOP", the name
    # counts.
    reason = finish_reason.lower().rpartition(".")[2].removeprefix("finish_reason_")
    if not reason or reason in _WHOLE:
        return None
    if reason in _CALLS:
        return "tool_calls"
    return "refused" if reason in _REFUSED else "cut_short"


def worthless(text: str) -> WithheldReason | None:
    """Return why a text is not stored as an answer; `None` if it is."""
    # Separators, control and format characters show nothing; "..." may be an answer.
    if all(unicodedata.category(sign)[0] in "ZC" for sign in text):
        return "empty"
    if len(text) <= _PARSED and _JSON.match(text) and (why := _of_json(text)) is not None:
        return why
    if len(_FENCE.findall(text)) % 2:
        return "cut_short"
    if len(text) > _SHORT:
        return None
    if _ERROR.match(text):
        return "failed"
    return "refused" if _REFUSAL.match(text) else None


def _of_json(text: str) -> WithheldReason | None:
    text = text.strip()
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # Where it breaks before its end it is of another format, such as JSON with comments.
        rest = text[error.pos :]
        cut = error.msg.startswith("Unterminated") or any(
            word.startswith(rest) for word in ("true", "false", "null", "-", ".", "e")
        )
        return "cut_short" if cut else None
    except (ValueError, RecursionError):
        # A number of too many digits, or too many levels.
        return None
    if end < len(text) or not isinstance(found, dict) or not found.get("error"):
        return None
    return "failed" if found.keys() <= _OF_ERROR else None
