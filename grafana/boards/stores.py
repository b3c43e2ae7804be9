"""Stores: Redis, Chroma, the embedded store and the embedder, by their figures and ours."""

from __future__ import annotations

from grafana.builder.board import Board, Placed, Section
from grafana.builder.panels import Panel, Query, rising
from grafana.builder.queries import BY_CACHE, NAMED, grown, ours, over, percentiles, rate, redis

_UP = {"0": ("down", "red"), "1": ("up", "green")}
_BREAKER = {"0": ("closed", "green"), "1": ("half open", "orange"), "2": ("open", "red")}
_NO_EVICTION = 'maxmemory_policy="noeviction"'
_EVICTION = 'maxmemory_policy!="noeviction"'
_CHROMA = 'backend="chroma"'
_L2 = 'level="l2"'
_SPENT = f"sum by (cmd) ({rate(redis('redis_commands_duration_seconds_total'))})"
"""Seconds per second that Redis spends on each command."""
_DOWN_IS_BAD = ((None, "red"), (1, "green"))
_OPEN = 'state="open"'
_BACKENDS = ("redis", "chroma", "vectors", "embedder", "embedded")

SEEN = (
    Panel(
        "stat",
        "Which backends answer?",
        "As the agents' processes see them now: down as soon as one process cannot reach it.",
        [Query(f"min by (backend) ({ours('cache_backend_up')})", "{{backend}}", instant=True)],
        "none",
        "glasscache-tiers",
        steps=_DOWN_IS_BAD,
        names=_UP,
        none="no agent",
    ),
    Panel(
        "stat",
        "Are breakers open?",
        "The worst of all processes. open: it failed 5 times in a row and is only probed, so that "
        "lookups do not wait for it.",
        [Query(f"max by (backend) ({ours('cache_breaker_state')})", "{{backend}}", instant=True)],
        "none",
        "glasscache-tiers",
        steps=rising(1, 2),
        names=_BREAKER,
        none="no agent",
    ),
    Panel(
        "timeseries",
        "How many processes reach each backend?",
        "A line that falls for all processes: the backend. For one: that process, or its network.",
        [
            Query(
                "sum by (backend) (min by (cluster, namespace, job, instance, backend) "
                f"({ours('cache_backend_up')}))",
                "{{backend}}",
            )
        ],
        "none",
        "glasscache-tiers",
        decimals=0,
        ends=(0, None),
        colored=_BACKENDS,
    ),
    Panel(
        "timeseries",
        "When were breakers open?",
        "The worst of all processes: 0 closed, 1 half open, 2 open.",
        [Query(f"max by (backend) ({ours('cache_breaker_state')})", "{{backend}}")],
        "none",
        "glasscache-tiers",
        steps=rising(1, 2),
        names=_BREAKER,
        ends=(0, 2),
        decimals=0,
        colored=_BACKENDS,
    ),
    Panel(
        "timeseries",
        "How often did breakers open?",
        "Openings in each interval, of all processes, with those too short for the gauge. A "
        "backend that flaps fails some calls and answers others: look at its load and its network.",
        [
            Query(
                "sum by (backend) "
                f"(floor({grown(ours('cache_breaker_transitions_total', _OPEN))}))",
                "{{backend}}",
            )
        ],
        "none",
        "glasscache-tiers",
        decimals=0,
        ends=(0, None),
        colored=_BACKENDS,
    ),
    Panel(
        "timeseries",
        "What was lost?",
        "Work that was dropped, because a backend was unavailable or a queue full: records of "
        "decisions, semantic puts that waited for the model, vectors that the index did not take, "
        "verifications of hits.",
        [Query(f"sum by (queue) ({rate(ours('cache_dropped_total'))})", "{{queue}}")],
        "cps",
        "glasscache-tiers",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Do invalidations wait?",
        "Invalidations that a backend has not confirmed yet, of all processes. Above 0 for long: "
        "what somebody took out of service, or wanted forgotten, may still be there.",
        [Query(f"sum {BY_CACHE} ({ours('cache_invalidations_pending')})", NAMED)],
        "none",
        "glasscache-tiers",
        steps=((None, "green"), (1, "red")),
        decimals=0,
        ends=(0, None),
    ),
)

