"""Caching proxy: the contract of adapters through OpenAI's client, and credentials, headers, paths."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn

from glasscache import MultiLevelCache
from glasscache.integrations.gate import acting_user, controlled
from glasscache.integrations.proxy import Proxy
from glasscache.testing import FakeModel
from glasscache.testing.contracts import AdapterContract, Ask, Bench
from glasscache.testing.contracts.adapter import Feature
from tests.integrations.test_openai import NO_STATE, ChatBench, ResponsesBench, openai

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Where do you deliver?"}]}


@pytest.fixture
async def proxied(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a proxy in front of a model that needs the key `k`."""
    fake_model.key = "k"
    app = Proxy(plain_cache, fake_model.url, user_header="X-User")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        client.headers["authorization"] = "Bearer k"
        yield client
    await app.client.aclose()


async def ask(client: httpx.AsyncClient, name: str = "ann", **more: Any) -> httpx.Response:
    headers = {"x-user": name} if name else {}
    headers |= more.pop("headers", {})
    return await client.post("/v1/chat/completions", json={**QUESTION, **more}, headers=headers)


async def test_headers_show_what_the_cache_did(proxied: httpx.AsyncClient) -> None:
    """A miss, its hit with tier, similarity and age, and a bypass with its reason."""
    first, again = await ask(proxied), await ask(proxied)
    assert first.json()["choices"] == again.json()["choices"]
    assert again.json()["usage"]["total_tokens"] == 0
    assert first.headers["x-glasscache-outcome"] == "miss"
    shown = {name: again.headers[f"x-glasscache-{name}"] for name in
             ("outcome", "tier", "similarity", "age")}  # fmt: skip
    assert shown == {"outcome": "hit", "tier": "l1", "similarity": "1.0000", "age": "0"}
    several = await ask(proxied, n=2)
    assert several.headers["x-glasscache-outcome"] == "bypass"
    assert several.headers["x-glasscache-reason"] == "several_answers"


async def test_only_the_named_header_names_the_user(
    proxied: httpx.AsyncClient, fake_model: FakeModel
) -> None:
    """Another user, and a request without the header, do not get ann's answer."""
    await ask(proxied)
    for name in ("bob", "", ""):
        assert (await ask(proxied, name, user="ann")).headers["x-glasscache-outcome"] == "miss"
    assert fake_model.calls == 4


