"""Effects of another threshold, TTL or sharing rule, and their uncertainty."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.config.tuning import Tuning
from cache_core.observability.decisions import FORMAT, Decision
from cache_core.observability.judged import Evidence, wilson
from cache_core.observability.verdicts import Verdict
from cache_core.testing import ManualClock
from cache_core.whatif import (
    ThresholdEstimate,
    recommend,
    recommend_ttl,
    sharing,
    thresholds,
    ttls,
)
from tests.support.caches import CacheFactory
from tests.support.paths import ROOT
from tests.support.patience import PATIENT

TRAFFIC = ROOT.parent / "shared" / "data" / "traffic.jsonl"
TUNING = Tuning()


class Log:
    """A decision log written by hand, a lookup a minute."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.at = 1_000_000.0

    def add(self, message: str, level: str = "", **values: Any) -> Decision:
        """Add a lookup: a hit of *level*, or a miss without one."""
        self.at += 60.0
        known: dict[str, Any] = {
            "at": self.at, "lookup_id": f"r-{len(self.decisions)}",
            "outcome": "hit" if level else "miss", "level": level, "reason": "", "reasons": (),
            "similarity": None, "unvetoed": None, "threshold": 0.95, "age_seconds": None,
            "seconds": 0.001, "saved_usd": 0.036 if level else 0.0, "message": message,
            "matched": "", "user": "ann", "intent": "", "tuning_version": 0, "scope": "",
        }  # fmt: skip
        if level == "l1":
            known |= {"matched": message, "scope": "shared", "age_seconds": 60.0}
        decision = Decision(**(known | values))
        self.decisions.append(decision)
        return decision

    def near(self, message: str, matched: str, similarity: float, **values: Any) -> Decision:
        """Add a lookup whose nearest question is *matched*; a hit from 0.95 on."""
        level = "l2" if similarity >= 0.95 else ""
        age = 60.0 if level else None
        given = {"similarity": similarity, "unvetoed": similarity, "matched": matched,
                 "scope": "shared", "age_seconds": age}  # fmt: skip
        return self.add(message, level, **(given | values))

    def at_threshold(self, value: float, *verdicts: Verdict) -> ThresholdEstimate:
        """Return the estimate for a threshold."""
        found = thresholds(self.decisions, verdicts, tuning=TUNING)
        return next(item for item in found if item.threshold == value)


def judged(decision: Decision, *, correct: bool, source: Any = "verify") -> Verdict:
    return Verdict(
        decision.at, decision.lookup_id, "correct" if correct else "wrong", source, decision.level,
        decision.unvetoed, decision.message, decision.matched, decision.user, "",
    )  # fmt: skip


# ------------------------------------------------------------------------------ thresholds


def test_every_threshold_is_estimated_and_the_current_one_is_as_recorded() -> None:
    """0.50 to 1.00 and today's; a bypass does not count; no lookups give no rate."""
    log = Log()
    log.add("a")
    log.near("b", "a", 0.96)
    log.near("c", "a", 0.80)
    log.add("", outcome="bypass")
    found = thresholds(
        log.decisions, [], tuning=TUNING.model_copy(update={"semantic_threshold": 0.955})
    )
    assert [item.threshold for item in found][:2] == [0.5, 0.51]
    assert len(found) == 52
    assert 0.955 in [item.threshold for item in found]
    now = log.at_threshold(0.95)
    assert (now.hits, now.lookups, now.saved_usd) == (1, 3, pytest.approx(0.036))
    assert log.at_threshold(0.8).hits == 2
    assert log.at_threshold(0.81).hits == 1
    assert log.at_threshold(0.97).hits == 0
    assert [item.hit_rate for item in thresholds([], [], tuning=TUNING)] == [0.0] * 51


