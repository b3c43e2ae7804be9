"""Spans: one around each operation and each tier that is asked, current while it works.

With only the OpenTelemetry API installed nothing is recorded and next to nothing is done: the SDK
and where spans go are the application's.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from contextvars import Token
from typing import TypeAlias

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from cache_core import __version__
from cache_core.model.values import Level
from cache_core.observability.instruments import CacheState
from cache_core.observability.instruments import Scope as CallScope
from cache_core.observability.records import (
    ComputeRecord,
    InvalidationRecord,
    LookupRecord,
    Operation,
    Record,
    RefreshRecord,
    ScopedRecord,
    TierRecord,
)

from . import names

log = logging.getLogger("glasscache")

_Recorded: TypeAlias = ScopedRecord | TierRecord

_SUPPRESSED = "suppress_instrumentation"
"""Key in OpenTelemetry's context that every instrumentation heeds."""

_ASKED_SECONDS = 0.05
"""Seconds for which an application without the SDK is believed to stay so."""

_ROOTS: frozenset[Operation] = frozenset({"lookup", "put", "invalidate", "compute", "refresh"})


class _SpanScope:
    """A span that is current until it is closed."""

    __slots__ = ("_name", "_span", "_token", "detailed", "span_context")

    def __init__(self, span: trace.Span, name: str) -> None:
        self._span = span
        self.span_context = span.get_span_context()
        self.detailed = span.is_recording()
        self._name = name
        self._token: Token[Context] = otel_context.attach(trace.set_span_in_context(span))

    def close(self, record: _Recorded) -> None:
        """Write what is known and end the span.

        A miss is no error; nor is a failure that the agent does not see. Only what its own
        `compute` raises is one.
        """
        otel_context.detach(self._token)
        if self.detailed and not self._span.is_recording():
            # The application has ended it: it was the current one.
            return
        try:
            if self.detailed:
                self._span.set_attributes(_attributes(record, self._name))
                if isinstance(record, ComputeRecord):
                    self._link(record)
                if record.outcome == "error":
                    self._fail(record)
        finally:
            if self.detailed:
                self._span.end()

    def _link(self, record: ComputeRecord) -> None:
        """Link to the computation that was waited for."""
        for scope in record.waited_for.scopes if record.waited_for is not None else ():
            if isinstance(scope, _SpanScope):
                self._span.add_link(scope.span_context)
        elsewhere = _span_context(record.waited_elsewhere)
        if elsewhere is not None:
            self._span.add_link(elsewhere)

    def _fail(self, record: _Recorded) -> None:
        # A reason is a backend's: waiting for another process may fail, too.
        if isinstance(record, ComputeRecord | RefreshRecord) and not record.reason:
            self._span.set_status(trace.StatusCode.ERROR)
        else:
            self._span.add_event(names.EVENT_FAILED, {names.ATTRIBUTE_ERROR: _error_type(record)})


