"""Who looks, and whether they may change anything."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.config import DashboardConfig

_LONGEST_WAIT = 60.0
_FREE_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever looks at the app.

    Attributes:
        name: As the audit trail says it.
        may_write: Whether they may make changes.
        why_not: What it would take, in words, when they may not.
    """

    name: str
    may_write: bool
    why_not: str = ""


class Attempts:
    """Slows down whoever guesses: after three wrong tokens each next one has to wait longer.

    One for the whole process: an address is nothing to go by behind a proxy.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong = 0
        self._not_before = 0.0

    def wait_seconds(self) -> float:
        """Return how long the next attempt has to wait."""
        return max(0.0, self._not_before - self._clock())

    def check(self, given: str, token: str) -> bool:
        """Return whether *given* is the token; during a wait nothing is."""
        if self.wait_seconds() > 0:
            return False
        if hmac.compare_digest(given.encode(), token.encode()):
            self._wrong = 0
            return True
        self._wrong += 1
        if self._wrong > _FREE_ATTEMPTS:
            wait = min(_LONGEST_WAIT, 2.0 ** (self._wrong - _FREE_ATTEMPTS))
            self._not_before = self._clock() + wait
        return False


@st.cache_resource(show_spinner=False)
def _attempts() -> Attempts:
    return Attempts()


def visitor(config: DashboardConfig) -> Visitor:
    """Return who looks; whoever still has to log in sees only how, and the page ends there."""
    if _has_oidc():
        return _of_oidc(config)
    if config.token is None:
        # Reading needs no name. Writing does, and `glasscache dashboard --write` makes a token.
        return Visitor("", may_write=False, why_not=_READ_ONLY)
    name = st.session_state.get("visitor")
    if name is None:
        _ask_for_token(config.token)
        st.stop()
    return Visitor(str(name), may_write=config.write, why_not="" if config.write else _READ_ONLY)


_READ_ONLY = "Read-only: start with `glasscache dashboard --write` to make changes."


def _has_oidc() -> bool:
    secrets: Any = st.secrets
    return bool(secrets.load_if_toml_exists()) and "auth" in secrets


def _of_oidc(config: DashboardConfig) -> Visitor:
    user: Any = st.user
    if not user.is_logged_in:
        st.title("Log in")
        st.write("This dashboard is open to those whom your identity provider knows.")
        st.button("Log in", type="primary", on_click=st.login)
        st.stop()
    name = str(user.get("email") or user.get("name") or user.get("sub") or "")
    if not config.write:
        return Visitor(name, may_write=False, why_not=_READ_ONLY)
    # An address that nobody verified can be anybody's.
    sound = user.get("email_verified", True) is not False
    if config.writers and not (sound and name in config.writers):
        return Visitor(
            name, may_write=False, why_not=f"Read-only: {name} is not among those who may write."
        )
    return Visitor(name, may_write=True)


def _ask_for_token(token: str) -> None:
    st.title("Log in")
    st.write("`glasscache dashboard` printed the token where it was started.")
    with st.form("login", width=420):
        name = st.text_input("Your name", help="For the audit trail.", max_chars=80)
        given = st.text_input("Token", type="password")
        sent = st.form_submit_button("Log in", type="primary")
    if not sent:
        return
    attempts = _attempts()
    wait = attempts.wait_seconds()
    if not name.strip():
        st.error("Say who you are: the audit trail names whoever makes a change.")
    elif wait > 0:
        st.error(f"Too many wrong tokens. Try again in {wait:.0f} s.")
    elif attempts.check(given, token):
        st.session_state["visitor"] = name.strip()
        st.rerun()
    else:
        st.error("That is not the token.")