REDIS_NOW = (
    Panel(
        "stat",
        "Redis up",
        "As redis_exporter sees it now. No exporter: it does not answer Prometheus.",
        [Query(f"min({redis('redis_up')})", instant=True)],
        "none",
        "glasscache-overview",
        steps=_DOWN_IS_BAD,
        names=_UP,
        none="no exporter",
    ),
    Panel(
        "stat",
        "Memory used",
        "Share of its limit that the fullest server uses, of those that evict nothing: at 90 % "
        "CacheRedisMemoryFull pages, at 100 % writes fail. Without such a server: whether one has "
        "no limit, where CacheRedisMemoryUnlimited warns, or all evict, and are full when well.",
        [
            Query(
                f"max({over(redis('redis_memory_used_bytes'), redis('redis_memory_max_bytes'))}"
                f" and on (cluster, job, instance) {redis('redis_instance_info', _NO_EVICTION)})"
                f" or max({redis('redis_memory_max_bytes')} == 0) - 2"
                f" or -max({redis('redis_instance_info', _EVICTION)})",
                instant=True,
            )
        ],
        "percentunit",
        "glasscache-overview",
        steps=((None, "green"), (0.9, "red")),
        names={"-2": ("no limit", "orange"), "-1": ("it evicts", "green")},
        none="no answer",
    ),
    Panel(
        "stat",
        "Policy when full",
        "What Redis does when its memory is full. allkeys-lru or allkeys-lfu suit a cache; "
        "noeviction refuses writes. The value is the number of servers.",
        [
            Query(
                f"count by (maxmemory_policy) ({redis('redis_instance_info')})",
                "{{maxmemory_policy}}",
                instant=True,
            )
        ],
        "none",
        "glasscache-overview",
        none="no answer",
        says="value_and_name",
    ),
    Panel(
        "stat",
        "Up for",
        "The server that was started last. A restart without persistence empties the cache.",
        [Query(f"min({redis('redis_uptime_in_seconds')})", instant=True)],
        "s",
        "glasscache-overview",
        none="no answer",
        steps=((None, "orange"), (3600, "green")),
    ),
    Panel(
        "stat",
        "Keys",
        "In all databases, with the keys of others that use the server.",
        [Query(f"sum({redis('redis_db_keys')})", instant=True)],
        "none",
        "glasscache-tiers",
        none="no answer",
    ),
    Panel(
        "stat",
        "Clients used",
        "Connections, of as many as the server allows.",
        [
            Query(
                f"max({over(redis('redis_connected_clients'), redis('redis_config_maxclients'))})",
                instant=True,
            )
        ],
        "percentunit",
        "glasscache-overview",
        steps=rising(0.8, 0.9),
        decimals=1,
        none="no answer",
    ),
)

REDIS = (
    Panel(
        "timeseries",
        "How much memory does Redis use?",
        "And, dashed, its limit, where it has one.",
        [
            Query(redis("redis_memory_used_bytes"), "{{instance}}"),
            Query(f"{redis('redis_memory_max_bytes')} > 0", "limit {{instance}}"),
        ],
        "bytes",
        "glasscache-overview",
        limits="limit",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Does Redis evict keys?",
        "evicted: for want of memory, which costs hits when there is much of it. expired: their "
        "time was over, as intended. rejected: connections over the limit.",
        [
            Query(f"sum({rate(redis('redis_evicted_keys_total'))})", "evicted"),
            Query(f"sum({rate(redis('redis_expired_keys_total'))})", "expired"),
            Query(f"sum({rate(redis('redis_rejected_connections_total'))})", "rejected"),
        ],
        "cps",
        "glasscache-overview",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Where does Redis spend its time?",
        "The commands that take most of it, of all its clients, as shares of the one thread that "
        "serves them: at 100 % everybody waits.",
        [
            Query(f"topk(5, {_SPENT} > 0)", "{{cmd}}"),
        ],
        "percentunit",
        "glasscache-tiers",
        stacked=True,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How long does Redis take for a command?",
        "Mean time inside the server, of the commonest commands. Where this is short and L1 is "
        "slow, it is the network or the agent's event loop.",
        [
            Query(
                over(
                    _SPENT,
                    f"topk(5, sum by (cmd) ({rate(redis('redis_commands_total'))}))",
                ),
                "{{cmd}}",
            )
        ],
        "s",
        "glasscache-tiers",
        ends=(0, None),
    ),
)

