"""Logins survive a reload, have an end, and are of no use to other programs on the host."""

from __future__ import annotations

import pytest
from itsdangerous import URLSafeTimedSerializer
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.data.sessions import (
    LIFE_SECONDS,
    PATH,
    SESSIONS,
    TICKET,
    Sessions,
    cookie_name,
    own_origin,
)
from dashboard.served import session
from tests.support.dashboard import TOKEN

ORIGIN = "http://testserver"
COOKIE = cookie_name("default", 8501)


def test_a_login_is_valid_for_a_working_day() -> None:
    """It names who logged in until its time is over, in this process alone."""
    now = [0.0]
    known = Sessions(lambda: now[0])
    login = known.login("ada")
    now[0] = LIFE_SECONDS
    assert known.name(login) == "ada"
    assert Sessions(lambda: 0.0).name(login) is None
    assert known.name(login + "x") is None
    now[0] += 1
    assert known.name(login) is None


def test_a_logout_ends_one_login() -> None:
    """Another login of the same name goes on."""
    known = Sessions()
    here, there = known.login("ada"), known.login("ada")
    known.end(here)
    assert (known.name(here), known.name(there)) == (None, "ada")


def test_a_ticket_is_no_login() -> None:
    """A script in the page has something worth a cookie, once within a minute, and no cookie."""
    now = [0.0]
    known = Sessions(lambda: now[0])
    login = known.login("ada")
    ticket, late = known.ticket(login), known.ticket(login)
    assert known.name(ticket) is None
    assert known.redeem(login) is None
    assert known.redeem(ticket) == login
    assert known.redeem(ticket) is None
    now[0] = 61.0
    assert known.redeem(late) is None


def test_what_has_ended_takes_no_memory() -> None:
    """A new login removes the expired ones."""
    now = [0.0]
    known = Sessions(lambda: now[0])
    for day in range(10):
        now[0] = day * 86_400.0
        known.ticket(known.login("ada"))
    assert (len(known._logins), len(known._tickets)) == (1, 1)


def test_each_dashboard_of_a_host_has_a_cookie_of_its_own() -> None:
    """Another port or namespace is another cookie, so that no login replaces another."""
    names = {cookie_name("shop", 8501), cookie_name("shop", 8502), cookie_name("docs", 8501)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("http://127.0.0.1:8501", True),
        ("https://ops.example.com", True),
        ("http://127.0.0.1:3000", False),
        ("https://evil.example", False),
        ("null", False),
        ("http://[", False),
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
    login = SESSIONS.login("ada")
    headers = {"Origin": ORIGIN, TICKET: SESSIONS.ticket(login)}
    given = browser.post(f"/{PATH}", headers=headers)
    assert given.status_code == 204
    cookie = given.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={login}; HttpOnly; Max-Age={LIFE_SECONDS}; Path=/;")
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    by_tls = {"Origin": "https://testserver", TICKET: SESSIONS.ticket(login)}
    assert "Secure" in browser.post(f"/{PATH}", headers=by_tls).headers["set-cookie"]
    gone = browser.delete(f"/{PATH}", headers={"Origin": ORIGIN, "Cookie": f"{COOKIE}={login}"})
    assert "Max-Age=0" in gone.headers["set-cookie"]
    assert SESSIONS.name(login) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ORIGIN},
        {"Origin": ORIGIN, TICKET: "guessed"},
        {"Origin": ORIGIN, TICKET: SESSIONS.login("ada")},
        {"Origin": "http://testserver:3000", TICKET: SESSIONS.ticket("x")},
        {"Origin": "http://[", TICKET: SESSIONS.ticket("x")},
        {TICKET: SESSIONS.ticket("x")},
    ],
)
def test_nobody_else_gets_a_cookie(browser: TestClient, headers: dict[str, str]) -> None:
    """Without a ticket, with a wrong one, or from a page of another program there is none."""
    given = browser.post(f"/{PATH}", headers=headers)
    assert (given.status_code, given.headers.get("set-cookie")) == (403, None)


def test_the_token_signs_no_ticket(browser: TestClient) -> None:
    """The route says of no guess whether it is the token: what the right one signs is rejected."""
    key = TOKEN.encode()
    login = URLSafeTimedSerializer(key, salt="glasscache-login").dumps("mallory")
    ticket = URLSafeTimedSerializer(key, salt="glasscache-ticket").dumps(login)
    given = browser.post(f"/{PATH}", headers={"Origin": ORIGIN, TICKET: str(ticket)})
    assert given.status_code == 403
