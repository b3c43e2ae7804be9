"""Names of answers, as the application gives them."""

from __future__ import annotations

import pytest

from cache_core import Answer, MultiLevelCache
from cache_core.model import envelope
from cache_core.model.values import Entry


@pytest.mark.parametrize("value", ["", "x" * 1_025])
async def test_answer_ids_out_of_range(cache: MultiLevelCache, value: str) -> None:
    """An empty or overlong answer_id is a ValueError that names it."""
    with pytest.raises(ValueError, match="answer_id"):
        await cache.put("alpha", "ann", "answer", answer_id=value)


async def test_an_answer_id_of_another_type(cache: MultiLevelCache) -> None:
    """An answer_id that is no str is a TypeError, and nothing is stored."""
    with pytest.raises(TypeError, match="answer_id"):
        await cache.put("alpha", "ann", "answer", answer_id=7)
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"


async def test_what_compute_returns_is_returned_whatever_its_answer_id(
    cache: MultiLevelCache,
) -> None:
    """An `Answer` with an invalid answer_id goes to the caller, and is not stored."""
    answer = await cache.get_or_compute("alpha", "ann", lambda: Answer("at nine", answer_id=""))
    assert answer == "at nine"
    assert (await cache.lookup("alpha", "ann")).outcome == "miss"


async def test_a_computed_answer_may_have_a_name(cache: MultiLevelCache) -> None:
    """An `Answer` with an answer_id is stored as any other."""
    await cache.get_or_compute("alpha", "ann", lambda: Answer("at nine", answer_id="faq-7"))
    assert (await cache.lookup("alpha", "ann")).response == "at nine"


def test_the_name_of_an_answer_is_stored_with_it() -> None:
    """An entry comes back with its answer's name, and an entry of an older version without."""
    for name in ("", "i0123"):
        entry = Entry(response="at nine", scope="s", generation="g", created=1.0, answer=name)
        assert envelope.decode(envelope.encode(entry, "key"), "key", ("s",)) == entry
