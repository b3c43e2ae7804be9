"""OpenAI's client behind the cache: `client = cached(OpenAI(), Gate(cache))`.

`chat.completions.create` and `responses.create` are answered from the cache, also as streams and
through the helpers `.stream()`; what reads raw responses, and `.parse()`, goes to the provider
(`declined`). `with_options` and `copy` return clients behind the cache, too.
A response that the provider stores (`store` is not `False`) can be continued by its id, which only
the provider knows: it bypasses.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream, _base_client
from openai._constants import RAW_RESPONSE_HEADER
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from glasscache.integrations import wire
from glasscache.integrations.contract import (
    Reply,
    Request,
    chat_reply,
    is_omitted,
    request_of,
    responses_reply,
    with_client,
)
from glasscache.integrations.gate import Found, Gate

Client = TypeVar("Client", OpenAI, AsyncOpenAI)

_http: Any = vars(_base_client).get("httpx2") or vars(_base_client)["httpx"]
"""HTTP library that the SDK reads responses with: httpx2, of openai 2 httpx."""


class _Api(NamedTuple):
    """One of the two APIs.

    Attributes:
        turns: Its parameter with the conversation.
        defaults: Values of parameters that matter to the cache and are not given.
        whole, event: Types of a reply and of a stream's event.
        make: Returns a reply as JSON.
        events: Returns a reply as the events of a stream.
        read: Returns what of a reply is stored.
        join: Returns the events of a stream as a reply.
    """

    turns: str
    defaults: Mapping[str, Any]
    whole: Any
    event: Any
    make: Callable[[str, str], wire.JSON]
    events: Callable[[wire.JSON, bool], list[wire.JSON]]
    read: Callable[[wire.JSON], Reply]
    join: Callable[[Iterable[wire.JSON]], wire.JSON]


_CHAT = _Api(
    "messages", {}, ChatCompletion, ChatCompletionChunk, wire.chat_completion,
    lambda made, usage: wire.chat_chunks(made, usage=usage), chat_reply, wire.joined_chunks,
)  # fmt: skip
_RESPONSES = _Api(
    "input", {"store": True}, Response, ResponseStreamEvent, wire.response,
    lambda made, _: wire.response_events(made), responses_reply, wire.last_response,
)  # fmt: skip


def cached(client: Client, gate: Gate) -> Client:
    """Return a copy of a client, of the same type, that asks the cache first.

    Args:
        client: Sync or async, also of Azure, or with another `base_url`.
        gate: The cache.
    """
    copied = client.copy()
    wrap = _asynchronous if isinstance(copied, AsyncOpenAI) else _blocking
    for resource, api in ((copied.chat.completions, _CHAT), (copied.responses, _RESPONSES)):
        # on the resource itself: its helpers and raw variants call what is there
        resource.create = wrap(resource.create, copied, gate, api)
        resource.parse = wrap(resource.parse, copied, gate, None)
    behind: Any = copied
    behind.copy = behind.with_options = lambda **given: cached(client.copy(**given), gate)
    return copied


def _asynchronous(create: Any, client: AsyncOpenAI, gate: Gate, api: _Api | None) -> Any:
    @functools.wraps(create)
    async def call(**given: Any) -> Any:
        if api is None or _is_raw(given):
            await gate.cache.bypass("declined")
            return await create(**given)
        given = _listed(given)
        found = await gate.find(_request(given, client, api))
        if found.text is not None:
            return _replayed(found.text, given, client, api, found)
        made = await create(**given)
        if given.get("stream") is True:
            _tape(made, functools.partial(gate.taped, found, reply=_reader(api)))
        else:
            await gate.store(found, api.read(_json(made)))
        return made

    return call


def _blocking(create: Any, client: OpenAI, gate: Gate, api: _Api | None) -> Any:
    @functools.wraps(create)
    def call(**given: Any) -> Any:
        if api is None or _is_raw(given):
            gate.now(gate.cache.bypass("declined"))
            return create(**given)
        given = _listed(given)
        found = gate.find_now(_request(given, client, api))
        if found.text is not None:
            return _replayed(found.text, given, client, api, found)
        made = create(**given)
        if given.get("stream") is True:
            _tape(made, functools.partial(gate.taped_now, found, reply=_reader(api)))
        else:
            gate.store_now(found, api.read(_json(made)))
        return made

    return call


def _tape(stream: Any, tape: Callable[..., Any]) -> None:
    """Let a stream of the SDK yield through *tape*; what iterates over it takes its iterator."""
    stream._iterator = tape(chunks=stream._iterator)  # noqa: SLF001 - so that its type stays


def _is_raw(given: Mapping[str, Any]) -> bool:
    return RAW_RESPONSE_HEADER in (given.get("extra_headers") or {})


def _listed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments that can be read twice: a generator of messages only can be read once."""
    return {name: list(value) if isinstance(value, Iterator) else value
            for name, value in given.items()}  # fmt: skip


def _request(given: Mapping[str, Any], client: Any, api: _Api) -> Request:
    known = {name: value for name, value in given.items() if not is_omitted(value)}
    parameters = with_client({**api.defaults, **known}, client)
    return request_of(parameters.pop(api.turns, ""), parameters, provider=str(client.base_url))


def _json(item: Any) -> wire.JSON:
    """Return an object of the SDK as JSON; a provider may send others, which are none."""
    dump = getattr(item, "model_dump", None)
    return dump(mode="json", warnings=False) if dump is not None else {}


def _reader(api: _Api) -> Callable[[list[Any]], Reply]:
    return lambda events: api.read(api.join([_json(event) for event in events]))


def _replayed(text: str, given: Mapping[str, Any], client: Any, api: _Api, found: Found) -> Any:
    """Return a stored answer as the SDK returns the provider's."""
    made = api.make(text, str(given.get("model") or ""))
    if given.get("stream") is not True:
        whole = api.whole.model_validate(made)
        whole.glasscache = found.shown()
        return whole
    wanted = bool((given.get("stream_options") or {}).get("include_usage"))
    response = _event_stream(api.events(made, wanted), str(client.base_url))
    kind = AsyncStream if isinstance(client, AsyncOpenAI) else Stream
    return kind(cast_to=api.event, response=response, client=client)


def _event_stream(events: Sequence[wire.JSON], url: str) -> Any:
    """Return a response that the provider could have sent; the SDK reads it as any other."""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return _http.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content="".join([*lines, "data: [DONE]\n\n"]).encode(),
        request=_http.Request("POST", url),
    )
