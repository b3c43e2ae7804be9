"""Normal forms, digests and keys: the same for the same question, different for any other."""

from __future__ import annotations

import pytest

from cache_core.model.keys import Keys, digest
from cache_core.model.question.wording import loose_form

SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("message", "same"),
    [
        ("Where is my order?", "where is my order"),
        ("  where\tis\nmy   order ", "where is my order"),
        ("WHERE IS MY ORDER!!!", "where is my order"),
        ("stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u00a0hello\u2003world\u3002", "hello world"),
        ("\u0645\u0631\u062d\u0628\u0627\u061f", "\u0645\u0631\u062d\u0628\u0627"),
        ("\u01c5", "\u01c6"),
    ],
)
def test_messages_that_are_the_same(message: str, same: str) -> None:
    """Case, Unicode form, white space and final punctuation make no difference."""
    assert loose_form(message) == loose_form(same)


@pytest.mark.parametrize(
    ("message", "other"),
    [
        ("refund order 12", "refund order 21"),
        ("what is c", "what is c++"),
        ("1.5", "15"),
        ("yes", "no"),
        ("re-cover", "recover"),
        ("?", "!"),
        ("who", "who not"),
    ],
)
def test_messages_that_are_not_the_same(message: str, other: str) -> None:
    """Everything that may carry meaning makes a difference, and punctuation alone is kept."""
    assert loose_form(message) != loose_form(other)


def test_normalising_twice_is_normalising_once() -> None:
    """Normalisation is idempotent, for odd characters too."""
    for text in (
        "  A? ",
        "\u0130stanbul",
        "\ufb01ne.",
        "?!",
        "\ud800x",
        "\u1e9e\u0345",
        "a .. b ..",
    ):
        assert loose_form(loose_form(text)) == loose_form(text)


def test_borders_between_parts_count() -> None:
    """Digests of the same characters cut differently differ."""
    cuts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        ("", "abc"),
        ("1:a", "b"),
        ("1", ":ab"),
    ]
    assert len({digest(SECRET, *parts) for parts in cuts}) == len(cuts)


def test_the_secret_counts() -> None:
    """Without the secret the digest of a message cannot be found."""
    assert digest(SECRET, "a") != digest(b"t" * 32, "a")
    assert Keys("n", SECRET).tag("hello") != Keys("m", SECRET).tag("hello")


@pytest.mark.parametrize("words", [1, 1_000])
def test_a_message_has_one_digest(words: int) -> None:
    """Short ones are kept, long ones are not: it makes no difference."""
    keys, text = Keys("n", SECRET), "hello " * words
    assert keys.tag(text) == keys.tag(text) == keys.tag(text.upper()) == Keys("n", SECRET).tag(text)
    assert keys.tag(text) != keys.tag(text + "you")


def test_scopes_contexts_and_histories_have_digests_of_their_own() -> None:
    """Everything that decides which entries answer gives another query."""
    keys = Keys("n", SECRET)
    turn = {"role": "user", "content": "a"}
    asked = [
        keys.query("m", None),
        keys.query("m", "u"),
        keys.query("m", "U"),
        keys.query("m", "u", "ctx"),
        keys.query("m", "u", {"ctx": 1}),
        keys.query("m", "u", {"ctx": "1"}),
        keys.query("m", "u", None, ["a"]),
        keys.query("m", "u", None, ["a", "b"]),
        keys.query("m", "u", None, ["ab"]),
        keys.query("m", "u", None, [turn]),
        keys.query("m", "u", None, ['{"content":"a","role":"user"}']),
        keys.query("m2", "u"),
    ]
    assert len({(q.tag, q.user, q.context, q.history) for q in asked}) == len(asked)


def test_order_in_a_mapping_does_not_count() -> None:
    """A context with the same keys in another order is the same context."""
    keys = Keys("n", SECRET)
    one, two = keys.query("m", "u", {"a": 1, "b": 2}), keys.query("m", "u", {"b": 2, "a": 1})
    assert one.context == two.context
    assert keys.query("m", "u", {}).context == keys.query("m", "u", "").context == keys.no_context


def test_standalone_replaces_message_and_history() -> None:
    """A standalone form is asked as if it were the message, without a history."""
    keys = Keys("n", SECRET)
    rewritten = keys.query("and in Berlin?", "u", None, ["weather"], "weather in Berlin")
    assert rewritten == keys.query("weather in Berlin", "u")


def test_all_keys_of_a_message_are_in_one_slot() -> None:
    """The keys that one lookup reads share a hash tag, whatever scope, context and history."""
    from redis.crc import key_slot

    keys = Keys("n", SECRET)
    query = keys.query("m", "u", "ctx", ["a"])
    names = [keys.generation(query.tag), keys.marker(query)]
    names += [keys.entry(level, query, query.shared) for level in ("l1", "l4")]
    assert len({key_slot(name.encode()) for name in names}) == 1
