"""Arguments of the wrong type are refused before anything is done: nothing fails open."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import cache_core
from cache_core import Answer, MultiLevelCache
from cache_core.model.values import BYPASS_REASONS
from cache_core.operations.arguments import check_put
from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

NAN, HUGE = float("nan"), 10**400
KEYED = {**PATIENT, "tiers": "l1,l3,l4"}

# What is refused, by what an argument is.
FLAG: list[Any] = [
    "false",
    "no",
    "private",
    "",
    0,
    1,
    NAN,
    b"0",
    [],
    ["ann"],
    {"ann"},
    {},
    object(),
]
SWITCH = [*FLAG, None]
TEXT: list[Any] = [5, 1.5, True, b"text", ["a"], ("a",), {"a": 1}, object(), NAN]
NUMBER: list[Any] = [
    "5",
    "5s",
    True,
    False,
    b"5",
    [5],
    NAN,
    float("inf"),
    HUGE,
    -1,
    1 + 2j,
    object(),
]
WHOLE: list[Any] = ["5", True, 1.5, NAN, None, -1, [5]]
TEXTS: list[Any] = [
    "price-list",
    b"tag",
    5,
    True,
    None,
    {"a": 1},
    [5],
    [None],
    [b"a"],
    ["a", 5],
    object(),
]
FUNCTION: list[Any] = [5, "f", None, ["f"], True]
CONTEXT: list[Any] = [0, False, [], (), 5, b"x", {"a": object()}, {1: "a"}, {"a": NAN}]
HISTORY: list[Any] = ["text", b"x", 5, True, {"role": "user"}, [5], [None], {"a"}]
DOCUMENTS: list[Any] = ["text", b"x", 5, True, {"id": 1}]
PAIRS: list[Any] = [
    5,
    "text",
    [5],
    ["text"],
    [("a", "b")],
    [("a", 5, "b")],
    [("a", None, 5)],
    [(5, None, "a")],
]

MESSAGE = {"message": [None, *TEXT]}
PLACE = {
    **MESSAGE, "user_id": TEXT, "context": CONTEXT, "history": HISTORY, "standalone": TEXT,
}  # fmt: skip
STORED = {
    "intent": TEXT, "shared": FLAG, "share_documents": FLAG, "ttl": [*NUMBER, 0], "tags": TEXTS,
    "cost_usd": NUMBER, "personal": TEXTS, "document_ids": TEXTS,
}  # fmt: skip
WISHES = {"max_age": [*NUMBER, 10**9], "max_wrong": [*NUMBER, 0.21], "no_lookup": SWITCH,
          "no_store": SWITCH}  # fmt: skip
SOURCE: list[Any] = [5, None, "somebody", ["review"], True]

REFUSED: dict[str, dict[str, list[Any]]] = {
    "lookup": {**PLACE, **WISHES, "allow_stale": SWITCH},
    "get_multilevel": PLACE,
    "explain": PLACE,
    "put": {**PLACE, **STORED, "response": TEXT, "rag_results": DOCUMENTS,
            "lookup": [5, "id", (), {"lookup_id": "x"}], "answer_id": ["", *TEXT],
            "finish_reason": TEXT},
    "bypass": {"reason": [None, "", "x", [], *TEXT], "of": [None, "", "hit", [], *TEXT]},
    "get_or_compute": {**PLACE, **STORED, **WISHES, "compute": FUNCTION},
    "warm_cache": {"queries": PAIRS, "context": CONTEXT, "intent": TEXT, "ttl": [*NUMBER, 0],
                   "tags": TEXTS, "progress": FUNCTION},
    "invalidate": {"query": [None, *TEXT], "user_id": ["", *TEXT], "dry_run": SWITCH},
    "invalidate_document": {"doc_id": ["", None, *TEXT], "dry_run": SWITCH},
    "invalidate_tag": {"tag": ["", None, *TEXT], "dry_run": SWITCH},
    "invalidate_writer": {"user_id": ["", None, *TEXT], "dry_run": SWITCH},
    "forget_user": {"user_id": ["", None, *TEXT]},
    "tune": {"changes": [None, 5, "l1_ttl=5", [("l1_ttl", 5)], {"l1_ttl": True}, {"l1_ttl": NAN}],
             "author": ["", " ", None, *TEXT], "note": [None, *TEXT],
             "expected_version": [item for item in WHOLE if item is not None],
             "dry_run": SWITCH, "stage": [5, True, "30m", {"seconds": 60}]},
    "confirm_tuning": {"author": ["", None, *TEXT], "note": [None, *TEXT],
                       "expected_version": [item for item in WHOLE if item is not None]},
    "revert_tuning": {"version": WHOLE, "author": ["", None, *TEXT], "note": [None, *TEXT]},
    "tuning_history": {"limit": WHOLE},
    "feedback": {"lookup_id": [None, *TEXT], "correct": SWITCH, "source": SOURCE},
    "judge": {"decision": [None, 5, "id", ()], "correct": SWITCH, "source": SOURCE},
    "decisions": {"count": WHOLE},
    "verdicts": {"count": WHOLE},
    "recent": {"count": WHOLE},
}  # fmt: skip
"""Every public method that takes arguments, each argument, and what is refused for it."""

RIGHT: dict[str, Any] = {
    "message": "alpha", "query": "alpha", "response": "answer", "compute": lambda: "made",
    "queries": [("alpha", None, "answer")], "doc_id": "d", "tag": "t", "changes": {"l1_ttl": 60},
    "author": "test", "version": 0, "lookup_id": "x", "correct": True,
    "reason": BYPASS_REASONS[0],
}  # fmt: skip
"""Values of the other arguments meanwhile."""

CONSTRUCTED: dict[str, list[Any]] = {
    "redis_url": [5, True, b"redis://h", ["redis://h"], "http://h"],
    "semantic_threshold": ["0.9", True, NAN, 1.5, -1, [0.9]],
    "embedding_model": [5, True, ["m"], object()],
    "namespace": [None, 5, True, "", "a b", "a:b", "x" * 65, b"a", ["a"]],
    "sharing": [5, True, "everything", "", ["all"]],
    "shared_intents": ["faq", b"faq", 5, True, {"faq": True}, [5], [None], [b"faq"]],
    "settings": [5, {}, "settings", True],
    "instruments": [5, "all", True, [5], ["x"]],
    "verify": [5, "f", True, []],
    "approve": [5, "f", True, []],
    "cacheable": [5, "f", True, []],
    "clock": [5, "now", True],
    "wrap_store": [5, "f", True],
    "wrap_index": [5, "f", True],
}
NOT_OURS = {"redis_pool"}
"""Arguments of the constructor that have tests of their own."""


def public_methods() -> dict[str, list[str]]:
    """Return the arguments of every public method that takes any."""
    found: dict[str, list[str]] = {}
    for name, value in inspect.getmembers(MultiLevelCache):
        if not name.startswith("_") and inspect.isfunction(value):
            names = [item for item in inspect.signature(value).parameters if item != "self"]
            if names:
                found[name] = names
    return found


def test_every_public_method_is_in_the_table() -> None:
    """A new method, or a new argument, has to say what it refuses."""
    assert {name: sorted(table) for name, table in REFUSED.items()} == {
        name: sorted(arguments) for name, arguments in public_methods().items()
    }
    arguments = inspect.signature(MultiLevelCache).parameters
    assert CONSTRUCTED.keys() | NOT_OURS == arguments.keys()
    for function in (cache_core.get_cache, cache_core.close_cache):
        assert not inspect.signature(function).parameters


@pytest.mark.parametrize("store_kind", ["embedded"])
@pytest.mark.parametrize("method", REFUSED)
async def test_a_wrong_argument_is_refused(make_cache: CacheFactory, method: str) -> None:
    """It raises TypeError or ValueError, and nothing was stored, counted or changed by it."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    call = getattr(cache, method)
    required = {
        name: RIGHT[name]
        for name, item in inspect.signature(call).parameters.items()
        if item.default is item.empty and name in RIGHT
    }
    accepted: list[tuple[str, Any]] = []
    for name, values in REFUSED[method].items():
        for value in values:
            given = {**required, **({"user_id": "ann"} if method == "get_or_compute" else {})}
            try:
                done = call(**{**given, name: value})
                if inspect.isawaitable(done):
                    await done
            except (TypeError, ValueError):
                continue
            accepted.append((name, value))
    assert not accepted
    assert cache.metrics.lookups == 0
    assert cache.tuning.version == 0
    assert (await cache.lookup("alpha", "bob")).reasons == ("cold",)
    assert (await cache.lookup("alpha", "ann")).reasons == ("cold",)


