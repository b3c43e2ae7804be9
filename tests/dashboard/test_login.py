"""The dashboard's token: guesses are limited, and the right one is accepted meanwhile."""

from __future__ import annotations

import threading

import pytest

from dashboard.ui.access import Attempts, Brake
from tests.support.dashboard import PAGES, TOKEN, Open, log_in, open_app

__all__ = ["open_app"]

DAY = 86_400


def test_a_session_that_guesses_waits_longer_and_longer() -> None:
    """After three wrong tokens each next one waits twice as long, up to a minute."""
    now = [0.0]
    brake = Brake(lambda: now[0])
    waits = []
    for _ in range(12):
        brake.failed()
        waits.append(brake.wait_seconds())
        now[0] += waits[-1]
    assert waits == [0, 0, 0, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_the_wait_never_ends_by_an_overflow() -> None:
    """A session that guesses for years compares one token a minute, in its last minute as well."""
    now = [0.0]
    brake = Brake(lambda: now[0])
    for _ in range(100_000):
        assert not brake.wait_seconds()
        brake.failed()
        now[0] += 60.0
    assert not brake.wait_seconds()
    brake.failed()
    assert brake.wait_seconds() == 60


@pytest.mark.parametrize("days", [0, 1, 400])
def test_one_second_sees_few_guesses(days: int) -> None:
    """However long somebody has guessed, the process compares ten tokens at once, then two a second."""
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(min(days, 1) * 5_000):
        now[0] += attempts.wait_seconds()
        assert attempts.take_turn() is not None
    now[0] += days * DAY
    assert sum(attempts.take_turn() is not None for _ in range(100_000)) == 10
    now[0] += 1
    assert sum(attempts.take_turn() is not None for _ in range(100_000)) == 2


def test_who_guesses_once_a_second_keeps_nobody_out() -> None:
    """While somebody guesses for hours, the right token is let in each time, without a wait."""
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    entered = []
    for second in range(3_600 * 6):
        now[0] = 1e6 + second
        assert not attempts.check("guess", TOKEN)
        if second % 97 == 0:
            entered.append(attempts.check(TOKEN, TOKEN))
    assert all(entered)


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    """A login during forty waiting sessions has the turn after theirs, and keeps it."""
    attempts = Attempts(lambda: 0.0)
    turns = []
    threads = [
        threading.Thread(target=lambda: turns.append(attempts.take_turn(60.0))) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns == [0.0] * 10 + [0.5 * number for number in range(1, 41)]
    assert attempts.take_turn(60.0) == 20.5
    assert attempts.take_turn(1.0) is None
    assert attempts.take_turn(60.0) == 21.0


def test_a_token_of_odd_characters_is_wrong() -> None:
    """A token that is not UTF-8 is compared as well, and rejected."""
    assert not Attempts().check("\ud800", TOKEN)


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_another_session_is_let_in_while_one_guesses(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, store_kind: str
) -> None:
    """A session that guessed too often has to wait; a new one logs in with the right token."""
    monkeypatch.setenv("CACHE_DASHBOARD_TOKEN", TOKEN)
    guesser = open_app()
    for _ in range(4):
        log_in(guesser, "wrong")
    log_in(guesser, TOKEN)
    assert ["Too many wrong tokens" in item.value for item in guesser.error] == [True]
    owner = open_app()
    log_in(owner, TOKEN)
    assert [item.value for item in owner.title] == [PAGES[0].capitalize()]
