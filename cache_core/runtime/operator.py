"""Operator of a cache: what a dashboard or a command may ask of it, and do to it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar, get_args

from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError, ConfigurationError
from cache_core.model.remedies import log_failure
from cache_core.model.values import Context, Invalidation
from cache_core.observability.audit import AUDIT, OF_USER, AuditLog, AuditRecord
from cache_core.observability.decisions import Decision, Page
from cache_core.observability.fleet import InForce, ReplicaReport, in_force
from cache_core.observability.history import By, Period
from cache_core.operations.arguments import check_label, check_message
from cache_core.operations.inspect import StoredEntry, stored_entries
from cache_core.operations.invalidate.outbox import Request, RequestKind
from cache_core.operations.learning import LABELS_KEPT, Label, label_log
from cache_core.operations.reembed import Fate, Reembedding
from cache_core.operations.transfer.dump import NOTHING_KNOWN, Dumping, Known, Left
from cache_core.operations.transfer.lines import entry, first, last
from cache_core.operations.transfer.load import Loaded, Loading
from cache_core.runtime.assembly import Parts
from cache_core.runtime.lifecycle import Engine
from cache_core.runtime.open import Open

Result = TypeVar("Result")


class OnEngine(Protocol):
    """Something that runs work on the engine of a cache, in the event loop that it is open in."""

    def __call__(
        self, work: Callable[[Engine], Coroutine[Any, Any, Result]]
    ) -> Coroutine[Any, Any, Result]:
        """Return what *work* returns."""
        ...


class Operator:
    """The tools of people who run a cache; `MultiLevelCache.operator` returns it.

    What is done here has an author, and its line in the audit trail. Nobody outside this library
    has to know how keys are named, or what is encrypted. Every coroutine raises `BackendError` if
    the store is unavailable, unless it says otherwise.

    Args:
        on_engine: Runs work on the cache's engine.
        settings: Fixed ones of the cache.
    """

    def __init__(self, on_engine: OnEngine, settings: Settings) -> None:
        self._on_engine = on_engine
        self._settings = settings

    # ------------------------------------------------------------------------------ see

    async def replicas(self) -> list[ReplicaReport]:
        """Return the other replicas that are alive, by name."""
        return await self._on_engine(_replicas)

    async def in_force(self) -> InForce:
        """Return the tuning in force where lookups are served; this cache's while no replica is."""
        return await self._on_engine(_in_force)

    async def entries(self, message: str) -> list[StoredEntry]:
        """Return the entries of a message, of all users and contexts, by tier; 200 at most.

        Texts are empty unless `capture_message_content` is on. Shared entries of the vector index
        are not among them.
        """
        captures = self._settings.capture_message_content

        async def work(engine: Engine) -> list[StoredEntry]:
            parts, tuning = await _parts(engine), (await _in_force(engine)).tuning
            return await stored_entries(
                parts.store, parts.keys, message, tuning, with_text=captures
            )

        return await self._on_engine(work)

    async def audit_trail(self, limit: int = 100) -> list[AuditRecord]:
        """Return what was done besides tuning, newest first."""

        async def work(engine: Engine) -> list[AuditRecord]:
            return (await _audit(await _parts(engine)).last(limit))[::-1]

        return await self._on_engine(work)

    async def decisions_after(self, position: str = "", count: int = 2_000) -> Page:
        """Return the next lookups of all replicas after a position in the log; `""` is its start.

        They are in the order of the log: see `decisions.in_order`.
        """

        async def work(engine: Engine) -> Page:
            return await (await _parts(engine)).decisions.after(position, count)

        return await self._on_engine(work)

    async def labels(self) -> list[Label]:
        """Return what the misses of all replicas taught, oldest first."""

        async def work(engine: Engine) -> list[Label]:
            parts = await _parts(engine)
            return await label_log(parts.store, parts.keys).last(LABELS_KEPT)

        return await self._on_engine(work)

    async def history(
        self, since: float, until: float | None = None, *, by: By = "hour"
    ) -> list[Period]:
        """Return what all replicas counted, oldest first, without empty periods.

        It has all lookups of 90 days, whatever the log of decisions keeps, and does not change when
        a process ends. What was counted within the last five seconds may be missing.

        Args:
            since: Seconds since the epoch. The hour that it is in counts whole.
            until: The same; default: now.
            by: `hour`, or `day` of UTC. Days more than a week ago have no hours: they are whole.

        Raises:
            ValueError: For another *by*.
        """
        if by not in get_args(By):
            msg = f"by={by!r} is refused: one of {', '.join(get_args(By))}"
            raise ValueError(msg)

        async def work(engine: Engine) -> list[Period]:
            parts = await _parts(engine)
            end = parts.store.now() + 1 if until is None else until
            return await parts.history.periods(since, end, by)

        return await self._on_engine(work)

    async def flush_decisions(self) -> None:
        """Write out the decisions of this cache that wait to be written."""
        await self._on_engine(_flush)

    async def context_digest(self, context: Context) -> str:
        """Return the digest that decisions have for *context*."""

        async def work(engine: Engine) -> str:
            return (await _parts(engine)).keys.query("-", None, context).context

        return await self._on_engine(work)

    async def users_forgotten(self) -> int:
        """Return a number that changes when a user was forgotten, by whatever process.

        A caller that keeps a copy of decisions or texts drops it then.
        """
        return await self._on_engine(_users_forgotten)

    # ------------------------------------------------------------------------------ do

    async def judge(self, decision: Decision, *, correct: bool, author: str) -> None:
        """Record whether a hit was right, or would have been."""
        target = f"{decision.lookup_id}: {'same' if correct else 'different'}"

        async def work(engine: Engine) -> None:
            cache = await _opened(engine)
            audit = _audit(cache.parts)
            record = await audit.begin(author, "review", target)
            await cache.judge(decision, correct=correct, source="review")
            await audit.end(record, removed=0, complete=True)

        await self._on_engine(work)

    async def withdraw(self, decision: Decision, *, author: str) -> None:
        """Take back the reviews of a lookup."""

        async def work(engine: Engine) -> None:
            cache = await _opened(engine)
            audit = _audit(cache.parts)
            record = await audit.begin(author, "withdraw review", decision.lookup_id)
            removed = await cache.withdraw(decision.lookup_id)
            await audit.end(record, removed=removed, complete=True)

        await self._on_engine(work)

    async def invalidate(
        self,
        kind: RequestKind,
        value: str,
        user_id: str | None = None,
        *,
        author: str,
        note: str = "",
    ) -> Invalidation:
        """Invalidate answers; while the store is unavailable, it is pending.

        Args:
            kind: The kind of *value*; `writer` is a user whose puts go, `user` one who is erased.
            value: The message, document id, tag or user id.
            user_id: With a message: only this user's own answers.
            author: Who does it, for the audit trail.
            note: Why.

        Raises:
            TypeError, ValueError: As `MultiLevelCache.invalidate` and its like.
        """
        request = self._request(kind, value, user_id)

        async def work(engine: Engine) -> Invalidation:
            cache = await engine.current()
            if not isinstance(cache, Open):
                return await engine.invalidate(request)
            audit, record = _audit(cache.parts), None
            try:
                record = await audit.begin(
                    author, f"invalidate {kind}", self._target(cache.parts, request), note
                )
            except BackendError as error:
                log_failure("the audit trail lacks an invalidation", error)
            done = await engine.invalidate(request)
            try:
                if record is not None:
                    await audit.end(record, removed=done.removed, complete=done.complete)
            except BackendError as error:
                log_failure("the audit trail lacks the end of an invalidation", error)
            return done

        return await self._on_engine(work)

    async def reembed(
        self,
        *,
        author: str,
        note: str = "",
        dry_run: bool = False,
        rate: float | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> dict[Fate, int]:
        """Make vectors of this cache's model for answers stored with other models.

        Args:
            author: Who does it, for the audit trail.
            note: Why.
            dry_run: Only count.
            rate: Most answers embedded per second; `None` for no limit.
            progress: Called with the number of answers done since the last call.

        Returns:
            The number of answers by what became of them: see `operations.reembed.Fate`.

        Raises:
            ConfigurationError: If L2 is off here.
        """

        async def work(engine: Engine) -> dict[Fate, int]:
            parts = await _parts(engine)
            semantic = parts.semantic
            if semantic is None or semantic.embedder.failed:
                raise ConfigurationError(parts.off or "the semantic tier is off: see CACHE_TIERS")
            moving = Reembedding(
                parts.store, parts.keys, parts.journal, parts.denylist, semantic.former,
                semantic.tier, semantic.vectors,
            )  # fmt: skip
            tuning = (await _in_force(engine)).tuning
            if dry_run:
                return await moving.run(tuning, dry_run=True, progress=progress)
            audit = _audit(parts)
            record = await audit.begin(author, "reembed", f"model {parts.keys.model}", note)
            fates = await moving.run(tuning, rate=rate, progress=progress)
            await audit.end(record, removed=0, complete=not fates["failed"])
            return fates

        return await self._on_engine(work)

    async def dump(
        self,
        write: Callable[[str], None],
        *,
        author: str,
        note: str = "",
        private: bool = False,
        known: Known = NOTHING_KNOWN,
        plain: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> dict[Left, int]:
        """Write out all answers that would be served now, as lines of JSON for `load`.

        Args:
            write: Called with each line, without its end.
            author: Who does it, for the audit trail.
            note: Why.
            private: Whether users' own answers are among them.
            known: The agents' contexts, and tags by which answers are invalidated: a cache with
                another key needs their texts.
            plain: Whether lines are readable although the cache encrypts.
            progress: Called with the number of lines written since the last call.

        Returns:
            The number of entries by what became of them: see `operations.transfer.dump.Left`.
        """

        async def work(engine: Engine) -> dict[Left, int]:
            parts = await _parts(engine)
            semantic = parts.semantic
            own = semantic is None or semantic.feed.own_index
            shared = None if semantic is None or own else semantic.index.texts
            dumping = Dumping(parts.store, parts.keys, parts.journal, parts.denylist, shared)
            tuning = (await _in_force(engine)).tuning
            audit = _audit(parts)
            what = "all answers" if private else "shared answers"
            record = await audit.begin(author, "dump", what, note)
            sealer = None if plain else parts.keys.sealer
            header = await dumping.header(known, private=private)
            write(first(header, sealer))
            async for lines in dumping.lines(tuning, known, private=private):
                for line in lines:
                    write(entry(line, header, sealer))
                progress(len(lines))
            write(last(dumping.counts["dumped"], header, sealer))
            await audit.end(record, removed=0, complete=True)
            return dumping.result()

        return await self._on_engine(work)

    async def load(
        self,
        lines: Iterable[str],
        *,
        author: str,
        note: str = "",
        plain: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Loaded:
        """Store the answers of a dump, for the time that they have left.

        Args:
            lines: Of the dump.
            author: Who does it, for the audit trail.
            note: Why.
            plain: Whether lines are accepted that are not encrypted although the cache encrypts:
                anybody who may write the file can have written them.
            dry_run: Only count.
            progress: Called with the number of lines done since the last call.

        Raises:
            ValueError: If the first line is none of a dump, or not encrypted with a key of this
                cache although it has keys, unless *plain*.
        """

        async def work(engine: Engine) -> Loaded:
            cache = await _opened(engine)
            parts, tuning = cache.parts, (await _in_force(engine)).tuning
            semantic = parts.semantic
            shared = None if semantic is None else semantic.tier.rows.text_of
            loading = Loading(
                parts.store, parts.keys, cache.writer, parts.denylist, shared, self._settings
            )
            if dry_run:
                return await loading.run(
                    lines, tuning, plain=plain, dry_run=True, progress=progress
                )
            audit = _audit(parts)
            record = await audit.begin(author, "load", "answers of a dump", note)
            done = await loading.run(lines, tuning, plain=plain, progress=progress)
            await audit.end(record, removed=0, complete=done.whole and not done.fates["failed"])
            return done

        return await self._on_engine(work)

    async def count(
        self, kind: RequestKind, value: str, user_id: str | None = None
    ) -> Invalidation:
        """Return what `invalidate` would remove."""
        request = self._request(kind, value, user_id)
        return await self._on_engine(lambda engine: engine.invalidate(request, dry_run=True))

    def _request(self, kind: RequestKind, value: str, user_id: str | None) -> Request:
        if kind == "message":
            check_message(value, user_id, None, self._settings)
            if user_id is not None:
                check_label("user_id", user_id)
            return Request(kind, value, user_id)
        return Request(kind, check_label("user_id" if kind in _USERS else kind, value))

    def _target(self, parts: Parts, request: Request) -> str:
        """Return what is invalidated, as the audit trail may keep it."""
        keys, value, user = parts.keys, request.value, request.user
        if request.kind in {"document", "tag"}:
            return value
        if request.kind in _USERS:
            # An erased user is erased here, too.
            return f"user {keys.user(value)[:12]}"
        readable = self._settings.capture_message_content and keys.sealer is None
        shown = value if readable else f"message {keys.tag(value)[:12]}"
        return shown if user is None else f"{shown}{OF_USER}{keys.user(user)[:12]}"


_USERS = ("writer", "user")


async def _opened(engine: Engine) -> Open:
    cache = await engine.current()
    if isinstance(cache, Open):
        return cache
    raise BackendError("backend_error")


async def _parts(engine: Engine) -> Parts:
    return (await _opened(engine)).parts


def _audit(parts: Parts) -> AuditLog:
    return AuditLog(parts.store, parts.keys.own(AUDIT))


async def _replicas(engine: Engine) -> list[ReplicaReport]:
    return await (await _parts(engine)).fleet.others()


async def _in_force(engine: Engine) -> InForce:
    origins = {name: engine.live.origins.get(name, "default") for name in Tuning.bounds()}
    return in_force(await _replicas(engine), engine.tuning, origins)


async def _flush(engine: Engine) -> None:
    await (await _parts(engine)).decisions.flush()


async def _users_forgotten(engine: Engine) -> int:
    return (await _parts(engine)).journal.users_forgotten
