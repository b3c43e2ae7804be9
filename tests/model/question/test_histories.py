"""Histories and contexts in the forms in which programs keep them."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import enum
import json
import types
import uuid
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_core import MultiLevelCache
from cache_core.model import tasks
from cache_core.model.keys import Keys
from cache_core.model.question import histories
from cache_core.model.question.histories import (
    MAX_HISTORY_VALUES,
    TooLargeError,
    fingerprint,
    fingerprint_of,
    read_history,
)
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

KEYED = {**PATIENT, "tiers": "l1,l3,l4"}
KEYS = Keys("n", b"s" * 32)


def digest(history: Any) -> str:
    found = read_history(history)
    return "" if found is None else fingerprint(found)


# ----------------------------------------------------------------------------- message objects


class Role(enum.Enum):
    USER = "user"
    ASSISTANT = "assistant"


class Reply(pydantic.BaseModel):
    """A turn with the fields of OpenAI's message."""

    model_config = pydantic.ConfigDict(extra="allow")
    role: str = "assistant"
    content: Any = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class Function(pydantic.BaseModel):
    name: str
    arguments: str


class ToolCall(pydantic.BaseModel):
    id: str
    function: Function
    type: str = "function"


class Chain(pydantic.BaseModel):
    """A turn like LangChain's message: a type instead of a role."""

    type: str
    content: Any
    id: str | None = None
    name: str | None = None
    additional_kwargs: dict[str, Any] = {}
    response_metadata: dict[str, Any] = {}
    usage_metadata: dict[str, int] | None = None
    tool_calls: list[dict[str, Any]] = []

    def pretty_repr(self) -> str:
        return "a method is no field"


@dataclasses.dataclass
class Block:
    text: str
    block_type: str = "text"


@dataclasses.dataclass
class Indexed:
    """A turn like LlamaIndex's message: blocks, and the content as a property."""

    role: Role
    blocks: list[Block]
    additional_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def content(self) -> str:
        return "\n".join(block.text for block in self.blocks)


class Slotted:
    """A class of the application's own."""

    __slots__ = ("content", "role", "sent")

    def __init__(self, role: str, content: str) -> None:
        self.role, self.content, self.sent = role, content, object()


Pair = collections.namedtuple("Pair", ["role", "content"])  # noqa: PYI024

HELLO = {"role": "assistant", "content": "Hello, how can I help?"}
SAID = "Hello, how can I help?"

SAME_TURN: dict[str, Any] = {
    "ids": {**HELLO, "id": "msg_1", "uuid": str(uuid.UUID(int=5))},
    "times": {**HELLO, "created_at": 17, "timestamp": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},
    "usage": {**HELLO, "usage": {"total_tokens": 9}, "finish_reason": "stop", "model": "m"},
    "unknown fields": {**HELLO, "latency_of_mine": 5.2, "seen_by": ["x"], "raw": object()},
    "nulls": {**HELLO, "name": None, "tool_calls": None, "refusal": None, "audio": None},
    "empty": {**HELLO, "name": "", "tool_calls": [], "annotations": []},
    "a part": {**HELLO, "content": [{"type": "text", "text": SAID}]},
    "a part with marks": {**HELLO, "content": [
        {"type": "output_text", "text": SAID, "annotations": [], "logprobs": None, "id": 3}]},
    "a part of a class": {**HELLO, "content": [types.SimpleNamespace(type="text", text=SAID)]},
    "a list of texts": {**HELLO, "content": [SAID]},
    "parts": {"role": "model", "parts": [{"text": SAID}]},
    "a tuple": ("assistant", SAID),
    "a tuple of LangChain": ("ai", SAID),
    "a list": ["assistant", SAID],
    "a named tuple": Pair("assistant", SAID),
    "pydantic": Reply(content=SAID),
    "pydantic with extras": Reply(content=SAID, id="x", usage={"a": 1}),  # type: ignore[call-arg]
    "LangChain": Chain(type="ai", content=SAID, id="run-1", usage_metadata={"total": 4}),
    "LlamaIndex": Indexed(Role.ASSISTANT, [Block(SAID)]),
    "an enum": {"role": Role.ASSISTANT, "content": SAID},
    "slots": Slotted("assistant", SAID),
    "a namespace": types.SimpleNamespace(role="assistant", content=SAID, id=4),
    "read only": types.MappingProxyType(HELLO),
    "a chain map": collections.ChainMap({}, HELLO),
    "outer space": {"role": "assistant", "content": f" {SAID}\n"},
    "Responses": {"type": "message", "id": "msg_1", "status": "completed", **HELLO},
}  # fmt: skip


