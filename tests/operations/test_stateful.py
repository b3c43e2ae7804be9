"""A cache of two replicas against a dictionary: whatever is done to it, in whatever order.

`STATEFUL_EXAMPLES=500 STATEFUL_STEPS=60 pytest tests/operations/test_stateful.py` takes longer and finds more.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model.values import Invalidation, LookupResult
from cache_core.operations.invalidate.retries import Worklist
from cache_core.testing import ChaosStore, Faults, HashEmbedder, ManualClock
from tests.support import servers
from tests.support.caches import check_balance
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.waiting import apart

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("STATEFUL_EXAMPLES", "12"))
STEPS = int(os.environ.get("STATEFUL_STEPS", "40"))

T = TypeVar("T")

USERS = ("ann", "bob", "carl")
MESSAGES = ("alpha beta", "beta alpha", "gamma delta")
"""The first two mean the same to the embedder."""
TTLS = (100.0, 1_000.0)
SLACK = 4.0
"""Seconds by which the cache and the model may differ about what time it is."""

USED = frozenset({
    "read", "rows", "write", "write_new", "put_rows", "delete", "delete_rows", "append",
    "take_lease", "renew_lease", "release_lease",
})  # fmt: skip

users, messages, replicas = st.sampled_from(USERS), st.sampled_from(MESSAGES), st.integers(0, 1)
labels = st.sampled_from(("one", "two"))


def group(message: str) -> str:
    return " ".join(sorted(message.split()))


@dataclass
class Value:
    """An answer that was put.

    *kept* is after how many seconds it may be physically gone; *live* whether it may be served,
    None where a fault makes both right.
    """

    text: str
    owner: str
    message: str
    shared: bool
    created: float
    ttl: float | None
    kept: float
    live: bool | None = True
    dead_here: set[int] = field(default_factory=set)

    def visible(self, user: str, message: str, replica: int) -> bool:
        """Return whether a user may ever be given it for a message, at any time."""
        if self.live is False or replica in self.dead_here:
            return False
        return group(self.message) == group(message) and (self.shared or self.owner == user)


@dataclass(frozen=True)
class Seen:
    """A lookup whose put may come later."""

    result: LookupResult
    user: str
    message: str
    epochs: tuple[int, int, int]
    broad: dict[tuple[str, ...], int]
    clean: bool


class Machine(RuleBasedStateMachine):
    """The operations. `url` is that of a Redis, or empty."""

    url = ""
    steps = lookups = hits = stale_hits = joined = refreshed = 0
    seen = Bundle("seen")
    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.faults = (Faults(seed=1), Faults(seed=2))
        self.values: dict[str, Value] = {}
        self.numbers = itertools.count(1)
        # Of each exact answer: the value that is there; None where a fault makes it unknown.
        self.slots: dict[tuple[str, str], Value | None] = {}
        self.epochs: dict[tuple[str, ...], int] = {}
        # Of each label: until when a message is surely listed under it.
        self.listed: dict[tuple[str, str], dict[str, float]] = {}
        self.pending: list[tuple[int, list[Value]]] = []
        self.latest = 0.0
        self.dropped = 0
        self.unconfirmed = False
        self.story: list[str] = []
        self.caches: list[MultiLevelCache] = []

    names = itertools.count(1)

    @initialize(stale=st.sampled_from((0.0, 500.0)), refresh=st.sampled_from((0.0, 0.5)))
    def open(self, stale: float, refresh: float) -> None:
        fixed = Settings(
            dir=Path(self.directory.name), redis_url=self.url or None, breaker_failures=10**6,
            compute_lease=2, compute_wait=5, **PATIENT,
        )  # fmt: skip
        name = f"machine{next(Machine.names)}-{os.getpid()}"
        for faults in self.faults:
            cache = MultiLevelCache(
                settings=fixed, namespace=name, embedding_model=HashEmbedder(), instruments=(),
                clock=self.clock, wrap_store=lambda store, faults=faults: ChaosStore(store, faults),  # type: ignore[misc]
            )  # fmt: skip
            self.caches.append(cache)
            self.run(cache.initialize())
        short = {"l1_ttl": TTLS[0], "l2_ttl": TTLS[0]}
        self.run(self.retuned({**short, "stale_seconds": stale, "refresh_share": refresh}))

    def teardown(self) -> None:
        for faults in self.faults:
            faults.never()
        for cache in self.caches:
            Machine.joined += cache.metrics.joined
            Machine.refreshed += cache.metrics.refreshes["stored"]
            Machine.lookups += cache.metrics.lookups
            Machine.hits += cache.metrics.outcomes["hit"]
            Machine.stale_hits += cache.metrics.stale_hits
            self.run(cache.close())
        self.loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(self.loop)
        assert not left, left
        self.loop.close()
        self.directory.cleanup()

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)  # type: ignore[arg-type]

    def apart(self, work: Any) -> Any:
        """Do *work* in a task of its own: what it learns stays there."""
        return self.run(apart(work))

    # ---------------------------------------------------------------------------- the model

    @property
    def faulty(self) -> bool:
        return any(faults.throw or faults.corrupt or faults.lose_reply for faults in self.faults)

    @property
    def clean(self) -> bool:
        """Return whether everything that is done now is done."""
        return not self.faulty and not self.pending

    def now(self, replica: int) -> float:
        return self.caches[replica]._parts.store.now()

    def of(self, message: str, user: str) -> tuple[int, int, int]:
        return (
            self.epochs.get(("message", message), 0),
            self.epochs.get(("own", message, user), 0),
            self.epochs.get(("user", user), 0),
        )

    def bump(self, *name: str) -> None:
        self.epochs[name] = self.epochs.get(name, 0) + 1

    def overtaken(self, seen: Seen, doc: str | None, tag: str | None, *, shared: bool) -> bool:
        """Return whether a similar message, or a label, was invalidated since a lookup."""
        names = [("alike", group(seen.message)), ("document", doc or ""), ("tag", tag or "")]
        names += [] if shared else [("alike", group(seen.message), seen.user)]
        return any(self.epochs.get(name, 0) != seen.broad.get(name, 0) for name in names)

    def learn(self) -> None:
        """Let both replicas know of what was invalidated, as they do within a quarter second."""
        if not self.faulty:
            for cache in self.caches:
                self.run(cache._parts.journal.catch_up())

    def fresh(self, value: Value, ttl: float, replica: int) -> bool:
        most = min(value.ttl or ttl, value.kept)
        return self.now(replica) - value.created <= most - SLACK

    def new(self, user: str, message: str, shared: bool, ttl: float | None, replica: int) -> Value:
        text = f"{user}|{message}|{next(self.numbers)}"
        kept = 2 * (ttl or self.caches[replica].tuning.l1_ttl)
        self.values[text] = Value(text, user, message, shared, self.now(replica), ttl, kept)
        return self.values[text]

    def stored(self, value: Value, doc: str | None, tag: str | None, *, sure: bool) -> None:
        """Take note of a put; not *sure*: it may have been made in part, or not at all."""
        # A machine that is busy with other things makes SQLite wait too long for its lock.
        dropped = sum(
            count
            for cache in self.caches
            for (_, outcome), count in cache.metrics.puts.items()
            if outcome == "dropped"
        )
        sure = sure and dropped == self.dropped
        self.dropped = dropped
        slot = ("shared" if value.shared else value.owner, value.message)
        self.slots[slot] = value if sure else None
        if not sure:
            value.live = None if value.live else value.live
        until = value.created + value.kept if sure else 0.0
        self.labelled(value.message, doc, tag, until)

    def labelled(self, message: str, doc: str | None, tag: str | None, until: float = 0.0) -> None:
        """Take note that a message may be listed under its labels: even if its put was refused.

        It surely is *until* what had the label is gone.
        """
        for kind, label in (("document", doc), ("tag", tag)):
            if label is not None:
                listed = self.listed.setdefault((kind, label), {})
                listed[message] = max(until, listed.get(message, 0.0))

    def told(self, what: str) -> str:
        """Return *what*, after all that happened."""
        return "\n".join([*self.story, what])

    def tell(self, *what: object) -> None:
        self.story.append(" ".join(map(str, what)))

    def check(
        self, text: str, user: str, message: str, replica: int, tier: str | None, *, stale: bool
    ) -> None:
        """Assert that this user may be given this text for this message now."""
        value = self.values[text]
        given = f"{user} was given for {message!r} by {tier or 'l4'} of {replica}: {value}"
        assert value.shared or value.owner == user, self.told(given)
        assert group(value.message) == group(message), self.told(given)
        # L2 goes on while the store is away, and says so: it cannot know of every invalidation.
        if not self.unconfirmed:
            assert value.visible(user, message, replica), self.told(f"invalidated: {given}")
        self.unconfirmed = False
        if tier is None:
            return
        tuning = self.caches[replica].tuning
        ttl = value.ttl or tuning.ttl("l1" if tier == "l1" else "l2")
        age = self.now(replica) - value.created
        old = self.told(f"{age:.0f} s old of {ttl:.0f} s: {given}")
        if stale:
            assert ttl - SLACK <= age <= ttl + tuning.stale_seconds + SLACK, old
        else:
            assert age <= ttl + SLACK, old

    def expected(self, user: str, message: str, replica: int) -> Value | None:
        """Return the exact answer that must be served, if one must."""
        if not self.clean:
            return None
        ttl = self.caches[replica].tuning.l1_ttl
        for scope in (user, "shared"):
            slot = (scope, message)
            if slot not in self.slots:
                continue
            value = self.slots[slot]
            if value is None or value.live is None:
                return None
            age = self.now(replica) - value.created
            if value.live and self.fresh(value, ttl, replica):
                return value
            if value.live and age <= (value.ttl or ttl) + SLACK:
                return None
        return None

    def kill(self, dead: list[Value], replica: int, done: Invalidation) -> None:
        if done.complete:
            for value in dead:
                value.live = False
            return
        # Known here; the other replica learns of it when it is confirmed.
        for value in dead:
            value.dead_here.add(replica)
        self.pending.append((replica, dead))

    # ---------------------------------------------------------------------------- answers

    @rule(target=seen, replica=replicas, user=users, message=messages, allow_stale=st.booleans())
    def look(self, replica: int, user: str, message: str, allow_stale: bool) -> Seen:
        return self.looked_up(replica, user, message, allow_stale)

    def looked_up(self, replica: int, user: str, message: str, allow_stale: bool) -> Seen:
        self.tell("look", replica, user, message, allow_stale)
        clean, epochs, broad = self.clean, self.of(message, user), dict(self.epochs)
        expected = self.expected(user, message, replica)
        result: LookupResult = self.apart(
            self.caches[replica].lookup(message, user, allow_stale=allow_stale)
        )
        if result.response is not None:
            self.tell("found", result)
            self.unconfirmed = not clean and "unconfirmed" in result.reasons
            self.check(result.response, user, message, replica, result.tier, stale=result.stale)
            assert allow_stale or not result.stale, self.told(f"stale: {result}")
        if clean:
            assert result.outcome != "error", self.told(f"failed: {result}")
        if expected is not None:
            assert result.response == expected.text, self.told(f"{result}, expected {expected}")
        for document in result.rag_results or ():
            self.tell("found document", document)
            self.check(document["of"], user, message, replica, None, stale=False)
        return Seen(result, user, message, epochs, broad, clean and result.sighting is not None)

    @rule(
        target=places, replica=replicas, user=users, message=messages, shared=st.booleans(),
        ttl=st.sampled_from((None, None, None, 50.0, 5_000.0)), doc=st.none() | labels, tag=st.none() | labels,
    )  # fmt: skip
    def put(
        self, replica: int, user: str, message: str, shared: bool, ttl: float | None,
        doc: str | None, tag: str | None,
    ) -> tuple[str, str]:  # fmt: skip
        """Look up, and put at once."""
        cache, clean = self.caches[replica], self.clean
        result = self.apart(cache.lookup(message, user))
        value = self.new(user, message, shared, ttl, replica)
        documents = [{"id": doc, "of": value.text}] if doc else None
        self.apart(
            cache.put(message, user, value.text, "faq", documents, shared=shared, ttl=ttl,
                      tags=[tag] if tag else [], lookup=result)
        )  # fmt: skip
        self.tell("put", replica, value, doc, tag, clean)
        self.stored(value, doc, tag, sure=clean)
        return user, message

    @rule(place=places, replica=replicas, allow_stale=st.booleans())
    def look_again(self, place: tuple[str, str], replica: int, allow_stale: bool) -> None:
        """Look up an answer as the user that put it."""
        self.looked_up(replica, *place, allow_stale)

    @rule(place=places, replica=replicas, fails=st.booleans(), both=st.booleans())
    def compute_again(self, place: tuple[str, str], replica: int, fails: bool, both: bool) -> None:
        """They ask for it so that it is made, if it is not there."""
        self.computed(replica, *place, fails, both)

    @rule(
        replica=replicas, user=users, other=users, message=messages, shared=st.booleans(),
        how=st.sampled_from(("message", "own", "user")), late=st.booleans(),
    )  # fmt: skip
    def invalidated_elsewhere(
        self, replica: int, user: str, other: str, message: str, shared: bool, how: str, late: bool
    ) -> None:
        """An answer that is there, or just being computed, when the other replica invalidates."""
        seen = self.looked_up(replica, user, message, False)
        if not late:
            self.put_late(replica, seen, shared)
        if how == "user":
            self.forgotten(1 - replica, user)
        else:
            self.invalidate(1 - replica, message, user if how == "own" else None)
        if late:
            self.put_late(replica, seen, shared)
        for asked in (replica, 1 - replica):
            for text in MESSAGES:
                if group(text) == group(message):
                    self.looked_up(asked, user, text, True)
                    self.looked_up(asked, other, text, False)
        self.learn()

    @rule(
        place=places, replica=replicas, seconds=st.sampled_from((60.0, 130.0)),
        fails=st.booleans(), both=st.booleans(),
    )  # fmt: skip
    def ask_later(
        self, place: tuple[str, str], replica: int, seconds: float, fails: bool, both: bool
    ) -> None:
        """Move the time close to an answer's end, or past it."""
        self.clock.advance(seconds)
        self.move(seconds)
        self.looked_up(replica, *place, fails)
        self.computed(replica, *place, fails, both)

    @rule(
        replica=replicas, seen=seen, shared=st.booleans(), doc=st.none() | labels,
        tag=st.none() | labels,
    )  # fmt: skip
    def put_late(
        self, replica: int, seen: Seen, shared: bool, doc: str | None = None, tag: str | None = None
    ) -> None:
        """Put what was computed after a lookup of long ago."""
        clean = self.clean
        outdated = self.of(seen.message, seen.user) != seen.epochs
        outdated = outdated or self.overtaken(seen, doc, tag, shared=shared)
        value = self.new(seen.user, seen.message, shared, None, replica)
        if outdated:
            value.live = None if self.pending else False
            # Where that is still to be confirmed, so is that this one goes with it.
            self.pending += [(replica, [value])] if self.pending else []
        self.tell("put late", replica, seen, value)
        self.apart(
            self.caches[replica].put(
                seen.message, seen.user, value.text, None, [{"id": doc, "of": value.text}] if doc
                else None, shared=shared, tags=[tag] if tag else [], lookup=seen.result,
            )
        )  # fmt: skip
        if value.live is False:
            self.labelled(seen.message, doc, tag)
            return
        if outdated:
            self.stored(value, doc, tag, sure=False)
            return
        # What was invalidated because it is similar may have got a token, too: both are right.
        similar = any(
            name[0] == "similar" and name[1] == group(seen.message) for name in self.epochs
        )
        self.stored(value, doc, tag, sure=clean and seen.clean and not similar)

    @rule(replica=replicas, user=users, message=messages, fails=st.booleans(), both=st.booleans())
    def compute(self, replica: int, user: str, message: str, fails: bool, both: bool) -> None:
        """From one replica or from both at once; computing may fail."""
        self.computed(replica, user, message, fails, both)

    def computed(self, replica: int, user: str, message: str, fails: bool, both: bool) -> None:
        made: list[Value] = []
        asked = [replica, 1 - replica] if both else [replica]
        expected = self.expected(user, message, replica)
        clean = self.clean

        async def work() -> str:
            await asyncio.sleep(0.005)
            if fails:
                raise ZeroDivisionError
            made.append(self.new(user, message, False, None, replica))
            return made[-1].text

        async def everything() -> list[Any]:
            found = await asyncio.gather(
                *(self.caches[n].get_or_compute(message, user, work) for n in asked),
                return_exceptions=True,
            )
            for n in asked:
                await asyncio.gather(*inside(self.caches[n]).computing.refreshing.values())
            return found

        found = self.apart(everything())
        self.tell("compute", asked, user, message, fails, found, made)
        refreshed = sum(cache.metrics.refreshes["stored"] for cache in self.caches)
        for n, answer in zip(asked, found, strict=True):
            if isinstance(answer, BaseException):
                assert isinstance(answer, ZeroDivisionError), self.told(repr(answer))
                assert fails, self.told(f"{n} failed without a failure")
                assert expected is None, self.told(f"{n} did not find {expected}")
                continue
            value = self.values[answer]
            assert value.shared or value.owner == user, self.told(f"{n}: {value}")
            assert group(value.message) == group(message), self.told(f"{n}: {value}")
            # While the store is away it may be one of L2 that is not confirmed.
            if clean:
                assert value in made or value.visible(user, message, n), self.told(f"{n}: {value}")
            tuning = self.caches[n].tuning
            most = max(tuning.l1_ttl, tuning.l2_ttl) if value.ttl is None else value.ttl
            most += tuning.stale_seconds if fails else 0.0
            assert self.now(n) - value.created <= most + SLACK, self.told(f"expired: {value}")
        if expected is not None:
            assert found[0] == expected.text, self.told(f"expected {expected}, not {found[0]}")
        served = [self.values[answer] for answer in found if isinstance(answer, str)]
        for value in made:
            # Made anew in the background, and stored for whom the answer before it was.
            value.shared = value not in served and any(old.shared for old in served)
        if clean:
            assert len(made) <= 1 + bool(refreshed), self.told(f"made more than once: {made}")
        for value in made:
            self.stored(value, None, None, sure=clean and len(made) == 1)

    # ---------------------------------------------------------------------------- invalidations

    @rule(replica=replicas, message=messages, user=st.none() | users)
    def invalidate(self, replica: int, message: str, user: str | None) -> None:
        """By message, everybody's or one user's; and of what is similar what is stored."""
        done = self.apart(self.caches[replica].invalidate(message, user))
        self.tell("invalidate", replica, message, user, done)
        similar = [v for v in self.values.values() if group(v.message) == group(message)]
        if user is not None:
            similar = [v for v in similar if v.owner == user and not v.shared]
        exact = [v for v in similar if v.message == message]
        # What L2 has not, or no longer, is not found by similarity.
        others = [v for v in similar if v.message != message and v.live is not False]
        for value in others:
            value.live = None
        self.bump("similar", group(message))
        self.bump("alike", group(message), *([] if user is None else [user]))
        self.bump(*(("message", message) if user is None else ("own", message, user)))
        self.kill(exact, replica, done)
        self.learn()

    @rule(replica=replicas, kind=st.sampled_from(("document", "tag")), label=labels)
    def invalidate_label(self, replica: int, kind: str, label: str) -> None:
        """By document or tag: every answer to the messages that had it."""
        cache = self.caches[replica]
        work = cache.invalidate_document if kind == "document" else cache.invalidate_tag
        done = self.apart(work(label))
        self.tell("invalidate", replica, kind, label, done)
        self.bump(kind, label)
        self.learn()
        listed = self.listed.pop((kind, label), {})
        for message, until in listed.items():
            values = [v for v in self.values.values() if v.message == message]
            if self.now(replica) < until - SLACK and done.complete:
                self.bump("message", message)
                self.kill(values, replica, done)
                continue
            self.bump("similar", group(message))
            for value in values:
                value.live = None if value.live else value.live
        if not done.complete:
            self.pending.append((replica, []))

    @rule(replica=replicas, user=users)
    def forget(self, replica: int, user: str) -> None:
        self.forgotten(replica, user)
        self.learn()

    def forgotten(self, replica: int, user: str) -> None:
        """Forget a user, of which the other replica has not learned yet.

        Until it has, what is computed there is not stored: it could be from before.
        """
        done = self.apart(self.caches[replica].forget_user(user))
        self.tell("forget", replica, user, done)
        self.bump("user", user)
        dead = [v for v in self.values.values() if v.owner == user and not v.shared]
        self.kill(dead, replica, done)
        # What they put for everybody goes, too, but from the indexes of others within a second.
        for value in self.values.values():
            if value.owner == user and value.shared:
                value.live = None if value.live else value.live

    # ---------------------------------------------------------------------------- the world

    @rule(seconds=st.sampled_from((0.5, 30.0, 60.0, 120.0, 1_000.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.move(seconds)

    @rule(seconds=st.sampled_from((10.0, 500.0, 100_000.0)))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.clock.advance(-seconds)
        self.move(-seconds)

    def move(self, seconds: float) -> None:
        """Let both replicas notice, as they do within a second."""
        self.tell("the clock moves", seconds)
        for cache in self.caches:
            store: Any = cache._parts.store
            if self.url:
                # As if the server had told it.
                store.inner._clock.set(store.now() + seconds)
            else:
                self.run(store.inner.tend())
        for replica in (0, 1):
            now = self.now(replica)
            assert now >= self.latest - SLACK, "time went back"
        self.latest = max(self.latest, self.now(0))

    @precondition(lambda self: not self.faulty)
    @rule(
        which=st.sampled_from(((0,), (1,), (0, 1))),
        throw=st.sampled_from((0.0, 0.3, 1.0)), corrupt=st.sampled_from((0.0, 0.3)),
        lose_reply=st.sampled_from((0.0, 0.3)),
    )  # fmt: skip
    def faults_begin(
        self, which: tuple[int, ...], throw: float, corrupt: float, lose_reply: float
    ) -> None:
        self.tell("faults", which, throw, corrupt, lose_reply)
        for replica in which:
            faults = self.faults[replica]
            faults.throw, faults.corrupt, faults.lose_reply = throw, corrupt, lose_reply
            faults.only = USED

    @precondition(lambda self: self.faulty)
    @rule()
    def faults_end(self) -> None:
        """Confirm pending invalidations by the next retry."""
        self.tell("no faults")
        if any(faults.corrupt for faults in self.faults):
            # What a lookup could not read, it deleted.
            self.slots = dict.fromkeys(self.slots)
        for faults in self.faults:
            faults.never()
        for cache in self.caches:
            running = inside(cache)
            # What the background was just doing again may have found something more to do.
            self.run(self.nothing_pending(running.invalidator.steps))
        self.learn()
        for replica, dead in self.pending:
            for value in dead:
                value.live = False
                value.dead_here.discard(replica)
        if self.pending:
            # What was put after an invalidation, but before it was confirmed, went with it.
            for slot in self.slots:
                self.slots[slot] = None
            for value in self.values.values():
                value.live = None if value.live else value.live
        self.pending = []

    async def nothing_pending(self, steps: Worklist) -> None:
        async with asyncio.timeout(30):
            await steps.retry()
            while steps.pending:
                await asyncio.sleep(0.01)
                await steps.retry()

    @precondition(lambda self: not self.faulty)
    @rule(
        l1=st.sampled_from(TTLS), l2=st.sampled_from(TTLS), stale=st.sampled_from((0.0, 500.0)),
        refresh=st.sampled_from((0.0, 0.5)), threshold=st.sampled_from((0.9, 0.95)),
    )  # fmt: skip
    def tune(self, l1: float, l2: float, stale: float, refresh: float, threshold: float) -> None:
        self.run(
            self.retuned({
                "l1_ttl": l1, "l2_ttl": l2, "stale_seconds": stale, "refresh_share": refresh,
                "semantic_threshold": threshold,
            })
        )  # fmt: skip

    async def retuned(self, values: dict[str, float]) -> None:
        self.tell("tune", values)
        await self.caches[0].tune(values, author="the machine")
        version = self.caches[0].tuning.version
        async with asyncio.timeout(30):
            while self.caches[1].tuning.version < version:
                await asyncio.sleep(0.01)

    @invariant()
    def counts_balance(self) -> None:
        Machine.steps += 1
        for cache in self.caches:
            check_balance(cache.metrics)
            if self.clean:
                assert cache.metrics.stale_hits <= cache.metrics.outcomes["hit"]


@pytest.mark.timeout(86_400 if "STATEFUL_EXAMPLES" in os.environ else 300)
def test_whatever_is_done(store_kind: str, request: pytest.FixtureRequest) -> None:
    """No answer of another user, none that was invalidated, none that expired; counts balance."""

    class Kind(Machine):
        url = (
            str(request.getfixturevalue(servers.EMPTY[store_kind]))
            if store_kind in servers.EMPTY
            else ""
        )

    Machine.steps = Machine.lookups = Machine.hits = Machine.stale_hits = Machine.joined = (
        Machine.refreshed
    ) = 0
    run_state_machine_as_test(
        Kind,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS,
            derandomize="STATEFUL_EXAMPLES" not in os.environ, database=None,
            # Not made smaller: what happens at the same time need not happen again.
            phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=True,
        ),
    )  # fmt: skip
    reached = {
        name: getattr(Machine, name)
        for name in ("lookups", "hits", "stale_hits", "joined", "refreshed")
    }
    print(f"{store_kind}: {Machine.steps} steps, {reached}")
    # Else it would show nothing.
    assert Machine.hits > 0
