"""JSON documents of HTTP servers that misbehave."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator

import pytest

from cache_core.backends.web import fetch_json
from cache_core.model.exceptions import BackendError


@contextlib.contextmanager
def serving(reply: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the host and port of a server that sends *reply*, and the requests that it got."""
    got: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = iter(lambda: self.rfile.readline().decode().strip(), "")
            got.append("\n".join(lines))
            self.wfile.write(reply.encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", got
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("SSH-2.0-OpenSSH_9.6\r\n", "BadStatusLine"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}", "IncompleteRead"),
        ("HTTP/1.0 200 OK\r\n\r\nno JSON", "JSONDecodeError"),
    ],
)
def test_a_server_of_another_kind(reply: str, kind: str) -> None:
    """Its reply becomes an error of ours, without its text."""
    with serving(reply) as (place, _), pytest.raises(BackendError) as raised:
        fetch_json(f"http://{place}", "/")
    assert raised.value.error_type == kind
    assert "SSH" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://h:909O", "http://[::1", "http://u:p4ss/word@host", "ftp://h", "http://h:1/a b"]
)
def test_an_address_that_is_none(url: str) -> None:
    """It is an error of ours, which has no part of a password."""
    with pytest.raises(BackendError) as raised:
        fetch_json(url, "/")
    assert "p4ss" not in str(raised.value)


@pytest.mark.parametrize(("login", "token"), [("ann:secret@", None), ("", "secret")])
def test_a_login_stays_with_its_host(login: str, token: str | None) -> None:
    """A server that redirects elsewhere does not pass it on."""
    with (
        serving("HTTP/1.0 200 OK\r\n\r\n[1]") as (other, forwarded),
        serving(f"HTTP/1.0 302 Found\r\nLocation: http://{other}/\r\n\r\n") as (place, asked),
    ):
        assert fetch_json(f"http://{login}{place}", "/", token=token) == [1]
    assert "Authorization" in asked[0]
    assert "Authorization" not in forwarded[0]
