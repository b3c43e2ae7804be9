"""Shadow of the learned policy, from the decision log of a cache under the threshold."""

from __future__ import annotations

from typing import Any

import pytest

from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import Decision
from cache_core.operations.learning import Label
from cache_core.whatif import ShadowEstimate, shadows, shadows_by_intent
from tests.whatif.test_whatif import Log, judged

TUNING = Tuning()


def at(
    log: Log, share: float, *, verdicts: list[Any] | None = None, labels: list[Label] | None = None
) -> ShadowEstimate:
    (found,) = shadows(log.decisions, verdicts or [], labels or [], tuning=TUNING, shares=[share])
    return found


def label(decision: Decision, *, right: bool) -> Label:
    return Label(decision.at, "one", "answer", 0.9, right, decision.lookup_id)


def test_it_counts_what_would_be_served_newly_kept_and_lost() -> None:
    """Each lookup with a figure counts by whether that is within the share."""
    log = Log()
    log.near("a", "z", 0.99)  # of an earlier version: before the first figure nothing counts
    log.near("b", "z", 0.80, least_max_wrong=0.004, chance=0.9)
    log.near("c", "z", 0.97, least_max_wrong=0.004, chance=0.8)
    log.near("d", "z", 0.96, least_max_wrong=0.03, chance=0.5)
    log.add("b", "l1")
    log.add("", outcome="bypass")
    log.add("e", history="earlier", reasons=("has_history",))
    found = at(log, 0.005)
    assert (found.lookups, found.searched, found.unknown) == (5, 3, 0)
    assert (found.hits_now, found.hits, found.fixed_hits) == (2, 2, 1)
    assert (found.newly.lookups, found.kept.lookups, found.lost) == (1, 1, 1)
    assert (found.hit_rate_now, found.hit_rate) == (0.6, 0.6)
    assert found.expected_wrong == pytest.approx(0.15)
    assert at(log, 0.03).hit_rate == 0.8
    assert at(log, 0.001).expected_wrong is None


def test_a_lost_hit_is_put_and_found_by_its_own_words_until_it_expires() -> None:
    """The same user's same message is lost once, another user's again."""
    log = Log()
    never = {"least_max_wrong": 1.0, "chance": 0.1}
    log.near("a", "z", 0.97, **never)
    log.near("a", "z", 0.97, **never)
    log.near("a", "z", 0.97, user="bob", **never)
    found = at(log, 0.01)
    assert (found.hits, found.lost) == (1, 2)
    log.at += TUNING.l2_ttl
    log.near("a", "z", 0.97, **never)
    assert at(log, 0.01).lost == 3


def test_a_question_that_is_served_newly_is_no_neighbour() -> None:
    """Its own answer's question stands for it, unless that is too far, until it is put."""
    log = Log()
    figure = {"least_max_wrong": 0.004, "chance": 0.9}
    log.near("a", "z", 0.80, **figure)
    log.near("b", "a", 0.94, **figure)
    log.near("c", "a", 0.75, **figure)
    assert at(log, 0.01).newly.lookups == 2, "c is too far from z"
    log.near("a", "z", 0.80, least_max_wrong=1.0, chance=0.5)
    log.near("c", "a", 0.75, **figure)
    assert at(log, 0.01).newly.lookups == 3


def test_each_intent_has_its_own_figures() -> None:
    """A miss has the intent of its nearest question, else of its own message's other lookups."""
    log = Log()
    figure = {"least_max_wrong": 0.004, "chance": 0.9}
    never = {"least_max_wrong": 1.0, "chance": 0.1}
    log.near("a", "z", 0.97, intent="faq", **figure)
    new = log.near("b", "z", 0.80, **figure)
    log.near("c", "y", 0.97, intent="orders", **never)
    log.near("c", "x", 0.60, **never)
    log.near("d", "w", 0.60, **never)
    log.add("b", "l1", intent="faq")
    found = shadows_by_intent(
        log.decisions, [judged(new, correct=False)], [], tuning=TUNING, max_wrong=0.01
    )
    assert list(found) == ["faq", "orders", ""], "most lookups first, what is not known last"
    faq, orders, rest = found.values()
    assert (faq.lookups, faq.newly.lookups, faq.newly.wrong, faq.kept.lookups) == (3, 1, 1, 1)
    assert (faq.hit_rate_now, faq.hit_rate) == (pytest.approx(2 / 3), 1.0)
    # lost, then put: the same words find it
    assert (orders.lookups, orders.hits_now, orders.lost, orders.hits) == (2, 1, 1, 1)
    assert (rest.lookups, rest.hits) == (1, 0)
    whole = at(log, 0.01)
    assert sum(item.hits for item in found.values()) == whole.hits
    assert sum(item.lost for item in found.values()) == whole.lost


def test_what_is_wrong_is_said_of_what_was_judged_alone() -> None:
    """Fresh answers judge misses, verdicts judge hits and overrule a label; none is no zero."""
    log = Log()
    figure = {"least_max_wrong": 0.004, "chance": 0.9}
    new = [log.near(name, "z", 0.8, **figure) for name in "abc"]
    kept = log.near("d", "z", 0.97, **figure)
    assert at(log, 0.01).newly.judged == 0
    labels = [label(new[0], right=False), label(new[1], right=False)]
    found = at(log, 0.01, labels=labels)
    assert (found.newly.lookups, found.newly.judged, found.newly.wrong) == (3, 2, 2)
    assert found.kept.judged == 0
    verdicts = [judged(new[1], correct=True, source="review"), judged(kept, correct=False)]
    found = at(log, 0.01, labels=labels, verdicts=verdicts)
    assert (found.newly.judged, found.newly.wrong) == (2, 1)
    assert (found.kept.judged, found.kept.wrong) == (1, 1)


def test_a_sample_stands_for_what_is_not_known() -> None:
    """The rates are those of all searched lookups, though only some have a figure."""
    log = Log()
    for number in range(10):
        log.near(f"b{number}", "z", 0.8, least_max_wrong=0.004 if number < 5 else 0.1, chance=0.9)
    log.add("x", "l1")
    whole = at(log, 0.01)
    for number in range(10):
        log.near(f"c{number}", "z", 0.8)
    log.add("x", "l1")
    sample = at(log, 0.01)
    assert (sample.lookups, sample.searched, sample.unknown) == (22, 10, 10)
    assert sample.hit_rate == pytest.approx(whole.hit_rate)


def test_what_an_approver_allowed_is_kept() -> None:
    """It is asked under the policy, too."""
    log = Log()
    log.near("a", "z", 0.96, reasons=("approved",), least_max_wrong=1.0, chance=0.2)
    assert (at(log, 0.01).kept.lookups, at(log, 0.01).lost) == (1, 0)


def test_a_log_of_an_earlier_version_has_no_shadow() -> None:
    """Nothing is known, which is not the same as nothing served."""
    log = Log()
    log.near("a", "z", 0.97)
    found = at(log, 0.01)
    assert (found.searched, found.unknown, found.expected_wrong) == (0, 1, None)