def test_a_question_that_hits_is_not_stored_and_its_repeats_go_by_similarity() -> None:
    """Below today's threshold an exact repeat is answered by what answered the first."""
    log = Log()
    log.add("a")
    log.near("b", "a", 0.92)
    log.add("b", "l1")
    log.near("c", "b", 0.97)
    assert log.at_threshold(0.90).hits == 3, "c is near enough to a, by way of b"
    at_high = log.at_threshold(0.95)
    assert at_high.hits == 2
    wrong = judged(log.decisions[1], correct=False, source="review")
    low = log.at_threshold(0.90, wrong)
    assert low.wrong_share is None, "one verdict is no evidence"
    assert not low.enough


def test_what_stands_for_an_unstored_question_may_be_too_far() -> None:
    """At 0.85 `b`, 0.86 from `a`, is not stored; `c`, 0.86 from `b`, is too far from `a`."""
    log = Log()
    log.add("a")
    log.near("b", "a", 0.86)
    log.near("c", "b", 0.86)
    assert log.at_threshold(0.85).hits == 1
    assert log.at_threshold(0.75).hits == 2
    assert log.at_threshold(0.87).hits == 0


def test_a_question_that_misses_is_stored_and_its_repeats_are_exact() -> None:
    """Above today's threshold the first asker misses, the next hits."""
    log = Log()
    log.add("a")
    log.near("b", "a", 0.96)
    log.near("b", "a", 0.96)
    log.near("b", "a", 0.96, user="bob")
    assert log.at_threshold(0.95).hits == 3
    assert log.at_threshold(0.97).hits == 2


def test_private_answers_stay_private() -> None:
    """An answer that one user would have stored privately answers no other."""
    log = Log()
    log.add("a")
    log.near("b", "a", 0.96, scope="user")
    log.add("a", user="bob")
    log.near("b", "a", 0.96, scope="user", user="bob")
    assert log.at_threshold(0.97).hits == 0


def test_what_no_threshold_changes() -> None:
    """A follow-up, a failure, and a candidate that a guard vetoed."""
    log = Log()
    log.add("a")
    log.add("yes", "l1", history="h")
    log.add("yes", reasons=("cold", "has_history"), history="g")
    log.add("b", outcome="error")
    log.add("c", similarity=0.99, unvetoed=None, reasons=("cold", "guard_veto"))
    assert {item.hits for item in thresholds(log.decisions, [], tuning=TUNING)} == {1}


def test_the_log_is_believed_where_a_put_failed() -> None:
    """A message that missed again within the TTL was not stored."""
    log = Log()
    for _ in range(3):
        log.add("a")
    assert {item.hits for item in thresholds(log.decisions, [], tuning=TUNING)} == {0}


def test_an_intent_with_a_threshold_of_its_own_keeps_it() -> None:
    """The others' threshold does not move its hits: neither out nor, below its own, in."""
    own = Tuning.model_validate({"intents": {"legal": {"semantic_threshold": 0.97}}})
    log = Log()
    log.add("q1", intent="legal")
    log.near("q2", "q1", 0.98, threshold=0.97, intent="legal")
    log.near("q3", "q1", 0.90, threshold=0.97)
    log.add("p1", intent="faq")
    log.near("p2", "p1", 0.96, intent="faq")
    log.near("p3", "p1", 0.90)
    found = {item.threshold: item.hits for item in thresholds(log.decisions, [], tuning=own)}
    assert (found[0.5], found[0.9], found[0.95], found[0.98], found[1.0]) == (3, 3, 2, 1, 1)
    assert log.at_threshold(0.9).hits == 4


def test_an_estimate_does_not_depend_on_what_else_is_tried() -> None:
    """One threshold alone gives what it gives among all: no set of them leaks into another."""
    log = Log()
    # Found by its own words, a little differently written: at 0.99 it is stored anew, below not.
    log.near("r", "r", 0.98)
    log.near("p", "r", 0.93)
    log.near("q", "p", 0.96)
    together = {item.threshold: item for item in thresholds(log.decisions, [], tuning=TUNING)}
    assert together[0.9].hits == 3
    for value in (0.7, 0.9, 0.95, 0.99):
        alone = thresholds(
            log.decisions,
            [],
            tuning=TUNING.model_copy(update={"semantic_threshold": value}),
            grid=[],
        )
        assert [item.hits for item in alone] == [together[value].hits]


