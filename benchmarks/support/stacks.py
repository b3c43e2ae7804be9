"""Hits through every adapter, each on its real framework."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from glasscache.integrations import wire
from glasscache.integrations.gate import Gate

TEXT = "At nine, and on Sundays not at all. ".ljust(2_000, "x")
"""The answer to every question: as long as that of `benchmarks.lookup`."""

MODEL = "gpt-5"
SYSTEM = "You answer for a shop."

Ask = Callable[[str], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Hit:
    """A way to ask a question through an adapter.

    Attributes:
        name: Name in the table.
        ask: Asks a question; returns the answer.
        alone: The same through the framework, which has the answer already, without glasscache;
            `None` if there is nothing of a framework to it.
    """

    name: str
    ask: Ask
    alone: Ask | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """Parts that the adapters are made of.

    Attributes:
        gate: A cache that is open in the running loop.
        waiting: Another one, for callers without a loop.
        url: Base URL of a provider.
        stack: Closes what they open.
    """

    gate: Gate
    waiting: Gate
    url: str
    stack: contextlib.AsyncExitStack


def turns(question: str) -> list[dict[str, Any]]:
    """Return a question as messages of chat completions."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def _now(ask: Callable[[str], str | None]) -> Ask:
    """Return a blocking way to ask as the others are."""

    async def call(question: str) -> str | None:
        return ask(question)

    return call


def openai(desk: Desk) -> list[Hit]:
    """OpenAI's client: both APIs, a stream, and without a loop."""
    from openai import AsyncOpenAI, OpenAI

    from glasscache.integrations.openai import cached

    client = cached(AsyncOpenAI(base_url=desk.url, api_key="k"), desk.gate)
    desk.stack.push_async_callback(client.close)
    blocking = cached(OpenAI(base_url=desk.url, api_key="k"), desk.waiting)
    desk.stack.callback(blocking.close)

    async def chat(question: str) -> str | None:
        made: Any = await client.chat.completions.create(model=MODEL, messages=turns(question))  # type: ignore[call-overload]
        return made.choices[0].message.content

    async def stream(question: str) -> str | None:
        made: Any = await client.chat.completions.create(  # type: ignore[call-overload]
            model=MODEL, messages=turns(question), stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in made])

    async def responses(question: str) -> str | None:
        made: Any = await client.responses.create(
            model=MODEL, instructions=SYSTEM, input=question, store=False
        )
        return made.output_text

    def now(question: str) -> str | None:
        made: Any = blocking.chat.completions.create(model=MODEL, messages=turns(question))  # type: ignore[call-overload]
        return made.choices[0].message.content

    return [
        Hit("OpenAI's client, chat", chat),
        Hit("OpenAI's client, chat, a stream", stream),
        Hit("OpenAI's client, responses", responses),
        Hit("OpenAI's client, chat, blocking", _now(now)),
    ]


def langchain(desk: Desk) -> list[Hit]:
    """LangChain's cache of a model, and the middleware of an agent."""
    from langchain.agents import create_agent
    from langchain.agents.middleware import AgentMiddleware, ModelResponse
    from langchain_core.caches import InMemoryCache
    from langchain_core.messages import AIMessage
    from langchain_openai import ChatOpenAI

    from glasscache.integrations.langchain import GlasscacheCache, GlasscacheMiddleware

    class Answers(AgentMiddleware):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return ModelResponse(result=[AIMessage(TEXT)])

    def model(**more: Any) -> Any:
        return ChatOpenAI(model=MODEL, base_url=desk.url, api_key="k", **more)

    def asking(cache: Any, *, blocking: bool = False) -> Ask:
        chat = model(cache=cache)

        async def ask(question: str) -> str | None:
            given = [("system", SYSTEM), ("user", question)]
            return str((chat.invoke(given) if blocking else await chat.ainvoke(given)).text)

        return ask

    def agent(middleware: Any) -> Ask:
        made = create_agent(model(), system_prompt=SYSTEM, middleware=[middleware])

        async def ask(question: str) -> str | None:
            done = await made.ainvoke({"messages": [("user", question)]})
            return str(done["messages"][-1].text)

        return ask

    waiting = asking(GlasscacheCache(desk.waiting), blocking=True)
    return [
        Hit("LangChain, a model", asking(GlasscacheCache(desk.gate)), asking(InMemoryCache())),
        Hit("LangChain, a model, blocking", waiting, asking(InMemoryCache(), blocking=True)),
        Hit("LangChain, an agent", agent(GlasscacheMiddleware(desk.gate)), agent(Answers())),
    ]


