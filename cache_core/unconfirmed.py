"""Invalidations that a backend has not confirmed, on disk: they outlive the process that was told.

A process that ends while its store is away cannot make them any more. They are in a file of its own
in the data directory until they are confirmed; whoever opens the namespace there later, or has it
open already, makes what a file of another process has, and deletes it. To make one twice is safe.

The first line of a file says which store it is of; with encryption keys each other line is sealed,
and opens in that file only.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cache_core.logs import RateLimited
from cache_core.sealing import Sealer, SealError

log = RateLimited(logging.getLogger("glasscache"))

Request: TypeAlias = tuple[str | None, ...]
"""Kind of an invalidation and its arguments: `("message", query, user_id)`, `("tag", tag)`."""

MOST = 10_000
"""Invalidations that a process keeps on disk."""


class StoreName(NamedTuple):
    """Which store a cache is on: two names of the same store may have one part in common only.

    Attributes:
        place: Digest of where it is.
        secret: Digest of the secret that it keeps; empty before it was reached, and where the
            secret is the application's own and may be that of several stores.
    """

    place: str
    secret: str = ""

    def is_same(self, other: StoreName) -> bool:
        """Whether both are of the same store."""
        return self.place == other.place or bool(self.secret and self.secret == other.secret)


class Unconfirmed:
    """The file of this process, and what others left.

    Args:
        directory: Where the files are; made with mode 0700 when there is something to keep.
        namespace: Of the cache.
        replica: Name of this process.
        store: That the invalidations are of; made anew when more is known of it.
        sealer: Seals what is kept; `None` to keep it readable.
    """

    def __init__(
        self,
        directory: Path,
        namespace: str,
        replica: str,
        store: StoreName,
        sealer: Sealer | None = None,
    ) -> None:
        self._directory = directory
        self._start = f"unconfirmed-{namespace}-"
        self._file = directory / f"{self._start}{replica}.jsonl"
        self._sealer = sealer
        self._noted: set[Request] = set()
        self._head = ""
        self._made: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self.store = store
        self.lost = 0
        """Invalidations that are not on disk: there are too many, or it cannot be written to."""

    def note(self, request: Request) -> None:
        """Keep *request* until `clear`."""
        if request in self._noted:
            return
        if len(self._noted) >= MOST:
            self._lose("more than %d invalidations are pending", MOST)
            return
        self._noted.add(request)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._file, "a", encoding="ascii", opener=_only_owner) as file:
                if not self._head:
                    self._head = json.dumps(self.store._asdict())
                    file.write(self._head + "\n")
                file.write(self._line(request) + "\n")
        except OSError as error:
            self._lose("%s cannot be written to (%s)", self._directory, error)

    def _lose(self, why: str, *args: object) -> None:
        self.lost += 1
        log.limited(
            "lost",
            why + ": an invalidation is not kept on disk. This process must live until it is "
            "made, or it has to be asked for again",
            *args,
        )

    def _line(self, request: Request) -> str:
        text = json.dumps(request)
        if self._sealer is None:
            return text
        return self._sealer.seal(text, _place(self._file, self._head))

    def clear(self) -> None:
        """Forget everything: it was made."""
        if self._noted:
            self._noted.clear()
            self._head = ""
            try:
                self._file.unlink(missing_ok=True)
            except OSError as error:
                log.limited("unconfirmed", "%s cannot be deleted (%s)", self._file, error)

    async def adopt(self, make: Callable[[Request], Awaitable[object]]) -> None:
        """Let *make* make what other processes left; what it cannot make it has to `note`.

        What cannot be read is left where it is, and told once.
        """
        for file in sorted(self._directory.glob(f"{self._start}*.jsonl")):
            # A namespace may begin as another does.
            replica = file.name.removeprefix(self._start).removesuffix(".jsonl")
            if file != self._file and replica.isalnum():
                try:
                    await self._adopt(file, make)
                except FileNotFoundError:
                    continue
                except (OSError, UnicodeDecodeError) as error:
                    self._tell(file, f"cannot be read ({type(error).__name__})")

    async def _adopt(self, file: Path, make: Callable[[Request], Awaitable[object]]) -> None:
        text = _read(file)
        head, *lines = text.splitlines() or [""]
        store = _store(head)
        if store is None:
            self._tell(file, "does not begin as such a file does")
            return
        if not store.is_same(self.store):
            self._tell(
                file, "is of another store, or of the same one under another REDIS_URL: a cache "
                "on that store makes them"
            )  # fmt: skip
            return
        requests = {line: self._parse(line, file, head) for line in lines}
        if None in requests.values():
            self._tell(
                file, "has some that cannot be read: give the key that they were sealed with in "
                "CACHE_ENCRYPTION_KEYS"
            )  # fmt: skip
        for line, request in requests.items():
            # Where the file stays they must not be made over and over.
            done = (file.name, line) in self._made
            if request is not None and request not in self._noted and not done:
                await make(request)
                self._made.add((file.name, line))
        left = self._noted.intersection(requests.values()) or None in requests.values()
        # Its owner may live, and have written more; or have cleared it meanwhile.
        if not left and _read(file) == text:
            self._delete(file)

    def _delete(self, file: Path) -> None:
        file.unlink()
        self._made = {item for item in self._made if item[0] != file.name}

    def _parse(self, line: str, file: Path, head: str) -> Request | None:
        try:
            if self._sealer is not None and not line.startswith("["):
                line = self._sealer.open(line, _place(file, head))
            found = json.loads(line)
        except (ValueError, RecursionError, SealError):
            return None
        sound = isinstance(found, list) and all(isinstance(item, str | None) for item in found)
        return tuple(found) if sound and found else None

    def _tell(self, file: Path, why: str) -> None:
        if file.name not in self._told:
            self._told.add(file.name)
            logging.getLogger("glasscache").error(
                "%s has invalidations that are still to be made, and %s. It is kept; delete it "
                "when they were asked for again, or are not needed",
                file,
                why,
            )


def _only_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(file: Path) -> str:
    return file.read_text(encoding="ascii")


def _place(file: Path, head: str) -> str:
    return f"{file.name} {head}"


def _store(head: str) -> StoreName | None:
    try:
        store = StoreName(**json.loads(head))
    except (TypeError, ValueError, RecursionError):
        return None
    return store if all(isinstance(part, str) for part in store) and store.place else None
