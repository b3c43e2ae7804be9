"""Names of metrics, labels, spans and attributes, each defined once."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Workers = Literal["sum", "livesum", "livemin", "livemax", "livemostrecent"]


class Metric(NamedTuple):
    """Definition of a metric.

    Attributes:
        name: The name in Prometheus.
        kind: The type.
        labels: Labels besides `cache`.
        help: The description, with the unit.
        workers: For a gauge: the aggregation over worker processes in Prometheus multiprocess mode;
            `live...` excludes workers that have ended. Counters and histograms are summed.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    workers: Workers = "livemax"


CACHE_LABEL: Final = "cache"
"""Label of every metric: the namespace."""

HITS: Final = Metric(
    "cache_hits_total", "counter", ("level",), "Times a tier was needed and had an answer."
)
MISSES: Final = Metric(
    "cache_misses_total", "counter", ("level",), "Times a tier was needed and had nothing to serve."
)
LATENCY: Final = Metric(
    "cache_latency_seconds", "histogram", ("level",), "Duration of asking a tier, in seconds."
)
COST_SAVED: Final = Metric(
    "cache_cost_saved_usd",
    "gauge",
    (),
    "Net savings since the process started, in USD.",
    "sum",  # like the counters that it is the difference of, it keeps what ended workers saved
)
LOOKUPS: Final = Metric(
    "cache_lookups_total", "counter", ("outcome",), "Lookups that completed, by their one outcome."
)
LOOKUP_SECONDS: Final = Metric(
    "cache_lookup_seconds", "histogram", ("outcome",), "Duration of a lookup, in seconds."
)
ERRORS: Final = Metric(
    "cache_errors_total",
    "counter",
    ("level", "reason"),
    "Times a tier was needed and failed, by its one reason.",
)
MISS_REASONS: Final = Metric(
    "cache_miss_reasons_total",
    "counter",
    ("level", "reason"),
    "Misses of a tier, by their one reason.",
)
BYPASS_REASONS: Final = Metric(
    "cache_bypass_reasons_total",
    "counter",
    ("reason",),
    "Lookups that bypassed the cache, by their one reason.",
)
CANCELLED: Final = Metric(
    "cache_cancelled_total", "counter", ("level",), "Lookups cancelled by their caller."
)
SAVED: Final = Metric(
    "cache_saved_usd_total", "counter", ("level",), "Gross savings of hits, in USD."
)
SPENT: Final = Metric(
    "cache_spent_usd_total", "counter", ("kind",), "Costs of the cache itself, in USD."
)
PUTS: Final = Metric(
    "cache_puts_total",
    "counter",
    ("level", "outcome"),
    "Entries offered to a tier, by outcome.",
)
PUT_REASONS: Final = Metric(
    "cache_put_reasons_total",
    "counter",
    ("level", "reason"),
    "Entries offered to a tier that have a reason: not stored, kept private because it looks "
    "personal, promoted, withdrawn.",
)
PUT_OUTCOMES: Final = Metric(
    "cache_put_outcomes_total",
    "counter",
    ("outcome",),
    "Puts, each once, by their one outcome.",
)
PUT_LOSSES: Final = Metric(
    "cache_put_losses_total",
    "counter",
    ("reason",),
    "Puts that were stored in part or not at all, each once, by their one reason.",
)
DROPPED: Final = Metric(
    "cache_dropped_total",
    "counter",
    ("queue",),
    "Pieces of work dropped: a backend was unavailable, a queue full, or a part failed.",
)
INVALIDATIONS: Final = Metric(
    "cache_invalidations_total",
    "counter",
    ("kind",),
    "Invalidations requested, by what they named.",
)
INVALIDATIONS_PENDING: Final = Metric(
    "cache_invalidations_pending",
    "gauge",
    (),
    "Invalidations that a backend has not confirmed yet.",
    "livesum",
)
BACKEND_UP: Final = Metric(
    "cache_backend_up",
    "gauge",
    ("backend",),
    "1 if the backend answers, else 0; nothing while its model loads, or once the cache is closed.",
    "livemin",  # down as soon as one worker cannot reach it
)
REDIS_SERVER: Final = Metric(
    "cache_redis_server",
    "gauge",
    ("run_id",),
    "1 for the run id of each Redis server in use, the last known one; redis_exporter has it, too.",
)
BREAKER_STATE: Final = Metric(
    "cache_breaker_state",
    "gauge",
    ("backend",),
    "State of the breaker of a backend: 0 closed, 1 half open, 2 open.",
)
BREAKER_TRANSITIONS: Final = Metric(
    "cache_breaker_transitions_total",
    "counter",
    ("backend", "state"),
    "Times the breaker of a backend opened or closed.",
)
SIMILARITY: Final = Metric(
    "cache_similarity",
    "histogram",
    ("outcome",),
    "Similarity of the nearest question to the message, 0..1.",
)
ENTRY_AGE: Final = Metric(
    "cache_entry_age_seconds", "histogram", ("level",), "Age of entries served, in seconds."
)
STALE_HITS: Final = Metric(
    "cache_stale_hits_total", "counter", (), "Answers served past their TTL."
)
EMBEDDING_SECONDS: Final = Metric(
    "cache_embedding_seconds", "histogram", (), "Duration of one embedding, in seconds."
)
EMBEDDING_TOKENS: Final = Metric(
    "cache_embedding_tokens_total",
    "counter",
    (),
    "Tokens embedded, as reported by an embedding endpoint.",
)
SEARCH_SECONDS: Final = Metric(
    "cache_search_seconds",
    "histogram",
    (),
    "Duration of one search in the vector index, without the embedding, in seconds.",
)
COMPUTE_SECONDS: Final = Metric(
    "cache_compute_seconds",
    "histogram",
    ("outcome",),
    "Duration of a call of the application's own function, in seconds: ok, error, timeout.",
)
VERIFICATION_SECONDS: Final = Metric(
    "cache_verification_seconds",
    "histogram",
    ("outcome",),
    "Duration of a background check of a hit, in seconds: ok, error, timeout.",
)
APPROVALS: Final = Metric(
    "cache_approvals_total",
    "counter",
    ("verdict",),
    "Answers in doubt that were to be approved before serving, by verdict; over_budget, and failed "
    "while the breaker is open, without a call.",
)
APPROVAL_SECONDS: Final = Metric(
    "cache_approval_seconds", "histogram", (), "Duration of a call of the approver, in seconds."
)
EVENT_LOOP_LAG: Final = Metric(
    "cache_event_loop_lag_seconds",
    "gauge",
    (),
    "Longest delay of the cache's event loop in about the last second, in seconds.",
)
GUARD_VETOES: Final = Metric(
    "cache_guard_vetoes_total", "counter", ("guard",), "Matches by similarity that a guard vetoed."
)
VERDICTS: Final = Metric(
    "cache_verdicts_total",
    "counter",
    ("verdict", "source"),
    "Hits that were judged right or wrong; only source verify is a random sample.",
)
JUDGED_MISSES: Final = Metric(
    "cache_judged_misses_total",
    "counter",
    ("verdict",),
    "Misses of L2 whose fresh answer was compared with the nearest stored one: right means that it "
    "would have been a right hit, unknown that nothing told whether the two are the same.",
)
INTENT_ANSWERS: Final = Metric(
    "cache_intent_answers_total",
    "counter",
    ("intent", "origin"),
    "Answers by intent: of the cache (hits of L1 and L2), or computed by the agent (puts with the "
    "intent, refreshes included). `*`: all intents that neither `shared_intents` nor an override "
    "of the tuning names, and those after the 32nd.",
)
COMPARED_ANSWERS: Final = Metric(
    "cache_compared_answers_total",
    "counter",
    ("verdict",),
    "Comparisons of fresh answers with the stored ones that they replace: changed, or unchanged "
    "when that had expired (unchanged_at_expiry) or before (unchanged_before). unknown: nothing "
    "told which, so the copies went. failed: the store failed or was too slow, so copies of an "
    "answer that changed may remain until they expire.",
)
ISOLATION_VIOLATIONS: Final = Metric(
    "cache_isolation_violations_total",
    "counter",
    (),
    "Entries of another scope that were found and not served.",
)
FLIGHT_JOINS: Final = Metric(
    "cache_flight_joins_total", "counter", (), "Computations saved by waiting for another one."
)
REFRESHES: Final = Metric(
    "cache_refreshes_total",
    "counter",
    ("outcome",),
    "Refreshes of answers before they expired: stored, error, skipped, cancelled.",
)
ENTRIES: Final = Metric(
    "cache_entries", "gauge", ("level",), "Entries stored, if the store reports it."
)
SEMANTIC_THRESHOLD: Final = Metric(
    "cache_semantic_threshold",
    "gauge",
    (),
    "Similarity threshold in force, 0..1.",
    "livemostrecent",
)
TTL_SECONDS: Final = Metric(
    "cache_ttl_seconds", "gauge", ("level",), "TTL in force, in seconds.", "livemostrecent"
)
HIT_RATE_OBJECTIVE: Final = Metric(
    "cache_hit_rate_objective",
    "gauge",
    (),
    "Objective for the overall hit rate, 0..1.",
    "livemostrecent",
)
TUNING_VERSION: Final = Metric(
    "cache_tuning_version",
    "gauge",
    (),
    "Version of the tuning in force.",
    "livemin",  # that of the worker that lags, which disagrees with the other replicas
)
TUNING_CHANGES: Final = Metric(
    "cache_tuning_changes_total", "counter", (), "Changes of the tuning that were applied."
)
TUNING_REJECTED: Final = Metric(
    "cache_tuning_rejected_total", "counter", (), "Changes of the tuning that were rejected."
)
START_TIME: Final = Metric(
    "cache_start_time_seconds",
    "gauge",
    (),
    "Time when the cache was opened, in seconds since the epoch.",
    "livemin",  # workers are replaced all the time: the fleet started with the oldest
)
BUILD_INFO: Final = Metric(
    "cache_build_info", "gauge", ("version",), "Always 1, labelled with the version of glasscache."
)

