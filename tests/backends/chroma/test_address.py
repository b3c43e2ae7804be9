"""CHROMA_URL: path, login, tenant, database, ports, IPv6; what could only be ignored is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import chromadb
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from cache_core import MultiLevelCache
from cache_core.backends.chroma.address import parse_chroma_url
from cache_core.backends.chroma.server import connect_server
from cache_core.backends.trust import TrustStoreError
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import BackendError, ConfigurationError
from tests.support import servers
from tests.support.caches import opened
from tests.support.patience import PATIENT
from tests.support.waiting import until

_LOGIN = "Basic " + base64.b64encode(b"agent:p@ss/word").decode()


@pytest.mark.parametrize(
    ("url", "base", "headers", "names"),
    [
        ("http://h", "http://h:80", {}, (None, None)),
        ("https://h", "https://h:443", {}, (None, None)),
        ("http://h:8000/", "http://h:8000", {}, (None, None)),
        ("http://H.example/a/b/", "http://h.example:80/a/b", {}, (None, None)),
        ("http://h/chroma/api/v2", "http://h:80/chroma", {}, (None, None)),
        ("http://[::1]:9", "http://[::1]:9", {}, (None, None)),
        ("https://[fe80::1]/x", "https://[fe80::1]:443/x", {}, (None, None)),
        ("http://agent:p%40ss%2Fword@h", "http://h:80", {"Authorization": _LOGIN}, (None, None)),
        ("http://h?tenant=acme&database=d", "http://h:80", {}, ("acme", "d")),
        ("http://h/?api_key=k%26y", "http://h:80", {"X-Chroma-Token": "k&y"}, (None, None)),
    ],
)
def test_the_parts_of_a_url(
    url: str, base: str, headers: dict[str, str], names: tuple[str | None, str | None]
) -> None:
    """Each where it belongs; without a port it is that of the scheme."""
    assert parse_chroma_url(url) == (base, headers, *names)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "h",
        "ftp://h",
        "http://",
        "http://h:port",
        "http://h:99999",
        "http://h?tenat=acme",
        "http://h?ssl=false",
        "http://h/#part",
        "grpc://me:hunter2@h",
    ],
)
def test_what_could_only_be_ignored_is_refused(url: str) -> None:
    """The constructor names what is not understood, without a password."""
    with pytest.raises(ConfigurationError, match=r"chroma_url=.*expected http") as refused:
        load_settings(chroma_url=url)
    assert "hunter2" not in str(refused.value)


class Proxy:
    """A reverse proxy with a server under /vectors, and under /closed for those who log in."""

    def __init__(self, server: str, *, host: str = "127.0.0.1") -> None:
        self._server = server
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self.port = self._socket.getsockname()[1]
        self.host = host
        self.tokens: list[str | None] = []
        # One for all requests: making one loads certificates, in the caches' event loop.
        self._client = httpx.AsyncClient(timeout=30.0)

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.tokens.append(request.headers.get("x-chroma-token"))
        if path.startswith("/moved/"):
            return RedirectResponse("https://elsewhere.example" + path, 301)
        if path.startswith("/closed/"):
            if request.headers.get("authorization") != _LOGIN:
                return PlainTextResponse("who are you", 401)
        elif not path.startswith(("/vectors/", "/api/")):
            return PlainTextResponse("nothing here", 404)
        place = path[path.index("/api/") :]
        found = await self._client.request(
            request.method, self._server + place,
            params=request.query_params, content=await request.body(),
            headers={"content-type": request.headers.get("content-type", "")},
        )  # fmt: skip
        kind = found.headers.get("content-type")
        return Response(found.content, found.status_code, media_type=kind)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
        app = Starlette(routes=[Route("/{rest:path}", self.answer, methods=methods)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        task = asyncio.create_task(server.serve([self._socket]))
        await until(lambda: server.started or task.done())
        try:
            yield f"[{self.host}]:{self.port}" if ":" in self.host else f"127.0.0.1:{self.port}"
        finally:
            server.should_exit = True
            await task
            await self._client.aclose()


def l2_on(
    directory: Path, url: str, namespace: str
) -> contextlib.AbstractAsyncContextManager[MultiLevelCache]:
    """Open a cache that has L2 alone, on the server at *url*."""
    return opened(
        directory, chroma_url=url, tiers="l2", sharing="all", namespace=namespace,
        semantic_threshold=0.5, **PATIENT,
    )  # fmt: skip


async def found_by_similarity(cache: MultiLevelCache) -> bool:
    await cache.put("alpha beta gamma", "ann", "answer")
    await holds_one(cache)
    async with asyncio.timeout(30):
        # A server may still be writing a collection's very first rows.
        while (await cache.lookup("alpha beta gamma delta", "bob")).tier != "l2":
            await asyncio.sleep(0.05)
    return True


async def holds_one(cache: MultiLevelCache) -> None:
    """Wait until the server was reached, and has one row."""
    async with asyncio.timeout(30):
        while True:
            await cache.ready()
            index = cache._parts.semantic.index  # type: ignore[union-attr]
            with contextlib.suppress(BackendError):
                if index.breaker.state == "closed" and await index.count() == 1:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "path",
    ["{}", "{}/", "{}/vectors", "{}/vectors/", "{}/vectors/api/v2",
     "agent:p%40ss%2Fword@{}/closed", "{}/vectors?api_key=the-key"],
)  # fmt: skip
async def test_a_server_behind_a_proxy(tmp_path: Path, chroma_url: str, path: str) -> None:
    """With and without a path, a slash, a login: the answers are in the server behind it."""
    proxy = Proxy(chroma_url)
    namespace = f"proxy-{abs(hash(path))}"
    async with (
        proxy.serving() as place,
        l2_on(tmp_path, "http://" + path.format(place), namespace) as cache,
    ):
        assert await found_by_similarity(cache)
    assert set(proxy.tokens) == {"the-key" if "api_key" in path else None}
    async with l2_on(tmp_path / "direct", chroma_url, namespace) as direct:
        # Its secret is another, so it cannot serve it; the row is there.
        await holds_one(direct)


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")
async def test_an_ipv6_address(tmp_path: Path, chroma_url: str) -> None:
    """A literal in brackets."""
    async with (
        Proxy(chroma_url, host="::1").serving() as place,
        l2_on(tmp_path, f"http://{place}/vectors", "ipv6") as cache,
    ):
        assert await found_by_similarity(cache)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("{}/elsewhere", ["HTTP 404", "path in chroma_url="]),
        ("agent:wrong@{}/closed", ["HTTP 401", "password in chroma_url="]),
        ("{}/moved", ["HTTP 301", "https://elsewhere.example", "redirects"]),
        ("{}/vectors?tenant=nobody", ["nobody"]),
    ],
)
async def test_a_refusal_says_what_was_answered(
    tmp_path: Path, chroma_url: str, caplog: pytest.LogCaptureFixture, path: str, told: list[str]
) -> None:
    """L2 is an error, and the log has the answer and what to correct; no password."""
    async with Proxy(chroma_url).serving() as place:
        url = "http://" + path.format(place)
        async with l2_on(tmp_path, url, "refused") as cache:
            assert (await cache.lookup("alpha", "ann")).outcome == "error"
            await until(lambda: "a backend is unavailable: " in caplog.text)
    for words in told:
        assert words in caplog.text
    assert "wrong" not in caplog.text
    assert "REDIS_URL" not in caplog.text


@pytest.fixture
def acme(chroma_url: str) -> Iterator[None]:
    admin = chromadb.AdminClient(
        chromadb.Settings(  # type: ignore[attr-defined]
            chroma_api_impl="chromadb.api.fastapi.FastAPI",
            chroma_server_host="127.0.0.1",
            chroma_server_http_port=servers.port_of(chroma_url),
        )
    )
    admin.create_tenant("acme")
    admin.create_database("answers", "acme")
    yield
    admin.delete_database("answers", "acme")


async def test_a_tenant_and_its_database(tmp_path: Path, chroma_url: str, acme: None) -> None:
    """Entries are stored in the database of the address, and in no other."""
    url = f"{chroma_url}?tenant=acme&database=answers"
    async with l2_on(tmp_path, url, "tenants") as cache:
        assert await found_by_similarity(cache)
    async with l2_on(tmp_path, chroma_url, "tenants") as cache:
        assert (await cache.lookup("alpha beta gamma delta", "bob")).tier is None


async def test_logins_are_not_mixed_up(tmp_path: Path, chroma_url: str) -> None:
    """Two servers in one event loop: no login goes to the other one."""
    ours, theirs = Proxy(chroma_url), Proxy(chroma_url)
    async with (
        ours.serving() as first,
        theirs.serving() as second,
        l2_on(tmp_path / "a", f"http://{first}/vectors?api_key=secret", "a") as one,
        l2_on(tmp_path / "b", f"http://{second}/vectors", "b") as two,
    ):
        assert await found_by_similarity(one)
        assert await found_by_similarity(two)
    assert set(ours.tokens) == {"secret"}
    assert set(theirs.tokens) == {None}


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_a_certificate_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    """Connections verify certificates, and have a time limit."""
    made: list[dict[str, Any]] = []
    real = httpx.AsyncClient.__init__

    def noted(self: httpx.AsyncClient, **values: Any) -> None:
        made.append(values)
        real(self, **values)

    monkeypatch.setattr(httpx.AsyncClient, "__init__", noted)
    port = servers.free_port()
    async with l2_on(tmp_path, f"{scheme}://127.0.0.1:{port}", "tls"):
        pass
    assert made
    assert all(values.get("verify", True) is True and values["timeout"] for values in made)


async def test_a_file_of_authorities_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is named with its variable: Chroma, which may well run, is not blamed for it."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/missing.pem")
    told = f"SSL_CERT_FILE={tmp_path}/missing.pem cannot be loaded"
    with pytest.raises(TrustStoreError, match=re.escape(told)):
        await connect_server("https://127.0.0.1:1", 1.0)