async def test_a_hit_is_authenticated_like_a_miss(
    proxied: httpx.AsyncClient, fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wrong key, or one that was revoked since, the provider's refusal is the reply."""
    await ask(proxied)
    wrong = await ask(proxied, headers={"authorization": "Bearer wrong"})
    assert wrong.status_code == 401
    assert (await ask(proxied)).status_code == 200
    fake_model.key = "another"
    monkeypatch.setattr("glasscache.integrations.proxy._TRUSTED_SECONDS", 0.0)
    assert (await ask(proxied)).status_code == 401


async def test_a_stream_is_stored_and_replayed(
    proxied: httpx.AsyncClient, fake_model: FakeModel
) -> None:
    """A stream's text is the same again, by any of the two ways to ask for it."""
    first, again = await ask(proxied, stream=True), await ask(proxied, stream=True)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert first.text.endswith("data: [DONE]\n\n")
    assert again.text.endswith("data: [DONE]\n\n")
    whole = await ask(proxied)
    assert whole.json()["choices"][0]["message"]["content"] == "Answer 1 to Where do you deliver?"
    assert fake_model.calls == 1


async def test_a_client_may_ask_anew(proxied: httpx.AsyncClient, fake_model: FakeModel) -> None:
    """`no-cache`, and an age that cannot be read, go to the model; `no-store` leaves nothing."""
    await ask(proxied, headers={"cache-control": "no-store"})
    first = await ask(proxied)
    anew = await ask(proxied, headers={"cache-control": "no-cache"})
    assert first.json()["choices"] != anew.json()["choices"]
    for value in ("max-age=60", "no-store", 'max-age="60", no-transform'):
        again = await ask(proxied, headers={"cache-control": value})
        assert again.json()["choices"] == anew.json()["choices"]
    assert fake_model.calls == 3
    assert (await ask(proxied, headers={"cache-control": "Max-Age=soon"})).is_success
    assert fake_model.calls == 4


async def test_everything_else_passes(proxied: httpx.AsyncClient, fake_model: FakeModel) -> None:
    """Other paths, bodies that are no JSON, and errors of the provider are as without a proxy."""
    models = await proxied.get("/v1/models")
    assert models.json()["data"][0]["id"] == "fake"
    assert (await proxied.get("/v1/other")).status_code == 404
    health = await proxied.get("/ops/health/live")
    assert health.json() == {"alive": True}


@pytest.mark.parametrize(
    "body",
    [b'{"messages": 5}', b'{"stream_options": "x", "messages": [{"role": "user", "content": "a"}]}',
     b'{"temperature": NaN, "messages": [{"role": "user", "content": "a"}]}'],
)  # fmt: skip
async def test_a_body_of_another_shape_is_for_the_provider(
    plain_cache: MultiLevelCache, body: bytes
) -> None:
    """It gets the bytes that the client sent; the cache raises nothing."""
    async with recorded(plain_cache) as (client, sent):
        reply = await client.post("/v1/chat/completions", content=body)
    assert reply.headers["x-glasscache-reason"] == "opaque"
    assert [request.content for request in sent] == [body]


async def test_requests_and_replies_pass_unchanged(plain_cache: MultiLevelCache) -> None:
    """A compressed body keeps its header, a path its escapes, two cookies stay two."""
    async with recorded(plain_cache) as (client, sent):
        reply = await client.put(
            "/v1/files/a%2Fb%3F?limit=%20", content=b"zipped", headers={"content-encoding": "gzip"}
        )
        await client.get("/v1beta/models")
    assert sent[0].headers["content-encoding"] == "gzip"
    assert [request.url.raw_path for request in sent] == [
        b"/v1/files/a%2Fb%3F?limit=%20",
        b"/v1/v1beta/models",
    ]
    assert reply.headers.get_list("set-cookie") == ["a=1; Path=/, b", "c=2"]


async def test_a_query_is_context(proxied: httpx.AsyncClient, fake_model: FakeModel) -> None:
    """Another version of the API is another answer."""
    for version in ("1", "2", "2"):
        await proxied.post(
            "/v1/chat/completions", json=QUESTION, params={"api-version": version},
            headers={"x-user": "ann"},
        )  # fmt: skip
    assert fake_model.calls == 2


async def test_two_users_are_none(proxied: httpx.AsyncClient) -> None:
    """A user's header that came beside the gateway's names nobody."""
    await ask(proxied)
    both = [("authorization", "Bearer k"), ("x-user", "bob"), ("x-user", "ann")]
    reply = await proxied.post("/v1/chat/completions", json=QUESTION, headers=both)
    assert reply.headers["x-glasscache-outcome"] == "miss"


async def test_a_stream_without_an_end_is_cut_short(plain_cache: MultiLevelCache) -> None:
    """A provider that closes a stream before it says why it ended has not said everything."""
    said = b'data: {"choices": [{"index": 0, "delta": {"content": "At nine."}}]}\n\n'
    provider = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=said)
    )
    app = Proxy(plain_cache, "http://provider/v1", client=httpx.AsyncClient(transport=provider))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        assert (await ask(client, stream=True)).content == said
    await app.client.aclose()
    assert plain_cache.metrics.put_outcome_reasons == {("bypass", "cut_short"): 1}


