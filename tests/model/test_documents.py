"""Documents as retrievers return them: nothing that was paid for is lost, nothing comes back changed."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import itertools
import json
import logging
import math
import pathlib
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pydantic
import pytest

from cache_core import Answer, MultiLevelCache
from cache_core.model.document_ids import ids_of
from cache_core.model.documents import restored, taken
from cache_core.model.logs import RateLimited
from cache_core.operations.put import run as puts

CacheFactory = Callable[..., Any]
KEYED = {"tiers": frozenset({"l1", "l3", "l4"})}
LIMIT = 100_000


class Document(pydantic.BaseModel):
    page_content: str = "Open at nine"
    metadata: dict[str, Any] = {"source": "hours.md"}
    id: str | None = None


@dataclasses.dataclass
class Chunk:
    content: str
    meta: dict[str, Any]
    id: str = "5fe1c0"


@dataclasses.dataclass(slots=True)
class Slotted:
    uuid: uuid.UUID
    properties: dict[str, Any]


class Related(pydantic.BaseModel):
    node_id: str


class Relationship(enum.StrEnum):
    SOURCE = "1"


class TextNode(pydantic.BaseModel):
    id_: str
    metadata: dict[str, Any]
    relationships: dict[Relationship, Related]


class NodeWithScore(pydantic.BaseModel):
    node: TextNode
    score: float


class Row:
    """A database row: it has keys, and is no mapping."""

    def keys(self) -> list[str]:
        return ["doc_id", "body"]

    def __getitem__(self, name: str) -> str:
        return {"doc_id": "returns.pdf", "body": "text"}[name]


class Lazy:
    """An object that raises whenever it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


Scored = collections.namedtuple("Scored", "text score")  # noqa: PYI024 - as retrievers have it


class Kind(enum.IntEnum):
    FAQ = 2


COME_BACK = [
    1, 1.5, -0.0, "x", "\ud800", None, True, [], {}, [[["deep"]]], 10**30, 5e-324,
    math.inf, -math.inf, complex(1, math.inf), b"ab", bytearray(b"q"),
    (1, 2), ((), ("a",)), {1, 2}, frozenset([(1, 2)]), collections.deque([1, (2,)], 5),
    collections.OrderedDict(a=1), {7: 0.9, "7": 1}, {True: "a", None: "b"}, {(1, 2): 3},
    {"$": 1}, {"$": ["tuple", 1], "b": (2,)}, {"a": {"$": {"$": 1}}},
    date(2026, 1, 1), time(1, 2, tzinfo=timezone(timedelta(hours=1), "X")), timedelta(-1, 3),
    datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, tzinfo=UTC),  # noqa: DTZ001 - as given
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    Decimal("4.90"), Decimal("1E+5"), uuid.UUID(int=3),
    pathlib.Path("docs/hours.md"), pathlib.PureWindowsPath("c:\\x"),
    np.float32(0.87), np.float16(2), np.int64(3), np.uint8(3), np.bool_(True), np.str_("é"),
    np.datetime64("2026-01-01"), np.complex64(1j),
]  # fmt: skip


@pytest.mark.parametrize("value", COME_BACK, ids=lambda value: f"{type(value).__name__}")
def test_values_come_back_as_they_were(value: Any) -> None:
    """Stored documents are read back equal and of the same type, however they are nested."""
    given = [value, {"id": "h", "in a dict": value}, [value]]
    stored = json.loads(json.dumps(taken(given, (), LIMIT)._asdict()))
    found = restored(stored["values"]) if stored["tagged"] else stored["values"]
    assert stored["left_out"] == ""
    for one in (found[0], found[1]["in a dict"], found[2][0]):
        assert type(one) is type(value)
        assert repr(one) == repr(value)
        assert one == value


