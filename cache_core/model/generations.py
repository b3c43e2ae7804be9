"""Generation tokens. An invalidation, or the first put, of a message gives it a new one."""

from __future__ import annotations

import secrets


def token(kind: str) -> str:
    """Return a new token: *kind* is `p` for a put, `i` or `f` for an invalidation."""
    return kind + secrets.token_hex(8)


def token_again(first: str) -> str:
    """Return another token of the same invalidation as *first*."""
    return f"{origin(first)}.{secrets.token_hex(4)}"


def origin(value: str) -> str:
    """Return the invalidation's first token, which *value* was derived from."""
    return value.partition(".")[0]
