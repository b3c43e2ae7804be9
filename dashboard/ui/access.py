"""Visitors of the app, and their permission to make changes."""

from __future__ import annotations

import hmac
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.data.config import DashboardConfig
from dashboard.data.sessions import PATH, SESSIONS, TICKET, cookie_name, own_origin
from dashboard.data.words import plain

_LONGEST_WAIT = 60.0
_FREE_ATTEMPTS = 3
_DOUBLINGS = 6
_TURN_SECONDS = 0.5
_AT_ONCE = 10
_LONGEST_TURN = 30.0
"""Longest wait for a turn to log in, in seconds: 60 others may be first."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Visitor of the app.

    Attributes:
        name: The name for the audit trail.
        may_write: Whether the visitor may make changes.
        why_not: What is missing for that, in words.
        can_leave: Whether the visitor can log out here.
    """

    name: str
    may_write: bool
    why_not: str = ""
    can_leave: bool = False


class Brake:
    """Brake on one session: after three wrong tokens each next attempt has to wait longer.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong = 0
        self._not_before = 0.0

    def wait_seconds(self) -> float:
        """Return the seconds that the session's next attempt has to wait."""
        return max(0.0, self._not_before - self._clock())

    def failed(self) -> None:
        """Count a wrong token: 2 s after the fourth, twice as long after each next, up to 60 s."""
        self._wrong += 1
        over = self._wrong - _FREE_ATTEMPTS
        if over > 0:
            wait = _LONGEST_WAIT if over > _DOUBLINGS else min(_LONGEST_WAIT, 2.0**over)
            self._not_before = self._clock() + wait


class Attempts:
    """Limit on token comparisons of the whole process, across all sessions.

    Generic cell rate algorithm (ITU-T I.371): 10 immediately, then 2 a second, in the order of
    arrival. A guessing session cannot use up the turns of another: it has its own `Brake`.
    Addresses are useless behind a proxy.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._earliest = 0.0
        self._lock = threading.Lock()

    def wait_seconds(self) -> float:
        """Return the seconds that a new attempt has to wait for its turn."""
        return max(0.0, self._earliest - (_AT_ONCE - 1) * _TURN_SECONDS - self._clock())

    def take_turn(self, longest: float = 0.0) -> float | None:
        """Take the next turn; return the seconds until it, `None` if more than *longest*.

        An attempt that cannot wait so long takes none.
        """
        with self._lock:
            wait = self.wait_seconds()
            if wait > longest:
                return None
            self._earliest = max(self._earliest, self._clock()) + _TURN_SECONDS
            return wait

    def check(self, given: str, token: str) -> bool:
        """Return whether *given* is the token; False without a turn."""
        return self.take_turn() is not None and matches(given, token)


def matches(given: str, token: str) -> bool:
    """Return whether *given* is the token, in constant time."""
    return hmac.compare_digest(*(text.encode("utf-8", "surrogatepass") for text in (given, token)))


@st.cache_resource(show_spinner=False)
def _attempts() -> Attempts:
    return Attempts()


def visitor(config: DashboardConfig) -> Visitor:
    """Return the visitor; one who is not logged in sees only the login page."""
    if _has_oidc():
        return _of_oidc(config)
    if config.token is None:
        # reading needs no name; writing does, and `glasscache dashboard --write` generates a token
        return Visitor("", may_write=False, why_not=_READ_ONLY)
    name = _logged_in(config.namespace)
    if name is None:
        _ask_for_token(config)
        st.stop()
    return Visitor(name, config.write, "" if config.write else _READ_ONLY, can_leave=True)


def keep_login() -> None:
    """Let the browser keep a login that was just made: call it at the end of a page."""
    if ticket := st.session_state.pop("ticket", None):
        _keep(f"{{method: 'POST', headers: {{'{TICKET}': '{ticket}'}}}}")


def leave() -> None:
    """End the visitor's login, in all tabs, and remove the browser's cookie."""
    SESSIONS.end(st.session_state["signed_in"])
    st.session_state["signed_in"] = ""
    st.session_state["leaving"] = True


def has_left(who: Visitor) -> bool:
    """Return whether the visitor's login has ended since the page was drawn."""
    return who.can_leave and SESSIONS.name(st.session_state["signed_in"]) is None


def _logged_in(namespace: str) -> str | None:
    """Return the name of a login, of this tab or else of the browser's cookie; `None` without one.

    It is read again at every run: a tab that stays open is logged out in time, too.
    """
    login = st.session_state.get("signed_in")
    if login is None:
        headers = st.context.headers
        allowed = st.get_option("server.corsAllowedOrigins")
        if own_origin(headers.get("Origin", ""), headers.get("Host", ""), allowed):
            cookie = cookie_name(namespace, st.get_option("server.port"))
            login = st.context.cookies.get(cookie, "")
            st.session_state["signed_in"] = login
    return SESSIONS.name(login) if login else None


def _keep(request: str) -> None:
    """Let the browser ask for its cookie, or for its removal: a script cannot see either."""
    base = st.get_option("server.baseUrlPath").strip("/")
    path = f"/{base}/{PATH}" if base else f"/{PATH}"
    st.html(f"<script>fetch('{path}', {request})</script>", unsafe_allow_javascript=True)


_READ_ONLY = "Read-only: start with `glasscache dashboard --write` to make changes."


def _has_oidc() -> bool:
    secrets: Any = st.secrets
    return bool(secrets.load_if_toml_exists()) and "auth" in secrets


def _of_oidc(config: DashboardConfig) -> Visitor:
    user: Any = st.user
    if not user.is_logged_in:
        st.title("Log in")
        st.write("This dashboard is open to all users of your identity provider.")
        st.button("Log in", type="primary", on_click=st.login)
        st.stop()
    name = str(user.get("email") or user.get("name") or user.get("sub") or "")
    if not config.write:
        return Visitor(name, may_write=False, why_not=_READ_ONLY)
    # an unverified address can be anybody's
    sound = user.get("email_verified", True) is not False
    if config.writers and not (sound and name in config.writers):
        return Visitor(
            name,
            may_write=False,
            why_not=f"Read-only: {plain(name)} may not make changes.",
        )
    return Visitor(name, may_write=True)


def _ask_for_token(config: DashboardConfig) -> None:
    if st.session_state.pop("leaving", False):
        _keep("{method: 'DELETE'}")
    st.title("Log in")
    st.write(
        "`glasscache dashboard` printed the token where it was started."
        if config.token_printed
        else "The token is what `CACHE_DASHBOARD_TOKEN` was set to where the dashboard was started."
    )
    with st.form("login", width=420):
        name = st.text_input("Your name", help="For the audit trail.", max_chars=80)
        given = st.text_input("Token", type="password")
        sent = st.form_submit_button("Log in", type="primary")
    if not sent:
        return
    brake: Brake = st.session_state.setdefault("brake", Brake())
    if not name.strip():
        st.error("Enter your name: the audit trail records the author of each change.")
        return
    if wait := brake.wait_seconds():
        st.error(f"Too many wrong tokens. Try again in {math.ceil(wait)} s.")
        return
    turn = _attempts().take_turn(_LONGEST_TURN)
    if turn is None:
        st.error("Too many people are logging in. Try again in a minute.")
        return
    time.sleep(turn)
    if matches(given, config.token or ""):
        del st.session_state["brake"]
        login = st.session_state["signed_in"] = SESSIONS.login(name.strip())
        st.session_state["ticket"] = SESSIONS.ticket(login)
        st.rerun()
    brake.failed()
    st.error("That is not the token.")
