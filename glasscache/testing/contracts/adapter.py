"""Contract of an adapter: what it asks the cache for, what it stores, and what it replays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from glasscache import MultiLevelCache
from glasscache.integrations.gate import Gate, as_user, control
from glasscache.testing.model import FakeModel, Kind

Feature = Literal[
    "model",
    "system",
    "tools",
    "format",
    "temperature",
    "provider",
    "pictures",
    "stateful",
    "loop",
    "stream",
    "leaving",
    "refused",
    "cut_short",
]
"""Part of the contract that a framework may not have."""

TOOL: Mapping[str, Any] = {
    "type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"],
}  # fmt: skip
"""Parameters of the one tool, `look_up`."""

NOT_COUNTED = "not counted"
"""Property of a test's report: why a reply that is not stored is not counted, either."""

PICTURE = "data:image/png;base64,iVBORw0KGgo="


@dataclass(frozen=True)
class Ask:
    """A request of a user to a model.

    Attributes:
        question: The last turn.
        history: Earlier turns of user and model, alternating.
        model, system, temperature: Parameters.
        tool: Description of the tool `look_up`; empty for no tool.
        format: Whether the model has to answer in JSON.
        provider: Which of two base URLs of the same model.
        behind: Which provider a gateway at the base URL is to ask, by a header of the client's.
        picture: Whether the last turn has a picture, too.
        looped: Whether the last turn is the result of a tool.
        stateful: Whether it continues a conversation that the provider has kept.
        ids: Written into the ids of the messages, where the framework has them.
    """

    question: str = "Where do you deliver?"
    history: tuple[str, ...] = ()
    model: str = "model-a"
    system: str = "Be brief."
    temperature: float = 0.0
    tool: str = ""
    format: bool = False
    provider: Literal["", "other"] = ""
    behind: str = ""
    picture: bool = False
    looped: bool = False
    stateful: bool = False
    ids: str = "1"


@dataclass
class Bench:
    """One adapter, driven by its framework; a subclass says how.

    Attributes:
        cache: The cache.
        model: The provider.
        lacks: Features that the framework does not have, or does not show to its adapter, and why.
        gate: The cache as the adapter has it.
    """

    cache: MultiLevelCache
    model: FakeModel
    lacks: Mapping[Feature, str] = field(default_factory=dict)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.cache)

    def url(self, ask: Ask) -> str:
        """Return the base URL of a request; both lead to the same provider."""
        return self.model.url.replace("127.0.0.1", "localhost") if ask.provider else self.model.url

    def headers(self, ask: Ask) -> dict[str, str]:
        """Return what the client sends with every request."""
        return {"x-portkey-provider": ask.behind} if ask.behind else {}

    async def ask(self, ask: Ask) -> tuple[str, int]:
        """Return the text of the reply, and the tokens that it used."""
        raise NotImplementedError

    async def stream(self, ask: Ask, stop_after: int | None = None) -> tuple[list[Any], str]:
        """Return the events of a streamed reply, at most *stop_after*, and their text."""
        raise NotImplementedError

    def kinds(self, events: list[Any]) -> list[str]:
        """Return the kinds of the events, each once, in the order of their first."""
        return list(dict.fromkeys(type(event).__name__ for event in events))

    async def as_ann(self, ask: Ask) -> str:
        """Return the reply to ann."""
        with as_user("ann"):
            return (await self.ask(ask))[0]


