"""URL of a Redis behind Sentinels: `redis+sentinel://host:26379,host2/mymaster/0`."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
DEFAULT_PORT = 26_379

_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<login>.*)@)?(?P<hosts>[^/?@]+)"
    r"/(?P<service>[^/?#]+)(?P<rest>/\d*)?(?:\?(?P<query>[^#]*))?"
)
_OWN = "sentinel_"


class SentinelAddress(NamedTuple):
    """A parsed Sentinel URL.

    Attributes:
        sentinels: Host and port of each Sentinel.
        service: Name of the master.
        server: URL with the login, database and options of the Redis server; its host is unused.
        login: `username` and `password` of the Sentinels themselves, where given.
        tls: Whether the Sentinels are asked over TLS, with the options of the Redis server.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    server: str
    login: dict[str, str]
    tls: bool = False


def parse_sentinel_url(url: str) -> SentinelAddress:
    """Return the parts of *url*.

    Its login, database and options are those of the Redis server; `sentinel_username`,
    `sentinel_password` and `sentinel_ssl` in the query are those of the Sentinels.

    Raises:
        ValueError: For any other URL.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("expected redis+sentinel://host:port,host2:port/name-of-master/db")
    sentinels = tuple(_host(part) for part in found["hosts"].split(","))
    options = parse_qsl(found["query"] or "", keep_blank_values=True)
    login = {name.removeprefix(_OWN): value for name, value in options if name.startswith(_OWN)}
    tls = login.pop("ssl", "false").lower()
    if not login.keys() <= {"username", "password"} or tls not in {"true", "false"}:
        raise ValueError(
            "of the Sentinels, only sentinel_username, sentinel_password and sentinel_ssl, true or "
            "false, are known"
        )
    query = urlencode([(name, value) for name, value in options if not name.startswith(_OWN)])
    user = f"{found['login']}@" if found["login"] else ""
    server = f"{found['scheme']}://{user}sentinel{found['rest'] or ''}"
    return SentinelAddress(
        sentinels,
        unquote(found["service"]),
        f"{server}?{query}" if query else server,
        login,
        tls == "true",
    )


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text.strip()}")
    if not parts.hostname or parts.port == 0:
        raise ValueError(f"a Sentinel is host:port, not {text!r}")
    return parts.hostname, parts.port or DEFAULT_PORT