def test_what_was_recorded_at_any_threshold_is_believed() -> None:
    """A log recorded at a threshold between two of the grid shows what was not stored after all."""
    log = Log()
    log.add("q1", threshold=0.925)
    log.add("q1", threshold=0.925)
    tuning = Tuning(semantic_threshold=0.925)
    (found,) = thresholds(log.decisions, [], tuning=tuning, grid=[])
    assert found.hits == 0
    assert [item.threshold for item in thresholds(log.decisions, [], tuning=TUNING, grid=[])] == [
        0.95
    ]


def test_latency_follows_the_shares() -> None:
    """The estimated latency is the mean over the shares of hits and misses."""
    log = Log()
    log.add("a", seconds=0.009)
    log.near("b", "a", 0.96, seconds=0.007)
    log.add("a", "l1", seconds=0.001)
    assert log.at_threshold(0.95).latency_ms == pytest.approx(17 / 3)
    assert log.at_threshold(0.97).latency_ms == pytest.approx(19 / 3)


# ------------------------------------------------------------------------------ evidence


def test_wilson_is_the_published_interval() -> None:
    """Newcombe (1998): 81 of 263 gives 0.2553 to 0.3662; none of 20 gives 0 to 0.1611."""
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert wilson(0, 20) == (pytest.approx(0), pytest.approx(0.1611, abs=1e-4))
    assert wilson(0, 0) == (0.0, 1.0)


def traffic(log: Log, similarity: float, count: int) -> list[Decision]:
    """Add *count* lookups of different messages near "a"."""
    return [log.near(f"{similarity} {n}", "a", similarity) for n in range(count)]


def test_bins_are_weighted_by_traffic_not_by_verdicts() -> None:
    """Reviewing mostly the doubtful hits does not make all hits doubtful."""
    log = Log()
    log.add("a")
    safe, doubtful = traffic(log, 0.99, 900), traffic(log, 0.95, 100)
    verdicts = [judged(item, correct=True) for item in safe[:100]]
    verdicts += [
        judged(item, correct=n % 2 == 0, source="review") for n, item in enumerate(doubtful)
    ]
    found = log.at_threshold(0.95, *verdicts)
    assert found.wrong_share == pytest.approx(0.05)
    assert found.wrong_low is not None
    assert found.wrong_high is not None
    assert found.wrong_low < 0.05 < found.wrong_high
    assert found.enough
    high = log.at_threshold(0.96, *verdicts)
    assert high.wrong_share == 0.0
    assert high.wrong_high is not None
    assert 0.02 < high.wrong_high < 0.05


def test_where_nothing_was_judged_everything_may_be_wrong() -> None:
    """Without verdicts below a threshold the upper bound of wrong answers is high."""
    log = Log()
    log.add("a")
    safe, _unjudged = traffic(log, 0.99, 500), traffic(log, 0.96, 500)
    found = log.at_threshold(0.95, *[judged(item, correct=True) for item in safe])
    assert not found.enough
    assert found.wrong_high is not None
    assert found.wrong_high > 0.5


def test_the_same_pair_judged_again_is_no_new_evidence() -> None:
    """Many verdicts on one pair count as one, and the last verdict on a lookup counts."""
    log = Log()
    log.add("a")
    same = [log.near("b", "a", 0.96) for _ in range(300)]
    found = Evidence(judged(item, correct=True) for item in same)
    assert found.bins[96].effective == pytest.approx(1.0)
    twice = [judged(same[0], correct=True), judged(same[0], correct=False)]
    assert Evidence(twice).bins[96].share == 1.0, "the last verdict on a lookup counts"


