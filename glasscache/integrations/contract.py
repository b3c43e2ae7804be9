"""Contract between a model's API and the cache: pure functions, used by every adapter.

`request_of` makes a question, its history and its context of a request, or says why the cache is
not asked; `reply_of` says whether a reply is stored. An adapter only translates: messages into the
form of OpenAI's APIs, which both understand, and a text back into a reply of its framework.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from cache_core.model.values import BypassReason, WithheldReason
from cache_core.policy.cacheable import ended_badly

_LONG = 512
"""Characters from which on a value is replaced in the context by its digest."""

_TEXT = frozenset({"text", "input_text", "output_text", "refusal"})
"""Types of the parts of a content that are text."""

_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning"})
"""Types of the items of a conversation that can be compared."""

_LEADING = frozenset({"system", "developer"})

_STATEFUL = ("previous_response_id", "conversation", "background", "prompt", "store")
"""Parameters by which a provider keeps, or has kept, a part of the conversation."""

_SEVERAL = ("n", "best_of", "candidate_count")

_BESIDE_TEXT = ("audio", "logprobs", "top_logprobs")
"""Parameters that ask for more than the text of an answer, which is all that is stored."""

_WITHOUT_EFFECT = frozenset({
    "input", "messages", "metadata", "prompt_cache_key", "prompt_cache_retention",
    "safety_identifier", "service_tier", "stream", "stream_options", "timeout", "user",
    *_STATEFUL,
})  # fmt: skip
"""Parameters that do not change an answer. Of any other it is assumed."""

_HEADERS_WITHOUT_EFFECT = frozenset({
    "accept", "authorization", "idempotency-key", "traceparent", "tracestate", "baggage",
    "user-agent", "x-client-request-id", "x-request-id",
})  # fmt: skip


_BASE_URLS = ("ANTHROPIC_BASE_URL", "OPENAI_API_BASE", "OPENAI_BASE_URL")

_OTHER_SHAPE = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""Errors of reading a request or a reply that is not as the APIs describe it."""


class Request(NamedTuple):
    """A request to a model, as the cache is asked for it.

    Attributes:
        question: The text of the last turn.
        history: The turns before it; `None` without any.
        context: Everything else that shapes the answer: provider, model, system prompt, tools.
        why_not: Reason why the cache is not asked; `None` if it is.
    """

    question: str
    history: Sequence[Mapping[str, Any]] | None
    context: Mapping[str, Any]
    why_not: BypassReason | None = None

    @property
    def cacheable(self) -> bool:
        """True if the cache is asked."""
        return self.why_not is None


class Reply(NamedTuple):
    """A model's reply.

    Attributes:
        text: All of its text.
        why_not: Reason why it is not stored; `None` if it is.
    """

    text: str
    why_not: WithheldReason | None = None


def request_of(
    messages: str | Iterable[Any], parameters: Mapping[str, Any], *, provider: str = ""
) -> Request:
    """Return the question of a request, its history and its context.

    Args:
        messages: A question; or turns as in OpenAI's APIs, as mappings or as objects with the same
            fields: messages of chat completions, or input items of responses.
        parameters: The other parameters of the request. `None` is no parameter.
        provider: Name or address of the model's provider.
    """
    try:
        return _request_of(messages, parameters, provider)
    except (_OpaqueError, *_OTHER_SHAPE):  # the provider says what is wrong with it
        return Request("", None, {}, "opaque")


def _request_of(
    messages: str | Iterable[Any], parameters: Mapping[str, Any], provider: str
) -> Request:
    turns = [_turn(item) for item in _listed(messages)]
    given = {name: value for name, value in parameters.items() if value is not None}
    if not isinstance(given.get("stream_options", {}), Mapping):
        raise _OpaqueError
    context = _context(turns, given, provider)
    while turns and turns[0].get("role") in _LEADING:
        del turns[0]
    *history, last = turns or [{}]
    why_not = _of_parameters({**given, **(given.get("extra_body") or {})}) or _of_turns(turns, last)
    question = _text(last.get("content")) if why_not is None else ""
    return Request(question, history or None, context, why_not)


def is_omitted(value: Any) -> bool:
    """Return whether a value stands for none in SDKs such as OpenAI's and Anthropic's."""
    return type(value).__name__ in {"NotGiven", "Omit"}


def with_client(parameters: Mapping[str, Any], client: Any) -> dict[str, Any]:
    """Return parameters of a request with the headers and the query that such a client adds."""
    found = dict(parameters)
    for name, of_client in (("extra_headers", "_custom_headers"), ("extra_query", "_custom_query")):
        always = getattr(client, of_client, None) or {}
        kept = {key: value for key, value in always.items() if not is_omitted(value)}
        if kept:
            found[name] = {**kept, **(found.get(name) or {})}
    return found


def base_urls() -> str:
    """Return the addresses of providers in the environment, for frameworks that show none."""
    return " ".join(f"{name}={os.environ[name]}" for name in _BASE_URLS if os.environ.get(name))


def reply_of(
    text: str,
    *,
    ended: str | None = None,
    calls: bool = False,
    refused: bool = False,
    more: bool = False,
) -> Reply:
    """Return a reply, and why it is not stored.

    Args:
        text: Its text.
        ended: Reason for its end as the model reports it; `None` if it reports none.
        calls: Whether it calls tools.
        refused: Whether it is a refusal.
        more: Whether it has more than text.
    """
    why_not = None if ended is None else ended_badly(str(ended))
    if calls:
        why_not = "tool_calls"
    elif refused:
        why_not = "refused"
    elif why_not is not None:
        pass
    elif more:
        why_not = "not_text"
    elif not text.strip():
        why_not = "empty"
    return Reply(text, why_not)


