"""Logins that survive a reload: signed cookies, and the tickets by which a browser gets one.

No Streamlit. The key is derived from the token, so a new token ends every login.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeTimedSerializer

LIFE_SECONDS = 12 * 3_600
"""Life of a login, in seconds."""

PATH = "session"
"""Path at which a browser gets its cookie, below the base path."""

TICKET = "X-Glasscache-Ticket"
"""Header of that request with the ticket: no other site can send it."""

_TICKET_SECONDS = 60
"""Time between a login and the browser's request for its cookie."""


class Sessions:
    """Signed logins of one token.

    Nothing is stored: a login is a name with a signature and a time.

    Args:
        token: The token that visitors need.
    """

    def __init__(self, token: str) -> None:
        key = token.encode("utf-8", "surrogatepass")
        self._logins = URLSafeTimedSerializer(key, salt="glasscache-login")
        self._tickets = URLSafeTimedSerializer(key, salt="glasscache-ticket")
        # cookies are shared by all ports of a host: each token has its own
        digest = hmac.digest(key, b"glasscache-cookie", "sha256").hex()
        self.cookie = f"glasscache-{digest[:12]}"

    def login(self, name: str) -> str:
        """Return a login of *name*, valid from now on."""
        return str(self._logins.dumps(name))

    def name(self, login: str) -> str | None:
        """Return the name in a login; `None` if it has expired or is not one of ours."""
        return _read(self._logins, login, LIFE_SECONDS)

    def ticket(self, login: str) -> str:
        """Return a ticket for a login: for a script in the page, which must not see the cookie."""
        return str(self._tickets.dumps(login))

    def redeem(self, ticket: str) -> str | None:
        """Return the login of a ticket; `None` if it has expired or is not one of ours."""
        return _read(self._tickets, ticket, _TICKET_SECONDS)


def own_origin(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Return whether a page of this app sent a request.

    Every port of a host gets its cookies, so a page that another program serves there could use
    them.

    Args:
        origin: The request's `Origin`.
        host: Its `Host`.
        allowed: Public origins of the app, as behind a proxy.
    """
    return bool(origin) and (urlsplit(origin).netloc == host or origin in allowed)


def _read(serializer: URLSafeTimedSerializer, text: str, seconds: int) -> str | None:
    try:
        return str(serializer.loads(text, max_age=seconds))
    except BadData:
        return None
