"""PydanticAI behind the cache: `Agent(model, capabilities=[Glasscache(Gate(cache))])`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from glasscache.integrations.contract import Reply, Request, reply_of, request_of, with_client
from glasscache.integrations.gate import Gate, as_user


class Glasscache(AbstractCapability[Any]):
    """Capability that answers a user's question from the cache, also as a stream.

    Args:
        gate: The cache.
        user: Returns the verified user of a run from its `RunContext`; default: the gate's.
    """

    def __init__(self, gate: Gate, user: Callable[[Any], str | None] | None = None) -> None:
        self._gate = gate
        self._user = user

    def get_ordering(self) -> CapabilityOrdering:
        """Be next to the model, so that others see a hit as they see its reply."""
        return CapabilityOrdering(position="innermost")

    async def wrap_model_request(
        self, ctx: Any, *, request_context: Any, handler: Callable[[Any], Any]
    ) -> ModelResponse:
        """Answer a model's request, or make it and store its reply."""
        user = self._gate.user() if self._user is None else self._user(ctx)
        with as_user(user):
            found = await self._gate.find(_request(request_context))
        if found.text is not None:
            return ModelResponse(
                parts=[TextPart(found.text)],
                model_name=request_context.model.model_name,
                metadata={"glasscache": found.shown()},
                finish_reason="stop",
            )
        response: ModelResponse = await handler(request_context)
        await self._gate.store(found, _reply(response))
        return response


def _request(context: Any) -> Request:
    model = context.model
    parameters = {
        **(context.model_settings or {}),
        "model": model.model_name,
        "parameters": context.model_request_parameters,
    }
    provider = f"{model.system} {getattr(model, 'base_url', None) or ''}"
    parameters = with_client(parameters, getattr(model, "client", None))
    return request_of(list(_turns(context.messages)), parameters, provider=provider)


def _turns(messages: Sequence[ModelMessage]) -> Iterator[dict[str, Any]]:
    """Yield the turns of a conversation; the instructions of the last request lead."""
    last = messages[-1] if messages else None
    if isinstance(last, ModelRequest) and last.instructions:
        yield {"role": "system", "content": last.instructions}
    for message in messages:
        for part in message.parts:
            yield _turn(part)


def _turn(part: Any) -> dict[str, Any]:
    match part:
        case SystemPromptPart():
            return {"role": "system", "content": part.content}
        case UserPromptPart():
            content = part.content
            return {"role": "user", "content": content if isinstance(content, str) else [
                item if isinstance(item, str) else {"type": type(item).__name__} for item in content
            ]}  # fmt: skip
        case TextPart() | ThinkingPart():
            return {"role": "assistant", "content": part.content}
        case ToolCallPart():
            return {"type": "function_call", "call_id": part.tool_call_id, "name": part.tool_name,
                    "arguments": part.args}  # fmt: skip
        case ToolReturnPart() | RetryPromptPart():
            return {"type": "function_call_output", "call_id": part.tool_call_id,
                    "output": part.model_response_str() if isinstance(part, ToolReturnPart)
                    else part.model_response()}  # fmt: skip
    return {"type": type(part).__name__}


def _reply(response: ModelResponse) -> Reply:
    parts = [part for part in response.parts if not isinstance(part, ThinkingPart)]
    return reply_of(
        "".join(part.content for part in parts if isinstance(part, TextPart)),
        ended=response.finish_reason if response.state == "complete" else response.state,
        calls=any(isinstance(part, ToolCallPart) for part in parts),
        more=any(not isinstance(part, TextPart) for part in parts),
    )
