"""Replies as OpenAI's APIs send them, whole and as streams: made of a text, and read back.

A stored answer is a text. What is sent again has a new id, the time of now and a usage of zero.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any

JSON = dict[str, Any]

PREFIX = "glasscache-"
"""First part of the ids of replies that the cache sent: the provider does not know them."""


def chat_completion(text: str | None, model: str, *, ended: str = "stop", **more: Any) -> JSON:
    """Return a chat completion with one choice.

    Args:
        text: Its text.
        model: Its model.
        ended: Its `finish_reason`.
        **more: Other fields of its message, such as `tool_calls` or `refusal`.
    """
    message = {"role": "assistant", "content": text, "refusal": None, **more}
    return {
        "id": f"{PREFIX}{token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": ended, "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def chat_chunks(
    completion: Mapping[str, Any], pieces: Sequence[str] = (), *, usage: bool = False
) -> list[JSON]:
    """Return a chat completion as the chunks of a stream.

    Args:
        completion: It has one choice.
        pieces: Its text in pieces; default: one.
        usage: Whether the last chunk reports the usage.
    """
    (choice,) = completion["choices"]
    message = choice["message"]
    deltas: list[JSON] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces or [message["content"]] if piece]
    if message.get("refusal"):
        deltas.append({"refusal": message["refusal"]})
    if message.get("tool_calls"):
        calls = [{"index": at, **call} for at, call in enumerate(message["tool_calls"])]
        deltas.append({"tool_calls": calls})
    chosen = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    chosen.append({"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]})
    common = {name: completion[name] for name in ("id", "created", "model")}
    common["object"] = "chat.completion.chunk"
    chunks: list[JSON] = [{**common, "choices": [item]} for item in chosen]
    if usage:
        chunks.append({**common, "choices": [], "usage": completion["usage"]})
    return chunks


def joined_chunks(chunks: Iterable[Mapping[str, Any]]) -> JSON:
    """Return the chunks of a stream as a chat completion, as far as `chat_reply` reads it.

    Without a reason for its end a stream is incomplete.
    """
    texts: list[str] = []
    message: JSON = {}
    ended = None
    several = False
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            several = several or choice.get("index", 0) != 0
            delta = choice.get("delta") or {}
            texts.append(delta.get("content") or "")
            message.update({name: value for name, value in delta.items() if value})
            ended = choice.get("finish_reason") or ended
    choice = {
        "message": {**message, "content": "".join(texts)},
        "finish_reason": ended or "incomplete",
    }
    return {"choices": [choice, choice] if several else [choice]}


def response(text: str, model: str, **more: Any) -> JSON:
    """Return a response of the Responses API with one message; *more* replaces fields of it."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {
        "id": f"msg_{PREFIX}{token_hex(12)}", "type": "message", "role": "assistant",
        "status": "completed", "content": [part],
    }  # fmt: skip
    details = {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
               "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    return {
        "id": f"resp_{PREFIX}{token_hex(12)}",
        "object": "response",
        "created_at": float(int(time.time())),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, **details},
        **more,
    }


def response_events(whole: Mapping[str, Any], pieces: Sequence[str] = ()) -> list[JSON]:
    """Return a response as the events of a stream, the last one with the whole response.

    Args:
        whole: The response.
        pieces: Text of its first message in pieces; default: one.
    """
    started = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[JSON] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
    ]
    for at, item in enumerate(whole["output"]):
        events += _item_events(item, at, pieces)
    events.append({"type": f"response.{whole['status']}", "response": dict(whole)})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _item_events(item: Mapping[str, Any], at: int, pieces: Sequence[str]) -> list[JSON]:
    place = {"output_index": at}
    empty = {**item, "status": "in_progress"} | ({"content": []} if "content" in item else {})
    events: list[JSON] = [{"type": "response.output_item.added", "item": empty, **place}]
    for number, part in enumerate(item.get("content") or ()):
        where = {"item_id": item["id"], "content_index": number, **place}
        kind, field = (
            ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
        )
        blank = {**part, field: ""}
        events.append({"type": "response.content_part.added", "part": blank, **where})
        for piece in pieces or [part[field]]:
            delta = {"type": f"response.{kind}.delta", "delta": piece, **where}
            events.append(delta | ({"logprobs": []} if field == "text" else {}))
        done = {"type": f"response.{kind}.done", field: part[field], **where}
        events.append(done | ({"logprobs": []} if field == "text" else {}))
        events.append({"type": "response.content_part.done", "part": dict(part), **where})
    if item["type"] == "function_call":
        where = {"item_id": item["id"], **place}
        arguments = item["arguments"]
        events += [
            {"type": "response.function_call_arguments.delta", "delta": arguments, **where},
            {"type": "response.function_call_arguments.done", "arguments": arguments,
             "name": item["name"], **where},
        ]  # fmt: skip
    events.append({"type": "response.output_item.done", "item": dict(item), **place})
    return events


def last_response(events: Iterable[Mapping[str, Any]]) -> JSON:
    """Return the response that the events of a stream end with; without an end it is incomplete."""
    found: JSON = {"status": "incomplete"}
    for event in events:
        if event.get("type") in {"response.completed", "response.incomplete", "response.failed"}:
            found = dict(event["response"])
    return found