class TracingInstrument:
    """Opens spans.

    Args:
        namespace: Of the cache; the attribute `cache.name`.
        tracer_provider: Where spans go; default: the global provider.
    """

    def __init__(self, namespace: str, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._namespace = namespace
        self._global = tracer_provider is None
        self._set_up, self._ask_again = False, 0.0
        self._tracer: trace.Tracer | None
        try:
            self._tracer = trace.get_tracer(names.TRACER, __version__, tracer_provider)
        except Exception as error:  # noqa: BLE001 - the environment names a provider that fails
            log.warning(
                "the cache makes no spans: OTEL_PYTHON_TRACER_PROVIDER fails with %s",
                type(error).__name__,
            )
            self._tracer = None

    def scope(self, operation: Operation, level: Level | None) -> CallScope | None:
        """Open a span; inside an operation only if that one is recorded."""
        if operation not in _ROOTS and not trace.get_current_span().is_recording():
            return None
        if self._tracer is None or _is_suppressed():
            return None
        if self._global and not self._is_set_up():
            return None
        name = operation if level is None else f"{operation} {level}"
        span = self._tracer.start_span(
            names.SPAN_PREFIX + name, attributes=names.KINDS.get(name, names.STEP)
        )
        if not span.get_span_context().is_valid:
            return None
        return _SpanScope(span, self._namespace)

    def _is_set_up(self) -> bool:
        """Return whether the application has set up the SDK; a late set-up is seen at once or soon.

        The provider is asked for now and then, because that reads the environment.
        """
        now = time.monotonic()
        if now >= self._ask_again:
            self._set_up = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
            self._ask_again = math.inf if self._set_up else now + _ASKED_SECONDS
        return self._set_up

    def record(self, record: Record) -> None:
        """Spans are closed where they were opened."""

    def report(self, state: CacheState) -> None:
        """Spans say nothing about states."""


def _span_context(text: str) -> trace.SpanContext | None:
    """Return a sampled span of another process, given as `trace_id-span_id`; `None` if invalid."""
    if not re.fullmatch(r"[0-9a-f]{32}-[0-9a-f]{16}", text):
        return None
    trace_id, span_id = (int(part, 16) for part in text.split("-"))
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def _is_suppressed() -> bool:
    """Return whether the caller wants no spans of instrumentations, as background work does."""
    return bool(otel_context.get_value(_SUPPRESSED))


def _attributes(record: _Recorded, namespace: str) -> dict[str, str | float | int | bool]:
    found: dict[str, str | float | int | bool | None] = {
        names.ATTRIBUTE_NAME: namespace,
        names.ATTRIBUTE_OUTCOME: record.outcome,
        names.ATTRIBUTE_REASON: _reason(record) or None,
    }
    if record.outcome == "error":
        found[names.ATTRIBUTE_ERROR] = _error_type(record)
    match record:
        case TierRecord():
            found |= {
                names.ATTRIBUTE_HIT: record.outcome == "hit",
                names.ATTRIBUTE_LEVEL: record.level,
                names.ATTRIBUTE_SIMILARITY: record.similarity,
                names.ATTRIBUTE_THRESHOLD: record.threshold,
                names.ATTRIBUTE_AGE: record.age_seconds,
                names.ATTRIBUTE_STALE: record.stale or None,
                names.ATTRIBUTE_TTL: record.ttl_seconds,
            }
        case LookupRecord():
            found |= {
                names.ATTRIBUTE_HIT: record.outcome == "hit",
                names.ATTRIBUTE_LEVEL: record.level,
                names.ATTRIBUTE_SIMILARITY: record.similarity,
                names.ATTRIBUTE_AGE: record.age_seconds,
                names.ATTRIBUTE_STALE: record.stale or None,
                names.ATTRIBUTE_LOOKUP_ID: record.lookup_id,
                # What a tier would have saved is not saved until the whole lookup has used it.
                names.ATTRIBUTE_SAVED: record.saved_usd or None,
                names.ATTRIBUTE_TUNING_VERSION: record.tuning_version,
                **_captured(record),
            }
    return {name: value for name, value in found.items() if value is not None}


def _captured(record: LookupRecord) -> dict[str, str]:
    """Return the texts of a lookup, if they are captured."""
    if not record.message_text:
        return {}
    found = {names.CAPTURED_MESSAGE: _as_message("user", record.message_text)}
    if record.outcome == "hit":
        found[names.CAPTURED_RESPONSE] = _as_message(
            "assistant", record.response_text, finish_reason="stop"
        )
    return found


def _as_message(role: str, text: str, **more: str) -> str:
    """Return a text in the form of OpenTelemetry's convention for generative AI."""
    message = {"role": role, "parts": [{"type": "text", "content": text}], **more}
    return json.dumps([message], ensure_ascii=False)


def _reason(record: _Recorded) -> str:
    """Return why a call ended as it did; of an invalidation that was made its kind."""
    return record.reason or (record.kind if isinstance(record, InvalidationRecord) else "")


def _error_type(record: _Recorded) -> str:
    return record.error_type or _reason(record) or "error"
