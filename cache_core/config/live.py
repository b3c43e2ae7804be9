"""Live tuning: loaded at the start, followed while the cache runs, changed by anybody.

Tuned values are in the store and override those this process was started with. A lookup never
waits for them: it reads `LiveTuning.current`, which is swapped whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from cache_core.config.edit import Edit, check_words, edit_of
from cache_core.config.intents import unflatten
from cache_core.config.layers import CHANGE, Layer, make_tuning
from cache_core.config.looser import loosened
from cache_core.config.settings import tuning_environment
from cache_core.config.stage import WATCH, Stage, clock_time
from cache_core.config.trail import Trail, TrailRecord, TrailStore, TuningChange, parse
from cache_core.model.exceptions import BackendError, ConfigurationError, TuningConflict
from cache_core.model.logs import RateLimited, place_of
from cache_core.model.tasks import background, end_all

__all__ = ["LiveTuning", "TuningChange", "TuningConflict"]

log = RateLimited(logging.getLogger("glasscache"))

POLL = 1.0
"""Longest delay in seconds until every replica has a change, even if its notice is lost."""

_ASK = POLL / 2
"""Seconds between two polls of the store; asking and answering take time, too."""

TUNED = "tuned"
"""Origin of values in the store."""

_RECONNECT = 0.1
_RECONNECT_MOST = 1.0
_ATTEMPTS = 50
_CHUNK = 8
_REFUSED_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class StartedWith:
    """Start values of a process.

    Attributes:
        constants: Returns the tuning values that were changed in the module.
        arguments: Tuning values from the constructor.
    """

    constants: Callable[[], Mapping[str, Any]]
    arguments: Mapping[str, Any]

    def layers(self) -> tuple[Layer, ...]:
        """Return the values as of now, weakest first."""
        return (
            ("the environment", tuning_environment()),
            ("a module constant", self.constants()),
            ("the constructor", self.arguments),
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Requested change, as an edit of the tuned values and an entry of the trail.

    Attributes:
        edit: Computes the values to tune from those tuned now.
        author, note: Author and reason.
        seen: Values that the replicas report.
        reverts: The version that it restores.
        stage: The watch that begins with it.
        ends: Whether it may end a stage.
    """

    edit: Edit
    author: str
    note: str
    seen: Mapping[str, Any]
    reverts: int | None = None
    stage: Stage | None = None
    ends: Literal["", "revert", "confirm"] = ""


class TuningEvents(Protocol):
    """Receiver of events of the tuning.

    It is one layer up: changes of other processes arrive while no caller waits for a result.
    """

    def tuned(self, what: Literal["applied", "rejected"]) -> None:
        """Record that another version came into force, or that one was rejected."""
        ...


