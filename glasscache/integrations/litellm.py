"""LiteLLM behind the cache: `litellm.cache = GlasscacheCache(Gate(cache))`, for chat completions.

LiteLLM makes streams of what is stored, stores complete ones, and honours its own controls, as
`cache={"no-cache": True}`: such a stream is not stored. It says nothing of a stream that is left
before its end, which therefore is not counted. Its key is not used: a question is found by what
it means, in the context of all parameters that shape the answer. A backend of LiteLLM's cache
does not get them.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import litellm
from litellm.litellm_core_utils.model_param_helper import ModelParamHelper
from litellm.types.utils import all_litellm_params

from glasscache.integrations import wire
from glasscache.integrations.contract import Reply, Request, base_urls, chat_reply, request_of
from glasscache.integrations.gate import Found, Gate, as_user

_SHAPING = frozenset({
    "custom_llm_provider", "enable_json_schema_validation", "guardrails", "mock_response",
    "prompt_id", "prompt_label", "prompt_variables", "prompt_version",
})  # fmt: skip
"""Parameters of LiteLLM's own that shape an answer."""

_OF_LITELLM = {*all_litellm_params, "parent_otel_span"}

_STREAMS = 1_000
"""Streams of which the request is kept: LiteLLM does not report those that are left early."""


class GlasscacheCache(litellm.Cache):
    """LiteLLM's cache, sync and async. Embeddings and the like are neither found nor stored.

    Args:
        gate: The cache.
        user: Returns the verified user of a call from its arguments, among which `metadata` has
            what LiteLLM's proxy verified; default: the gate's.
    """

    def __init__(
        self, gate: Gate, user: Callable[[Mapping[str, Any]], str | None] | None = None
    ) -> None:
        super().__init__(type="local", max_messages=None)
        self._gate = gate
        self._user = user
        self._streams: OrderedDict[str, Found] = OrderedDict()

    def get_cache(self, dynamic_cache_object: Any = None, **kwargs: Any) -> Any:
        """Return a stored completion; `None` for none."""
        if not self._is_asked(kwargs):
            return None
        with self._as_user(kwargs):
            return self._completed(self._gate.find_now(_request(kwargs)), kwargs)

    async def async_get_cache(self, dynamic_cache_object: Any = None, **kwargs: Any) -> Any:
        """Return a stored completion; `None` for none."""
        if not self._is_asked(kwargs):
            return None
        with self._as_user(kwargs):
            return self._completed(await self._gate.find(_request(kwargs)), kwargs)

    def add_cache(self, result: Any, **kwargs: Any) -> None:
        """Store a completion, if it may be."""
        if self._is_asked(kwargs):
            with self._as_user(kwargs):
                self._gate.store_now(self._asked(kwargs), _reply(result))

    async def async_add_cache(
        self, result: Any, dynamic_cache_object: Any = None, **kwargs: Any
    ) -> None:
        """Store a completion, if it may be."""
        if self._is_asked(kwargs):
            with self._as_user(kwargs):
                await self._gate.store(self._asked(kwargs), _reply(result))

    def _is_asked(self, kwargs: Mapping[str, Any]) -> bool:
        return "messages" in kwargs and self.should_use_cache(**kwargs) is True

    def _as_user(self, kwargs: Mapping[str, Any]) -> Any:
        return as_user(self._gate.user() if self._user is None else self._user(kwargs))

    def _asked(self, kwargs: Mapping[str, Any]) -> Found:
        """Return the request of a reply, with the user who made it."""
        if not kwargs.get("stream"):
            return self._gate.unasked(_request(kwargs))
        found = self._streams.pop(_call(kwargs), None)
        # A stream may be read where another user acts: without its lookup it is nobody's to keep.
        return found or self._gate.unasked(_request(kwargs))._replace(no_store=True)

    def _completed(self, found: Found, kwargs: Mapping[str, Any]) -> Any:
        if found.text is None or found.result is None:
            if kwargs.get("stream"):
                self._streams[_call(kwargs)] = found
                if len(self._streams) > _STREAMS:
                    self._streams.popitem(last=False)
            return None
        made = wire.chat_completion(found.text, str(kwargs.get("model") or ""))
        if isinstance(kwargs.get("metadata"), dict):
            kwargs["metadata"]["semantic-similarity"] = found.result.similarity
        stored = time.time() - (found.result.age_seconds or 0.0)
        control = kwargs.get("cache") or {}
        oldest = control.get("s-maxage") or control.get("s-max-age") or float("inf")
        return self.get_cache_logic({"timestamp": stored, "response": json.dumps(made)}, oldest)


def _call(kwargs: Mapping[str, Any]) -> str:
    return str(kwargs.get("litellm_call_id"))


def _request(kwargs: Mapping[str, Any]) -> Request:
    known = {*ModelParamHelper.get_all_llm_api_params(), *_SHAPING}
    parameters = {name: value for name, value in kwargs.items()
                  if name in known or (name not in _OF_LITELLM and _is_data(value))}  # fmt: skip
    headers = {**(kwargs.get("headers") or {}), **(kwargs.get("extra_headers") or {})}
    parameters["extra_headers"] = headers or None
    provider = [str(kwargs.get(name) or "") for name in ("api_base", "base_url", "api_version")]
    provider += [str(litellm.api_base or ""), base_urls()]
    return request_of(kwargs["messages"], parameters, provider=json.dumps(provider))


def _is_data(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float, Mapping, list, tuple))


def _reply(result: Any) -> Reply:
    if callable(getattr(result, "model_dump", None)):
        result = result.model_dump(mode="json")
    found = json.loads(result) if isinstance(result, str) else result
    return chat_reply(found) if isinstance(found, Mapping) else Reply("", "not_text")
