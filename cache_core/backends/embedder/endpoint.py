"""An OpenAI-compatible HTTP endpoint as the embedding model: `POST .../embeddings`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
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
from cache_core.backends.endpoint import EndpointClient, is_installed, url_below
from cache_core.backends.trust import TrustStoreError
from cache_core.model.exceptions import BackendError, ConfigurationError, InputTooLongError

BATCH = 32
"""Most texts in one request; every endpoint takes as many."""

WORKERS = 8
"""Requests at the same time."""

_PATH = "/embeddings"

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
        place = urlunsplit((*urlsplit(url_below(self.url, _PATH))[:3], "", ""))
        name = f"{place}\0{model}".encode("utf-8", "surrogatepass")
        return f"endpoint\0\0{hashlib.blake2b(name, digest_size=16).hexdigest()}"


class EndpointEncoder:
    """Encoder that asks an endpoint; safe to call from several threads.

    Args:
        model: Name of the model, sent with every request.
        endpoint: Its address.
        meter: Counts tokens, or texts where the endpoint reports no tokens.

    Raises:
        ConfigurationError: Without httpx, for an unusable tokenizer, or without certificates.
    """

    def __init__(self, model: str, endpoint: Endpoint, meter: Meter) -> None:
        if not is_installed():
            msg = (
                "EMBEDDING_URL needs httpx: pip install 'glasscache[endpoint]', or unset it to run "
                "the model in this process"
            )
            raise ConfigurationError(msg)
        self._model = model
        self._meter = meter
        self._counter = counter_for(endpoint.tokenizer)
        self._window = endpoint.window or DEFAULT_WINDOW
        self._check = VectorCheck(model)
        self._refused = float("inf")
        """Least upper bound of the tokens of a text that the endpoint refused as too long."""
        self._client = EndpointClient(
            url_below(endpoint.url, _PATH), endpoint.key, endpoint.timeout, WORKERS
        )
        try:
            self._client.open()
        except TrustStoreError as error:
            raise ConfigurationError(str(error)) from None

    def fits(self, text: str) -> bool:
        """Return whether the model reads the whole *text*, as far as is known."""
        return self._counter.fits(text, self._window) and most_tokens(text) < self._refused

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text* for certain."""
        return self._counter.knows(text)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def encode(self, texts: Sequence[str]) -> list[Vector | BackendError]:
        """Return the vector of each text, or why the endpoint gave none.

        Raises:
            BackendError: `timeout`, `overloaded` if the endpoint refuses for its rate, else
                `backend_error` with the kind of failure, or the HTTP status, as its type.
        """
        status, body = self._client.post({"model": self._model, "input": list(texts)})
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