def test_an_exact_hit_is_right_unless_a_verdict_says_otherwise() -> None:
    """Exact hits count as right, but for those that a verdict calls wrong."""
    log = Log()
    hits = [log.add("a", "l1") for _ in range(10)]
    assert log.at_threshold(0.95).wrong_share == 0.0
    wrong = judged(hits[0], correct=False, source="feedback")
    assert log.at_threshold(0.95, wrong).wrong_share == pytest.approx(0.1)


# ------------------------------------------------------------------------------ recommendation


def test_the_lowest_threshold_within_the_limit_is_recommended() -> None:
    """The recommendation is the lowest threshold whose wrong share stays within the limit."""
    log = Log()
    log.add("a")
    verdicts: list[Verdict] = []
    for similarity, wrong_every in ((0.98, 0), (0.93, 0), (0.90, 4)):
        items = traffic(log, similarity, 800)
        verdicts += [
            judged(item, correct=not wrong_every or n % wrong_every > 0)
            for n, item in enumerate(items)
        ]
    found = recommend(log.decisions, verdicts, tuning=TUNING, max_wrong_share=0.01)
    assert found.threshold == 0.93
    assert found.estimate is not None
    assert found.estimate.hit_rate == pytest.approx(1_600 / 2_401)
    assert found.current.hit_rate == pytest.approx(800 / 2_401)
    text = " ".join(found.reasons)
    assert "0.93" in text
    assert "0.9 would have hit" in text
    assert "your limit is 1.00%" in text


def test_without_evidence_nothing_is_recommended_and_it_says_why() -> None:
    """Too few lookups or verdicts, or too many wrong ones, give a reason instead of a threshold."""
    log = Log()
    assert recommend([], [], tuning=TUNING).reasons == ["No lookups are recorded yet."]
    log.add("a")
    items = traffic(log, 0.96, 500)
    found = recommend(log.decisions, [], tuning=TUNING)
    assert (found.threshold, found.estimate) == (None, None)
    assert "at least 381 are needed" in found.reasons[0]
    found = recommend(log.decisions, [judged(item, correct=False) for item in items], tuning=TUNING)
    assert found.threshold is None
    assert "No threshold keeps within 1.00% wrong" in found.reasons[0]
    with pytest.raises(ValueError, match="max_wrong_share=2"):
        recommend([], [], tuning=TUNING, max_wrong_share=2)


# ------------------------------------------------------------------------------ TTLs, sharing


def test_a_shorter_ttl_loses_hits_and_a_longer_one_wins_them() -> None:
    """Estimates of TTLs count the hits lost, won and kept."""
    log = Log()
    for age in (10.0, 1_000.0, 3_000.0):
        log.add(f"m{age}", "l1", age_seconds=age, history="h")
    log.add("old", reasons=("expired",), expired={"l1": 4_000.0})
    log.add("cold")
    log.add("", outcome="bypass")
    report = ttls(log.decisions, tuning=TUNING, level="l1", candidates=[900, 2_000, 4_500])
    assert (report.hits, report.expired, report.ttl_seconds) == (3, 1, 3_600)
    assert sum(item.hits for item in report.ages) == 3
    found = {item.ttl_seconds: item for item in report.estimates}
    assert (found[900].hits_lost, found[900].hit_rate) == (2, 1 / 5)
    assert (found[2_000].hits_lost, found[2_000].hits_won) == (1, 0)
    assert (found[3_600].hits, found[3_600].hit_rate) == (3, 3 / 5)
    assert (found[4_500].hits_won, found[4_500].hit_rate) == (1, 4 / 5)
    with pytest.raises(ValueError, match="level='l9'"):
        ttls([], tuning=TUNING, level="l9")  # type: ignore[arg-type]


