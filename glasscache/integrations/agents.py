"""OpenAI's Agents SDK behind the cache: a model, or a provider of models.

`Agent(model=CachedModel(model, Gate(cache)))`, or
`RunConfig(model_provider=CachedProvider(provider, Gate(cache)))` for all agents of a run. Only
final texts are stored: a call of a tool needs an id of its own in every run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import FunctionTool, ModelResponse, Usage
from agents.models.interface import Model, ModelProvider
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from glasscache.integrations import wire
from glasscache.integrations.contract import (
    Reply,
    Request,
    request_of,
    responses_reply,
    with_client,
)
from glasscache.integrations.gate import Gate

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

_POSITIONAL = ("system_instructions", "input", "model_settings", "tools", "output_schema",
               "handoffs", "tracing")  # fmt: skip


class CachedModel(Model):
    """A model behind the cache.

    Args:
        model: The model.
        gate: The cache.
    """

    def __init__(self, model: Model, gate: Gate) -> None:
        self._model = model
        self._gate = gate

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return a reply, from the cache or from the model."""
        found = await self._gate.find(self._request(args, kwargs))
        if found.text is not None:
            made = Response.model_validate(wire.response(found.text, ""))
            return ModelResponse(output=made.output, usage=Usage(), response_id=None)
        response = await self._model.get_response(*args, **kwargs)
        await self._gate.store(found, _reply(response.output))
        return response

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Yield the events of a reply, from the cache or from the model."""
        found = await self._gate.find(self._request(args, kwargs))
        if found.text is not None:
            for event in wire.response_events(wire.response(found.text, "")):
                yield _EVENT.validate_python(event)
            return
        events = self._model.stream_response(*args, **kwargs)
        async for event in self._gate.taped(found, events, _of_events):
            yield event

    async def close(self) -> None:
        """Close the model."""
        await self._model.close()

    def get_retry_advice(self, request: Any) -> Any:
        """Return the model's advice."""
        return self._model.get_retry_advice(request)

    def _request(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Request:
        given = {**dict(zip(_POSITIONAL, args, strict=False)), **kwargs}
        settings = {
            item.name: getattr(given["model_settings"], item.name)
            for item in dataclasses.fields(given["model_settings"])
            if item.name not in {"retry", "extra_args"}
        }
        schema = given["output_schema"]
        parameters = {
            **settings,
            **(given["model_settings"].extra_args or {}),
            "model": str(getattr(self._model, "model", type(self._model).__qualname__)),
            "instructions": given["system_instructions"],
            "tools": [_tool(tool) for tool in given["tools"]],
            "handoffs": [_handoff(handoff) for handoff in given["handoffs"]],
            "output": schema.json_schema() if schema and not schema.is_plain_text() else None,
            "include": given["model_settings"].response_include,
            "previous_response_id": given.get("previous_response_id"),
            "conversation": given.get("conversation_id"),
            "prompt": given.get("prompt"),
        }
        client = getattr(self._model, "_client", None)
        return request_of(
            given["input"],
            with_client(parameters, client),
            provider=str(getattr(client, "base_url", "agents")),
        )


class CachedProvider(ModelProvider):
    """A provider whose models are behind the cache.

    Args:
        provider: The provider.
        gate: The cache.
    """

    def __init__(self, provider: ModelProvider, gate: Gate) -> None:
        self._provider = provider
        self._gate = gate

    def get_model(self, model_name: str | None) -> Model:
        """Return a model of the provider, behind the cache."""
        return CachedModel(self._provider.get_model(model_name), self._gate)

    async def aclose(self) -> None:
        """Close the provider."""
        await self._provider.aclose()


def _tool(tool: Any) -> Any:
    """Return what a model sees of a tool; a tool of the provider's is its settings."""
    if isinstance(tool, FunctionTool):
        return {"name": tool.name, "description": tool.description,
                "schema": tool.params_json_schema, "strict": tool.strict_json_schema}  # fmt: skip
    return tool


def _handoff(handoff: Any) -> Any:
    return {"name": handoff.tool_name, "description": handoff.tool_description,
            "schema": handoff.input_json_schema, "agent": handoff.agent_name}  # fmt: skip


def _reply(output: Sequence[Any]) -> Reply:
    return responses_reply({"output": [item.model_dump(mode="json") for item in output]})


def _of_events(events: list[Any]) -> Reply:
    last = wire.last_response([event.model_dump(mode="json") for event in events[-1:]])
    return responses_reply(last)
