"""URLs for display and comparison."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SECRET_ARGUMENT = re.compile(
    r"([?&;][^=&;#]*(?:pass|pwd|secret|token|credential|auth|api_?key)[^=&;#]*=)[^&#]*",
    re.IGNORECASE,
)


def has_sound_port(url: str) -> bool:
    """Return whether *url* has no port or a valid one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def without_secrets(url: str) -> str:
    """Return *url* without user and password, before the host or as `?...=`, for display.

    Text that is no URL is masked, too: it may be a mistyped one.
    """
    url = _SECRET_ARGUMENT.sub(r"\1***", url)
    scheme, border, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    return f"{scheme}{border}***@{place}" if at else url