def test_a_miss_starts_a_new_life() -> None:
    """Under a shorter TTL one lost hit renews the entry for those after it."""
    log = Log()
    start = log.at
    for number in range(6):
        log.add("m", "l1", history="h", age_seconds=(number + 1) * 60.0)
    assert log.decisions[-1].at - start == 360.0
    found = ttls(log.decisions, tuning=TUNING, level="l1", candidates=[130]).estimates[0]
    assert found.hits_lost == 2, "at ages 180 and, counted from there, 180 again"


def test_what_l1_loses_l2_still_has() -> None:
    """A hit that a shorter TTL of L1 loses is still one of L2."""
    log = Log()
    log.add("m", "l1", age_seconds=3_000.0)
    found = ttls(log.decisions, tuning=TUNING, level="l1", candidates=[900]).estimates[0]
    assert (found.hits_lost, found.hit_rate, found.tier_hit_rate) == (1, 1.0, 0.0)


def test_sharing_is_estimated_by_intent() -> None:
    """Misses for others' answers are counted by intent, with what sharing would save."""
    log = Log()
    for intent, count in (("faq", 3), ("order", 1), ("open", 2)):
        for number in range(count):
            log.add(f"{intent}{number}", intent=intent, reasons=("other_scope", "cold"))
    log.add("a", "l1")
    log.add("b")
    tuning = Tuning(sharing="intents", shared_intents=frozenset({"open"}))
    first, second = sharing(log.decisions, tuning=tuning)
    assert (first.intent, first.misses_other_scope) == ("faq", 3)
    assert first.share_of_misses == pytest.approx(3 / 7)
    assert first.hit_rate_if_shared == pytest.approx(4 / 8)
    assert first.saved_usd == pytest.approx(3 * 0.036)
    assert second.intent == "order"
    assert sharing([], tuning=tuning) == []


# ------------------------------------------------------------------------------ a real log


@pytest.mark.parametrize("store_kind", ["embedded"], indirect=True)
async def test_the_log_has_what_it_takes(make_cache: CacheFactory, clock: ManualClock) -> None:
    """Nearest question and scope of misses, and how old an answer was that had expired."""
    cache = await make_cache(settings=PATIENT, clock=clock)
    await cache.put("alpha beta gamma", "ann", "answer", "faq", [{"id": "d"}])
    keys = cache._parts.keys
    await cache.lookup("alpha beta delta", "ann")
    await cache.lookup("alpha beta gamma", "ann", history=["before"])
    clock.now += 4_000
    await cache.lookup("alpha beta gamma", "ann")
    clock.now += 86_400
    await cache.lookup("alpha beta gamma", "ann")
    await cache._parts.decisions.flush()
    near, followed, later, last = await cache.decisions(10)
    assert (near.outcome, near.matched, near.scope) == (
        "miss", keys.tag("alpha beta gamma"), "user",
    )  # fmt: skip
    assert (near.context, near.history) == (keys.no_context, "")
    assert followed.history
    assert later.level == "l2"
    assert later.expired["l1"] == pytest.approx(4_000, abs=5)
    assert (last.outcome, last.matched) == ("miss", "")
    assert last.expired["l2"] == pytest.approx(90_400, abs=5)
    assert thresholds(await cache.decisions(10), [], tuning=cache.tuning)


def test_a_log_of_the_version_before_is_read() -> None:
    """It has no scope and no neighbour's digest; its thresholds can still be estimated."""
    values = [1, 1e6, "r-1", "miss", "", "below_threshold", ["cold"], 0.9, 0.9, 0.95, None, 0.001,
              0.0, "m", "", "u", "", 0]  # fmt: skip
    decision = FORMAT.parse(json.dumps(values))
    assert decision is not None
    assert (decision.scope, dict(decision.expired)) == ("", {})
    found = {item.threshold: item.hits for item in thresholds([decision], [], tuning=TUNING)}
    assert (found[0.9], found[0.91]) == (1, 0)


