"""`glasscache proxy`: a caching proxy in front of an OpenAI-compatible provider."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Annotated

import typer

from cache_core.cli.console import err, fail
from cache_core.cli.demo.shop import Knowledge, load_knowledge
from cache_core.cli.where import ChromaUrl, Directory, Namespace, RedisUrl
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.multilevel_cache import MultiLevelCache

if TYPE_CHECKING:
    from glasscache.testing.model import FakeModel


def proxy(
    upstream: Annotated[
        str | None,
        typer.Option(
            help="Base URL of the provider, with /v1, as https://api.openai.com/v1. Default: a "
            "fake model that answers a shop's customers, to try it."
        ),
    ] = None,
    user_header: Annotated[
        str,
        typer.Option(
            help="Header with the user's id. Only for one that a gateway in front sets itself: "
            "who can write it reads that user's answers. Default: there are no users."
        ),
    ] = "",
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="Share answers among all users of the same API key: for public answers.",
        ),
    ] = False,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on.", rich_help_panel="Server")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to listen on.", rich_help_panel="Server")
    ] = 8787,
) -> None:
    """Answer an OpenAI-compatible API from the cache, for clients in any language.

    Clients use it as their base URL, with their own API key, which the provider checks. Headers of
    each reply show what the cache did: x-glasscache-outcome, -tier, -similarity, -age, -reason.
    [bold]Cache-Control[/bold] of a request counts: no-cache asks the provider again, max-age=60
    accepts no older answer, no-store leaves nothing. Metrics and health are below /ops.

    [bold]glasscache proxy[/bold]
        Before a fake model, with a request to send twice.

    [bold]glasscache proxy --upstream URL --user-header X-User-Id[/bold]
        With private answers for each user that the gateway names.
    """
    if any(importlib.util.find_spec(name) is None for name in ("httpx", "uvicorn")):
        fail("the proxy's extra is missing: pip install 'glasscache[proxy]'")
    import uvicorn

    from glasscache.integrations.proxy import Proxy

    try:
        settings = load_settings(redis_url=redis_url, chroma_url=chroma_url, dir=directory)
    except ConfigurationError as error:
        fail(str(error))
    cache = MultiLevelCache(settings=settings, namespace=namespace)
    with contextlib.ExitStack() as served:
        if upstream is None:
            upstream = served.enter_context(_shop()).url
            shared = True
        served_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        err.print(f"Proxy: {served_url}, before {upstream}. Ctrl-C ends it.", highlight=False)
        err.print(_example(served_url), highlight=False, soft_wrap=True)
        app = Proxy(cache, upstream.rstrip("/"), user_header, shared or None)
        uvicorn.run(app, host=host, port=port, log_level="warning")


def _shop() -> FakeModel:
    """Return a fake model that knows what the demo's shop knows."""
    from glasscache.testing.model import FakeModel, Received, Said

    knowledge: Knowledge = load_knowledge()
    answers = {
        phrasing.lower(): topic.response
        for topic in knowledge.topics
        if not topic.private
        for phrasing in topic.phrasings
    }

    def reply(received: Received, number: int) -> Said:
        question = received.question
        return Said(answers.get(question.lower(), f"Answer {number} to: {question}"))

    return FakeModel(reply)


def _example(url: str) -> str:
    """Return a request to try, twice."""
    question = load_knowledge().topics[0].phrasings[0]
    body = f'{{"model": "any", "messages": [{{"role": "user", "content": "{question}"}}]}}'
    return f"Try: curl -i {url}/chat/completions -H 'content-type: application/json' -d '{body}'"
