"""Turns of a conversation, in the forms of chat APIs, training files and exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache_core.cli.files.names import squashed

_ROLE = ("role", "from", "speaker", "author", "sender", "actor", "participant", "direction")
_CONTENT = ("content", "value", "text", "message", "utterance", "body", "parts")

_ROLES = {
    **dict.fromkeys(("user", "human", "customer", "client", "visitor", "prompter", "enduser",
                     "caller", "guest", "patient", "student", "usr", "consumer", "inbound",
                     "incoming"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "agent", "ai", "model", "chatgpt", "chatbot",
                     "operator", "support", "assistantbot", "sys", "advisor", "representative",
                     "virtualassistant", "claude", "bing", "bard", "outbound",
                     "outgoing"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}  # fmt: skip


def is_turns(value: Any) -> bool:
    """Return whether a value is a list of turns that name their speaker."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and _key(turn, _ROLE) is not None for turn in value)
    )


def role(turn: Mapping[str, Any]) -> str:
    """Return `user`, `assistant`, `system`, or another role's name."""
    name = turn[_key(turn, _ROLE) or ""]
    if isinstance(name, Mapping):
        name = name.get("role") or name.get("type") or name.get("name")
    return _ROLES.get(squashed(str(name)), str(name))


def content(turn: Mapping[str, Any]) -> Any:
    """Return the content of a turn; `None` for a turn of tool calls only."""
    key = _key(turn, _CONTENT)
    return None if key is None else turn[key]


def extras(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other fields of a turn."""
    known = spoken(turn)
    return {name: value for name, value in turn.items() if name not in known}


def spoken(turn: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a turn's fields for role and content."""
    return tuple(name for name in (_key(turn, _ROLE), _key(turn, _CONTENT)) if name is not None)


def _key(turn: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    by_name = {squashed(name): name for name in reversed(list(turn))}
    return next((by_name[name] for name in names if name in by_name), None)