@contextlib.asynccontextmanager
async def recorded(
    cache: MultiLevelCache,
) -> AsyncIterator[tuple[httpx.AsyncClient, list[httpx.Request]]]:
    """A client of a proxy whose provider accepts everything, and the requests that it got."""
    sent: list[httpx.Request] = []

    def accept(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(
            200, headers=[("set-cookie", "a=1; Path=/, b"), ("set-cookie", "c=2")], json={}
        )

    provider = httpx.AsyncClient(transport=httpx.MockTransport(accept))
    app = Proxy(cache, "http://provider/v1", client=provider)
    transport = httpx.ASGITransport(app=app)
    async with provider, httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        yield client, sent


async def test_a_provider_that_is_unavailable(
    plain_cache: MultiLevelCache, fake_model: FakeModel
) -> None:
    """Its absence is a 502 that names it, without the key or the question."""
    app = Proxy(plain_cache, "http://127.0.0.1:9/v1")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        reply = await ask(client)
    await app.client.aclose()
    assert reply.status_code == 502
    assert "cannot be reached" in reply.json()["error"]["message"]


# ------------------------------------------------------------------------------------ contract


class Proxied(ChatBench):
    """Chat completions of the async client, which knows nothing of a cache."""

    base = ""

    def client(self, ask: Ask) -> Any:
        wants = controlled()
        said = {"no-cache": wants["no_lookup"], "no-store": wants["no_store"]}
        headers = self.headers(ask)
        headers["cache-control"] = ", ".join(name for name, wanted in said.items() if wanted)
        if (user := acting_user()) is not None:
            headers["x-user"] = user
        url = f"{self.base}/{ask.provider or 'usual'}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key="k", default_headers=headers)


class ProxiedResponses(ResponsesBench):
    """Responses of the async client."""

    base = ""
    client = Proxied.client


@contextlib.asynccontextmanager
async def serving(bench: Any) -> AsyncIterator[Bench]:
    """Serve a proxy for each of the two providers, on a port."""
    proxies = {
        name: Proxy(bench.cache, bench.url(Ask(provider=other)), user_header="X-User")
        for name, other in (("usual", ""), ("other", "other"))
    }

    async def either(scope: Any, receive: Any, send: Any) -> None:
        _, name, *rest = scope["path"].split("/")
        await proxies[name]({**scope, "path": "/" + "/".join(rest)}, receive, send)

    async with served(either) as bench.base:
        yield bench
    for proxy in proxies.values():
        await proxy.client.aclose()


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="critical"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await running


class Endless(httpx.AsyncByteStream):
    """A provider's stream whose second event never comes."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'data: {"choices": [{"index": 0, "delta": {"content": "At"}}]}\n\n'
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed.set()


async def test_a_client_that_leaves_ends_the_providers_stream(
    plain_cache: MultiLevelCache,
) -> None:
    """The provider need not write what nobody reads; nothing is stored, and that is counted."""
    endless = Endless()
    reply = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=endless)
    provider = httpx.MockTransport(lambda _: reply)
    app = Proxy(plain_cache, "http://provider/v1", client=httpx.AsyncClient(transport=provider))
    async with served(app) as url, httpx.AsyncClient() as client, asyncio.timeout(60):
        asked = {**QUESTION, "stream": True}
        async with client.stream("POST", f"{url}/v1/chat/completions", json=asked) as stream:
            async for _ in stream.aiter_bytes():
                break
        await endless.closed.wait()
        counts = plain_cache.metrics.put_outcome_reasons
        while not counts["bypass", "cut_short"]:
            await asyncio.sleep(0.01)
    assert plain_cache.metrics.put_outcomes["stored"] == 0
    await app.client.aclose()


# In its place: test_a_client_that_leaves_ends_the_providers_stream.
LEAVING: dict[Feature, str] = {
    "leaving": "what a fast provider has said is whole before its client leaves; a slow one's "
    "stream is ended, and not stored"
}


class TestChatThroughTheProxy(AdapterContract):
    """proxy, chat."""

    @pytest.fixture
    async def bench(
        self, plain_cache: MultiLevelCache, fake_model: FakeModel
    ) -> AsyncIterator[Bench]:
        made = Proxied(plain_cache, fake_model, {**NO_STATE, **LEAVING})
        async with serving(made) as bench:
            yield bench


class TestResponsesThroughTheProxy(AdapterContract):
    """proxy, responses."""

    @pytest.fixture
    async def bench(
        self, plain_cache: MultiLevelCache, fake_model: FakeModel
    ) -> AsyncIterator[Bench]:
        async with serving(ProxiedResponses(plain_cache, fake_model, LEAVING)) as bench:
            yield bench
