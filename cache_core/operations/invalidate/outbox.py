"""Outbox: invalidations that are not confirmed yet, in memory and on disk.

Requests made before the store was ever reached are planned when it is. A process that ends while
its store is unavailable leaves its file in the data directory: the next cache of that namespace
there, or one that is open already, carries out the requests in the file and deletes it. Carrying
out a request twice is safe.

The first line of a file names its store; with encryption keys each other line is sealed, and opens
in that file only.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from cache_core.model.logs import RateLimited
from cache_core.model.sealing import Sealer, SealError

log = RateLimited(logging.getLogger("glasscache"))

RequestKind: TypeAlias = Literal["message", "document", "tag", "answer", "writer", "user"]

MOST = 10_000
"""Maximal number of requests that one process keeps."""


@dataclass(frozen=True, slots=True)
class Request:
    """Request for an invalidation.

    Attributes:
        kind: Kind of the target.
        value: The message, document id, tag or user id, or the digest of an answer's label.
        user: User whose own answers to a message are meant; `None` for everybody's.
    """

    kind: RequestKind
    value: str = field(repr=False)
    user: str | None = field(default=None, repr=False)

    def to_json(self) -> str:
        """Return this as a line of a file."""
        values = [self.kind, self.value]
        return json.dumps([*values, self.user] if self.kind == "message" else values)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Return the request of a line; raises `ValueError` or `RecursionError` if invalid."""
        match json.loads(text):
            case ["message", str(value), str() | None as user]:
                return cls("message", value, user)
            case [("document" | "tag" | "answer" | "writer" | "user") as kind, str(value)]:
                return cls(kind, value)
        msg = "no request"
        raise ValueError(msg)


class StoreName(NamedTuple):
    """Identity of a store: two names of the same store may share only one part.

    Attributes:
        place: Digest of its address.
        secret: Digest of the secret stored in it; empty before it was reached, and for an
            application's own secret, which several stores may share.
    """

    place: str
    secret: str = ""

    def is_same(self, other: StoreName) -> bool:
        """Return whether both name the same store."""
        return self.place == other.place or bool(self.secret and self.secret == other.secret)


OTHER_STORE = (
    "is of another store, or of the same one under another REDIS_URL or CACHE_PREFIX: a cache on "
    "that store applies them"
)
"""Reason to leave a file alone that this cache can read."""


class Outbox:
    """Requests of this process, with its file, and the files of others.

    Args:
        directory: Directory of the files; made with mode 0700 for the first request.
        namespace: The cache's namespace.
        replica: Name of this process.
        store: Store of the requests; set again once more of its name is known.
        sealer: Seals the lines; `None` to leave them readable.
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
        self._requests: dict[Request, bool] = {}
        """Requests of this process; True for those written to the file."""
        self._head = ""
        self._made: set[tuple[str, str]] = set()
        self._reported: set[str] = set()
        self.store = store
        self.lost = 0
        """Requests not on disk: there are too many, or it is not writable."""

    @property
    def requests(self) -> Collection[Request]:
        """Requests of this process, the oldest first."""
        return tuple(self._requests)

    def add(self, request: Request) -> None:
        """Keep *request* until `clear`."""
        written = self._requests.get(request)
        if written is None and len(self._requests) >= MOST:
            self._lose("more than %d invalidations are pending", MOST)
            return
        try:
            # Another process may have carried out the file's requests and deleted it.
            if written is False or (written and self._file.exists()):
                return
            self._requests[request] = False
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._file, "a", encoding="ascii", opener=_only_owner) as file:
                if file.tell() == 0:
                    self._head = json.dumps(self.store._asdict())
                    file.write(self._head + "\n")
                file.write(self._line(request) + "\n")
            self._requests[request] = True
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
        text = request.to_json()
        if self._sealer is None:
            return text
        return self._sealer.seal(text, _place(self._file, self._head))

    def clear(self) -> None:
        """Drop all requests of this process: they are confirmed."""
        if self._requests:
            self._requests.clear()
            try:
                self._file.unlink(missing_ok=True)
            except OSError as error:
                log.limited("unconfirmed", "%s cannot be deleted (%s)", self._file, error)

    async def adopt(self, make: Callable[[Request], Awaitable[object]]) -> None:
        """Call *make* with the requests that other processes left; it must `add` unfinished ones.

        Unreadable files are left in place, and logged once.
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
                    self._report(file, f"cannot be read ({type(error).__name__})")

    async def _adopt(self, file: Path, make: Callable[[Request], Awaitable[object]]) -> None:
        text = _read(file)
        head, *lines = text.splitlines() or [""]
        store = _store(head)
        if store is None:
            self._report(file, "does not begin as such a file does")
            return
        if not store.is_same(self.store):
            self._report(file, OTHER_STORE)
            return
        requests = {line: self._parse(line, file, head) for line in lines}
        if None in requests.values():
            self._report(
                file, "has some that cannot be read: give the key that they were sealed with in "
                "CACHE_ENCRYPTION_KEYS"
            )  # fmt: skip
        for line, request in requests.items():
            # If the file stays, they must not be made again and again.
            done = (file.name, line) in self._made
            if request is not None and request not in self._requests and not done:
                await make(request)
                self._made.add((file.name, line))
        left = None in requests.values() or self._requests.keys() & requests.values()
        # Its owner may still run, and have appended to it or cleared it meanwhile.
        if not left and _read(file) == text:
            self._delete(file)

    def _delete(self, file: Path) -> None:
        file.unlink()
        self._made = {item for item in self._made if item[0] != file.name}

    def _parse(self, line: str, file: Path, head: str) -> Request | None:
        try:
            if self._sealer is not None and not line.startswith("["):
                line = self._sealer.open(line, _place(file, head))
            return Request.from_json(line)
        except (ValueError, RecursionError, SealError):
            return None

    def _report(self, file: Path, why: str) -> None:
        if file.name not in self._reported:
            self._reported.add(file.name)
            logging.getLogger("glasscache").error(
                "%s has invalidations that are pending, and %s. It is kept; delete it if they are "
                "not needed",
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
