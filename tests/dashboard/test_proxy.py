"""The dashboard behind a real nginx: the ways that recipes on the internet configure one."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from typer.testing import CliRunner

from cache_core.cli.app import app
from cache_core.cli.dashboard import _public
from tests.support import servers

HOST = "ops.example.com"

NGINX = """
daemon off; error_log stderr; pid {directory}/nginx.pid; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
  {servers}
}}
"""

TLS = """listen 127.0.0.1:{port} ssl;
    ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;"""
PLAIN = "listen 127.0.0.1:{port};"
HANDED_ON = "proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"

Ports = dict[str, int]


def _server(listen: str, port: int, directory: Path, location: str) -> str:
    head = listen.format(port=port, directory=directory)
    return f"server {{ {head} server_name {HOST}; location /tuner/ {{ {location} }} }}"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Return nginx's ports: with TLS, with the path stripped, without the browser's Host."""
    nginx, openssl = servers.require("nginx"), servers.require("openssl")
    directory = tmp_path_factory.mktemp("proxy")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         f"/CN={HOST}", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    own = servers.free_port()
    ports = {name: servers.free_port() for name in ("tls", "stripped", "no host")}
    to = f"proxy_pass http://127.0.0.1:{own}"
    config = directory / "nginx.conf"
    config.write_text(
        NGINX.format(
            directory=directory,
            servers=_server(TLS, ports["tls"], directory, f"{HANDED_ON} {to};")
            + _server(PLAIN, ports["stripped"], directory, f"{HANDED_ON} {to}/;")
            + _server(PLAIN, ports["no host"], directory, f"{to};"),
        )
    )
    environment = {**os.environ, "CACHE_DIR": str(directory / "cache"), "REDIS_URL": ""}
    dashboard = [
        str(Path(sys.executable).parent / "glasscache"), "dashboard", "--port", str(own),
        "--public-url", f"https://{HOST}/tuner/",
    ]  # fmt: skip
    with (
        servers.running(dashboard, own, env=environment),
        servers.running([nginx, "-c", str(config), "-p", str(directory)], ports["tls"]),
    ):
        yield {"direct": own, **ports}


def _handshake(port: int, path: str, origin: str, host: str = HOST) -> int:
    """Return the status of a WebSocket handshake; 101 is one that succeeds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(
        "GET",
        path,
        headers={
            "Host": host, "Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )  # fmt: skip
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.slow
@pytest.mark.server
def test_the_pages_live_behind_every_usual_proxy(proxied: Ports) -> None:
    """Path kept or stripped, the browser's Host handed on or not: the socket opens for our origin."""
    stream, ours = "/tuner/_stcore/stream", f"https://{HOST}"
    for name in ("stripped", "no host"):
        assert _handshake(proxied[name], stream, ours) == 101, name
        assert _handshake(proxied[name], stream, "https://evil.example") == 403, name
    assert _handshake(proxied["direct"], stream, ours, "evil.example") == 403
    assert _handshake(proxied["direct"], "/_stcore/stream", ours) == 101


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.server
def test_a_browser_shows_the_pages_by_tls(proxied: Ports) -> None:
    """A page under the public address shows its content, and its links stay under the path."""
    program = servers.require("chromium")
    rule = f"--host-resolver-rules=MAP {HOST} 127.0.0.1:{proxied['tls']}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--headless=new", rule]
        )
        page = browser.new_page(ignore_https_errors=True)
        failed: list[str] = []
        page.on("requestfailed", lambda request: failed.append(f"{request.failure} {request.url}"))
        page.on("response", lambda reply: failed.append(reply.url) if reply.status >= 400 else None)
        page.goto(f"https://{HOST}/tuner/")
        link = page.get_by_role("link", name="Audit")
        expect(link).to_be_visible(timeout=60_000)
        link.click()
        page.wait_for_url(f"https://{HOST}/tuner/audit")
        # The browser cancels what the page it has left still loads.
        assert [one for one in failed if "ERR_ABORTED" not in one] == []
        browser.close()


@pytest.mark.parametrize(
    ("given", "origin", "path"),
    [
        ("https://ops.example.com/tuner/", "https://ops.example.com", "tuner"),
        ("https://ops.example.com", "https://ops.example.com", ""),
        ("http://Ops.Example.com:8080/a/b", "http://ops.example.com:8080", "a/b"),
        ("https://[::1]:443/", "https://[::1]", ""),
    ],
)
def test_a_public_address_in_its_parts(given: str, origin: str, path: str) -> None:
    """Its origin is what a browser sends, with the port only if it is not the scheme's own."""
    found = _public(given)
    assert found is not None
    assert (found.origin, found.path) == (origin, path)


@pytest.mark.parametrize(
    "given",
    ["ops.example.com", "ftp://ops.example.com", "https://me:pw@ops.example.com", "https:///x",
     "https://ops.example.com/?a=b", "https://ops.example.com/../x", "https://ops.example.com:x/",
     "https://ops.example.com/a b", "https://[bad/"],
)  # fmt: skip
def test_what_is_no_public_address_is_rejected(given: str) -> None:
    """The message shows what one looks like, and no traceback."""
    found = CliRunner().invoke(app, ["dashboard", "--public-url", given])
    assert found.exit_code == 2
    assert "https://ops.example.com/tuner/" in found.output
    assert "Traceback" not in found.output
