"""Logins survive a reload, have an end, and are of no use to other programs on the host."""

from __future__ import annotations

import pytest
from itsdangerous import URLSafeTimedSerializer
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.data.sessions import LIFE_SECONDS, PATH, TICKET, Sessions, own_origin
from dashboard.served import session
from tests.support.dashboard import TOKEN

ORIGIN = "http://testserver"


@pytest.fixture
def signed_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the time that signatures go by, to be changed."""
    now = [1_000_000]
    signer = URLSafeTimedSerializer.default_signer
    monkeypatch.setattr(signer, "get_timestamp", lambda self: now[0])
    return now


def test_a_login_is_valid_for_half_a_day(signed_at: list[int]) -> None:
    """It names who logged in until its time is over, and means nothing with another token."""
    known = Sessions(TOKEN)
    login = known.login("ada")
    signed_at[0] += LIFE_SECONDS
    assert known.name(login) == "ada"
    assert Sessions("another token").name(login) is None
    assert Sessions("another token").cookie != known.cookie
    assert known.name(login + "x") is None
    signed_at[0] += 1
    assert known.name(login) is None


def test_a_ticket_is_no_login(signed_at: list[int]) -> None:
    """A script in the page has something worth a cookie for a minute, and no cookie."""
    known = Sessions(TOKEN)
    login = known.login("ada")
    ticket = known.ticket(login)
    assert known.name(ticket) is None
    assert known.redeem(login) is None
    assert known.redeem(ticket) == login
    signed_at[0] += 61
    assert known.redeem(ticket) is None


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("http://127.0.0.1:8501", True),
        ("https://ops.example.com", True),
        ("http://127.0.0.1:3000", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_page_of_another_program_is_not_ours(origin: str, ours: bool) -> None:
    """All ports of a host get its cookies: only the app's own origins may use them."""
    assert own_origin(origin, "127.0.0.1:8501", ("https://ops.example.com",)) is ours


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Return a client of the route at which browsers get their cookies."""
    monkeypatch.setenv("CACHE_DASHBOARD_TOKEN", TOKEN)
    return TestClient(Starlette(routes=[Route(f"/{PATH}", session, methods=["POST", "DELETE"])]))


def test_a_ticket_buys_a_cookie_that_no_script_reads(browser: TestClient) -> None:
    """The cookie is HttpOnly and of this site alone, by TLS only where the page is; and it ends."""
    known = Sessions(TOKEN)
    login = known.login("ada")
    headers = {"Origin": ORIGIN, TICKET: known.ticket(login)}
    given = browser.post(f"/{PATH}", headers=headers)
    assert given.status_code == 204
    cookie = given.headers["set-cookie"]
    assert cookie.startswith(f"{known.cookie}={login}; HttpOnly; Max-Age={LIFE_SECONDS}; Path=/;")
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    by_tls = browser.post(f"/{PATH}", headers={**headers, "Origin": "https://testserver"})
    assert "Secure" in by_tls.headers["set-cookie"]
    gone = browser.delete(f"/{PATH}", headers={"Origin": ORIGIN})
    assert "Max-Age=0" in gone.headers["set-cookie"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ORIGIN},
        {"Origin": ORIGIN, TICKET: "guessed"},
        {"Origin": ORIGIN, TICKET: Sessions(TOKEN).login("ada")},
        {"Origin": "http://testserver:3000", TICKET: Sessions(TOKEN).ticket("x")},
        {TICKET: Sessions(TOKEN).ticket("x")},
    ],
)
def test_nobody_else_gets_a_cookie(browser: TestClient, headers: dict[str, str]) -> None:
    """Without a ticket, with a wrong one, or from a page of another program there is none."""
    given = browser.post(f"/{PATH}", headers=headers)
    assert (given.status_code, given.headers.get("set-cookie")) == (403, None)