REDIS_MORE = (
    Panel(
        "timeseries",
        "How busy is Redis?",
        "Commands per second of each server, from all its clients.",
        [Query(rate(redis("redis_commands_processed_total")), "{{instance}}")],
        "ops",
        "glasscache-tiers",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How often does Redis find a key?",
        "Of all reads of all its clients: not the cache's hit rate, which is on Overview.",
        [
            Query(
                over(
                    rate(redis("redis_keyspace_hits_total")),
                    f"{rate(redis('redis_keyspace_hits_total'))}"
                    f" + {rate(redis('redis_keyspace_misses_total'))}",
                ),
                "{{instance}}",
            )
        ],
        "percentunit",
        "glasscache-tiers",
        ends=(0, 1),
    ),
    Panel(
        "timeseries",
        "What does Redis take from its machine?",
        "Resident memory. Far above what it uses for data: fragmentation, or a copy for a save.",
        [
            Query(redis("redis_memory_used_rss_bytes"), "resident {{instance}}"),
            Query(redis("redis_memory_used_bytes"), "data {{instance}}"),
        ],
        "bytes",
        "glasscache-overview",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How much goes over the network?",
        "Bytes per second that Redis receives, and that it sends.",
        [
            Query(rate(redis("redis_net_input_bytes_total")), "received {{instance}}"),
            Query(rate(redis("redis_net_output_bytes_total")), "sent {{instance}}"),
        ],
        "Bps",
        "glasscache-overview",
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How many keys expire?",
        "Keys with and without an expiry. The cache's all have one.",
        [
            Query(
                f"sum by (instance) ({redis('redis_db_keys_expiring')})", "expiring {{instance}}"
            ),
            Query(
                f"sum by (instance) ({redis('redis_db_keys')})"
                f" - sum by (instance) ({redis('redis_db_keys_expiring')})",
                "without expiry {{instance}}",
            ),
        ],
        "none",
        "glasscache-tiers",
        decimals=0,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "Do replicas follow, do clients wait?",
        "Replicas that are connected to each server, and clients that wait in a blocking command. "
        "cut off: 1 while a replica has no link to its primary.",
        [
            Query(redis("redis_connected_slaves"), "replicas of {{instance}}"),
            Query(
                f"1 - {redis('redis_master_link_up')}"
                f" or on (cluster, job, instance) 0 * {redis('redis_up')}",
                "{{instance}} cut off",
            ),
            Query(redis("redis_blocked_clients"), "blocked at {{instance}}"),
        ],
        "none",
        "glasscache-overview",
        ends=(0, None),
        decimals=0,
    ),
)

CHROMA = (
    Panel(
        "stat",
        "Chroma up",
        "As the agents' processes see it: down as soon as one process cannot reach it. Chroma has "
        "no exporter of its own.",
        [Query(f"min({ours('cache_backend_up', _CHROMA)})", instant=True)],
        "none",
        "glasscache-semantic",
        steps=_DOWN_IS_BAD,
        names=_UP,
        none="not used",
    ),
    Panel(
        "timeseries",
        "How many vectors are there?",
        "Shared answers in the index. Replicas that share a server all see the same ones, so this "
        "is the largest count, not their sum.",
        [
            Query(
                f"max by (cluster, namespace, cache) ({ours('cache_entries', _L2)})",
                "{{cluster}} {{namespace}} {{cache}}",
            )
        ],
        "none",
        "glasscache-semantic",
        decimals=0,
        ends=(0, None),
    ),
    Panel(
        "timeseries",
        "How long does a search take?",
        "In Chroma, or in Redis where it keeps the vectors, without the embedding. The budget is "
        "150 ms; a lookup that needs more goes on without L2.",
        [Query(expr, name) for expr, name in percentiles("cache_search_seconds")],
        "s",
        "glasscache-semantic",
        steps=rising(0.1, 0.15),
        ends=(0, None),
        colored=("p50", "p95", "p99"),
    ),
)

STORES = Board(
    "glasscache-stores",
    "glasscache / Stores",
    "Redis, Chroma and the embedder: as the agents see them, and as redis_exporter does.",
    (
        Section(
            "As the agents see them",
            [
                Placed(SEEN[0], 12, 4),
                Placed(SEEN[1], 12, 4),
                *(Placed(panel, 8) for panel in SEEN[2:5]),
                *(Placed(panel, 12) for panel in SEEN[5:]),
            ],
        ),
        Section(
            "Redis",
            [
                *(Placed(panel, 4, 4) for panel in REDIS_NOW),
                *(Placed(panel, 12) for panel in REDIS),
                *(Placed(panel, 8) for panel in REDIS_MORE),
            ],
        ),
        Section("Chroma", [Placed(CHROMA[0], 4), Placed(CHROMA[1], 10), Placed(CHROMA[2], 10)]),
    ),
    with_redis=True,
)
