"""An OpenAI-compatible HTTP endpoint as the embedding model: `POST .../embeddings`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from cache_core.backends.base import Vector
from cache_core.backends.embedder.pool import Meter
from cache_core.backends.embedder.tokens import (
    DEFAULT_WINDOW,
    UNKNOWN_TOKENIZER,
    counter_for,
    most_tokens,
)
from cache_core.backends.embedder.vectors import VectorCheck
from cache_core.backends.forking import leave_to_parent
from cache_core.model.exceptions import BackendError, ConfigurationError, InputTooLongError

if TYPE_CHECKING:  # it comes with the extra `endpoint`
    import httpx

BATCH = 32
"""Most texts in one request; every endpoint takes as many."""

WORKERS = 8
"""Requests at the same time."""

_PATH = "/embeddings"
_LARGEST_BYTES = 32 * 1_048_576
"""Longest response that is read: a batch of 8,192-dimensional vectors has 6 MB."""

_PAUSE_SECONDS = 1.0
"""Pause after a response that refuses for its rate and names none."""

_LONGEST_PAUSE = 60.0

_TOO_LONG = re.compile(
    r"context length|maximum (?:input )?length|max\w* .{0,30}tokens|too (?:long|large|many tokens)"
    r"|token limit|(?:fewer|less) than \d+ tokens|tokens exceed|exceeds? .{0,30}model len",
    re.IGNORECASE,
)
"""Words by which endpoints refuse a text for its length, with status 400 or 422."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of an embedding model, and what is known of it.

    Attributes:
        url: Base URL, such as `https://api.openai.com/v1`.
        key: Sent as a bearer token; `None` sends none.
        timeout: Seconds for one request, its connection included.
        window: Tokens that the model reads; `None` for an unknown number.
        tokenizer: `unknown`, `bytes`, or the path of a `tokenizer.json`.
        identity: Name of the model among all endpoints; empty for URL and name of the model.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 1.0
    window: int | None = None
    tokenizer: str = UNKNOWN_TOKENIZER
    identity: str = ""

    def identity_of(self, model: str) -> str:
        """Return the identity of *model* at this endpoint.

        The weights behind a URL cannot be read. So the same name at two URLs is two models, unless
        both are given the same identity.
        """
        if self.identity:
            return f"endpoint\0{self.identity}"
        place = urlunsplit((*urlsplit(embeddings_url(self.url))[:3], "", ""))
        name = f"{place}\0{model}".encode("utf-8", "surrogatepass")
        return f"endpoint\0\0{hashlib.blake2b(name, digest_size=16).hexdigest()}"


def is_installed() -> bool:
    """Return whether httpx is installed; does not import it."""
    return importlib.util.find_spec("httpx") is not None


def embeddings_url(base: str) -> str:
    """Return the URL to post to: *base* and `/embeddings`, with the query of *base*."""
    scheme, host, path, query, _ = urlsplit(base)
    path = path.rstrip("/")
    if not path.endswith(_PATH):
        path += _PATH
    return urlunsplit((scheme, host, path, query, ""))


