"""LangChain behind the cache: an agent's middleware, and a cache for models.

`GlasscacheMiddleware` in `create_agent(middleware=[...])` answers the first step of a run, with all
that shapes the answer in sight. `GlasscacheCache` in `set_llm_cache(...)`, or in `cache=` of a
model, answers any model; LangChain does not ask it for streams.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.caches import BaseCache
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.function_calling import convert_to_openai_tool

from glasscache.integrations.contract import Reply, Request, base_urls, reply_of, request_of
from glasscache.integrations.gate import Found, Gate, as_user

_TAG = "langchain"
_ROLES = {"human": "user", "ai": "assistant"}
_TEXT = frozenset({"text", "output_text", "reasoning", "thinking", "redacted_thinking"})


_BESIDE = ("parsed", "audio", "tool_outputs")
"""Parts of a reply beside its content; an object parsed from it is what its caller returns."""


class GlasscacheMiddleware(AgentMiddleware):
    """Middleware that answers a user's question from the cache, sync and async.

    Args:
        gate: The cache.
        user: Returns the verified user of a run from its `Runtime`; default: the gate's.
    """

    def __init__(self, gate: Gate, user: Callable[[Any], str | None] | None = None) -> None:
        super().__init__()
        self._gate = gate
        self._user = user

    def wrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
    ) -> Any:
        """Answer a model call, or make it and store its reply."""
        with as_user(self._user_of(request)):
            found = self._gate.find_now(_of_agent(request))
        if found.text is not None:
            return ModelResponse(result=[_message(found)])
        response = handler(request)
        self._gate.store_now(found, _of_response(response))
        return response

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> Any:
        """Answer a model call, or make it and store its reply."""
        with as_user(self._user_of(request)):
            found = await self._gate.find(_of_agent(request))
        if found.text is not None:
            return ModelResponse(result=[_message(found)])
        response = await handler(request)
        await self._gate.store(found, _of_response(response))
        return response

    def _user_of(self, request: ModelRequest) -> str | None:
        return self._gate.user() if self._user is None else self._user(request.runtime)


class GlasscacheCache(BaseCache):
    """Cache of models, chat or completion.

    Args:
        gate: The cache. Its answers have the tag `langchain`, by which `clear` invalidates them.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate.tagged(_TAG)

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Return the stored generations; `None` if there are none."""
        return _generations(self._gate.find_now(_of_prompt(prompt, llm_string)), prompt)

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Return the stored generations; `None` if there are none."""
        return _generations(await self._gate.find(_of_prompt(prompt, llm_string)), prompt)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Store generations, if they may be."""
        found = self._gate.unasked(_of_prompt(prompt, llm_string))
        self._gate.store_now(found, _of_generations(return_val))

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Store generations, if they may be."""
        found = self._gate.unasked(_of_prompt(prompt, llm_string))
        await self._gate.store(found, _of_generations(return_val))

    def clear(self, **kwargs: Any) -> None:
        """Invalidate all that was stored through such a cache."""
        self._gate.now(self.aclear(**kwargs))

    async def aclear(self, **kwargs: Any) -> None:
        """Invalidate all that was stored through such a cache."""
        await self._gate.cache.invalidate_tag(_TAG)


# ------------------------------------------------------------------------------------ requests


def _of_agent(request: ModelRequest) -> Request:
    """Return the request of an agent's step."""
    system = [request.system_message] if request.system_message is not None else []
    turns = convert_to_openai_messages([*system, *request.messages])
    parameters = {
        **request.model_settings,
        "llm": request.model._get_llm_string(),  # noqa: SLF001 - as LangChain's own caches do
        "tools": [convert_to_openai_tool(tool) for tool in request.tools],
        "tool_choice": request.tool_choice,
    }
    made = request_of(turns, parameters, provider=_provider())
    if request.response_format is not None and made.cacheable:
        return made._replace(why_not="not_text")  # an object, which the model's text is not
    return made


def _of_prompt(prompt: str, llm_string: str) -> Request:
    """Return the request of a model: messages as LangChain serialises them, or a text."""
    try:
        messages = json.loads(prompt)
        turns: Any = [_turn(item["kwargs"]) for item in messages if item["lc"]]
    except (ValueError, TypeError, KeyError):
        turns = prompt
    return request_of(turns, {"llm": llm_string}, provider=_provider())


def _provider() -> str:
    """Return what of the provider is not in LangChain's description of a model."""
    return f"langchain {base_urls()}"


def _turn(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("content", "name", "tool_calls", "tool_call_id")
    role = _ROLES.get(fields["type"], fields["type"])
    turn = {"role": role, **{name: fields[name] for name in kept if fields.get(name)}}
    called = (fields.get("additional_kwargs") or {}).get("function_call")
    return {**turn, "function_call": called} if called else turn


# ------------------------------------------------------------------------------------- replies


def _of_response(response: Any) -> Reply:
    """Return what of a step's result is stored: its one message."""
    whole = getattr(response, "model_response", response)
    messages = getattr(whole, "result", [whole])
    if len(messages) != 1 or not isinstance(messages[0], AIMessage):
        return Reply("", "tool_calls")
    return _of_message(messages[0])


def _of_message(message: BaseMessage) -> Reply:
    said = message.response_metadata
    beside = message.additional_kwargs
    content = message.content if isinstance(message.content, list) else []
    return reply_of(
        str(message.text),
        ended=said.get("finish_reason") or said.get("stop_reason") or said.get("status"),
        calls=bool(getattr(message, "tool_calls", None)
                   or getattr(message, "invalid_tool_calls", None)
                   or beside.get("function_call")),
        refused=bool(beside.get("refusal"))
        or any(isinstance(part, dict) and part.get("type") == "refusal" for part in content),
        more=bool(said.get("logprobs")) or any(beside.get(name) is not None for name in _BESIDE)
        or any(isinstance(part, dict) and _is_more(part) for part in content),
    )  # fmt: skip


def _is_more(part: Mapping[str, Any]) -> bool:
    cited = part.get("annotations") or part.get("citations")
    return part.get("type") not in _TEXT or bool(cited)


def _message(found: Found) -> AIMessage:
    """Return a stored answer as a message, which used no tokens."""
    used = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    return AIMessage(
        content=found.text or "",
        response_metadata={"glasscache": found.shown(), "finish_reason": "stop"},
        usage_metadata=used,
    )


def _of_generations(generations: Sequence[Generation]) -> Reply:
    if any(isinstance(item, ChatGeneration) for item in generations):
        several = len(generations) != 1
        return Reply("", "several_answers") if several else _of_message(generations[0].message)
    replies = [
        reply_of(item.text, ended=(item.generation_info or {}).get("finish_reason"))
        for item in generations
    ]
    refused = next((reply for reply in replies if reply.why_not is not None), None)
    stored = [[item.text, item.generation_info] for item in generations]
    return refused or Reply(json.dumps(stored, default=str))


def _generations(found: Found, prompt: str) -> list[Generation] | None:
    """Return a stored answer as LangChain takes it: messages to messages, else generations."""
    if found.text is None:
        return None
    if found.request.question != prompt:
        return [ChatGeneration(message=_message(found))]
    return [Generation(text=text, generation_info=info) for text, info in json.loads(found.text)]