def _tolerant(read: Callable[[Mapping[str, Any]], Reply]) -> Callable[[Mapping[str, Any]], Reply]:
    @functools.wraps(read)
    def tolerant(made: Mapping[str, Any]) -> Reply:
        try:
            return read(made)
        except _OTHER_SHAPE:
            return Reply("", "not_text")

    return tolerant


@_tolerant
def chat_reply(completion: Mapping[str, Any]) -> Reply:
    """Return the reply in a chat completion, as a mapping."""
    choices = completion.get("choices") or []
    if len(choices) != 1:
        return Reply("", "several_answers" if choices else "empty")
    message = choices[0].get("message") or {}
    content = message.get("content")
    return reply_of(
        _text(content),
        ended=choices[0].get("finish_reason") or "",
        calls=bool(message.get("tool_calls") or message.get("function_call")),
        refused=bool(message.get("refusal")),
        more=bool(message.get("audio") or message.get("annotations")) or not _is_text(content),
    )


@_tolerant
def responses_reply(response: Mapping[str, Any]) -> Reply:
    """Return the reply in a response of OpenAI's Responses API, as a mapping."""
    output = [item for item in response.get("output") or () if item.get("type") != "reasoning"]
    parts = [part for item in output for part in item.get("content") or ()]
    return reply_of(
        "".join(part.get("text") or "" for part in parts),
        ended=response.get("status") or "completed",
        calls=any(item.get("type") != "message" for item in output),
        refused=any(part.get("type") == "refusal" for part in parts),
        more=any(part.get("type") != "output_text" or part.get("annotations") for part in parts),
    )


def cut_short() -> Reply:
    """Return the reply of a stream that was not read to its end."""
    return Reply("", "cut_short")


# ------------------------------------------------------------------------------------- requests


class _OpaqueError(Exception):
    """A value cannot be compared."""


def _listed(messages: str | Iterable[Any]) -> Iterable[Any]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _turn(item: Any) -> Mapping[str, Any]:
    plain = _plain(item)
    if not isinstance(plain, dict):
        raise _OpaqueError
    return plain


def _of_parameters(given: Mapping[str, Any]) -> BypassReason | None:
    if any(given.get(name) for name in _STATEFUL):
        return "stateful"
    if any(given.get(name, 1) != 1 for name in _SEVERAL):
        return "several_answers"
    if any(given.get(name) for name in _BESIDE_TEXT):
        return "not_text"
    if any("logprobs" in item for item in given.get("include") or ()):
        return "not_text"
    if set(given.get("modalities") or ["text"]) != {"text"}:
        return "not_text"
    return None


def _of_turns(turns: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> BypassReason | None:
    if any(turn.get("type") == "item_reference" for turn in turns):
        return "stateful"
    if last.get("role") != "user":
        return "not_users_turn"
    if not all(map(_is_plain_turn, turns)):
        return "not_text"
    return None if _text(last.get("content")).strip() else "empty"


def _is_plain_turn(turn: Mapping[str, Any]) -> bool:
    """Return whether a turn has nothing but text and calls of tools."""
    known = turn.get("type", "message") in _ITEMS
    return known and _is_text(turn.get("content")) and _is_text(turn.get("output"))


def _is_text(content: Any) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, str) or part.get("type") in _TEXT for part in content)
    return content is None or isinstance(content, str)


def _text(content: Any) -> str:
    """Return the text of a content; of several parts, a line each."""
    if isinstance(content, list):
        found = [part if isinstance(part, str) else part.get("text") for part in content]
        return "\n".join(text for text in found if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _context(
    turns: Sequence[Mapping[str, Any]], given: Mapping[str, Any], provider: str
) -> dict[str, Any]:
    """Return all that shapes an answer besides question and history, long values as digests."""
    found = {name: value for name, value in given.items() if name not in _WITHOUT_EFFECT}
    headers = found.pop("extra_headers", None)
    if headers:
        found["headers"] = _headers(headers)
    if found.get("tools"):
        found["tools"] = sorted(_written(_plain(tool)) for tool in found["tools"])
    found["provider"] = provider
    leading = []
    for turn in turns:
        if turn.get("role") not in _LEADING:
            break
        leading.append([turn["role"], turn.get("content"), turn.get("name")])
    if leading:
        found["system"] = [
            [role, _text(content) if _is_text(content) else content, name]
            for role, content, name in leading
        ]
    if turns and turns[-1].get("name"):
        found["name"] = turns[-1]["name"]
    return {name: _short(_plain(value)) for name, value in found.items()}


def _headers(headers: Mapping[str, Any]) -> str:
    """Return a digest of the headers that may change an answer; they may hold secrets."""
    kept = {
        name.lower(): str(value)
        for name, value in headers.items()
        if name.lower() not in _HEADERS_WITHOUT_EFFECT
    }
    return _digest(_written(kept)) if kept else ""


def _short(value: Any) -> Any:
    written = _written(value)
    return value if len(written) <= _LONG else {"sha256": _digest(written)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON, without the fields that are `None`.

    Raises:
        _OpaqueError: For an object without fields, such as a function or an open file, and for
            numbers that JSON does not have.
    """
    if depth > _DEEPEST:
        raise _OpaqueError
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (str, bool, int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            raise _OpaqueError  # JSON has no such number
        return value
    fields = _fields(value)
    if isinstance(fields, Mapping):
        return {str(name): _plain(item, depth + 1)
                for name, item in fields.items() if item is not None}  # fmt: skip
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item, depth + 1) for item in value), key=_written)
    raise _OpaqueError


_DEEPEST = 100


def _fields(value: Any) -> Any:
    """Return the fields of a mapping, model or dataclass, or the schema of a class of either."""
    schema = getattr(value, "model_json_schema", None)
    if isinstance(value, type):
        return schema() if callable(schema) else None
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return value
