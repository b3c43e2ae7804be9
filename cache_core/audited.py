"""What people do to a cache besides tuning it, each thing with its line in the audit trail."""

from __future__ import annotations

from typing import Literal

from cache_core.audit import AUDIT, AuditLog
from cache_core.decisions import Decision
from cache_core.exceptions import BackendError
from cache_core.models import Invalidation
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.remedies import tell

What = Literal["message", "document", "tag", "writer", "user"]

_VALUES = 10


def audit_log(cache: MultiLevelCache) -> AuditLog:
    """Return the audit trail of a cache."""
    return AuditLog(cache.parts.store, cache.parts.keys.own(AUDIT))


async def judge(cache: MultiLevelCache, decision: Decision, *, correct: bool, author: str) -> None:
    """Record whether a hit was right, or would have been."""
    log = audit_log(cache)
    said = f"{decision.lookup_id}: {'same' if correct else 'different'}"
    record = await log.begin(author, "review", said)
    await cache.judge(decision, correct=correct)
    await log.end(record, removed=0, complete=True)


async def invalidate(
    cache: MultiLevelCache, what: What, value: str, user: str | None, *, author: str, note: str
) -> Invalidation:
    """Take answers out of service. While the store is away it is pending, without its line."""
    if not cache.is_open:
        return await _invalidate(cache, what, value, user)
    trail = audit_log(cache)
    target = _shown(cache, what, value, user)
    try:
        record = await trail.begin(author, f"invalidate {what}", target, note)
    except BackendError as error:
        tell("the audit trail lacks an invalidation", error)
        return await _invalidate(cache, what, value, user)
    done = await _invalidate(cache, what, value, user)
    try:
        await trail.end(record, removed=done.removed, complete=done.complete)
    except BackendError as error:
        tell("the audit trail lacks the end of an invalidation", error)
    return done


async def _invalidate(
    cache: MultiLevelCache, what: What, value: str, user: str | None
) -> Invalidation:
    match what:
        case "message":
            return await cache.invalidate(value, user)
        case "document":
            return await cache.invalidate_document(value)
        case "tag":
            return await cache.invalidate_tag(value)
        case "writer":
            return await cache.invalidate_writer(value)
        case "user":
            return await cache.forget_user(value)


async def count(
    cache: MultiLevelCache, what: What, value: str, user: str | None = None
) -> Invalidation:
    """Return what `invalidate` would take out of service."""
    match what:
        case "message":
            return await cache.invalidate(value, user, dry_run=True)
        case "document":
            return await cache.invalidate_document(value, dry_run=True)
        case "tag":
            return await cache.invalidate_tag(value, dry_run=True)
        case "writer":
            return await cache.invalidate_writer(value, dry_run=True)
        case "user":
            return Invalidation(await _entries_of(cache, value), complete=True)


async def _entries_of(cache: MultiLevelCache, user: str) -> int:
    keys, store = cache.parts.keys, cache.parts.store
    names: list[str] = []
    for kind in ("user", "writer"):
        index = await store.rows(keys.index(kind, keys.user(user)))
        names += [keys.listed_by(name) for name, tag in index.items() if tag]
    found = 0
    for start in range(0, len(names), _VALUES):
        values = await store.read(names[start : start + _VALUES])
        found += sum(item is not None for item in values)
    return found


def _shown(cache: MultiLevelCache, what: What, value: str, user: str | None) -> str:
    """Return what was invalidated as the audit trail may keep it."""
    keys = cache.parts.keys
    if what in {"document", "tag"}:
        return value
    if what in {"user", "writer"}:
        # Whoever is forgotten is forgotten here, too.
        return f"user {keys.user(value)[:12]}"
    readable = cache.settings.capture_message_content and keys.sealer is None
    shown = value if readable else f"message {keys.query(value, None).tag[:12]}"
    return shown if user is None else f"{shown}, of user {keys.user(user)[:12]}"
