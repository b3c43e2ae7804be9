"""Guards: the pairs that they keep apart, those that pass, and their cost."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import get_args

import pytest

from cache_core.config.tuning import GuardName, Tuning
from cache_core.tiers import guards
from cache_core.tiers.guards import negated, numbers, veto

_PAIRS = Path(__file__).with_name("guard_pairs.txt")
_EITHER = re.compile(r"\{([^{}|]*)\|([^{}|]*)\}")
OURS: tuple[GuardName, ...] = ("numbers", "negation", "direction", "order", "opposites")


def _pairs() -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of each kind; a kind starts with "-" where they ask something else."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    kind = ""
    for line in _PAIRS.read_text(encoding="utf-8").splitlines():
        if line.startswith(("- ", "+ ")):
            kind = line
        elif line and not line.startswith("#"):
            one, two = (_EITHER.sub(rf"\{side}", line).strip() for side in (1, 2))
            pairs.setdefault(kind, []).append((one, two))
    return pairs


PAIRS = _pairs()
DIFFERENT = [kind for kind in PAIRS if kind.startswith("-")]
SAME = [kind for kind in PAIRS if kind.startswith("+")]


def _unlike(kind: str, *, expected: bool) -> list[tuple[str, str]]:
    """Return the pairs of *kind*, either way round, that are not vetoed as *expected*."""
    return [
        (asked, stored)
        for one, two in PAIRS[kind]
        for asked, stored in ((one, two), (two, one))
        if (veto(asked, stored, OURS) is not None) != expected
    ]


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_asks_something_else_is_vetoed(kind: str) -> None:
    """Nine in ten pairs of each kind that differ in what matters are vetoed."""
    served = _unlike(kind, expected=True)
    assert len(served) <= 0.1 * 2 * len(PAIRS[kind]), served


@pytest.mark.parametrize("kind", SAME)
def test_what_means_the_same_passes(kind: str) -> None:
    """Nine in ten pairs of each kind that mean the same pass."""
    vetoed = _unlike(kind, expected=False)
    assert len(vetoed) <= 0.1 * 2 * len(PAIRS[kind]), vetoed


def test_rates_over_all_kinds() -> None:
    """Over all kinds at most one pair in fifty is judged wrongly, of either sort."""
    for kinds, expected in ((DIFFERENT, True), (SAME, False)):
        wrong = [pair for kind in kinds for pair in _unlike(kind, expected=expected)]
        total = sum(2 * len(PAIRS[kind]) for kind in kinds)
        assert total > 160
        assert len(wrong) <= 0.02 * total, wrong


@pytest.mark.parametrize(
    ("asked", "stored", "guard"),
    [
        ("open at 10 a.m.?", "open at 10 p.m.?", "numbers"),
        ("a unit is missing: 5k", "a unit is missing: 5", "numbers"),
        ("is it legal", "is it illegal", "negation"),
        ("the cat is allowed, the dog is not", "the dog is allowed, the cat is not", "negation"),
        ("send it to Anna", "send it from Anna", "direction"),
        ("turn it on", "turn it off", "opposites"),
        ("did Apple buy Samsung", "did Samsung buy Apple", "order"),
        ("did I pay the fee", "did you pay the fee", "order"),
        ("which foods should I eat", "which foods should I avoid", "negation"),
        ("may I take tea as well as milk", "may I take tea instead of milk", "negation"),
        ("how do I let others see it", "how do I stop others from seeing it", "negation"),
        ("he has to insist on it", "he has to refrain from it", "negation"),
        ("is a hat required there", "is a hat allowed there", "opposites"),
        ("does my order count", "does your order count", "opposites"),
        ("how do I cancel my order", "how do you cancel your order", None),
        ("how do I prevent fraud", "how do I avoid fraud", None),
        ("stop them from calling", "prevent them from calling", None),
        ("wine instead of beer", "wine rather than beer", None),
        ("served until 10:30", "served until 10.30", None),
        ("half a year", "half of a year", None),
        ("do you ship to the U.S. now", "do you ship to the US now", None),
        ("refund policy", "policy refund", None),
        ("the password of my profile", "my profile password", None),
    ],
)
def test_each_guard_has_its_subject(asked: str, stored: str, guard: GuardName | None) -> None:
    """The label of a veto names what differs, whichever of the two was asked."""
    assert veto(asked, stored, OURS) == guard
    assert veto(stored, asked, OURS) == guard


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1,000", "1000", ""), ("1.000", "1000", ""), ("1 000", "1000", ""),
        ("1\u2019000", "1000", ""), ("a thousand", "1000", ""), ("1k", "1000", ""),
        ("1.125 m", "1.125", "meter"), ("1,5 l", "1.5", "liter"), ("50.00 EUR", "50", "eur"),
        ("1.234,50 \u20ac", "1234.5", "eur"), ("US$100", "100", "usd"), ("$5M", "5000000", "usd"),
        ("version 3.10", "3.10", ""), ("007", "007", ""), ("twenty-five", "25", ""),
        ("two hundred and five", "205", ""), ("\u00bd", "1/2", ""), ("2 1/2", "5/2", ""),
        ("half past six", "06:30", "clock"), ("10pm", "22:00", "clock"),
        ("22:00", "22:00", "clock"), ("noon", "12:00", "clock"), ("-18 \u00b0C", "-18", "celsius"),
        ("minus ten degrees", "-10", "degree"), ("the 1st", "1", "th"), ("Dec 24", "24", "date"),
        ("5 MW", "5", "megawatt"), ("5 mW", "5", "milliwatt"), ("5 Mb", "5", "megabit"),
        ("5 mb", "5", "megabyte"), ("20 m\u00b2", "20", "meter2"), ("20 sqm", "20", "meter2"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_values(text: str, value: str, unit: str) -> None:
    """A number has one value and one unit in whatever way it is written."""
    assert [(number.value, number.unit) for number in numbers(text)] == [(value, unit)]


def test_a_question_is_no_negation_of_itself() -> None:
    """Questions, openers and tags that contain "not" or "no" negate nothing."""
    for text in (
        "Isn't it open?", "Don't you ship to Oslo?", "No, thank you, what does it cost?",
        "It is open, isn't it?", "order no. 4711", "Is it open or not?", "I don't know how to pay",
    ):  # fmt: skip
        assert not guards.negated(text), text


def test_tunings_that_name_fewer_guards_still_load() -> None:
    """A stored choice of guards stays what it was when there are new ones."""
    stored = Tuning.model_validate({"guards": ["numbers", "negation", "direction"]})
    assert stored.guards == ("numbers", "negation", "direction")
    assert set(OURS) <= set(get_args(GuardName))
    assert set(OURS) <= set(Tuning().guards)


@pytest.mark.slow
@pytest.mark.parametrize("size", [4_096, 32_768])
def test_no_text_is_slow(size: int) -> None:
    """Odd texts take time in proportion to their length, and long ones none."""
    started = time.process_time()
    for piece in (
        "word and 12 kg from a to b, ", "a", " ", "1", "1,", "1 000 ", "- ", "a-", "-1 ", "not ",
        "a hundred and ", "from A to B ", "1:", "x'", "1/2 ", "<= ", "twenty-", "no. ", "w/",
        "a.m. ", "who not ", "\u00bd", "\U0001f600", "'", "in out ",
    ):  # fmt: skip
        text = (piece * size)[:size]
        veto(text, text[:-1] + "q", OURS)
        veto(text, text[: size // 2] + "," + text[size // 2 :], OURS)
    assert time.process_time() - started < 10
    guards.forget()


@pytest.mark.slow
def test_a_veto_has_no_direction() -> None:
    """Whatever the texts are, the guards read them, and which of them was asked does not matter."""
    dice = random.Random(7)
    words = sorted({word for pairs in PAIRS.values() for pair in pairs for word in pair[0].split()})
    odd = ["\ud800", "\x00", "0/0", "99-99", "2024-13-45", "\u00bd", "-", "25:61", "'", "\u0663"]
    for _ in range(2_000):
        one = dice.choices(words + 20 * odd, k=dice.randint(1, 9))
        two = dice.sample(one, len(one)) + dice.choices(words, k=dice.randint(0, 1))
        asked, stored = " ".join(one), " ".join(two)
        assert (veto(asked, stored, OURS) is None) == (veto(stored, asked, OURS) is None)


def test_long_texts_must_have_the_same_words() -> None:
    """Beyond the length of questions only case and spaces may differ."""
    text = "word and number " * 2_000
    assert veto(text, text.upper() + " ", OURS) is None
    assert veto(text, text + "more", OURS) == "numbers"
    assert veto(text, text + "more", ()) is None


BOTH = ("numbers", "negation")


@pytest.mark.parametrize(
    ("asked", "stored", "guard"),
    [
        ("status of order 12", "status of order 13", "numbers"),
        ("status of order 12", "what is the status of order 12", None),
        ("refund 1,000 euro", "refund 1000 euro", None),
        ("refund 1.5 euro", "refund 15 euro", "numbers"),
        ("two rooms", "2 rooms", None),
        ("two rooms", "three rooms", "numbers"),
        ("open on monday", "open on tuesday", "numbers"),
        ("from 1 to 2", "from 2 to 1 to 1", "numbers"),
        ("can I cancel", "can I not cancel", "negation"),
        ("I can't log in", "I can\u2019t log in", None),
        ("I can't log in", "I can log in", "negation"),
        ("without sugar", "with sugar", "negation"),
        ("another note", "a note", None),
    ],
)
def test_guards(asked: str, stored: str, guard: str | None) -> None:
    """Changed numbers, dates and negations are vetoed, other words for the same are not."""
    assert veto(asked, stored, BOTH) == guard  # type: ignore[arg-type]
    assert veto(stored, asked, BOTH) == guard  # type: ignore[arg-type]


def test_guards_that_are_off_veto_nothing() -> None:
    """Only the guards named are asked, in their order."""
    assert veto("order 1", "order 2", ()) is None
    assert veto("not order 1", "order 2", ("negation", "numbers")) == "negation"


def test_guards_read_anything() -> None:
    """Guards take odd texts without complaint."""
    for text in ("", "\ud800", "\x00", "1" * 10_000, "\u0661\u0662", "n't"):
        numbers(text)
        negated(text)


GUARDS = ("numbers", "negation", "direction")


@pytest.mark.parametrize(
    ("asked", "stored", "guard"),
    [
        ("change it from 3 to 5", "change it from 5 to 3", "numbers"),
        ("change it from 3 to 5", "change it to 5 from 3", None),
        ("change it from 3 to 5", "change it to 3 from 5", "numbers"),
        ("add 3 apples and 5 pears", "add 5 apples and 3 pears", "numbers"),
        ("deliver within 5 days", "deliver within 5 weeks", "numbers"),
        ("deliver within 5 days", "deliver within 5 business days", "numbers"),
        ("call me at 5pm", "call me at 5 am", "numbers"),
        ("it costs $5", "it costs 5 dollars", None),
        ("it costs $5", "it costs 5 euros", "numbers"),
        ("a group of at least 5", "a group of at most 5", "numbers"),
        ("open from monday to friday", "open from friday to monday", "numbers"),
        ("3 nights for 200 euros", "200 euros for 3 nights", None),
        ("transfer 100 from A to B", "transfer 100 from B to A", "direction"),
        ("convert euros to dollars", "convert dollars to euros", "direction"),
        ("move it from my savings account to my checking account",
         "move it from my checking account to my savings account", "direction"),
        ("how to travel to Rome", "how do I travel to Rome", None),
        ("from A to B please", "please, from A to B", None),
    ],
)  # fmt: skip
def test_order_units_and_direction(asked: str, stored: str, guard: str | None) -> None:
    """The same words in other places ask something else."""
    assert veto(asked, stored, GUARDS) == guard  # type: ignore[arg-type]
    assert veto(stored, asked, GUARDS) == guard  # type: ignore[arg-type]
