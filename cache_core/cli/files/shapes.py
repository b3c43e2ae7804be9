"""Conversations and instructions as rows: question, answer and history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from cache_core.cli.files.errors import BadValue, UnusableFile
from cache_core.cli.files.names import squashed
from cache_core.cli.files.record import FileRecord
from cache_core.cli.files.roles import content, extras, is_turns, role
from cache_core.cli.files.values import text

_HOLDERS = (
    "messages", "turns", "conversations", "conversation", "dialog", "dialogue", "dialogs", "chat",
    "thread", "transcript", "utterances", "contents", "input", "prompt",
)  # fmt: skip
_DEEP = 3
_CONVERSATION = (
    "conversation_id", "conversation", "session_id", "session", "chat_id", "thread_id",
    "dialogue_id", "dialog_id", "ticket_id", "call_id",
)  # fmt: skip
_REPLIES = frozenset(
    map(squashed, ("response", "answer", "completion", "output", "reply", "chosen"))
)


def holder(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the path to the turns in a row; `None` if it has none."""
    return _holder(values, _DEEP)


def _holder(values: Mapping[str, Any], depth: int) -> tuple[str, ...] | None:
    by_name = {squashed(name): name for name in reversed(list(values))}
    for name in map(squashed, _HOLDERS):
        if name in by_name and is_turns(_turns(values[by_name[name]])):
            return (by_name[name],)
    if depth > 1:
        for name, inner in values.items():
            if isinstance(inner, Mapping) and not _is_reply(name):
                rest = _holder(inner, depth - 1)
                if rest is not None:
                    return (name, *rest)
    return None


def _is_reply(name: str) -> bool:
    return squashed(name).startswith(("response", "output", "completion", "reply"))


def _turns(value: Any) -> Any:
    """Return turns, also from a cell that contains them as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def requests(values: Mapping[str, Any], path: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each user's question in a conversation, with the turns before it.

    A row with its response beside the turns, or whose last turn is a user's, is the record of one
    request. Leading system prompts are the row's context.

    Raises:
        BadValue: If no turn is a user's.
    """
    outer = {name: value for name, value in values.items() if name != path[0]}
    turns = _held(values, path)
    if not any(role(turn) == "assistant" for turn in turns):
        # some corpora call the assistant the system
        turns = [
            {**turn, "role": "assistant"} if number and role(turn) == "system" else turn
            for number, turn in enumerate(turns)
        ]
    context, turns = _prompt(turns)
    if context:
        outer = _with_context(outer, context)
    asked = [number for number, turn in enumerate(turns) if _is_asked(turns, number)]
    if not asked:
        raise BadValue("no turn of a user is in the conversation")
    answered = any(squashed(name) in _REPLIES for name in outer)
    if answered or asked[-1] == len(turns) - 1:
        asked = asked[-1:]
    for number in asked:
        row = dict(outer)
        if number != asked[-1]:
            row = {name: value for name, value in row.items() if squashed(name) != "answerid"}
        row.update(extras(turns[number]))
        row["message"] = content(turns[number])
        said = _said(turns, number)
        if said is not None:
            row["response"] = said
        if number:
            row["history"] = [_turn(turn) for turn in turns[:number]]
        yield row


def conversation(values: Mapping[str, Any], *others: str) -> tuple[str, str] | None:
    """Return the column with a row's conversation, also from *others*, and its value."""
    by_name = {squashed(name): name for name in reversed(list(values))}
    for key in map(squashed, (*_CONVERSATION, *others)):
        value = values[by_name[key]] if key in by_name else None
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return by_name[key], str(value)
    return None


def _held(values: Mapping[str, Any], path: Sequence[str]) -> list[Mapping[str, Any]]:
    held: Any = values
    for name in path:
        held = held[name]
    found: list[Mapping[str, Any]] = _turns(held)
    return found


def _prompt(turns: list[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the system prompt, and the turns after it."""
    said: list[str] = []
    for number, turn in enumerate(turns):
        if role(turn) != "system":
            return "\n\n".join(said), turns[number:]
        said.append(text(content(turn)) or "")
    return "\n\n".join(said), []


def _with_context(outer: dict[str, Any], prompt: str) -> dict[str, Any]:
    name = next((name for name in outer if squashed(name) == "context"), "context")
    given = outer.get(name)
    return {**outer, name: {"context": given, "system": prompt} if given else prompt}


def _is_asked(turns: Sequence[Mapping[str, Any]], number: int) -> bool:
    """Return whether a turn is a user's, and the next one is not."""
    following = turns[number + 1 : number + 2]
    return role(turns[number]) == "user" and not any(role(turn) == "user" for turn in following)


def _said(turns: Sequence[Mapping[str, Any]], number: int) -> str | None:
    """Return the last text of the assistant before the user's next turn."""
    said: str | None = None
    for turn in turns[number + 1 :]:
        if role(turn) == "user":
            break
        if role(turn) == "assistant":
            said = text(content(turn)) or said
    return said


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role(turn), "content": content(turn)}


def is_turn(values: Mapping[str, Any]) -> bool:
    """Return whether a row is one turn of a conversation, rather than a question and answer."""
    if not is_turns([values]) or role(values) not in {"user", "assistant", "system"}:
        return False
    return content(values) is not None and not any(_is_reply(name) for name in values)


def gathered(records: Iterable[FileRecord]) -> Iterator[FileRecord]:
    """Yield the conversations whose turns are rows, in the order of their first turns.

    Raises:
        UnusableFile: If no column says which turns belong together.
    """
    found: dict[str, FileRecord] = {}
    for record in records:
        if record.error or not is_turn(record.values):
            yield record._replace(error=record.error or "it does not say whose turn it is")
            continue
        named = conversation(record.values)
        if named is None:
            raise UnusableFile(
                f"line {record.line} is one turn of a chat, and no column says of which: expected "
                f"{', '.join(_CONVERSATION[:3])} or the like"
            )
        column, name = named
        first = found.setdefault(name, FileRecord(record.line, {column: name, "messages": []}))
        first.values["messages"].append(record.values)
    yield from found.values()


def variants(
    values: dict[str, Any], asked: str | None, said: str | None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each phrasing of the question; of several answers the first is used.

    Args:
        values: The row.
        asked, said: Columns of the question and of the answer; `None` for none.
    """
    answers = None if said is None else values[said]
    questions = None if asked is None else values[asked]
    if said is not None and _are_texts(answers):
        values = {**values, said: answers[0]}
    if asked is None or not _are_texts(questions):
        yield values
        return
    for question in questions:
        yield {**values, asked: question}


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def with_input(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with an instruction and its input, as in Alpaca, joined as one text."""
    by_name = {squashed(name): name for name in values}
    instruction, given = by_name.get("instruction"), by_name.get("input")
    if instruction is None or given is None or "output" not in by_name:
        return dict(values)
    row = {name: value for name, value in values.items() if name != given}
    if isinstance(values[given], str) and values[given].strip():
        row[f"{instruction} + {given}"] = f"{row.pop(instruction)}\n\n{values[given]}"
    return row