@pytest.mark.parametrize("form", SAME_TURN)
def test_one_turn_in_many_forms(form: str) -> None:
    """Only what was said counts, in every form that a program keeps it in."""
    first = {"role": "user", "content": "Hi"}
    assert digest([first, SAME_TURN[form]]) == digest([first, HELLO])


@pytest.mark.parametrize("length", [1, 1_000, 100_000])
def test_unicode_forms_of_a_text_are_the_same(length: int) -> None:
    """A text composed and decomposed is one, short or long."""
    composed, decomposed = "caf\u00e9 " * length, "cafe\u0301 " * length
    assert digest([("user", composed)]) == digest([("user", decomposed)])
    assert digest([composed]) == digest([decomposed])
    assert digest([("user", composed)]) != digest([("user", "cafe " * length)])


DIFFERENT_TURNS: list[Any] = [
    "Hi",
    "hi there",
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hi"},
    {"role": "system", "content": "Hi"},
    {"role": "user", "content": "Hi", "name": "ann"},
    {"role": "user", "content": "Hi", "name": "bob"},
    {"role": "user", "content": "HI"},
    {"role": "user", "content": ""},
    {"role": "user", "content": "git branch -d"},
    {"role": "user", "content": "git branch -D"},
    "git branch -d",
    "git branch -D",
    {"role": "user", "content": ["Hi", "there"]},
    {"role": "user", "content": ["Hithere"]},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:1"}}]},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:2"}}]},
    {"role": "user", "content": [{"type": "input_file", "file_id": "f1"}]},
    {"role": "user", "content": [{"type": "input_file", "file_id": "f2"}]},
    {"role": "user", "content": "Hi", "images": ["aGk="]},
    {"role": "user", "content": "Hi", "images": ["aGo="]},
    {"role": "user", "content": b"Hi"},
    {"role": "user", "content": b"Ho"},
    {"role": "user", "content": {"a": 1}},
    {"role": "user", "content": {"a": "1"}},
    {"role": "user", "content": {1: "a"}},
    {"role": "user", "content": {"1": "a"}},
    {"role": "user", "content": {"at": dt.date(2026, 1, 1)}},
    {"role": "user", "content": {"at": "2026-01-01"}},
    {"role": "user", "content": np.zeros(3)},
    {"role": "user", "content": np.ones(3)},
    {"role": "user", "content": {"#": ["number", "1"]}},
    {"role": "user", "content": {"n": 10**5000}},
    {"role": "user", "content": {"n": float("nan")}},
    {"user": "Hi", "bot": "Hello"},
    {"user": "Hi", "bot": "Hullo"},
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Hi"},
    {"sender": "ann", "text": "Hi"},
    {"sender": "bob", "text": "Hi"},
    {"speaker": "ann", "content": "Hi"},
    {"speaker": "bob", "content": "Hi"},
    {"type": "item_reference", "id": "msg_1"},
    {"type": "item_reference", "id": "msg_2"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "g", "arguments": "{}"}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1.0}'}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"id": 7}'}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"id": 8}'}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a"'}}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 2}'},
    {"type": "function_call_output", "call_id": "c", "output": "5"},
    {"type": "function_call_output", "call_id": "c", "output": "6"},
]  # fmt: skip


def test_turns_that_say_something_else() -> None:
    """Role, content, name, pictures and tool calls make a difference, to the letter."""
    found = [digest([turn]) for turn in DIFFERENT_TURNS]
    twice = [turn for turn, count in zip(DIFFERENT_TURNS, map(found.count, found), strict=True)
             if count > 1]  # fmt: skip
    assert not twice


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", "b"], ["b", "a"]), (["a", "b"], ["ab"]), (["a"], ["a", "a"]), ([""], ["", ""]),
        ([("user", "a"), ("ai", "b")], [("ai", "a"), ("user", "b")]),
        ([], [""]),
    ],
)  # fmt: skip
def test_order_and_number_of_turns_count(one: Any, other: Any) -> None:
    """Turns are told apart by their places and borders."""
    assert digest(one) != digest(other)


def call(identity: str, arguments: Any, name: str = "f") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "calls",
    [
        [call("b", '{"a": 1, "b": [2]}')],
        [call("c", '{ "b":[2],"a":1 }')],
        [call("d", {"b": [2], "a": 1})],
        [ToolCall(id="e", function=Function(name="f", arguments='{"a":1,"b":[2]}'))],
        [{"name": "f", "args": {"a": 1, "b": [2]}, "id": "g", "type": "tool_call"}],
    ],
)
def test_tool_calls_in_many_forms(calls: list[Any]) -> None:
    """Ids of calls are random; name and arguments count, in whatever form they are written."""
    first = {"role": "assistant", "content": "", "tool_calls": [call("a", '{"a":1,"b":[2]}')]}
    assert digest([{**first, "tool_calls": calls}]) == digest([first])
    assert digest([Reply(content="", tool_calls=calls)]) == digest([first])