class AdapterContract:
    """Rules of every adapter; the fixture `bench` has an empty cache and a new model."""

    async def test_a_request_is_answered_once(self, bench: Bench) -> None:
        """The same request of the same user reaches the model once, and a hit uses no tokens."""
        with as_user("ann"):
            first, used = await bench.ask(Ask())
            again, spent = await bench.ask(Ask())
        assert (first, again) == ("Answer 1 to Where do you deliver?",) * 2
        assert used > 0
        assert spent == 0
        assert bench.model.calls == 1

    async def test_a_request_controls_itself(self, bench: Bench) -> None:
        """One that wants no lookup replaces the answer; one that wants no store leaves it."""
        await bench.as_ann(Ask())
        with control(no_lookup=True):
            anew = await bench.as_ann(Ask())
        with control(no_lookup=True, no_store=True):
            unkept = await bench.as_ann(Ask())
        assert await bench.as_ann(Ask()) == anew != unkept
        assert bench.model.calls == 3

    @pytest.mark.parametrize(
        ("feature", "other"),
        [
            ("model", Ask(model="model-b")),
            ("system", Ask(system="Be polite.")),
            ("temperature", Ask(temperature=0.9)),
            ("tools", Ask(tool="Looks something up.")),
            ("format", Ask(format=True)),
            ("provider", Ask(provider="other")),
            ("provider", Ask(behind="other")),
        ],
    )
    async def test_what_shapes_an_answer_is_its_context(
        self, bench: Bench, feature: Feature, other: Ask
    ) -> None:
        """Another model, system prompt, temperature, tool, format or provider is another answer."""
        _unless_lacking(bench, feature)
        assert await bench.as_ann(Ask()) == await bench.as_ann(Ask())
        assert bench.model.calls == 1
        assert await bench.as_ann(other) != await bench.as_ann(Ask())
        assert bench.model.calls == 2

    async def test_another_tool_is_another_answer(self, bench: Bench) -> None:
        """A tool that only differs in its description changes the context, too."""
        _unless_lacking(bench, "tools")
        one, other = Ask(tool="Looks something up."), Ask(tool="Finds things.")
        assert await bench.as_ann(one) != await bench.as_ann(other)
        assert await bench.as_ann(one) == "Answer 1 to Where do you deliver?"

    async def test_earlier_turns_matter_and_their_ids_do_not(self, bench: Bench) -> None:
        """After other turns it is another question; ids in messages change nothing."""
        after = Ask(history=("Hello", "Hello, how can I help?"))
        first = await bench.as_ann(after)
        assert await bench.as_ann(replace(after, ids="2")) == first
        assert await bench.as_ann(replace(after, history=("Hi", "Yes?"))) != first
        assert await bench.as_ann(Ask()) != first
        assert bench.model.calls == 3

    @pytest.mark.parametrize("kind", ["tool_calls", "refused", "cut_short"])
    async def test_what_is_no_whole_answer_is_not_stored(
        self, bench: Bench, kind: Kind, record_property: Callable[[str, object], None]
    ) -> None:
        """A call of a tool, a refusal and a text at its limit are counted by reason, not stored."""
        if kind == "tool_calls":
            _unless_lacking(bench, "tools")
        asked = Ask(tool="Looks something up." if kind == "tool_calls" else "")
        bench.model.says(kind)
        await _whatever_it_raises(bench.as_ann(asked))
        before = bench.model.calls
        not_counted = {str(name): why for name, why in bench.lacks.items()}.get(kind)
        if not_counted is not None:
            record_property(NOT_COUNTED, not_counted)
        else:
            assert bench.cache.metrics.put_outcome_reasons["bypass", kind] >= 1
        assert bench.cache.metrics.put_outcomes["stored"] == 0
        await _whatever_it_raises(bench.as_ann(asked))
        assert bench.model.calls > before

    @pytest.mark.parametrize(
        ("feature", "asked", "reason"),
        [
            ("pictures", Ask(picture=True), "not_text"),
            ("loop", Ask(tool="Looks something up.", looped=True), "not_users_turn"),
            ("stateful", Ask(stateful=True), "stateful"),
        ],
    )
    async def test_what_cannot_be_compared_bypasses(
        self, bench: Bench, feature: Feature, asked: Ask, reason: str
    ) -> None:
        """Pictures, steps within an agent's loop and kept conversations are counted by reason."""
        _unless_lacking(bench, feature)
        await bench.as_ann(asked)
        await bench.as_ann(asked)
        assert bench.model.calls == 2
        assert bench.cache.metrics.bypass_reasons == {reason: 2}
        assert sum(bench.cache.metrics.put_outcomes.values()) == 0

    async def test_without_a_user_nothing_private_is_read_or_stored(self, bench: Bench) -> None:
        """Ann's answer is neither bob's nor that of a request without a user, which stores none."""
        await bench.ask(Ask())
        await bench.ask(Ask())
        assert bench.model.calls == 2
        mine = await bench.as_ann(Ask())
        with as_user("bob"):
            assert (await bench.ask(Ask()))[0] != mine
        assert (await bench.ask(Ask()))[0] != mine
        assert await bench.as_ann(Ask()) == mine
        assert bench.model.calls == 5

    async def test_a_stream_is_stored_once_complete_and_replayed(self, bench: Bench) -> None:
        """A hit has events of the same kinds in the same order, and the same text."""
        _unless_lacking(bench, "stream")
        with as_user("ann"):
            events, text = await bench.stream(Ask())
            again, replayed = await bench.stream(Ask())
            assert (await bench.ask(Ask()))[0] == text
        assert text == replayed == "Answer 1 to Where do you deliver?"
        assert bench.kinds(again) == bench.kinds(events)
        assert bench.model.calls == 1

    async def test_a_cancelled_stream_stores_nothing(self, bench: Bench) -> None:
        """A stream that is left before its end is counted as cut short, and asked for again."""
        _unless_lacking(bench, "stream", "leaving")
        with as_user("ann"):
            await bench.stream(Ask(), stop_after=2)
            async with asyncio.timeout(30):
                counts = bench.cache.metrics.put_outcome_reasons
                while not counts["bypass", "cut_short"]:
                    gc.collect()  # a stream that nobody closes ends with its last reference
                    await asyncio.sleep(0.01)
            assert bench.cache.metrics.put_outcomes["stored"] == 0
            assert (await bench.ask(Ask()))[0] == "Answer 2 to Where do you deliver?"


def _unless_lacking(bench: Bench, *features: Feature) -> None:
    for feature in features:
        if feature in bench.lacks:
            pytest.skip(bench.lacks[feature])


async def _whatever_it_raises(work: Any) -> None:
    """Await a request whose framework may not accept the model's reply."""
    with contextlib.suppress(Exception):
        await work