class State(TypedDict):
    """State of the graph."""

    question: str
    answer: str


def langgraph(desk: Desk) -> list[Hit]:
    """LangGraph's cache of nodes."""
    from langgraph.cache.memory import InMemoryCache
    from langgraph.graph import START, StateGraph
    from langgraph.types import CachePolicy

    from glasscache.integrations.langgraph import GlasscacheNodeCache

    async def answer(_: State) -> dict[str, str]:
        return {"answer": TEXT}

    def asking(cache: Any) -> Ask:
        builder = StateGraph(State)
        policy = CachePolicy(key_func=lambda state: state["question"])
        builder.add_node("answer", answer, cache_policy=policy)
        builder.add_edge(START, "answer")
        graph = builder.compile(cache=cache)

        async def ask(question: str) -> str | None:
            done: Any = await graph.ainvoke({"question": question})
            return done["answer"]

        return ask

    return [
        Hit("LangGraph, a node", asking(GlasscacheNodeCache(desk.gate)), asking(InMemoryCache()))
    ]


def agents_sdk(desk: Desk) -> list[Hit]:
    """OpenAI's Agents SDK."""
    import agents
    from agents.models.interface import Model
    from openai import AsyncOpenAI
    from openai.types.responses import Response

    from glasscache.integrations.agents import CachedModel

    class Answers(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            made = Response.model_validate(wire.response(TEXT, ""))
            return agents.ModelResponse(output=made.output, usage=agents.Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agents.set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=desk.url, api_key="k")
    desk.stack.push_async_callback(client.close)
    inner = agents.OpenAIResponsesModel(MODEL, openai_client=client)

    def asking(model: Any) -> Ask:
        agent = agents.Agent(name="Shop", instructions=SYSTEM, model=model)

        async def ask(question: str) -> str | None:
            return str((await agents.Runner.run(agent, question)).final_output)

        return ask

    return [Hit("OpenAI's Agents SDK", asking(CachedModel(inner, desk.gate)), asking(Answers()))]


def pydantic_ai(desk: Desk) -> list[Hit]:
    """PydanticAI's capability."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from glasscache.integrations.pydantic_ai import Glasscache

    class Answers(AbstractCapability[Any]):
        async def wrap_model_request(self, ctx: Any, **_: Any) -> Any:
            return ModelResponse(parts=[TextPart(TEXT)])

    client = AsyncOpenAI(base_url=desk.url, api_key="k")
    desk.stack.push_async_callback(client.close)
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))

    def asking(capability: Any) -> Ask:
        agent = Agent(model, instructions=SYSTEM, capabilities=[capability])

        async def ask(question: str) -> str | None:
            return (await agent.run(question)).output

        return ask

    return [Hit("PydanticAI", asking(Glasscache(desk.gate)), asking(Answers()))]


def litellm(desk: Desk) -> list[Hit]:
    """LiteLLM's cache, which is one for the process."""
    import litellm as their

    from glasscache.integrations.litellm import GlasscacheCache

    their.telemetry, their.suppress_debug_info = False, True

    def asking(cache: Any, *, blocking: bool = False) -> Ask:
        async def ask(question: str) -> str | None:
            their.cache = cache
            given: Any = {"model": f"openai/{MODEL}", "messages": turns(question), "caching": True,
                          "api_base": desk.url, "api_key": "k"}  # fmt: skip
            made: Any = their.completion(**given) if blocking else await their.acompletion(**given)
            return made.choices[0].message.content

        return ask

    def theirs() -> Any:
        return their.Cache(type="local")

    waiting = asking(GlasscacheCache(desk.waiting), blocking=True)
    return [
        Hit("LiteLLM", asking(GlasscacheCache(desk.gate)), asking(theirs())),
        Hit("LiteLLM, blocking", waiting, asking(theirs(), blocking=True)),
    ]


async def mcp(desk: Desk) -> list[Hit]:
    """MCP's store of responses: a client that lists the tools of a server in this process."""
    from mcp import Client
    from mcp.client.caching import CacheConfig
    from mcp.server import Server
    from mcp_types import ListToolsResult, Tool

    from glasscache.integrations.mcp import GlasscacheResponseStore

    async def list_tools(_: Any, __: Any) -> Any:
        tool = Tool(name="look_up", description=TEXT, input_schema={"type": "object"})
        return ListToolsResult(tools=[tool], ttl_ms=3_600_000, cache_scope="private")

    async def asking(config: Any) -> Ask:
        server: Any = Server("shop", on_list_tools=list_tools)
        client = await desk.stack.enter_async_context(Client(server, cache=config))

        async def ask(_: str) -> str | None:
            return (await client.list_tools()).tools[0].description

        return ask

    store = GlasscacheResponseStore(desk.gate)
    ours = await asking(CacheConfig(store=store, partition="ann", target_id="shop"))
    return [Hit("MCP, a list of tools", ours, await asking(CacheConfig()))]


def functions(desk: Desk) -> list[Hit]:
    """The decorator, and the blocking interface."""
    from glasscache.integrations.blocking import BlockingCache, cached

    @cached(desk.gate.cache)
    async def answer(_question: str, _model: str = MODEL) -> str:
        return TEXT

    @cached(desk.waiting.cache)
    def answer_now(_question: str, _model: str = MODEL) -> str:
        return TEXT

    blocking = BlockingCache(desk.waiting.cache)

    def look_up(question: str) -> str | None:
        return blocking.get_or_compute(question, "ann", lambda: TEXT)

    return [
        Hit("decorator", answer),
        Hit("decorator, blocking", _now(answer_now)),
        Hit("BlockingCache", _now(look_up)),
    ]


async def proxy(desk: Desk) -> list[Hit]:
    """The proxy over HTTP, and a server that only sends the answer."""
    import json

    import httpx

    from glasscache.integrations.proxy import Proxy

    body = json.dumps(wire.chat_completion(TEXT, MODEL)).encode()

    async def answers(_: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def asking(app: Any) -> Ask:
        url = await desk.stack.enter_async_context(served(app))
        client = await desk.stack.enter_async_context(httpx.AsyncClient(base_url=url))
        client.headers.update({"authorization": "Bearer k", "x-user": "ann"})

        async def ask(question: str) -> str | None:
            asked = {"model": MODEL, "messages": turns(question)}
            reply = await client.post("/v1/chat/completions", json=asked)
            text: str = reply.json()["choices"][0]["message"]["content"]
            return text

        return ask

    app = Proxy(desk.gate.cache, desk.url, user_header="X-User")
    desk.stack.push_async_callback(app.client.aclose)
    return [Hit("proxy, over HTTP", await asking(app), await asking(answers))]


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application in the running loop; yield its address."""
    import uvicorn

    config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def every(desk: Desk) -> list[Hit]:
    """Return a hit through each adapter."""
    return [
        *functions(desk), *openai(desk), *langchain(desk), *langgraph(desk), *agents_sdk(desk),
        *pydantic_ai(desk), *litellm(desk), *await mcp(desk), *await proxy(desk),
    ]  # fmt: skip