def tools(one: str, other: str, results: list[tuple[str, str]]) -> list[Any]:
    calls = [call(one, '{"n":1}'), call(other, '{"n":2}')]
    turns = [{"role": "tool", "tool_call_id": of, "content": text} for of, text in results]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *turns]


def test_which_call_a_result_is_of_counts() -> None:
    """Other ids are the same conversation; the results of the calls exchanged are not."""
    first = tools("a", "b", [("a", "x"), ("b", "y")])
    assert digest(first) == digest(tools("c", "d", [("c", "x"), ("d", "y")]))
    assert digest(first) != digest(tools("a", "b", [("b", "x"), ("a", "y")]))

    def anthropic(one: str, other: str, of: tuple[str, str]) -> list[Any]:
        used = [{"type": "tool_use", "id": name, "name": "f", "input": {"n": number}}
                for number, name in enumerate((one, other))]  # fmt: skip
        back = [{"type": "tool_result", "tool_use_id": name, "content": text}
                for name, text in zip(of, "xy", strict=True)]  # fmt: skip
        return [{"role": "assistant", "content": used}, {"role": "user", "content": back}]

    assert digest(anthropic("a", "b", ("a", "b"))) == digest(anthropic("c", "d", ("c", "d")))
    assert digest(anthropic("a", "b", ("a", "b"))) != digest(anthropic("a", "b", ("b", "a")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "ai"]), "content": JSON.filter(lambda value: value is not None)}), max_size=4),
       st.dictionaries(st.sampled_from(["id", "created_at", "usage", "x_request", "ts"]), JSON))  # fmt: skip
def test_any_content_is_read(turns: list[dict[str, Any]], volatile: dict[str, Any]) -> None:
    """No JSON value in a turn raises, and what else is in the turns makes no difference."""
    assert digest(turns) == digest([{**turn, **volatile} for turn in turns])
    if turns:
        assert digest(turns) != digest(turns[1:])


# ------------------------------------------------------------------------------------ no turns


@pytest.mark.parametrize("history", [None, [], (), collections.deque()])
def test_no_turns_are_no_history(history: Any) -> None:
    """An empty history is none."""
    assert KEYS.query("m", "ann", None, history) == KEYS.query("m", "ann")


NO_HISTORIES: list[Any] = [
    "text", b"text", 5, True, object(), {"role": "user"}, {"a", "b"}, [5], [None], [True],
    [object()], [["a", "b", "c"]], [(1, "a")], [("a",)], iter([]),
]  # fmt: skip


async def test_what_is_no_list_of_turns_raises(make_cache: CacheFactory) -> None:
    """It is a TypeError that names the argument and counts nothing; put stores nothing."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for history in NO_HISTORIES:
        for use in (
            cache.lookup("alpha", "ann", history=history),
            cache.put("alpha", "ann", "answer", history=history),
            cache.explain("alpha", "ann", history=history),
            cache.get_or_compute("alpha", "ann", lambda: "x", history=history),
        ):
            with pytest.raises(TypeError, match=r"history|turn"):
                await use
    assert cache.metrics.lookups == 0
    assert (await cache.lookup("alpha", "ann")).reasons == ("cold",)


async def test_an_iterator_is_read_once(make_cache: CacheFactory) -> None:
    """A generator serves one call; a second one with it raises, and stores no wrong answer."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    turns = (turn for turn in ("Hi", "Hello"))
    assert await cache.get_or_compute("alpha", "ann", lambda: "made", history=turns) == "made"
    assert (await cache.lookup("alpha", "ann", history=["Hi", "Hello"])).response == "made"
    with pytest.raises(TypeError, match="iterator"):
        await cache.put("alpha", "ann", "wrong", history=turns)


async def test_nesting_without_end(make_cache: CacheFactory) -> None:
    """A turn that contains itself is a TypeError."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    cycle: dict[str, Any] = {"role": "user"}
    cycle["content"] = [cycle]
    with pytest.raises(TypeError, match="nested"):
        await cache.lookup("alpha", "ann", history=[cycle])


async def test_content_that_cannot_be_compared(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """An object without content equals nothing: never a hit, never an error, logged once."""
    from cache_core.model.question import histories

    histories.log._next.clear()
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    history = [{"role": "user", "content": [object()]}]
    assert digest(history) != digest(history)
    for _ in range(2):
        assert (await cache.lookup("alpha", "ann", history=history)).outcome == "miss"
        await cache.put("alpha", "ann", "answer", history=history)
    assert len([line for line in caplog.messages if "holds a object" in line]) == 1


class Picture:
    """An image like Pillow's: its pixels are in no attribute."""

    def __init__(self, pixels: bytes) -> None:
        self.info: dict[str, Any] = {}
        self.mode, self.size = "L", (len(pixels), 1)
        self.tobytes = lambda: pixels


