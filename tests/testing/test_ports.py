"""Ports of the tests' servers."""

from __future__ import annotations

from tests.support.servers import free_port


def test_no_port_is_given_twice() -> None:
    """Servers that are made before any of them listens get different ports."""
    given = [free_port() for _ in range(200)]
    assert len(set(given)) == len(given)
