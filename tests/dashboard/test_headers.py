"""Headers by which a browser shows our pages in no frame, and loads nothing from elsewhere."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telemetry.http import asgi_app
from tests.support import servers


def _headers(port: int, path: str) -> dict[str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return {name.lower(): value for name, value in answer.getheaders()}


@pytest.mark.slow
def test_every_response_of_the_dashboard_has_them(tmp_path: Path) -> None:
    """Pages, assets, errors and Streamlit's own endpoints, as `glasscache dashboard` serves them."""
    port = servers.free_port()
    environment = {**os.environ, "CACHE_DIR": str(tmp_path)}
    command = [str(Path(sys.executable).parent / "glasscache"), "dashboard", "--port", str(port)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 0.2).close()
                    break
                except OSError:
                    assert time.monotonic() < until
                    assert process.poll() is None
                    time.sleep(0.1)
            for path in ("/", "/audit", "/_stcore/health", "/static/none.js", "/../etc/passwd"):
                found = _headers(port, path)
                assert found["x-frame-options"] == "DENY", path
                assert found["x-content-type-options"] == "nosniff", path
                assert found["referrer-policy"] == "no-referrer", path
                policy = found["content-security-policy"]
                for part in ("default-src 'self'", "frame-ancestors 'none'", "object-src 'none'"):
                    assert part in policy, path
                assert "http:" not in policy
        finally:
            process.terminate()


@pytest.mark.parametrize("path", ["/metrics", "/healthz/live", "/nothing"])
async def test_our_own_endpoints_have_them(path: str) -> None:
    """A browser runs nothing of a response of `telemetry.asgi_app`: it is data."""
    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    await asgi_app(None)(scope, receive, send)  # type: ignore[arg-type]
    found = dict(sent[0]["headers"])  # type: ignore[call-overload]
    assert found[b"x-frame-options"] == b"DENY"
    assert found[b"x-content-type-options"] == b"nosniff"
    assert b"default-src 'none'" in found[b"content-security-policy"]
