"""Logins that survive a reload, by a cookie, and the tickets by which a browser gets one.

No Streamlit. The process keeps both in memory, and their ids are random: there is no key to guess,
a logout ends a login everywhere, and a restart ends all of them.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple
from urllib.parse import urlsplit

LIFE_SECONDS = 8 * 3_600
"""Life of a login, in seconds: a working day."""

PATH = "session"
"""Path at which a browser gets its cookie, below the base path."""

TICKET = "X-Glasscache-Ticket"
"""Header of that request with the ticket: no other site can send it."""

_TICKET_SECONDS = 60
"""Time between a login and the browser's request for its cookie."""


class _Kept(NamedTuple):
    """Name of a login, or login of a ticket, with its end in seconds of the clock."""

    value: str
    end: float


class Sessions:
    """Logins and tickets of a process. Thread-safe.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._logins: dict[str, _Kept] = {}
        self._tickets: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def login(self, name: str) -> str:
        """Return the id of a new login of *name*."""
        return self._add(self._logins, name, LIFE_SECONDS)

    def name(self, login: str) -> str | None:
        """Return the name in a login; `None` if it has ended, or is not one of ours."""
        return self._valid(self._logins.get(login))

    def end(self, login: str) -> None:
        """End a login, in every tab that uses it."""
        self._logins.pop(login, None)

    def ticket(self, login: str) -> str:
        """Return a ticket for a login: for a script in the page, which must not see the cookie."""
        return self._add(self._tickets, login, _TICKET_SECONDS)

    def redeem(self, ticket: str) -> str | None:
        """Return the login of a ticket, once; `None` if it has expired or is not one of ours."""
        return self._valid(self._tickets.pop(ticket, None))

    def _add(self, to: dict[str, _Kept], value: str, seconds: int) -> str:
        with self._lock:
            for old in [name for name, kept in to.items() if self._valid(kept) is None]:
                to.pop(old, None)
            new = secrets.token_urlsafe(32)
            to[new] = _Kept(value, self._clock() + seconds)
            return new

    def _valid(self, kept: _Kept | None) -> str | None:
        return kept.value if kept is not None and self._clock() <= kept.end else None


SESSIONS = Sessions()
"""Sessions of this process, for the app and for the route that gives cookies."""


def cookie_name(namespace: str, port: int) -> str:
    """Return the cookie's name: all ports of a host share its cookies, so each app has its own."""
    return f"glasscache-{namespace}-{port}"


def own_origin(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Return whether a page of this app sent a request.

    Every port of a host gets its cookies, so a page that another program serves there could use
    them.

    Args:
        origin: The request's `Origin`.
        host: Its `Host`.
        allowed: Public origins of the app, as behind a proxy.
    """
    try:
        return bool(origin) and (urlsplit(origin).netloc == host or origin in allowed)
    except ValueError:
        return False
