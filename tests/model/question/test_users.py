"""User ids that name nobody: nothing that is private is kept for all who share one."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.model.keys import Keys
from cache_core.model.question import users
from cache_core.model.question.users import is_nobody, without_spelling
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

KEYED = {**PATIENT, "tiers": "l1,l3,l4"}

NOBODY = [
    "", " ", "\t", "\u200b", "\u00a0", "None", "none ", "NONE", "'None'", '"null"', "null", "Null",
    "\uff2e\uff55\uff4c\uff4c", "nil", "undefined", "undefined undefined", "nan", "NaN", "N/A",
    "n/a", "unknown", "unknown-user", "anonymous", "AnonymousUser", "anonymousUser", "anon",
    "guest", "guest user", "default", "default_user", "user", "user_id", "User ID", "no user",
    "your-user-id", "<user-id>", "${USER_ID}", "{user_id}", "%(user)s"[:6] + ")", "user:None",
    "usernull", "[object Object]", "[object Promise]", "function () {}", "() => user.id", "Optional(nil)",
    "<bound method User.id>", "\\N", "#REF!", "uuid", "<uid>", "no_user", "dummy", "example-user",
    "INSERT_USER_ID_HERE", "todo", "(null)", "null:null", "false", "0", "00", "0.0", "-1", "-", "?",
    "00000000-0000-0000-0000-000000000000", "not set", "visitor",
    "acme:None", "acme/undefined", "auth0|null", "tenant:7:anonymous", "anonymous@example.com", "gast", "\u533f\u540d",
    "uid=None", "%s", "unauthenticated", "not logged in", "NoneType", "string", "public",
    "ffffffff-ffff-ffff-ffff-ffffffffffff", "ανώνυμος", "अज्ञात", "misafir", "gæst", "ضيف",
]  # fmt: skip
SOMEBODY = [
    "ann", "bob", "1", "42", "-100123", "007", "10", "u1", "user1", "user-0", "user 7", "guest42",
    "guest-7", "shared", "admin", "root", "system", "a", "n", "no", "the", "Anna", "nancy", "nullah",
    "noneya", "default@example.com", "us:0:ann", "{bob}", "\U0001f44d", "\ud800", "x" * 1_024,
    "550e8400-e29b-41d4-a716-446655440000", "test", "id7", "eve", "insert", "here", "uuid-7f", "None of your business",
]  # fmt: skip


def test_which_ids_name_nobody() -> None:
    """Texts of a missing id, in any case and between any signs, and no id that tells users apart."""
    assert [text for text in NOBODY if not is_nobody(text)] == []
    assert [text for text in SOMEBODY if is_nobody(text)] == []


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_nobody_has_nothing_private(make_cache: CacheFactory) -> None:
    """A placeholder is as no user: only what is shared is stored and served."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for number, user in enumerate(NOBODY):
        message = f"what about my rash {number}"
        await cache.put(message, user, "Ann's rash", "faq", [{"id": "file"}])
        for visitor in (user, None, "bob"):
            found = await cache.lookup(message, visitor)
            assert (found.response, found.rag_results) == (None, None), user
        assert await cache.get_or_compute(message, user, lambda: "made") == "made"
        assert (await cache.lookup(message, user)).response is None
        await cache.put(message, user, "for all", shared=True)
        assert (await cache.lookup(message, user)).response == "for all"
    assert cache._parts.keys.query("m", "None").user is None


async def test_it_is_said_once(
    make_cache: CacheFactory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says it once, explain each time, and neither names the id."""
    monkeypatch.setattr(users.log, "_next", {})
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    for user in ("None", "anonymous", "guest"):
        await cache.lookup("alpha", user)
        await cache.put("alpha", user, "answer")
        [l1, *_] = await cache.explain("alpha", user)
        assert "names nobody" in l1.detail
    lines = [line for line in caplog.messages if "placeholder" in line]
    assert len(lines) == 1
    [l1, *_] = await cache.explain("alpha", "ann")
    assert "nobody" not in l1.detail


async def test_what_an_older_version_kept_for_a_placeholder_can_be_erased(
    make_cache: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """forget_user and invalidate take the id as it is: what was private to it goes."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    monkeypatch.setattr("cache_core.model.keys.is_nobody", lambda _: False)
    await cache.put("alpha", "anonymous", "old")
    await cache.put("beta", "anonymous", "old")
    monkeypatch.undo()
    cache._parts.keys.forget()
    assert (await cache.lookup("alpha", "anonymous")).response is None
    assert (await cache.invalidate("alpha", "anonymous")).removed == 1
    assert (await cache.forget_user("anonymous")).removed == 1


class Liar(str):
    """A str that claims to be another."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("bob")


async def test_a_str_that_lies_about_its_equality(make_cache: CacheFactory) -> None:
    """The characters of users and messages count, in any type of text."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    await cache.put("alpha", "bob", "bob's")
    await cache.put("bob", "ann", "to bob")
    assert (await cache.lookup("alpha", Liar("eve"))).response is None
    assert (await cache.lookup("alpha", Liar("bob"))).response == "bob's"
    assert (await cache.lookup(Liar("eve"), "ann")).response is None


@pytest.mark.parametrize("user", [42, 4.2, b"ann", True, ["ann"]])
async def test_the_error_for_a_number_does_not_lead_to_a_placeholder(
    make_cache: CacheFactory, user: Any
) -> None:
    """str() of a missing id is a placeholder: the error says what to give instead."""
    cache: MultiLevelCache = await make_cache(settings=KEYED)
    with pytest.raises(TypeError, match="None for a visitor without one") as told:
        await cache.lookup("alpha", user)
    assert "str(" not in str(told.value)


def test_digests_of_users_stay() -> None:
    """An answer stored for a user stays theirs."""
    from cache_core.model.keys import digest

    assert Keys("n", b"s" * 32).query("m", "ann").user == digest(b"s" * 32, "scope", "user", "ann")


@pytest.mark.parametrize("user", ["Ann@Shop", "\u1fb7\u0390", "Stra\xdfe", "\ufb01ne", "\u01c5"])
def test_every_spelling_of_an_id_is_counted_as_one(user: str) -> None:
    """Case, outer space and the four normal forms make no other user of an id."""
    forms = [unicodedata.normalize(form, user) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    spelled = {case for form in forms for case in (form, form.upper(), form.lower(), f" {form} ")}
    assert len({without_spelling(spelling) for spelling in spelled}) == 1
