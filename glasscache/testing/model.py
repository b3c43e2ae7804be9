"""Fake model behind a real HTTP server: an OpenAI-compatible provider on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from glasscache.integrations import wire

Kind = Literal["text", "tool_calls", "refused", "cut_short"]


@dataclass(frozen=True, slots=True)
class Said:
    """A reply of the fake model.

    Attributes:
        text: Its text.
        kind: Text, a call of the tool `look_up`, a refusal, or a text that reached its limit.
    """

    text: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Received:
    """A request that the fake model got.

    Attributes:
        path: Path of its URL.
        headers: Its headers, names in lower case.
        body: Its JSON.
    """

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def question(self) -> str:
        """The text of its last turn."""
        turns = self.body.get("messages") or self.body.get("input") or ""
        if isinstance(turns, str):
            return turns
        content = turns[-1].get("content") or turns[-1].get("output") or ""
        parts = [content] if isinstance(content, str) else content
        return " ".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def _numbered(received: Received, number: int) -> Said:
    return Said(f"Answer {number} to {received.question}")


@dataclass
class FakeModel:
    """A provider with chat completions and responses, whole and as streams, for tests.

    Used as a context manager it listens on a free port of loopback.

    Attributes:
        reply: Returns the reply to a request; the number counts from 1.
        received: The requests so far.
        key: The API key that a request needs; `None` for none.
        url: Its base URL, as SDKs take it.
    """

    reply: Callable[[Received, int], Said] = _numbered
    received: list[Received] = field(default_factory=list)
    key: str | None = None
    url: str = ""

    def __post_init__(self) -> None:
        self._server: ThreadingHTTPServer | None = None
        self._counting = threading.Lock()

    @property
    def calls(self) -> int:
        """Number of requests for a reply that it got."""
        return len(self.received)

    def says(self, kind: Kind) -> None:
        """Let it answer every request with a reply of this kind."""
        self.reply = lambda received, number: Said(_numbered(received, number).text, kind)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"model": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.05,), name="fake-model", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, received: Received) -> Said:
        """Return the reply to a request, and remember the request."""
        with self._counting:
            self.received.append(received)
            number = len(self.received)
        return self.reply(received, number)


class _Handler(BaseHTTPRequestHandler):
    model: FakeModel
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Print nothing."""

    def do_GET(self) -> None:
        """Answer a request for the models."""
        if self._is_refused():
            return
        known = self.path.endswith("/models")
        models = {"object": "list", "data": [{"id": "fake", "object": "model", "created": 0,
                                              "owned_by": "glasscache"}]}  # fmt: skip
        self._send(200 if known else 404, models if known else {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        """Answer a request for a reply."""
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if self._is_refused():
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = self.model.answer(Received(self.path, headers, body))
        if self.path.endswith("/responses"):
            whole = _responses(said, body)
            events = wire.response_events(whole, _pieces(said.text))
        else:
            whole = _chat(said, body)
            wanted = bool((body.get("stream_options") or {}).get("include_usage"))
            events = wire.chat_chunks(whole, _pieces(said.text), usage=wanted)
        if body.get("stream"):
            self._stream(events, done=not self.path.endswith("/responses"))
        else:
            self._send(200, whole)

    def _is_refused(self) -> bool:
        """Refuse a request with a wrong key, and return whether it has one."""
        key = self.model.key
        if key is None or self.headers.get("authorization") == f"Bearer {key}":
            return False
        error = {"message": "wrong API key", "type": "invalid_request_error", "param": None,
                 "code": "invalid_api_key"}  # fmt: skip
        self._send(401, {"error": error})
        return True

    def _send(self, status: int, value: Mapping[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: Sequence[Mapping[str, Any]], *, done: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                name = f"event: {event['type']}\n" if "type" in event else ""
                self._chunk(f"{name}data: {json.dumps(event)}\n\n")
            self._chunk("data: [DONE]\n\n" if done else "")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the client has gone

    def _chunk(self, text: str) -> None:
        body = text.encode()
        if body:
            self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
            self.wfile.flush()


_USED = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
_TOOL = ("look_up", '{"what": "it"}')


def _pieces(text: str) -> list[str]:
    """Return a text in pieces of a word."""
    words = text.split(" ")
    return [word if at == len(words) - 1 else word + " " for at, word in enumerate(words)]


def _chat(said: Said, body: Mapping[str, Any]) -> wire.JSON:
    model = str(body.get("model", "fake"))
    if said.kind == "tool_calls":
        call = {"id": "call_1", "type": "function",
                "function": {"name": _TOOL[0], "arguments": _TOOL[1]}}  # fmt: skip
        made = wire.chat_completion(None, model, ended="tool_calls", tool_calls=[call])
    elif said.kind == "refused":
        made = wire.chat_completion(None, model, refusal=said.text)
    else:
        ended = "length" if said.kind == "cut_short" else "stop"
        made = wire.chat_completion(said.text, model, ended=ended)
    return {**made, "id": "chatcmpl-fake", "usage": _USED}


def _responses(said: Said, body: Mapping[str, Any]) -> wire.JSON:
    made = wire.response(said.text, str(body.get("model", "fake")))
    (message,) = made["output"]
    if said.kind == "tool_calls":
        made["output"] = [{"id": "fc_1", "type": "function_call", "call_id": "call_1",
                           "status": "completed", "name": _TOOL[0],
                           "arguments": _TOOL[1]}]  # fmt: skip
    elif said.kind == "refused":
        message["content"] = [{"type": "refusal", "refusal": said.text}]
    elif said.kind == "cut_short":
        made |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    used = {**made["usage"], "input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    return {**made, "id": "resp_fake", "usage": used}
