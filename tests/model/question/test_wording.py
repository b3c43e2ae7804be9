"""Forms of a message: which messages are the very same, and which never."""

from __future__ import annotations

import string
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cache_core.model.keys import Keys
from cache_core.model.question.wording import exact_form, loose_form

KEYS = Keys("n", b"s" * 32)


SAME = [
    ("When do you open?", "when do you open"),
    ("  Where is my parcel?\n", "where is my parcel"),
    ("How do I reset my password?", "how do I reset my password"),
    ("Cancel my order.", "cancel my order"),
    ("My order was cancelled.", "my order was cancelled"),
    ("Hi, when do you open?", "hi, when do you open"),
    ("Is it open?", "is it open."),
    ("Wann öffnet ihr?", "wann öffnet ihr"),
    ("caf\u00e9 near me", "cafe\u0301 near me"),
    ("5 \u2126", "5 \u03a9"),
    ("Thanks.", "thanks"),
    ("What\u2019s new?", "what\u2019s new"),
]
"""Plain sentences that mean the same."""


DIFFERENT = [
    # Letter case.
    ("explain chmod -r", "explain chmod -R"),
    ("which commit is aBc1234", "which commit is abc1234"),
    ("open https://sho.rt/Xy7Q", "open https://sho.rt/xy7q"),
    ("translate to German: polish", "translate to German: Polish"),
    ("How many Mb are in 1 GB", "How many MB are in 1 Gb"),
    ("Do you ship to us?", "Do you ship to US?"),
    ("Polish shoes", "polish shoes"),
    ("Turkey is safe", "turkey is safe"),
    ("May is cold", "may is cold"),
    ("Make is broken", "make is broken"),
    ("He is inert", "he is inert"),
    ("Pa is a unit", "pa is a unit"),
    ("What is the ASCII code of a", "What is the ASCII code of A"),
    ("mail Ann@example.com", "mail ann@example.com"),
    ("i am here", "I am here."),
    ("may I", "may i"),
    ("is Class Foo defined", "is class foo defined"),
    ("I", "\u0130"),
    ("\u0131", "i"),
    # Final signs.
    ("compute 5!", "compute 5"),
    ("git add .", "git add"),
    ("cd ..", "cd ."),
    ("explain the regex a.*?", "explain the regex a.*"),
    ("explain the regex ab?", "explain the regex ab"),
    ("what does the command ls mean?", "what does the command ls mean"),
    ("what is ab?", "what is ab"),
    ("My password is hunter.", "my password is hunter"),
    ("My id is abc.", "my id is abc"),
    ("rate the chess move Nf3!", "rate the chess move Nf3?"),
    ("You are open.", "You are open?"),
    ("My order was cancelled.", "My order was cancelled?"),
    ("Has arrived.", "Has arrived?"),
    ("Do it.", "Do it?"),
    ("Will is here?", "Will is here"),
    ("what is n!", "what is n!!"),
    ("fix this text: I am here.", "fix this text: I am here"),
    ("Hello", "Hello!"),
    ("what is \u201cit\u201d?", "what is \u201cit\u201d"),
    # Layout.
    ("is it right?\nif a:\n    b()\n    c()", "is it right?\nif a:\n    b()\nc()"),
    ("columns of: a\tb c", "columns of: a b\tc"),
    ("is 'a  b' equal", "is 'a b' equal"),
    ("sum of rows 1 2\n3 4", "sum of rows 1\n2 3 4"),
    ("where is  it", "where is it"),
    ("where is\u00a0it", "where is it"),
    # Letters that fold to others.
    ("Trinken in Maßen?", "Trinken in Massen?"),
    ("SIKILDIM ne demek", "sikildim ne demek"),
    ("\ufb01ne", "fine"),
    ("\u017fein", "sein"),
    ("5 µm", "5 \u03bcm"),
    ("\uff15", "5"),
    ("x\u00b2", "x2"),
    ("a\u200bb", "ab"),
    ("r\u00e9sum\u00e9", "resume"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_plain_sentences_that_are_the_same(one: str, other: str) -> None:
    """Unicode form, outer space, an initial capital and one final sign make no difference."""
    assert exact_form(one) == exact_form(other)
    assert KEYS.names(one) == KEYS.names(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_messages_that_differ(one: str, other: str) -> None:
    """Everything that may carry meaning makes a difference, in both directions."""
    assert exact_form(one) != exact_form(other)
    assert KEYS.names(one)[1] != KEYS.names(other)[1]


WORDS = ("parcel", "delivery", "order", "open", "the", "my", "today", "price", "shop", "with")


STARTS = ("how does", "when is", "where are", "which of", "what about", "is it", "are you")


IDS = st.text(string.ascii_letters + string.digits + "-_", min_size=2, max_size=12).filter(
    # "No" alone is a word at the beginning of a sentence.
    lambda text: (
        not (text.replace("-", "").isalpha() and text[1:] == text[1:].lower())
        and (text.lower() != text or text.upper() != text)
    )
)


TEXTS = st.text(max_size=60)


FRAMES = st.sampled_from(
    ["status of %s", "open https://sho.rt/%s now", "mail %s@example.com", "run it with --%s",
     "what is `%s` for?", "where is order %s", "%s", "What does the flag -%s do?", 'say "%s"']
)  # fmt: skip


sentences = st.builds(
    lambda start, words: " ".join([start, *words]),
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
)


@given(sentences, st.booleans(), st.sampled_from(["", ".", "?"]), st.sampled_from(["", " ", "\n"]))
def test_variants_of_a_plain_question_meet(text: str, capital: bool, sign: str, space: str) -> None:
    """However a plain question is begun and ended, it is the same."""
    variant = space + (text[0].upper() + text[1:] if capital else text) + sign + space
    assert exact_form(variant) == exact_form(text) == text


@given(TEXTS)
def test_unicode_forms_and_outer_space_meet(text: str) -> None:
    """A text and its NFC and NFD forms are the same, and its form is its own form."""
    forms = {exact_form(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert forms == {exact_form(text)} == {exact_form(f" \t{text}\n ")}
    assert exact_form(exact_form(text)) == exact_form(text)


@given(TEXTS, TEXTS)
def test_only_a_capital_and_a_final_sign_are_ever_lost(one: str, other: str) -> None:
    """Texts that are the same differ in no more than that, after NFC and trimming."""

    def core(text: str) -> str:
        text = unicodedata.normalize("NFC", text.strip())
        return text[:1].lower() + text[1:].removesuffix(".").removesuffix("?")

    if exact_form(one) == exact_form(other):
        assert core(one) == core(other)
    assert core(exact_form(one)) == core(one)


@given(FRAMES, IDS, st.data())
def test_letter_case_in_ids_and_code_differs(frame: str, name: str, data: st.DataObject) -> None:
    """Another case of one letter of an id, flag, address or quotation is another message."""
    letters = [place for place, letter in enumerate(name) if letter.swapcase() != letter]
    place = data.draw(st.sampled_from(letters))
    other = name[:place] + name[place].swapcase() + name[place + 1 :]
    assert exact_form(frame % name) != exact_form(frame % other)


@given(sentences, st.sampled_from("!…。:;,-)\"'*"))
def test_any_other_final_sign_differs(text: str, sign: str) -> None:
    """Only one full stop or question mark is dropped."""
    assert exact_form(text + sign) != exact_form(text)
    assert exact_form(text + "??") != exact_form(text) != exact_form(text + " ?")


@given(st.lists(sentences, min_size=2, max_size=4), st.sampled_from([" ", "\n", "\n\n", "\n  "]))
def test_lines_and_spaces_differ(lines: list[str], between: str) -> None:
    """Line ends and indentation are part of a message."""
    assume(between != " ")
    assert exact_form(between.join(lines)) != exact_form(" ".join(lines))
    assert exact_form("  ".join(lines)) != exact_form(" ".join(lines))


@pytest.mark.slow
@given(TEXTS, TEXTS)
def test_what_is_the_same_is_invalidated_together(one: str, other: str) -> None:
    """The loose form takes all messages together that the exact form does."""
    if exact_form(one) == exact_form(other):
        assert loose_form(one) == loose_form(other)
    assert loose_form(exact_form(one)) == loose_form(one)