@pytest.mark.parametrize("array", [
    np.zeros((2, 3), dtype=np.float16), np.array([]), np.array(3), np.array(["é", "b"]),
    np.arange(12).reshape(3, 4).T, np.array([1, 2], dtype=">i4"),
], ids=str)  # fmt: skip
def test_arrays_come_back_as_they_were(array: Any) -> None:
    """Shape, type and values of numpy arrays are kept, and the array can be written to."""
    stored = json.loads(json.dumps(taken([array], (), LIMIT).values))
    (found,) = restored(stored)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    assert found.flags.writeable


def test_nan_comes_back() -> None:
    """NaN is no JSON, and comes back as NaN: as float, as Decimal and as numpy's."""
    given = [math.nan, np.float32("nan"), Decimal("NaN")]
    found = restored(json.loads(json.dumps(taken(given, (), LIMIT).values)))
    assert [type(one) for one in found] == [type(one) for one in given]
    assert all(one != one for one in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("documents", "why"),
    [
        ([object()], "unsupported"), ([Document()], "unsupported"), ([Scored("x", 1)], "unsupported"),
        ([(Document(), 0.91)], "unsupported"), ([{"kind": Kind.FAQ}], "unsupported"),
        ([Relationship.SOURCE], "unsupported"), ([collections.Counter("a")], "unsupported"),
        ([Lazy()], "unsupported"), ([{"chunks": (x for x in "ab")}], "unsupported"),
        ([np.array([object()])], "unsupported"), ([10**5_000], "unsupported"),
        ([np.zeros(2, dtype=[("a", "i4")])], "unsupported"), ([type("Text", (str,), {})("x")], "unsupported"),
        ((1 / 0 for _ in "a"), "unsupported"), (itertools.count(), "too_large"),
        (["x" * LIMIT], "too_large"), (["ü" * (LIMIT // 6 + 1)], "too_large"),
        ([np.zeros(LIMIT)], "too_large"), (["x"] * LIMIT, "too_large"),
    ],
)  # fmt: skip
def test_documents_that_are_left_out(documents: Any, why: str) -> None:
    """Documents that would come back altered, or are too large, are omitted as a whole."""
    found = taken(documents, (), LIMIT)
    assert (found.values, found.left_out, found.given) == (None, why, True)


@pytest.mark.slow
def test_documents_of_an_exponential_size_are_given_up_early() -> None:
    """A list that contains itself many times over costs no more time than the limit is large."""
    value: list[Any] = ["x"]
    for _ in range(60):
        value = [value, value]
    assert taken(value, (), LIMIT).left_out == "too_large"


@pytest.mark.parametrize("many", [tuple, iter, frozenset, collections.deque, np.array])
def test_documents_in_other_collections(many: Any) -> None:
    """A tuple, an iterator, a set, a deque or an array of documents is a list of them."""
    assert len(taken(many(["a", "b"]), (), LIMIT).values or ()) == 2


@pytest.mark.parametrize("one", ["text", b"x", {"id": 1}, Document(), 5, object()])
def test_what_is_no_list_of_documents(one: Any) -> None:
    """One document instead of a list of them is a mistake that is reported, never spelled out."""
    with pytest.raises(TypeError, match="rag_results"):
        taken(one, (), LIMIT)


def test_the_copy_is_deep() -> None:
    """Later changes of the documents by the agent are not stored."""
    given = [{"tags": ["a"], "pages": {7: [1]}}]
    found = taken(given, (), LIMIT)
    given[0]["tags"].append("b")  # type: ignore[attr-defined]
    given[0]["pages"][7].append(2)
    assert restored(found.values or ()) == [{"tags": ["a"], "pages": {7: [1]}}]


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """Most of this is the same on every store."""
    return str(getattr(request, "param", "embedded"))


@pytest.fixture(autouse=True)
def _first_of_their_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that another test logged a moment ago do not suppress those of this one."""
    monkeypatch.setattr(puts, "log", RateLimited(logging.getLogger("glasscache")))


WANTED = "returns.pdf"
DOCUMENTS: dict[str, list[Any]] = {
    "LangChain": [Document(metadata={"source": WANTED})],
    "LangChain with an id": [Document(id=WANTED, metadata={})],
    "LangChain dict": [{"page_content": "x", "metadata": {"source": WANTED}}],
    "(document, score)": [(Document(metadata={"source": WANTED}), 0.8)],
    "[document, score]": [[{"id": WANTED}, 0.8]],
    "(document, score, more)": [({"doc_id": WANTED}, 0.8, {"rank": 1})],
    "LlamaIndex": [
        NodeWithScore(
            node=TextNode(
                id_="c1", metadata={}, relationships={Relationship.SOURCE: Related(node_id=WANTED)}
            ),
            score=0.8,
        )
    ],
    "LlamaIndex file": [
        NodeWithScore(
            node=TextNode(id_="c1", metadata={"file_name": WANTED}, relationships={}), score=0.8
        )
    ],
    "Haystack": [Chunk("x", {"file_path": WANTED})],
    "Haystack source_id": [Chunk("x", {"source_id": WANTED})],
    "metadata.doc_id": [{"text": "x", "metadata": {"doc_id": WANTED}}],
    "metadata.documentId": [{"text": "x", "metadata": {"documentId": WANTED}}],
    "OpenAI file search": [{"file_id": "file-1", "filename": WANTED, "score": 0.8, "content": []}],
    "Bedrock": [{"content": {"text": "x"}, "location": {"s3Location": {"uri": WANTED}}}],
    "Bedrock web": [{"location": {"type": "WEB", "webLocation": {"url": WANTED}}}],
    "Bedrock metadata": [{"metadata": {"x-amz-bedrock-kb-source-uri": WANTED}}],
    "Azure": [{"content": "x", "sourcepage": WANTED + "#page=2", "@search.score": 1.2}],
    "Azure parent": [{"chunk_id": "c", "parent_id": WANTED, "chunk": "x"}],
    "Azure blob": [{"metadata_storage_path": WANTED, "metadata_storage_name": "x"}],
    "Azure blob name": [{"metadata_storage_name": WANTED}],
    "Qdrant": [{"id": 7, "version": 1, "score": 0.1, "payload": {"document": {"id": WANTED}}}],
    "Weaviate": [Slotted(uuid.UUID(int=1), {"url": WANTED})],
    "Elasticsearch": [{"_index": "kb", "_id": WANTED, "_source": {"text": "x"}}],
    "Vertex": [{"document": {"name": WANTED, "derivedStructData": {"link": "gs://x"}}}],
    "a database row": [Row()],
    "path": [{"source": pathlib.PurePosixPath(WANTED)}],
    "several": [{"sources": ["other.pdf", WANTED]}],
    "an object that cannot be stored": [{"id": WANTED, "handle": object()}],
}


@pytest.mark.parametrize("shape", DOCUMENTS)
def test_ids_are_found_where_retrievers_put_them(shape: str) -> None:
    """The name of a document is found in mappings and objects, wherever and however it is called."""
    assert WANTED in ids_of(DOCUMENTS[shape])


def test_ids_that_are_none() -> None:
    """Scores, texts, flags and broken objects are no ids."""
    documents = ["Return within 30 days", {"score": 0.8, "valid": "yes", "paid": "no", "id": True},
                 {"id": ""}, {"id": None}, {"id": 0.5}, Lazy(), 5, None, [[[]]]]  # fmt: skip
    assert ids_of(documents) == []


def test_ids_of_what_refers_to_itself() -> None:
    """A cycle is walked once."""
    document: dict[str, Any] = {"id": "a"}
    document["parent"] = document
    assert ids_of([document, [document]]) == ["a"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("Ru\u0308ckgabe.pdf", "R\u00fcckgabe.pdf"), ("R\u00fcckgabe.pdf", "Ru\u0308ckgabe.pdf"),
        ("https://help.example/returns#policy", "https://help.example/returns"),
        ("https://help.example/returns#policy", "https://help.example/returns#policy"),
        ("returns.pdf#page=2", "returns.pdf"), ("40", "40"),
    ],
)  # fmt: skip
async def test_an_invalidation_by_another_form(
    make_cache: CacheFactory, given: str, asked: str
) -> None:
    """Ids are compared in NFC, and a fragment belongs to the document before it."""
    cache = await make_cache(settings=KEYED)
    await cache.put("alpha", "ann", "a", rag_results=[{"source": given}])
    await cache.put("beta", "ann", "b", document_ids=[given])
    done = await cache.invalidate_document(asked)
    assert (done.removed, done.found_nothing) == (3, False)
    assert (await cache.lookup("alpha", "ann")).response is None
    assert (await cache.lookup("beta", "ann")).response is None


async def test_a_letter_of_a_name_is_no_fragment(make_cache: CacheFactory) -> None:
    """C# is not a part of C."""
    cache = await make_cache(settings=KEYED)
    await cache.put("alpha", "ann", "a", document_ids=["C#"])
    assert (await cache.invalidate_document("C")).found_nothing


@pytest.mark.parametrize(
    "shape", ["(document, score)", "LlamaIndex", "an object that cannot be stored"]
)
async def test_documents_of_a_class_are_left_out_and_their_ids_kept(
    make_cache: CacheFactory, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is stored, the documents are counted, explained and logged, and invalidate it."""
    cache = await make_cache(settings=KEYED)
    await cache.put("alpha", "ann", "a", "faq", DOCUMENTS[shape])
    assert (await cache.lookup("alpha", "ann")).response == "a"
    metrics = cache.get_metrics()
    assert metrics["puts"]["l4"] == {"bypass": 1}
    assert metrics["put_reasons"]["l4"] == {"unsupported": 1}
    assert metrics["put_outcome_reasons"] == {"partial": {"unsupported": 1}}
    assert (await cache.explain("alpha", "ann"))[-1].reason == "left_out"
    assert sum("could not be read back" in record.message for record in caplog.records) == 1
    assert (await cache.invalidate_document(WANTED)).removed > 0
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_large_documents_cost_the_documents(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer beside them is stored; counters, reasons, explain and one log line say so."""
    cache = await make_cache(settings={**KEYED, "max_value_bytes": 1_000})
    pages = [{"id": f"manual.pdf#{number}", "text": "ü" * 100} for number in range(10)]
    for _ in range(3):
        await cache.put("alpha", "ann", "Press both.", "descaling", pages)
    await cache.put("beta", "ann", None, None, pages)
    assert (await cache.lookup("alpha", "ann")).response == "Press both."
    assert (await cache.lookup("beta", "ann")).reasons == ("cold", "left_out")
    assert cache.get_metrics()["put_reasons"]["l4"] == {"too_large": 4}
    outcomes = cache.get_metrics()["put_outcomes"]
    assert (outcomes["partial"], outcomes["bypass"]) == (3, 1)
    assert [tier.reason for tier in await cache.explain("beta", "ann")][3] == "left_out"
    assert sum("documents of more than 1000 bytes" in line for line in caplog.messages) == 1
    assert (await cache.invalidate_document("manual.pdf#3")).removed > 0
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_a_large_part_costs_no_other(make_cache: CacheFactory) -> None:
    """A response or an intent that is too large leaves the others of the put stored."""
    cache = await make_cache(settings={**KEYED, "max_value_bytes": 1_000})
    await cache.put("alpha", "ann", "x" * 1_001, "faq", [{"id": 1}])
    await cache.put("beta", "ann", "answer", "i" * 257)
    found = await cache.lookup("alpha", "ann")
    assert (found.response, found.intent, found.rag_results) == (None, "faq", [{"id": 1}])
    assert found.reasons[0] == "left_out"
    found = await cache.lookup("beta", "ann")
    assert (found.response, found.intent) == ("answer", None)
    assert cache.get_metrics()["put_outcome_reasons"] == {"partial": {"too_large": 2}}


@pytest.mark.parametrize("store_kind", ["embedded", "redis"], indirect=True)
async def test_what_readers_get(cache: MultiLevelCache) -> None:
    """L4 returns the types that were put, to each reader a copy."""
    given = [
        {"id": "h", "pages": {7: 0.9}, "score": np.float32(0.5), "at": date(2026, 1, 2)},
        ("x", 1),
    ]
    await cache.put("alpha", "ann", None, None, given)
    first = (await cache.lookup("alpha", "ann")).rag_results
    assert first == given
    assert type(first[1]) is tuple
    first[0]["pages"][8] = "changed"
    assert (await cache.lookup("alpha", "ann")).rag_results == given


async def test_the_agent_changes_its_documents_while_they_are_put(make_cache: CacheFactory) -> None:
    """Documents are stored as they were when put was called, before it waited."""
    cache = await make_cache(settings=KEYED)
    documents: list[Any] = [{"id": "hours", "tags": ["a"]}]
    task = asyncio.create_task(cache.put("alpha", "ann", None, "hours", documents))
    await asyncio.sleep(0)
    documents[0]["tags"].append("b")
    documents.append({"id": "other"})
    await task
    found = await cache.lookup("alpha", "ann")
    assert found.rag_results == [{"id": "hours", "tags": ["a"]}]


async def test_documents_without_an_id_are_reported_once(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted each time, logged once; so is an invalidation that finds nothing."""
    cache = await make_cache(settings=KEYED)
    for number in range(3):
        await cache.put(f"alpha {number}", "ann", "a", rag_results=["Return within 30 days"])
        assert (await cache.invalidate_document(WANTED)).found_nothing
    assert cache.get_metrics()["put_reasons"]["l4"] == {"no_ids": 3}
    assert sum("without an id" in line for line in caplog.messages) == 1
    assert sum("found nothing" in line for line in caplog.messages) == 1
    await cache.put("beta", "ann", "a", rag_results=["text"], document_ids=[WANTED])
    await cache.put("gamma", "ann", "a", rag_results=[])
    assert cache.get_metrics()["put_reasons"]["l4"] == {"no_ids": 3}
    assert (await cache.invalidate_document(WANTED, dry_run=True)).removed == 2


# ------------------------------------------------------------------- what compute returned

MADE = [5, None, b"bytes", ["a"], {"a": 1}, Document(), object(), 0.5, True, (x for x in "ab")]


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
async def test_whatever_compute_returned_is_returned(
    make_cache: CacheFactory, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A result that is no text is returned anyway; it is not stored, but counted and logged."""
    cache = await make_cache(settings=KEYED)
    for answer in (made, Answer(made, "faq")):
        assert await cache.get_or_compute("alpha", "ann", lambda answer=answer: answer) is made
    found = await cache.lookup("alpha", "ann")
    assert (found.response, found.intent) == (None, "faq")
    outcomes = cache.get_metrics()["put_outcomes"]
    lost = outcomes["bypass"] + outcomes["partial"] + (outcomes["stored"] if made is None else 0)
    assert lost == 2
    assert any("compute returned" in line for line in caplog.messages) == (made is not None)


async def test_a_text_of_a_class_of_its_own(make_cache: CacheFactory) -> None:
    """A str of a subclass is returned as it is, and stored as the text that it is."""
    cache = await make_cache(settings=KEYED)
    made = type("Markup", (str,), {})("<b>")
    assert await cache.get_or_compute("alpha", "ann", lambda: made) is made
    assert (await cache.lookup("alpha", "ann")).response == "<b>"


@pytest.mark.parametrize("answer", [
    Answer("a", ttl=-1), Answer("a", ttl="x"), Answer("a", cost_usd=math.nan), Answer("a", tags=5),  # type: ignore[arg-type]
    Answer("a", intent=5), Answer("a", document_ids=5),  # type: ignore[arg-type]
], ids=str)  # fmt: skip
async def test_an_answer_that_put_refuses(make_cache: CacheFactory, answer: Answer) -> None:
    """The response of an answer with a wrong field is returned; it is counted, and not stored."""
    cache = await make_cache(settings=KEYED)
    assert await cache.get_or_compute("alpha", "ann", lambda: answer) == "a"
    metrics = cache.get_metrics()
    lost = metrics["put_outcome_reasons"].get("bypass", {}).get("invalid", 0)
    assert lost + metrics["put_outcomes"]["stored"] == 1


async def test_an_answer_with_documents_of_the_wrong_type(make_cache: CacheFactory) -> None:
    """One document instead of a list costs the documents, where the answer is paid for already."""
    cache = await make_cache(settings=KEYED)
    answer = Answer("a", rag_results=Document())  # type: ignore[arg-type]
    assert await cache.get_or_compute("alpha", "ann", lambda: answer) == "a"
    assert (await cache.lookup("alpha", "ann")).response == "a"
    assert cache.get_metrics()["put_reasons"]["l4"] == {"unsupported": 1}


@pytest.mark.parametrize("wanted", ["hours.md", "two", "three"])
async def test_documents_of_the_wrong_type_still_name_their_ids(
    make_cache: CacheFactory, wanted: str
) -> None:
    """The known sources of an answer invalidate it, even if its documents were not stored."""
    cache = await make_cache(settings=KEYED)
    answer = Answer("a", rag_results=Document(), document_ids=["two"])  # type: ignore[arg-type]
    await cache.get_or_compute("alpha", "ann", lambda: answer, document_ids=["three"])
    assert not (await cache.invalidate_document(wanted)).found_nothing
    assert (await cache.lookup("alpha", "ann")).response is None


async def test_documents_of_an_answer_are_found(make_cache: CacheFactory) -> None:
    """Ids in the documents, of the Answer and of the call all invalidate what was computed."""
    cache = await make_cache(settings=KEYED)
    for wanted in ("one", "two", "three"):
        answer = Answer("a", rag_results=[{"id": "one"}], document_ids=["two"])
        await cache.get_or_compute(
            "alpha", "ann", lambda answer=answer: answer, document_ids=["three"]
        )
        assert (await cache.invalidate_document(wanted)).removed == 2


async def test_a_put_that_stores_nothing_is_counted(make_cache: CacheFactory) -> None:
    """Every put ends in one outcome with its reason, and so does every part that it offered."""
    cache = await make_cache(settings=KEYED)
    await cache.put("alpha", None, "no user")
    await cache.put("alpha", "ann", "")
    await cache.put("   ", "ann", "a blank message")
    await cache.put("x" * 40_000, "ann", "a large message")
    await cache.warm_cache([("  ", None, "blank"), ("beta", None, "fine"), ("gamma", None, "")])
    metrics = cache.get_metrics()
    assert metrics["put_outcome_reasons"] == {"bypass": {"no_user": 1, "empty": 4, "too_large": 1}}
    assert (metrics["put_outcomes"]["bypass"], metrics["put_outcomes"]["stored"]) == (6, 1)
    assert metrics["put_reasons"] == {"l1": {"no_user": 1, "empty": 4, "too_large": 1}}


async def test_puts_while_the_store_was_never_reached(tmp_path: pathlib.Path) -> None:
    """They are dropped and counted, each once, and each part that they offered."""
    from cache_core import Settings

    settings = Settings(dir=tmp_path, redis_url="redis://127.0.0.1:9/0", **KEYED)
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        for number in range(3):
            await cache.put(f"alpha {number}", "ann", "a", "faq")
        metrics = cache.get_metrics()
    assert metrics["put_outcome_reasons"] == {"dropped": {"backend_error": 3}}
    assert metrics["puts"] == {"l1": {"dropped": 3}, "l3": {"dropped": 3}}


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (7, ["7"]), (7.0, ["7", "7.0"]), (7.5, []), (True, []), (float("nan"), []),
        (float("inf"), []), (np.int64(7), ["7"]), (np.float32(7.0), ["7", "7.0"]), (-3, ["-3"]),
    ],
)  # fmt: skip
def test_numbers_are_ids(value: Any, ids: list[str]) -> None:
    """A whole number is known with and without its point, of numpy as well; others are scores."""
    assert ids_of([{"id": value}]) == ids
