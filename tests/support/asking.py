"""Requests of the contract of adapters, as messages of chat completions."""

from __future__ import annotations

from typing import Any

from glasscache.testing.contracts import Ask
from glasscache.testing.contracts.adapter import PICTURE, TOOL

ROLES = ("user", "assistant")


def turns_of(ask: Ask) -> list[dict[str, Any]]:
    """Return all messages of a request, the system's first."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": ask.system}]
    turns += [
        {"role": ROLES[at % 2], "content": text, "id": f"{ask.ids}-{at}"}
        for at, text in enumerate(ask.history)
    ]
    content: Any = ask.question
    if ask.picture:
        picture = {"type": "image_url", "image_url": {"url": PICTURE}}
        content = [{"type": "text", "text": ask.question}, picture]
    turns.append({"role": "user", "content": content})
    if ask.looped:
        called = {"name": "look_up", "arguments": "{}"}
        calls = [{"id": "c1", "type": "function", "function": called}]
        turns.append({"role": "assistant", "content": "", "tool_calls": calls})
        turns.append({"role": "tool", "tool_call_id": "c1", "content": "found"})
    return turns


def tool_of(ask: Ask) -> dict[str, Any]:
    """Return the tool of a request."""
    function = {"name": "look_up", "description": ask.tool, "parameters": dict(TOOL)}
    return {"type": "function", "function": function}