class EndpointEncoder:
    """Encoder that asks an endpoint; safe to call from several threads.

    Nothing is asked while a pause lasts that the endpoint requested. There are no other repetitions
    than one after a kept connection that the endpoint had closed.

    Args:
        model: Name of the model, sent with every request.
        endpoint: Its address.
        meter: Counts tokens, or texts where the endpoint reports no tokens.

    Raises:
        ConfigurationError: Without httpx, or for an unusable tokenizer.
    """

    def __init__(self, model: str, endpoint: Endpoint, meter: Meter) -> None:
        if not is_installed():
            msg = (
                "EMBEDDING_URL needs httpx: pip install 'glasscache[endpoint]', or unset it to run "
                "the model in this process"
            )
            raise ConfigurationError(msg)
        self._model = model
        self._endpoint = endpoint
        self._url = embeddings_url(endpoint.url)
        self._meter = meter
        self._counter = counter_for(endpoint.tokenizer)
        self._window = endpoint.window or DEFAULT_WINDOW
        self._check = VectorCheck(model)
        self._lock = threading.Lock()
        self._resumes = 0.0
        self._refused = float("inf")
        """Least upper bound of the tokens of a text that the endpoint refused as too long."""
        self._pid = 0
        self._client: httpx.Client
        self._connections()

    def fits(self, text: str) -> bool:
        """Return whether the model reads the whole *text*, as far as is known."""
        return self._counter.fits(text, self._window) and most_tokens(text) < self._refused

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text* for certain."""
        return self._counter.knows(text)

    def _connections(self) -> httpx.Client:
        """Return this process's client, which verifies certificates.

        A forked child must not share connections with its parent.
        """
        import httpx

        with self._lock:
            if self._pid != os.getpid():
                if self._pid:
                    leave_to_parent(self._client)
                headers = {"Accept": "application/json"}
                if self._endpoint.key:
                    headers["Authorization"] = f"Bearer {self._endpoint.key}"
                self._client = httpx.Client(
                    headers=headers,
                    timeout=self._endpoint.timeout,
                    follow_redirects=False,
                    limits=httpx.Limits(max_connections=WORKERS, max_keepalive_connections=WORKERS),
                )
                self._pid = os.getpid()
            return self._client

    def close(self) -> None:
        """Close the connections."""
        if self._pid == os.getpid():
            self._client.close()

    def encode(self, texts: Sequence[str]) -> list[Vector | BackendError]:
        """Return the vector of each text, or why the endpoint gave none.

        Raises:
            BackendError: `timeout`, `overloaded` if the endpoint refuses for its rate, else
                `backend_error` with the kind of failure, or the HTTP status, as its type.
        """
        status, body = self._ask(texts)
        if status in {400, 413, 422}:
            if len(texts) > 1:
                # The reason may be one of them.
                return [vector for text in texts for vector in self._alone(text)]
            self._refuse(status, body, texts[0])
        if status != 200:
            raise BackendError("backend_error", f"HTTP {status}")
        return self._vectors(body, texts)

    def _alone(self, text: str) -> list[Vector | BackendError]:
        try:
            return self.encode([text])
        except BackendError as error:
            return [error]

    def _refuse(self, status: int, body: bytes, text: str) -> None:
        """Raise `InputTooLongError` if the endpoint refused *text* for its length."""
        # Never logged: it may quote the text.
        if status == 413 or _TOO_LONG.search(body[:10_000].decode("utf-8", "replace")):
            self._refused = min(self._refused, most_tokens(text))
            raise InputTooLongError("backend_error", f"HTTP {status}")

    def _ask(self, texts: Sequence[str]) -> tuple[int, bytes]:
        """Return status and body of the response; raises `BackendError`."""
        import httpx

        if time.monotonic() < self._resumes:
            raise BackendError("overloaded", "HTTP 429")
        end = time.monotonic() + self._endpoint.timeout
        # Lone surrogates, which no UTF-8 has, are escaped.
        content = json.dumps({"model": self._model, "input": list(texts)})
        try:
            try:
                status, headers, body = self._post(content, end)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # The endpoint may have closed a kept connection just then.
                status, headers, body = self._post(content, end)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise BackendError("timeout", type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise BackendError("backend_error", type(error).__name__) from None
        if status == 429 or (status == 503 and "retry-after" in headers):
            self._resumes = time.monotonic() + _pause(headers.get("retry-after", ""))
            raise BackendError("overloaded", f"HTTP {status}")
        return status, body

    def _post(self, content: str, end: float) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body; raises `TimeoutError` at *end*, however it trickles."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        with self._connections().stream(
            "POST",
            self._url,
            content=content,
            headers={"Content-Type": "application/json"},
            timeout=left,
        ) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if time.monotonic() > end:
                    raise TimeoutError
                if len(body) > _LARGEST_BYTES:
                    raise ValueError("the response is too large")
            return response.status_code, response.headers, bytes(body)

    def _vectors(self, body: bytes, texts: Sequence[str]) -> list[Vector | BackendError]:
        found: dict[int, object] = {}
        usage: object = None
        try:
            answer: Any = json.loads(body)
            usage = answer.get("usage")
            for place, item in enumerate(answer["data"]):
                found[int(item.get("index", place))] = item["embedding"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BackendError("backend_error", "MalformedResponse") from error
        finally:
            self._count(usage, len(texts))
        if found.keys() != set(range(len(texts))):
            raise BackendError("backend_error", "MalformedResponse")
        return [self._check.or_error(found[place]) for place in range(len(texts))]

    def _count(self, usage: object, texts: int) -> None:
        """Count the tokens that the response reports; without them, the texts."""
        tokens: object = None
        if isinstance(usage, Mapping):
            tokens = usage.get("total_tokens", usage.get("prompt_tokens"))
        if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 < tokens < 10**9:
            self._meter.add(tokens=tokens)
        else:
            self._meter.add(texts=texts)


def _pause(retry_after: str) -> float:
    """Return the seconds to pause for a `Retry-After` header; a date counts as none."""
    with contextlib.suppress(ValueError):
        seconds = float(retry_after)
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _LONGEST_PAUSE)
    return _PAUSE_SECONDS
