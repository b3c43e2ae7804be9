"""Caching proxy in front of an OpenAI-compatible provider, as an ASGI application.

Chat completions and responses are answered from the cache, whole and as streams; every other
request passes. A hit is authenticated like a miss, by the provider: an answer belongs to the
credentials that it was asked for with, and those are checked again every few minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx

from cache_core import MultiLevelCache
from cache_core.config.intents import MAX_TTL
from glasscache.integrations import wire
from glasscache.integrations.contract import (
    Reply,
    Request,
    chat_reply,
    cut_short,
    request_of,
    responses_reply,
)
from glasscache.integrations.gate import Found, Gate, as_user, control
from glasscache.telemetry import asgi_app

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

_CREDENTIALS = ("authorization", "api-key", "x-api-key", "openai-organization", "openai-project")
_SHAPING = (
    "openai-beta", "helicone-target-provider", "helicone-target-url", "x-portkey-config",
    "x-portkey-provider", "x-portkey-virtual-key",
)  # fmt: skip
"""Headers that choose the model behind an address, or what it does."""

_OF_THE_CONNECTION = frozenset({
    "accept-encoding", "connection", "content-length", "host", "keep-alive",
    "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
_TRUSTED_SECONDS = 300.0
"""Seconds for which credentials that the provider accepted are good for hits."""

_MOST_CREDENTIALS = 10_000


class _Api(NamedTuple):
    """One of the two cached APIs: see `glasscache.integrations.openai`."""

    turns: str
    defaults: Mapping[str, Any]
    make: Callable[[str, str], wire.JSON]
    events: Callable[[wire.JSON, bool], list[wire.JSON]]
    read: Callable[[wire.JSON], Reply]
    join: Callable[[Iterable[wire.JSON]], wire.JSON]


_APIS = {
    "/chat/completions": _Api(
        "messages", {}, wire.chat_completion,
        lambda made, usage: wire.chat_chunks(made, usage=usage), chat_reply, wire.joined_chunks,
    ),
    "/responses": _Api(
        "input", {"store": True}, wire.response, lambda made, _: wire.response_events(made),
        responses_reply, wire.last_response,
    ),
}  # fmt: skip


@dataclass
class Proxy:
    """The proxy.

    Attributes:
        cache: The cache; open while the application is.
        upstream: Base URL of the provider, as SDKs take it: with `/v1`.
        user_header: Header with the verified user, set by a gateway that clients cannot pass by.
        shared: Whether all users of the same credentials share their answers.
        client: Sends requests to the provider.
    """

    cache: MultiLevelCache
    upstream: str
    user_header: str = ""
    shared: bool | None = None
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=httpx.Timeout(600.0, connect=10.0))
    )

    def __post_init__(self) -> None:
        self._gate = Gate(self.cache, shared=self.shared)
        self._operations = asgi_app(self.cache)
        self._accepted: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve a request, or follow the server's lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/ops/"):
            await self._operations({**scope, "root_path": "/ops"}, receive, send)
        elif scope["type"] == "http":
            await self._serve(_Call(scope, await _body(receive), receive, send))

    async def _live(self, receive: Any, send: Any) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup":
                await self.cache.initialize()
            else:
                await self.cache.close()
                await self.client.aclose()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    async def _serve(self, call: _Call) -> None:
        api = _APIS.get(call.path) if call.method == "POST" else None
        body = call.json() if api is not None else None
        if api is None or body is None:
            await self._pass(call, None, None, {})
            return
        request = self._request(call, body, api)
        named = [value for name, value in call.pairs if name == self.user_header.lower()]
        user = named[0] if len(named) == 1 else None  # of two, one is not the gateway's
        with as_user(user), control(**_control(call)):
            found = await self._gate.find(request)
        if found.text is not None and await self._accepts(call):
            await self._replay(call, api, body, found)
        else:
            # what a provider does not accept is for it to refuse
            await self._pass(call, api, found._replace(text=None), _shown(found, "miss"))

    def _request(self, call: _Call, body: Mapping[str, Any], api: _Api) -> Request:
        parameters = {**api.defaults, **body}
        turns = parameters.pop(api.turns, None) or []
        parameters["extra_query"] = call.query or None
        parameters["extra_headers"] = {
            name: value for name, value in call.headers.items() if name in _SHAPING
        }
        provider = f"{self.upstream} {call.credentials}"
        return request_of(turns, parameters, provider=provider)

    async def _accepts(self, call: _Call) -> bool:
        """Return whether the provider accepts the credentials of a call."""
        now = time.monotonic()
        if self._accepted.get(call.credentials, -_TRUSTED_SECONDS) > now - _TRUSTED_SECONDS:
            return True
        headers = {name: call.headers[name] for name in _CREDENTIALS if name in call.headers}
        try:
            asked = await self.client.get(f"{self.upstream}/models", headers=headers, timeout=10.0)
        except httpx.HTTPError:
            return False
        if asked.is_success:
            self._accept(call)
        return asked.is_success

    def _accept(self, call: _Call) -> None:
        self._accepted.pop(call.credentials, None)
        self._accepted[call.credentials] = time.monotonic()
        while len(self._accepted) > _MOST_CREDENTIALS:
            del self._accepted[next(iter(self._accepted))]

    async def _replay(self, call: _Call, api: _Api, body: Mapping[str, Any], found: Found) -> None:
        """Send a stored answer as the provider would."""
        made = api.make(found.text or "", str(body.get("model", "")))
        shown = _shown(found, "hit")
        if not body.get("stream"):
            await call.send(200, [("content-type", "application/json"), *shown.items()])
            await call.more(json.dumps(made).encode(), last=True)
            return
        wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        await call.send(200, [("content-type", "text/event-stream"), *shown.items()])
        for event in api.events(made, wanted):
            name = f"event: {event['type']}\n" if "type" in event else ""
            await call.more(f"{name}data: {json.dumps(event)}\n\n".encode())
        await call.more(b"data: [DONE]\n\n" if api.turns == "messages" else b"", last=True)

    async def _pass(
        self, call: _Call, api: _Api | None, found: Found | None, shown: Mapping[str, str]
    ) -> None:
        """Send a call to the provider, its reply to the client, and store that."""
        query = f"?{call.query}" if call.query else ""
        request = self.client.build_request(
            call.method, f"{self.upstream}{call.path}{query}", content=call.body,
            headers=[item for item in call.pairs if item[0] not in _OF_THE_CONNECTION],
        )  # fmt: skip
        request.headers["accept-encoding"] = "identity"
        try:
            reply = await self.client.send(request, stream=True)
        except httpx.HTTPError as error:
            message = f"the provider cannot be reached: {type(error).__name__}"
            await call.send(502, [("content-type", "application/json"), *shown.items()])
            await call.more(json.dumps({"error": {"message": message}}).encode(), last=True)
            return
        seen: list[bytes] = []
        complete = False
        kept = [(name, value) for name, value in reply.headers.multi_items()
                if name not in {*_OF_THE_CONNECTION, "content-encoding"}]  # fmt: skip

        async def relay() -> None:
            await call.send(reply.status_code, [*kept, *shown.items()])
            async for chunk in reply.aiter_bytes():
                seen.append(chunk)
                await call.more(chunk)

        try:
            complete = await _unless(call.left, relay)
        finally:
            await reply.aclose()
            if found is not None and api is not None and reply.is_success:
                self._accept(call)
                read = _reply(api, b"".join(seen), reply.headers) if complete else cut_short()
                await self._gate.store(found, read)
        await call.more(b"", last=True)


async def _unless(
    stop: Callable[[], Coroutine[Any, Any, None]], work: Callable[[], Coroutine[Any, Any, None]]
) -> bool:
    """Return whether *work* ended before *stop*, which cancels it.

    Raises:
        Exception: If *work* failed.
    """
    working, stopping = asyncio.create_task(work()), asyncio.create_task(stop())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


class _Call:
    """One call of a client.

    Args:
        scope, body, receive, send: Of ASGI.
    """

    def __init__(self, scope: Scope, body: bytes, receive: Any, send: Any) -> None:
        self.method = str(scope["method"])
        path = str(scope["path"])
        raw = (scope.get("raw_path") or b"").decode("latin-1").partition("?")[0]
        if unquote(raw) == path:  # else it was changed by what this application is mounted in
            path = raw  # with "%2F" in the name of a file
        self.path = path[3:] if path.startswith("/v1/") else path
        self.query = scope.get("query_string", b"").decode("latin-1")
        self.pairs = [(name.decode("latin-1").lower(), value.decode("latin-1"))
                      for name, value in scope["headers"]]  # fmt: skip
        self.headers = dict(self.pairs)
        self.body = body
        self._receive = receive
        self._send = send

    @property
    def credentials(self) -> str:
        """Digest of the credentials."""
        written = json.dumps([self.headers.get(name, "") for name in _CREDENTIALS])
        return hashlib.sha256(written.encode()).hexdigest()

    def json(self) -> dict[str, Any] | None:
        """Return the body; `None` if it is no JSON object."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    async def left(self) -> None:
        """Wait until the client has closed the connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begin the reply."""
        written = [(name.encode("latin-1"), value.encode("latin-1"))
                   for name, value in headers]  # fmt: skip
        await self._send({"type": "http.response.start", "status": status, "headers": written})

    async def more(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a part of the reply."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})


async def _body(receive: Any) -> bytes:
    parts: list[bytes] = []
    while True:
        event = await receive()
        parts.append(event.get("body", b""))
        if not event.get("more_body"):
            return b"".join(parts)


def _control(call: _Call) -> dict[str, Any]:
    """Return what the Cache-Control of a call asks for (RFC 9111, section 5.2.1).

    An age that cannot be read allows none: the provider is asked.
    """
    written = ",".join(value for name, value in call.pairs if name == "cache-control")
    parts = (part.strip().lower().partition("=") for part in written.split(","))
    given = {name.strip(): value.strip().strip('"') for name, _, value in parts}
    age = given.get("max-age")
    readable = age is not None and age.isdecimal()
    return {
        "max_age": min(float(age or 0), MAX_TTL) if readable else None,
        "no_lookup": "no-cache" in given or (age is not None and not readable),
        "no_store": "no-store" in given,
    }


def _shown(found: Found, otherwise: str) -> dict[str, str]:
    """Return the headers by which a client sees what the cache did."""
    result = found.result
    if result is None:
        reason = found.request.why_not or "declined"
        return {"x-glasscache-outcome": "bypass", "x-glasscache-reason": reason}
    if found.text is None or otherwise != "hit":
        shown = {"x-glasscache-outcome": "miss" if result.outcome == "hit" else result.outcome}
        return shown | (
            {"x-glasscache-reason": ", ".join(result.reasons)} if result.reasons else {}
        )
    return {
        "x-glasscache-outcome": result.outcome,
        "x-glasscache-tier": str(result.tier),
        "x-glasscache-similarity": f"{result.similarity or 0.0:.4f}",
        "x-glasscache-age": f"{result.age_seconds or 0.0:.0f}",
        "x-glasscache-lookup": result.lookup_id,
    }


def _reply(api: _Api, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Return what of a provider's whole reply is stored."""
    try:
        if "text/event-stream" in headers.get("content-type", ""):
            return api.read(api.join(list(_events(body.decode("utf-8")))))
        return api.read(json.loads(body))
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return Reply("", "not_text")


def _events(text: str) -> Iterable[wire.JSON]:
    """Yield the events of a stream."""
    for line in text.splitlines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data and data != "[DONE]":
            yield json.loads(data)