class Hidden:
    """Keeps what it says to itself."""

    def __init__(self, said: str) -> None:
        self.kind = "note"
        self._said = said


class Failure(Exception):  # noqa: N818 - as others name theirs
    """An exception's arguments are in no attribute."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 5


@pytest.mark.parametrize("kind", [Picture, Hidden, Failure])
def test_objects_that_hold_more_than_they_show(kind: Any) -> None:
    """Two of them with other content never make the same history."""
    one, other = (kind(b"1"), kind(b"2")) if kind is Picture else (kind("1"), kind("2"))
    for turn in (lambda item: ("user", [item]), lambda item: {"role": "user", "content": item}):
        assert digest([turn(one)]) != digest([turn(other)])
    if kind is not Failure:
        assert digest([("user", [one])]) == digest([("user", [one])])


# -------------------------------------------------------------------------------------- limits


async def test_a_huge_history_bypasses(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than is digested is `too_large`, for lookups and puts, by size and by number."""
    monkeypatch.setattr("cache_core.model.question.histories.MAX_HISTORY_CHARS", 1_000)
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for history in (["x" * 1_001], [{"role": "user", "content": b"x" * 1_001}]):
        assert (await cache.lookup("alpha", "ann", history=history)).reasons == ("too_large",)
        await cache.put("alpha", "ann", "answer", history=history)
        assert await cache.get_or_compute("alpha", "ann", lambda: "m", history=history) == "m"
        [l1, *_] = await cache.explain("alpha", "ann", history=history)
        assert "too large" in l1.detail
    with pytest.raises(TooLargeError):
        read_history([("user", {"a": [0] * MAX_HISTORY_VALUES})])
    assert (await cache.lookup("alpha", "ann", history=["x" * 1_000])).outcome == "miss"


async def test_a_picture_is_digested_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many bytes are digested in a thread, with the same result; few without one."""
    threads: list[Any] = []
    original = tasks.off_loop

    async def noted(work: Any, *args: Any) -> Any:
        threads.append(work)
        return await original(work, *args)

    monkeypatch.setattr(histories, "off_loop", noted)
    small, large = (
        read_history(
            [("user", [{"type": "image", "data": base64.b64encode(bytes(size)).decode()}])]
        )
        for size in (1_000, 1_000_000)
    )
    assert small is not None
    assert large is not None
    assert await fingerprint_of(small) == fingerprint(small)
    assert not threads
    assert await fingerprint_of(large) == fingerprint(large)
    assert threads


# ------------------------------------------------------------------------------------ contexts


@dataclasses.dataclass
class Place:
    a: int = 1


class Model(pydantic.BaseModel):
    a: int = 1


NO_CONTEXTS: list[Any] = [
    0, False, 0.0, [], (), set(), b"", ["a"], 5, True, b"x", object(), float("nan"), Place,
]  # fmt: skip


async def test_what_is_no_context_raises(make_cache: CacheFactory) -> None:
    """Nothing but None, an empty text and an empty mapping is no context."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for context in NO_CONTEXTS:
        for use in (
            cache.lookup("alpha", "ann", context=context),
            cache.put("alpha", "ann", "answer", context=context),
            cache.explain("alpha", "ann", context=context),
            cache.warm_cache([("alpha", None, "answer")], context=context),
            cache.get_or_compute("alpha", "ann", lambda: "x", context=context),
        ):
            with pytest.raises(TypeError, match="context"):
                await use
    assert (await cache.lookup("alpha", "ann")).reasons == ("cold",)


@pytest.mark.parametrize(
    "context",
    [types.MappingProxyType({"a": 1}), collections.ChainMap({"a": 1}), collections.OrderedDict(a=1),
     collections.UserDict(a=1), collections.defaultdict(int, a=1), Place(), Model()],
)  # fmt: skip
def test_every_mapping_of_json_is_a_context(context: Any) -> None:
    """However a mapping is made, it is the context that its items are, inside others too."""
    assert KEYS.query("m", None, context) == KEYS.query("m", None, {"a": 1})
    assert KEYS.query("m", None, {"a": np.int64(1)}) == KEYS.query("m", None, {"a": 1})
    nested, plain = {"x": [context]}, {"x": [{"a": 1}]}
    assert KEYS.query("m", None, nested) == KEYS.query("m", None, plain)