class LiveTuning:
    """Live tuning of one cache.

    Args:
        started_with: Start values of this process.
        events: Receiver of events.

    Attributes:
        current: The tuning in force.
        origins: Origin of each value that is not at its default.
    """

    def __init__(self, started_with: StartedWith, events: TuningEvents) -> None:
        self._started_with = started_with
        self._events = events
        self._trail: Trail | None = None
        self._record: TrailRecord | None = None
        self._highest = 0
        self._refused: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._deaf: str | None = None
        self.rebase()

    # ------------------------------------------------------------------------------ life

    def rebase(self) -> None:
        """Read the start values again; nothing counts as tuned until `load`.

        Raises:
            ConfigurationError: If a value is out of bounds.
        """
        base = self._started_with.layers()
        self.current, self.origins = make_tuning(*base)
        self._base, self._record, self._highest = base, None, 0
        self._loaded = False

    def stand_in(self, seen: Mapping[str, Any]) -> None:
        """Use *seen*, the replicas' values, for untuned fields; see `MultiLevelCache`."""
        self._base = (*self._started_with.layers(), ("the replicas", unflatten(seen)))
        tuned = () if self._record is None else ((TUNED, unflatten(self._record.tuned)),)
        version = self.current.version
        self.current, self.origins = make_tuning(*self._base, *tuned, version=version)

    async def load(self, store: TrailStore, key: str) -> None:
        """Put the stored tuning into force.

        Args:
            store: The store of the trail.
            key: The trail's key.

        Raises:
            BackendError: If the store fails.
        """
        # created here, because a lock belongs to the loop that first waits for it
        self._trail, self._changing = Trail(store, key), asyncio.Lock()
        await self.refresh()
        self._loaded = True

    def follow(self) -> None:
        """Start following changes of others, detached from the caller's context and span."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(work(), name=f"glasscache-tuning-{name}", context=background())
            for name, work in (("poll", self._poll), ("listen", self._listen))
        ]

    async def close(self) -> None:
        """Stop following."""
        tasks, self._tasks = self._tasks, []
        await end_all(tasks)
        self._trail = None

    def abandon(self) -> None:
        """Drop the tasks of a loop that has ended."""
        self._tasks, self._trail = [], None

    # ------------------------------------------------------------------------------ following

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_ASK)
            with contextlib.suppress(BackendError):
                await self._refresh_safely()

    async def _listen(self) -> None:
        trail = self._on_store()
        pause = _RECONNECT
        while True:
            try:
                async with contextlib.aclosing(trail.store.listen(trail.key)) as news:  # type: ignore[type-var]
                    async for _ in news:
                        pause, self._deaf = _RECONNECT, None
                        await self._refresh_safely()
            except BackendError as error:
                self._say_deaf(error)
            # replicas that lost the same server should not all reconnect in the same moment
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _RECONNECT_MOST)

    def _say_deaf(self, error: BackendError) -> None:
        if error.reason != "breaker_open" and error.error_type != self._deaf:
            self._deaf = error.error_type
            logging.getLogger("glasscache").info(
                "changes of the tuning are not announced here (%s): they are polled every %.1f s",
                error,
                _ASK,
            )

    async def _refresh_safely(self) -> None:
        try:
            await self.refresh()
        except BackendError:
            raise
        except Exception as error:  # noqa: BLE001 - the last good tuning stays in force
            log.limited("tuning", "tuning: unexpected %s; please report it", place_of(error))

    async def refresh(self) -> None:
        """Put the store's current tuning into force.

        Raises:
            BackendError: If the store fails.
        """
        async with self._changing:
            await self._refresh()

    async def _refresh(self) -> None:
        trail = self._on_store()
        (versions, strange), (stored,) = await asyncio.gather(
            trail.versions(), trail.texts([self.current.version])
        )
        for name in strange:
            self._refuse(name, "")
        self._highest = versions[-1] if versions else 0
        mine = self._record
        if mine is not None and self._highest == mine.change.version and stored == mine.text:
            return
        newest = await self._newest_good(trail, versions)
        if mine is not None and stored is None and _is_older(newest, mine):
            # the store lost the tuning; any replica that still has it restores it
            if await trail.claim(mine):
                self._highest = max(self._highest, mine.change.version)
            return
        if newest is not None and (mine is None or newest.text != mine.text):
            self._apply(newest)

    async def _newest_good(self, trail: Trail, versions: Sequence[int]) -> TrailRecord | None:
        for end in range(len(versions), 0, -_CHUNK):
            chunk = versions[max(0, end - _CHUNK) : end][::-1]
            for version, text in zip(chunk, await trail.texts(chunk), strict=True):
                if text is None or self._refused.get(str(version)) == text:
                    continue
                record = parse(version, text)
                if record is not None:
                    return record
                self._refuse(str(version), text)
        return None

    def _refuse(self, name: str, text: str) -> None:
        if self._refused.get(name) == text:
            return
        if len(self._refused) >= _REFUSED_KEPT:
            self._refused.pop(next(iter(self._refused)))
        self._refused[name] = text
        self._events.tuned("rejected")
        log.limited(
            "tuning refused",
            "tuning: version %.20r in the store is invalid, or has a value out of bounds: "
            "version %d stays in force. `glasscache tune` creates a valid one",
            name,
            self.current.version,
        )

    def _apply(self, record: TrailRecord) -> None:
        layer = (TUNED, unflatten(record.tuned))
        version = record.change.version
        tuning, origins = make_tuning(*self._base, layer, version=version)
        self.current, self.origins, self._record = tuning, origins, record
        logging.getLogger("glasscache").info(
            "tuning version %d in force, by %s: %s",
            version,
            record.change.author,
            ", ".join(
                f"{name} no longer tuned" if value is None else f"{name}={value}"
                for name, value in record.change.after.items()
            ),
        )
        if self._loaded:
            self._events.tuned("applied")

    def _on_store(self) -> Trail:
        if self._trail is None:
            raise BackendError("backend_error", "StoreAway", "the store has not been reached yet")
        return self._trail

    # ------------------------------------------------------------------------------ changing

    async def tune(
        self,
        changes: Mapping[str, Any],
        *,
        author: str,
        note: str = "",
        expected_version: int | None = None,
        dry_run: bool = False,
        seen: Mapping[str, Any],
        stage: Stage | None = None,
    ) -> TuningChange:
        """Change fields for all replicas; see `MultiLevelCache.tune`.

        The audit trail shows *seen*, the values that the replicas report, for what was not tuned.
        """
        check_words(author, note)
        change = _Wanted(edit_of(changes), author, note, seen, stage=stage)
        return await self._change(change, expected_version, dry_run=dry_run)

    async def revert(
        self, version: int, *, author: str, note: str = "", seen: Mapping[str, Any]
    ) -> TuningChange:
        """Restore exactly the tuning as of *version*; see `MultiLevelCache`."""
        check_words(author, note)
        tuned = await self._tuned_at(version)
        return await self._change(
            _Wanted(lambda _: dict(tuned), author, note, seen, version, ends="revert")
        )

    @property
    def staged(self) -> TuningChange | None:
        """The change in force, while it is staged."""
        change = None if self._record is None else self._record.change
        return change if change is not None and change.stage is not None else None

    async def confirm(
        self, *, author: str, note: str = "", expected_version: int | None = None
    ) -> TuningChange:
        """End the stage of the change in force, and keep it; see `MultiLevelCache`."""
        check_words(author, note)
        async with self._changing:
            await self._refresh()
        staged = self.staged
        if staged is None:
            raise ConfigurationError("no change is staged: there is nothing to confirm")
        if expected_version is not None and expected_version != staged.version:
            raise TuningConflict(expected_version, staged.version)
        said = f"version {staged.version} is confirmed"
        note = f"{said}: {note}" if note else said
        wanted = _Wanted(dict, author, note, {}, ends="confirm")
        return await self._change(wanted, staged.version)

    async def take_back(self, version: int, note: str) -> TuningChange:
        """Restore what was in force before the staged *version*, in the name of the watch.

        Raises:
            BackendError: If the store fails.
            TuningConflict: If the stage has ended.
        """
        before, tuned = await self._replaced_by(self._staged_as(version))
        note = f"version {version} is taken back: {note}"
        wanted = _Wanted(lambda _: dict(tuned), WATCH, note, {}, before, ends="revert")
        return await self._change(wanted, version)

    async def loosened_by_taking_back(self, version: int) -> list[str]:
        """Return the fields that `take_back` would loosen, by the start values of this process.

        Raises:
            BackendError: If the store fails.
            TuningConflict: If the stage has ended.
        """
        _, tuned = await self._replaced_by(self._staged_as(version))
        return loosened(self.current, make_tuning(*self._base, (TUNED, unflatten(tuned)))[0])

    def _staged_as(self, version: int) -> TrailRecord:
        record, staged = self._record, self.staged
        if record is None or staged is None or staged.version != version:
            raise TuningConflict(version, self.current.version)
        return record

    async def _replaced_by(self, record: TrailRecord) -> tuple[int | None, Mapping[str, Any]]:
        """Return the version that *record* replaced, and what was tuned as of it."""
        trail, version = self._on_store(), record.change.version
        older = [number for number in (await trail.versions())[0] if number < version]
        found = await self._newest_good(trail, older)
        if found is not None:
            return found.change.version, found.tuned
        if version == 1:
            return 0, {}
        # the store lost its trail, and a replica restored this version alone
        both = {**record.tuned, **record.change.before}
        return None, {name: value for name, value in both.items() if value is not None}

    async def history(self, limit: int) -> list[TuningChange]:
        """Return the newest changes, newest first."""
        return await self._on_store().last(limit)

    async def _tuned_at(self, version: int) -> Mapping[str, Any]:
        if version == 0:
            return {}
        text = (await self._on_store().texts([version]))[0] if version > 0 else None
        if text is None:
            raise ConfigurationError(
                f"version {version} is not in the audit trail; 0 is the state in which nothing "
                "is tuned"
            )
        record = parse(version, text)
        if record is None:
            raise ConfigurationError(f"version {version} cannot be read, or is out of bounds")
        return record.tuned

    async def _change(
        self, wanted: _Wanted, expected: int | None = None, *, dry_run: bool = False
    ) -> TuningChange:
        trail = self._on_store()
        for _ in range(_ATTEMPTS):
            async with self._changing:
                await self._refresh()
                if expected is not None and expected != self.current.version:
                    raise TuningConflict(expected, self.current.version)
                self._check_stage(wanted)
                record = self._next(wanted)
                if not record.change.after and wanted.ends != "confirm":
                    self._check_reverts(wanted)
                    return replace(record.change, version=self.current.version)
                if dry_run:
                    return record.change
                claimed = await trail.claim(record)
                if claimed:
                    self._highest = record.change.version
                    self._apply(record)
            if claimed:
                # a replica that misses the notice sees the change with its next poll
                with contextlib.suppress(BackendError):
                    await trail.store.publish(trail.key)
                    await trail.trim((await trail.versions())[0])
                return record.change
            await asyncio.sleep(random.uniform(0, 0.02))
        raise TuningConflict(self.current.version, self._highest)

    def _check_stage(self, wanted: _Wanted) -> None:
        staged = self.staged
        if staged is not None and staged.until is not None and not wanted.ends:
            raise ConfigurationError(
                f"version {staged.version}, by {staged.author}, is staged until "
                f"{clock_time(staged.until)}: confirm it (glasscache tune confirm) or revert it "
                "(glasscache tune revert) before another change"
            )

    def _check_reverts(self, wanted: _Wanted) -> None:
        if self.staged is not None and wanted.ends == "revert":
            raise ConfigurationError(
                f"version {wanted.reverts} has the values of version {self.staged.version}, which "
                "is staged: confirm it (glasscache tune confirm) to keep them, or revert to an "
                "earlier version"
            )

    def _next(self, wanted: _Wanted) -> TrailRecord:
        """Return the record of the tuning after *edit*."""
        before = dict(self._record.tuned) if self._record is not None else {}
        edited = wanted.edit(before)
        checked = make_tuning((CHANGE, unflatten(edited)))[0].flat()
        after = {name: checked[name] for name in edited}
        untuned = {**make_tuning(*self._base)[0].flat(), **wanted.seen}
        changed = [
            name for name in sorted({*before, *after}) if before.get(name) != after.get(name)
        ]
        change = TuningChange(
            version=max(self._highest, self.current.version) + 1,
            at=round(self._on_store().store.now(), 3),
            author=wanted.author,
            note=wanted.note,
            before={name: before.get(name, untuned.get(name)) for name in changed},
            after={name: after.get(name) for name in changed},
            reverts=wanted.reverts,
            stage=wanted.stage,
        )
        return TrailRecord(change, after)


def _is_older(newest: TrailRecord | None, mine: TrailRecord) -> bool:
    return newest is None or newest.change.at < mine.change.at
