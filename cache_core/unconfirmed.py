"""Invalidations that a backend has not confirmed, on disk: they outlive the process that was told.

A process that ends while its store is away cannot make them any more. They are in a file of its own
in the data directory until they are confirmed; whoever opens the namespace there later, or has it
open already, makes what a file of another process has, and deletes it. To make one twice is safe.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from cache_core.logs import RateLimited

log = RateLimited(logging.getLogger("glasscache"))

Request: TypeAlias = tuple[str | None, ...]
"""Kind of an invalidation and its arguments: `("message", query, user_id)`, `("tag", tag)`."""

_MOST = 10_000


class Unconfirmed:
    """The file of this process, and what others left.

    Args:
        directory: Where the files are; made with mode 0700 when there is something to keep.
        namespace: Of the cache.
        replica: Name of this process.
    """

    def __init__(self, directory: Path, namespace: str, replica: str) -> None:
        self._directory = directory
        self._start = f"unconfirmed-{namespace}-"
        self._file = directory / f"{self._start}{replica}.jsonl"
        self._noted: set[Request] = set()

    def note(self, request: Request) -> None:
        """Keep *request* until `clear`."""
        if request in self._noted or len(self._noted) >= _MOST:
            return
        self._noted.add(request)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._file, "a", encoding="ascii", opener=_only_owner) as file:
                file.write(json.dumps(request) + "\n")
        except OSError as error:
            log.limited(
                "unconfirmed",
                "a pending invalidation cannot be kept in %s (%s): this process must live until "
                "it is made",
                self._directory,
                error,
            )

    def clear(self) -> None:
        """Forget everything: it was made."""
        if self._noted:
            self._noted.clear()
            try:
                self._file.unlink(missing_ok=True)
            except OSError as error:
                log.limited("unconfirmed", "%s cannot be deleted (%s)", self._file, error)

    async def adopt(self, make: Callable[[Request], Awaitable[object]]) -> None:
        """Let *make* make what other processes left; what it cannot make it has to `note`."""
        for file in sorted(self._directory.glob(f"{self._start}*.jsonl")):
            # A namespace may begin as another does.
            replica = file.name.removeprefix(self._start).removesuffix(".jsonl")
            if file == self._file or not replica.isalnum():
                continue
            try:
                text = file.read_text(encoding="ascii")
                requests = [_parse(line) for line in text.splitlines()]
                for request in dict.fromkeys(requests):
                    if request is not None and request not in self._noted:
                        await make(request)
                # Its owner may live, and have written more; or have cleared it meanwhile.
                unchanged = len(text) == file.stat().st_size
                if unchanged and not self._noted.intersection(requests):
                    file.unlink()
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                log.limited("unconfirmed", "%s cannot be used (%s); delete it", file, error)


def _only_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parse(line: str) -> Request | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(found, list) and all(isinstance(item, str | None) for item in found)
    return tuple(found) if sound else None
