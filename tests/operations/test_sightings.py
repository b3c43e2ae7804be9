"""Lookups that a task remembers for its puts."""

from __future__ import annotations

from contextvars import Context

from cache_core.model.keys import Keys
from cache_core.model.values import Generation, Query, Sighting
from cache_core.operations.sightings import Sightings

KEYS = Keys("test", b"0123456789abcdef")


def asked(number: int, user: str = "ann") -> Query:
    return KEYS.query(f"question {number}", user)


def seen(query: Query, generation: str = "g1") -> Sighting:
    return Sighting(query.tag, query.user, Generation(generation), exact=query.exact)


def test_the_last_sixteen_lookups_of_a_task_are_remembered() -> None:
    """However many there were, and however often one message was asked among them."""

    def work() -> None:
        sightings = Sightings()
        for number in range(100):
            sightings.note(seen(asked(number)), answered=True)
            sightings.note(seen(asked(99_999)), answered=True)
        assert sightings.take(asked(84)) is None, "15 others and the repeated one came later"
        for number in (85, 99, 99_999):
            found = sightings.take(asked(number))
            assert found is not None
            assert found.exact == asked(number).exact
            assert sightings.take(asked(number)) is None, "each is taken once"

    Context().run(work)


def test_a_put_follows_the_last_lookup_of_its_message() -> None:
    """An answer computed after an invalidation is not taken for an older one."""

    def work() -> None:
        sightings = Sightings()
        for generation in ("g1", "g2"):
            for number in range(3):
                sightings.note(seen(asked(number), generation), answered=True)
        found = sightings.take(asked(1))
        assert found is not None
        assert found.generation == Generation("g2")
        assert sightings.take(asked(1)) is None, "the older lookup went with it"

    Context().run(work)


def test_caches_and_users_do_not_share_lookups() -> None:
    """Another cache's lookup is never taken, another user's only without an own one."""

    def work() -> None:
        one, other = Sightings(), Sightings()
        one.note(seen(asked(1), "g1"), answered=True)
        other.note(seen(asked(1), "g2"), answered=True)
        one.note(seen(asked(1, "bob"), "g3"), answered=True)
        found = one.take(asked(1))
        assert found is not None
        assert found.generation == Generation("g1")
        left = other.take(asked(1, "bob"))
        assert left is not None
        assert left.generation == Generation("g2")

    Context().run(work)