def test_digests_of_contexts_stay() -> None:
    """An index is named by its context's digest: what is stored in it stays usable."""
    from cache_core.model.keys import digest as keyed

    context = {"b": [1, 1.0, None, True, "\u00fc"], "a": {"c": "d"}}
    text = json.dumps(context, sort_keys=True, separators=(",", ":"))
    assert KEYS.query("m", None, context).context == keyed(b"s" * 32, "context", "mapping", text)
    assert KEYS.query("m", None, "text").context == keyed(b"s" * 32, "context", "text", "text")


# --------------------------------------------------------------------------------------- churn


async def ask(cache: MultiLevelCache, **where: Any) -> None:
    if (await cache.lookup("when do you open", "ann", **where)).response is None:
        await cache.put("when do you open", "ann", "At nine.", **where)


async def test_a_context_that_changes_is_named(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """The key that alone keeps a message from its answer is in metrics, explain and one log line."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    contexts = [{"model": "m", "system": f"It is 10:0{number}."} for number in range(8)]
    assert cache.get_metrics()["churn"] == {"context": "", "history": "", "advice": ""}
    for context in contexts:
        await ask(cache, context=context)
    assert cache.get_metrics()["churn"]["context"] == "system"
    assert "'system'" in cache.get_metrics()["churn"]["advice"]
    [l1, *_] = await cache.explain(
        "when do you open", "ann", context={**contexts[0], "system": "x"}
    )
    assert "'system'" in l1.detail
    [l1, *_] = await cache.explain("when do you open", "ann")
    assert "'system'" not in l1.detail
    assert len([line for line in caplog.messages if "'system'" in line]) == 1
    assert not any("10:0" in line for line in caplog.messages)


async def test_a_history_that_changes_is_named(make_cache: CacheFactory) -> None:
    """The turn and field that alone differ are named, however many other turns there are."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for number in range(8):
        system = {"role": "system", "content": f"Be kind. It is 10:0{number}."}
        await ask(cache, history=[system, *turns])
    assert cache.get_metrics()["churn"]["history"] == "turn 1 (system): content"
    [l1, *_] = await cache.explain("when do you open", "ann", history=["x"])
    assert "turn 1 (system): content" in l1.detail


async def test_what_another_service_writes_otherwise_is_explained(make_cache: CacheFactory) -> None:
    """`explain` says in which field the context or history of the last miss differed."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    await ask(cache, context={"model": "m", "temperature": 1.0})
    [l1, *_] = await cache.explain(
        "when do you open", "ann", context={"model": "m", "temperature": 1}
    )
    assert "its context had another 'temperature'" in l1.detail
    [l1, *_] = await cache.explain(
        "when do you open", "ann", context={"model": "m", "temperature": 1.0, "stop": None}
    )
    assert "its context had another 'stop'" in l1.detail
    await ask(cache, history=[("user", "Hi"), ("assistant", "Hello")])
    [l1, *_] = await cache.explain(
        "when do you open", "ann", history=[("user", "Hi"), ("ai", "Yes?")]
    )
    assert "its history had another 'turn 2 (assistant): content'" in l1.detail


async def test_short_answers_to_other_questions_do_not_churn(make_cache: CacheFactory) -> None:
    """The same reply ("yes") after other questions is another conversation: no advice is given."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for number in range(10):
        await cache.lookup("yes", "ann", history=[("assistant", f"Do you want {number}?")])
        await cache.lookup(
            "yes", "ann", history=[("user", "Hi"), ("assistant", f"Is it {number}?")]
        )
    assert cache.get_metrics()["churn"]["history"] == ""


async def test_what_is_asked_once_does_not_churn(make_cache: CacheFactory) -> None:
    """Neither conversations that go on, nor tenants whose contexts are asked again, are named."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    history: list[Any] = []
    for number in range(30):
        await ask(cache, history=history)
        history += [("user", f"question {number}"), ("assistant", f"answer {number}")]
    for number in range(60):
        await cache.lookup(f"question {number}", f"user {number}", context={"tenant": number % 20})
    assert cache.get_metrics()["churn"] == {"context": "", "history": "", "advice": ""}


async def test_a_key_that_is_always_new_is_named(make_cache: CacheFactory) -> None:
    """A context key with another value in every lookup is named even if no message is repeated."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for number in range(40):
        await cache.lookup(f"question {number}", "ann", context={"request": number, "model": "m"})
    assert cache.get_metrics()["churn"]["context"] == "request"