async def test_a_review_judges_what_was_not_answered(cache: MultiLevelCache) -> None:
    """Somebody who saw the pair says whether its answer would have been right; a user cannot."""
    await cache.put("alpha beta gamma", "ann", "answer")
    near = await cache.lookup("alpha beta delta", "ann")
    cold = await cache.lookup("epsilon zeta", "bob")
    assert not await cache.feedback(near.lookup_id, correct=True)
    assert await cache.feedback(near.lookup_id, correct=True, source="review")
    assert not await cache.feedback(cold.lookup_id, correct=True, source="review")
    with pytest.raises(ValueError, match="source='boss'"):
        await cache.feedback(near.lookup_id, correct=True, source="boss")  # type: ignore[arg-type]
    (verdict,) = await cache.verdicts(10)
    assert (verdict.source, verdict.correct, verdict.level) == ("review", True, "")
    assert (verdict.lookup_id, verdict.threshold) == (near.lookup_id, 0.95)
    assert verdict.similarity is not None
    assert 0.5 < verdict.similarity < 0.95


# ------------------------------------------------------------------------------ the proof


def measured(*arguments: str) -> dict[str, Any]:
    """Return the benchmark's figures: predictions against real replays."""
    command = [sys.executable, "-m", "benchmarks.whatif", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any]) -> None:
    """Every prediction is within three points, and a promise is kept."""
    assert {item["threshold"] for item in found["predictions"]} == {0.85, 0.9, 0.95, 0.97}
    for item in found["predictions"]:
        assert item["real"] > 0
        assert abs(item["points"]) <= 3, item
        if item["threshold"] == 0.95:
            assert abs(item["points"]) < 0.1, "today's is what was recorded"
    for item in found["policies"]:
        assert item["unknown"] == 0
        assert item["newly"]["judged"] > 0
        assert item["real"] > 0
        assert abs(item["points"]) <= 3, item
    assert found["promise"]["kept"] is not False


@pytest.mark.slow
def test_predictions_hold_on_the_demos_traffic() -> None:
    """Predicted hit rates agree with measured ones on the demo's traffic."""
    check(measured("--demo", "--rows", "500", "--verdicts", "200"))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not TRAFFIC.is_file(), reason=f"{TRAFFIC} is not here")
def test_predictions_hold_on_recorded_traffic() -> None:
    """Predicted hit rates agree with measured ones on recorded traffic."""
    found = measured("--rows", "500")
    check(found)
    rates = [item["real"] for item in found["predictions"]]
    assert rates[0] > rates[2] > rates[3]


def test_a_ttl_is_recommended_from_comparisons() -> None:
    """The shortest of the intents' TTLs is recommended, rounded down, with what it would have won."""
    log = Log()
    for number in range(4):
        log.add(f"m{number}", expired={"l1": 4_000.0}, reason="expired")
    # as they come from the report of a replica
    compared = {"unchanged_at_expiry": 15.0, "unchanged_before": 10.0, "changed": 1.0}
    found = recommend_ttl(
        log.decisions,
        [
            {"faq": {**compared, "recommended_ttl": 100_000}, "rare": {"changed": 3}},
            {"faq": {"unchanged_at_expiry": 1}, "news": {**compared, "recommended_ttl": 9_000}},
        ],
        tuning=TUNING,
        level="l1",
    )
    assert found.by_intent == {"faq": 86_400.0, "news": 7_200.0}
    assert found.seconds == 7_200.0
    assert "by 52 comparisons" in found.reason
    assert "won 4 of 4 misses" in found.reason


def test_no_ttl_is_recommended_without_comparisons() -> None:
    """Too few comparisons are said, with their number and what makes more."""
    found = recommend_ttl([], [{"faq": {"changed": 3}}], tuning=TUNING, level="l1")
    assert found.seconds is None
    assert "20 comparisons" in found.reason
    assert "there are 3" in found.reason
