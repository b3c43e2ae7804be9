"""A real HTTP server with OpenAI-compatible embeddings and chat, which fails on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from cache_core.testing import HashEmbedder
from tests.support import servers


class EmbeddingServer:
    """ASGI application; `do` says what the next requests get, `says` what its chat model replies."""

    def __init__(self) -> None:
        self.do = "answer"
        self.says = ""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""
        self._model = HashEmbedder()

    @property
    def texts(self) -> list[str]:
        """Every text that was asked for, in order."""
        return [text for request in self.requests for text in request["input"]]

    async def __call__(
        self, scope: Mapping[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]
    ) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = json.loads(body)
        self.requests.append(asked)
        self.headers.append({key.decode(): value.decode() for key, value in scope["headers"]})
        if scope["path"] == "/v1/embeddings":
            await self._embed(asked["input"], receive, send)
        elif scope["path"] == "/v1/chat/completions":
            said = {"role": "assistant", "content": self.says}
            answer = {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
                      "usage": {"prompt_tokens": 7, "completion_tokens": 5}}  # fmt: skip
            texts = [turn["content"] for turn in asked["messages"]]
            await self._answer(answer, texts, receive, send)
        else:
            await _reply(send, 404, {"error": "no such path"})

    async def _embed(self, texts: list[str], receive: Callable[[], Any], send: Any) -> None:
        vectors = [(await self._model.embed(text)).tolist() for text in texts]
        data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        match self.do:
            case "no usage":
                await _reply(send, 200, {"data": data})
            case "too long":
                error = "This model's maximum context length is 5 tokens. Reduce your input."
                long = any(len(text.split()) > 5 for text in texts)
                await _reply(
                    send, 400 if long else 200, {"error": error} if long else {"data": data}
                )
            case "fewer":
                await _reply(send, 200, {"data": []})
            case "short":
                await _reply(send, 200, {"data": [{"index": 0, "embedding": vectors[0][:-1]}]})
            case "nan":
                await _reply(send, 200, {"data": [{"index": 0, "embedding": [float("nan")] * 64}]})
            case "words":
                await _reply(send, 200, {"data": [{"index": 0, "embedding": ["a"] * 64}]})
            case _:
                usage = {"total_tokens": 3 * len(texts)}
                await self._answer({"data": data[::-1], "usage": usage}, texts, receive, send)

    async def _answer(
        self, answer: object, texts: list[str], receive: Callable[[], Any], send: Any
    ) -> None:
        match self.do:
            case "answer":
                await _reply(send, 200, answer)
            case "hang":
                while (await receive())["type"] != "http.disconnect":
                    pass
            case "trickle":
                await _head(send, 200, {})
                with contextlib.suppress(OSError):
                    while True:
                        await send({"type": "http.response.body", "body": b" ", "more_body": True})
                        await asyncio.sleep(0.01)
            case "drop":
                await _head(send, 200, {b"content-length": b"1000"})
                await send({"type": "http.response.body", "body": b"{", "more_body": True})
                raise ConnectionResetError
            case "429" | "500" | "401":
                await _reply(send, int(self.do), {"error": f"no: {texts}"}, {b"retry-after": b"30"})
            case "redirect":
                await _reply(send, 307, {}, {b"location": b"http://127.0.0.1:9/elsewhere"})
            case "text":
                await _reply(send, 200, "It works!")


async def _head(send: Any, status: int, headers: Mapping[bytes, bytes]) -> None:
    fields = [(b"content-type", b"application/json"), *headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})


async def _reply(
    send: Any, status: int, body: object, headers: Mapping[bytes, bytes] | None = None
) -> None:
    await _head(send, status, headers or {})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@contextlib.asynccontextmanager
async def embedding_server(
    certificate: tuple[Path, Path] | None = None,
) -> AsyncIterator[EmbeddingServer]:
    """Serve an endpoint by uvicorn in this event loop, over TLS with a certificate and its key."""
    made = EmbeddingServer()
    port = servers.free_port()
    files = certificate or (None, None)
    server = uvicorn.Server(
        uvicorn.Config(
            made, port=port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1,
            ssl_certfile=files[0], ssl_keyfile=files[1],
        )
    )  # fmt: skip
    made.url = f"http{'s' if certificate else ''}://127.0.0.1:{port}/v1"
    # It would take the signals of the process.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield made
    finally:
        server.should_exit = True
        await task