METRICS: Final[tuple[Metric, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
"""All metrics."""

PUBLISHED: Final = (HITS, MISSES, LATENCY, COST_SAVED)
"""Metrics whose names never change."""

QUEUES: Final = (
    "churn",
    "decisions",
    "feedback",
    "history",
    "invalidations",
    "semantic_puts",
    "vectors",
    "verification",
)

TRACER: Final = "glasscache"
"""Instrumentation scope of all spans; its version is this distribution's."""

SERVICE: Final = "glasscache"
"""Default `service.name`."""

RESOURCE_SERVICE: Final = "service.name"
RESOURCE_VERSION: Final = "glasscache.version"

SPAN_PREFIX: Final = "cache."
"""A span is named after its operation: cache.lookup, cache.get, cache.embed, cache.search,
cache.compute, cache.refresh, cache.put, cache.invalidate. That of a tier also names the tier, as in
`cache.get l2`: a tree of spans shows nothing but names."""

ATTRIBUTE_NAME: Final = "cache.name"
ATTRIBUTE_LEVEL: Final = "cache.level"
ATTRIBUTE_OUTCOME: Final = "cache.outcome"
ATTRIBUTE_HIT: Final = "cache.hit"
ATTRIBUTE_REASON: Final = "cache.reason"
ATTRIBUTE_SIMILARITY: Final = "cache.similarity"
ATTRIBUTE_THRESHOLD: Final = "cache.threshold"
ATTRIBUTE_AGE: Final = "cache.age_seconds"
ATTRIBUTE_STALE: Final = "cache.stale"
ATTRIBUTE_TTL: Final = "cache.ttl_seconds"
ATTRIBUTE_SAVED: Final = "cache.saved_usd"
ATTRIBUTE_TUNING_VERSION: Final = "cache.tuning_version"
ATTRIBUTE_LOOKUP_ID: Final = "cache.lookup_id"
ATTRIBUTE_ERROR: Final = "error.type"
EVENT_FAILED: Final = "cache.backend_failed"

GEN_AI_OPERATION: Final = "gen_ai.operation.name"
"""Kind of step in OpenTelemetry's convention for generative AI. Langfuse keeps only spans with an
attribute of that convention; one with texts and without a kind counts as a call of a model."""

SPAN_KIND: Final = "openinference.span.kind"
"""Kind of step in OpenInference's convention, for Phoenix, Langfuse, LangSmith and Datadog."""

_SEARCH: Final = {GEN_AI_OPERATION: "search_memory", SPAN_KIND: "RETRIEVER"}
_STEP_OF_SEARCH: Final = {GEN_AI_OPERATION: "search_memory", SPAN_KIND: "CHAIN"}
_WORKFLOW: Final = {GEN_AI_OPERATION: "invoke_workflow", SPAN_KIND: "CHAIN"}

STEP: Final = {SPAN_KIND: "CHAIN"}
"""Attributes of all other spans, from their start."""

KINDS: Final[dict[str, dict[str, str]]] = {
    "lookup": _SEARCH,
    "get l2": _STEP_OF_SEARCH,
    "embed": _STEP_OF_SEARCH,
    "compute": _WORKFLOW,
    "refresh": _WORKFLOW,
    "put": {GEN_AI_OPERATION: "upsert_memory", SPAN_KIND: "CHAIN"},
    "invalidate": {GEN_AI_OPERATION: "delete_memory", SPAN_KIND: "CHAIN"},
}
"""Attributes by the name of a span, from its start, so that samplers see them: of all operations,
and of what an application's own code runs below, as an embedder of its own. A span that a platform
drops would take the spans below it out of the trace. None is a kind of model call."""

CAPTURED_MESSAGE: Final = "gen_ai.input.messages"
"""Attribute of `cache.lookup`, only while content is captured: the message, in the form of
OpenTelemetry's convention for generative AI: JSON,
`[{"role": "user", "parts": [{"type": "text", "content": ...}]}]`."""

CAPTURED_RESPONSE: Final = "gen_ai.output.messages"
"""Likewise for the served response, with `"role": "assistant"` and a `finish_reason`."""