def test_a_wrong_argument_of_the_constructor_is_refused() -> None:
    """It raises immediately, and not at the first lookup."""
    accepted = []
    for name, values in CONSTRUCTED.items():
        for value in values:
            try:
                MultiLevelCache(**{name: value})
            except (TypeError, ValueError) as error:
                assert name.split("_")[0] in str(error), (name, value, str(error))  # noqa: PT017
            else:
                accepted.append((name, value))
    assert not accepted
    MultiLevelCache(semantic_threshold=1, shared_intents={"faq"}, embedding_model=HashEmbedder())


WRONG_FIELDS: list[tuple[str, Any]] = [
    *(("shared", value) for value in FLAG), *(("share_documents", value) for value in FLAG),
    *(("tags", value) for value in TEXTS), *(("document_ids", value) for value in TEXTS), *(("ttl", value) for value in [*NUMBER, 0]),
    *(("cost_usd", value) for value in NUMBER), *(("intent", value) for value in TEXT),
    *(("finish_reason", value) for value in TEXT),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_wrong_field_of_an_answer_stores_nothing(make_cache: CacheFactory) -> None:
    """A computed answer is returned; it is neither stored nor shared, and counts as `invalid`."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for number, (field, value) in enumerate(WRONG_FIELDS):
        answer = Answer("Ann's secret", **{field: value})
        made = await cache.get_or_compute(f"alpha {number}", "ann", lambda answer=answer: answer)  # type: ignore[misc]
        assert made == "Ann's secret"
        for user in ("ann", "bob"):
            assert (await cache.lookup(f"alpha {number}", user)).response is None, (field, value)
    assert cache.get_metrics()["put_reasons"]["l1"]["invalid"] == len(WRONG_FIELDS)


async def test_tags_of_an_answer_are_found(make_cache: CacheFactory) -> None:
    """Its own tags and the call's both invalidate it."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for tag in ("price-list", "shop"):
        answer = Answer("5 euros", tags=["price-list"])
        await cache.get_or_compute("what does it cost", "ann", lambda: answer, tags={"shop"})  # noqa: B023
        assert (await cache.lookup("what does it cost", "ann")).response == "5 euros"
        assert (await cache.invalidate_tag(tag)).removed
        assert (await cache.lookup("what does it cost", "ann")).response is None


@pytest.mark.parametrize("number", [np.float64(60.0), 60, 60.0])
async def test_numbers_of_other_libraries(make_cache: CacheFactory, number: Any) -> None:
    """Every kind of number is accepted."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    await cache.put("alpha", "ann", "answer", ttl=number, cost_usd=number)
    assert (await cache.lookup("alpha", "ann")).own_ttl == 60


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ttl": -1}, "ttl=-1 is refused: expected more than 0 and up to 2592000"),
        ({"ttl": 0}, "ttl=0 is refused: expected more than 0 and up to 2592000"),
        ({"cost_usd": -1}, "cost_usd=-1 is refused: expected a number from 0 to"),
    ],
)
def test_the_range_in_an_error_is_the_one_that_is_accepted(
    given: dict[str, Any], expected: str
) -> None:
    """The bounds that an error names are accepted, or excluded by its words."""
    with pytest.raises(ValueError, match=expected):
        check_put(None, None, **{"ttl": None, "cost_usd": None, **given}, tags=())
