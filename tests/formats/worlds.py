"""Caches at a fixed time on stores that can be saved to a snapshot and restored from it.

A snapshot of the embedded store is the data directory, packed. One of Redis is JSON of every key
as the server holds it, of the rows in the Chroma server, and of the files in the data directory.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import functools
import json
import shutil
import sqlite3
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import chromadb
import redis.asyncio

from cache_core import MultiLevelCache, Settings
from cache_core.testing import HashEmbedder, ManualClock
from tests.support import servers
from tests.support.patience import PATIENT

NAMESPACE = "formats"
AT = 1_700_000_000.0
"""Time at which the snapshots were written, in seconds since the epoch."""

SECRET = "00112233445566778899aabbccddeeff" * 2
"""Secret of the digests; kept in the store, as the first cache on it keeps the one that it makes."""

SECRET_NAME = f"gc1:{NAMESPACE}:{{secret}}"
KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()

OUTBOX = f"unconfirmed-{NAMESPACE}-*.jsonl"
CHROMA = f"gc1-{NAMESPACE}-"

_CONFIGURED = ("space", "sync_threshold")
"""Parts of a collection's configuration that a cache decides; the rest is Chroma's default."""

_TTL_AT_LEAST = 600_000
"""Milliseconds: what was about to expire in Redis, such as a lease, lives until a test ends."""


class World:
    """A store and a data directory, and the caches that are opened on them.

    Args:
        directory: Data directory of the caches.
        sealed: Whether they encrypt.
    """

    def __init__(self, directory: Path, *, sealed: bool) -> None:
        self.directory = directory
        self.sealed = sealed
        self.saved_files: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Name of this world's snapshot."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def cache(
        self, *, key: str | None = None, wrap_store: Any = None, **more: Any
    ) -> AsyncIterator[MultiLevelCache]:
        """Yield an open cache.

        Args:
            key: To encrypt with, instead of this world's own.
            wrap_store: As for the cache.
            more: Settings, `semantic_threshold` and `sharing`.
        """
        threshold, sharing = more.pop("semantic_threshold", None), more.pop("sharing", None)
        if key is None and self.sealed:
            key = KEY
        settings = Settings(
            **{
                **PATIENT,
                "dir": self.directory,
                "timezone": "UTC",
                "capture_message_content": True,
                "max_value_bytes": 2_000,
                "encryption_keys": key or (),
                **self._settings(),
                **more,
            }
        )
        async with self._given() as given:
            cache = MultiLevelCache(
                embedding_model=HashEmbedder(),
                namespace=NAMESPACE,
                semantic_threshold=threshold,
                sharing=sharing,
                settings=settings,
                instruments=(),
                wrap_store=wrap_store,
                **given,
            )
            async with cache:
                await cache.ready()
                yield cache

    def _settings(self) -> dict[str, Any]:
        return {}

    def _given(self) -> contextlib.AbstractAsyncContextManager[dict[str, Any]]:
        raise NotImplementedError

    def later(self, seconds: float) -> None:
        """Move the clock of caches that are opened from now on."""
        raise NotImplementedError

    async def seed(self) -> None:
        """Put the fixed secret where a cache keeps its own."""
        raise NotImplementedError

    def lose(self, pattern: str) -> int:
        """Delete the keys that match a shell *pattern*, as an eviction does; return how many."""
        raise NotImplementedError

    def save_store(self) -> None:
        """Begin a snapshot with what is in the store now."""
        raise NotImplementedError

    def save_index(self) -> None:
        """Go on with the semantic index, which no open cache uses."""
        raise NotImplementedError

    def save_files(self) -> None:
        """Go on with what waits for the store in files."""
        self.saved_files = self._files()

    def save(self, target: Path) -> None:
        """Write what was saved to *target*."""
        raise NotImplementedError

    def restore(self, source: Path) -> None:
        """Make the store and the directory what they are in the snapshot in *source*."""
        raise NotImplementedError

    def raw(self) -> dict[str, Any]:
        """Return all that is stored: `values`, `hashes`, `logs`, `vectors`, `files`."""
        raise NotImplementedError

    def _files(self) -> dict[str, str]:
        return {file.name: file.read_text("ascii") for file in self.directory.glob(OUTBOX)}


class Embedded(World):
    """A world of the embedded store and the embedded Chroma."""

    def __init__(self, directory: Path, *, sealed: bool) -> None:
        super().__init__(directory, sealed=sealed)
        self.clock = ManualClock(AT)

    @property
    def name(self) -> str:
        return "embedded-sealed.tar.gz" if self.sealed else "embedded.tar.gz"

    def _settings(self) -> dict[str, Any]:
        return {"redis_url": None, "chroma_url": None}

    @contextlib.asynccontextmanager
    async def _given(self) -> AsyncIterator[dict[str, Any]]:
        yield {"clock": self.clock}

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def seed(self) -> None:
        async with self.cache(tiers="l1", heartbeat=False):
            pass
        with self._database() as database:
            database.execute("UPDATE entries SET value = ? WHERE key = ?", (SECRET, SECRET_NAME))

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        path = self.directory / "glasscache.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            yield database

    def lose(self, pattern: str) -> int:
        with self._database() as database:
            return sum(
                database.execute(f"DELETE FROM {table} WHERE {column} GLOB ?", (pattern,)).rowcount
                for table, column in (("entries", "key"), ("rows", "key"), ("logs", "log"))
            )

    def save_store(self) -> None:
        self._packed.mkdir()
        with self._database() as database:
            database.execute("VACUUM INTO ?", (str(self._packed / "glasscache.db"),))

    @property
    def _packed(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}-packed")

    def save_index(self) -> None:
        shutil.copytree(self.directory / "chroma-0", self._packed / "chroma-0")

    def save(self, target: Path) -> None:
        for name, text in self.saved_files.items():
            (self._packed / name).write_text(text, "ascii")
        with tarfile.open(target / self.name, "w:gz") as archive:
            archive.add(self._packed, ".")

    def restore(self, source: Path) -> None:
        self.directory.mkdir()
        with tarfile.open(source / self.name) as archive:
            archive.extractall(self.directory, filter="data")

    def forget_index(self) -> None:
        """Leave the directory without its semantic index."""
        for found in self.directory.glob("chroma-*"):
            shutil.rmtree(found) if found.is_dir() else found.unlink()

    def raw(self) -> dict[str, Any]:
        hashes: dict[str, dict[str, Any]] = {}
        logs: dict[str, list[Any]] = {}
        with self._database() as database:
            select = database.execute
            values = {
                key: [value, expires]
                for key, value, expires in select("SELECT key, value, expires FROM entries")
            }
            for key, name, value, expires in select("SELECT key, name, value, expires FROM rows"):
                hashes.setdefault(key, {})[name] = [value, expires]
            for log, value in select("SELECT log, value FROM logs ORDER BY position"):
                logs.setdefault(log, []).append(value)
            schema = [sql for (sql,) in select("SELECT sql FROM sqlite_master ORDER BY name")]
            modes = [
                select(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "auto_vacuum")
            ]
        return {
            "values": values,
            "hashes": hashes,
            "logs": logs,
            "schema": [schema, modes],
            "places": sorted(
                str(found.relative_to(self.directory))
                for found in self.directory.glob("chroma-0/*")
            ),
            "vectors": _embedded_rows(self.directory / "chroma-0" / "1"),
            "files": self._files(),
        }


class _FixedTime(redis.asyncio.Connection):
    """A connection to a Redis whose clock went on from `AT` when its world was made."""

    begun = 0.0
    _asked = False

    async def send_command(self, *args: Any, **options: Any) -> None:
        self._asked = args[0] == "TIME"
        await super().send_command(*args, **options)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        found = await super().read_response(*args, **options)
        if self._asked:
            self._asked = False
            return [str(int(AT + time.monotonic() - self.begun)).encode(), b"0"]
        return found


class OnServers(World):
    """A world of a Redis and a Chroma server, which has other rows, too."""

    def __init__(self, directory: Path, redis_url: str, chroma_url: str, *, sealed: bool) -> None:
        super().__init__(directory, sealed=sealed)
        self.redis_url = redis_url
        self.chroma_url = chroma_url
        self._saved: dict[str, Any] = {}
        _FixedTime.begun = time.monotonic()
        with servers.admin(redis_url) as client:
            client.flushall()
        self._clear_chroma()

    @property
    def name(self) -> str:
        return "servers-sealed.json" if self.sealed else "servers.json"

    def _settings(self) -> dict[str, Any]:
        return {"redis_url": None, "chroma_url": self.chroma_url}

    @contextlib.asynccontextmanager
    async def _given(self) -> AsyncIterator[dict[str, Any]]:
        pool = redis.asyncio.ConnectionPool.from_url(self.redis_url, connection_class=_FixedTime)
        try:
            yield {"redis_pool": pool}
        finally:
            await pool.disconnect()

    def later(self, seconds: float) -> None:
        _FixedTime.begun -= seconds

    async def seed(self) -> None:
        with servers.admin(self.redis_url) as client:
            client.set(SECRET_NAME, SECRET)

    def lose(self, pattern: str) -> int:
        with servers.admin(self.redis_url) as client:
            names = [name for name in _names(client) if fnmatch.fnmatchcase(name, pattern)]
            return client.delete(*names)

    def save_store(self) -> None:
        keys: dict[str, Any] = {}
        with servers.admin(self.redis_url) as client:
            for name in _names(client):
                kind = _text(client.type(name))
                keys[name] = [kind, _redis_value(client, name, kind), client.pttl(name)]
        self._saved = {"redis": keys}

    def save_index(self) -> None:
        self._saved["chroma"] = self._chroma_rows()

    def save(self, target: Path) -> None:
        saved = {**self._saved, "files": self.saved_files}
        (target / self.name).write_text(json.dumps(saved, indent=1) + "\n", "ascii")

    def restore(self, source: Path) -> None:
        self.directory.mkdir()
        saved = json.loads((source / self.name).read_text("ascii"))
        with servers.admin(self.redis_url) as client:
            for name, (kind, value, ttl) in saved["redis"].items():
                if kind == "string":
                    client.set(name, value)
                elif kind == "hash":
                    client.hset(name, mapping=value)
                else:
                    for position, fields in value:
                        client.xadd(name, fields, id=position)
                if ttl >= 0:
                    client.pexpire(name, max(ttl, _TTL_AT_LEAST))
        for name, (configuration, rows) in saved["chroma"].items():
            collection = self._chroma().create_collection(
                name, embedding_function=None, configuration={"hnsw": configuration}
            )
            if rows:
                ids, embeddings, metadatas = zip(*rows, strict=True)
                collection.add(list(ids), list(embeddings), list(metadatas))
        for name, text in saved["files"].items():
            (self.directory / name).write_text(text, "ascii")

    def _chroma(self) -> Any:
        return _chroma_client(servers.port_of(self.chroma_url))

    def _clear_chroma(self) -> None:
        client = self._chroma()
        for collection in client.list_collections():
            if collection.name.startswith(CHROMA):
                client.delete_collection(collection.name)

    def _chroma_rows(self) -> dict[str, Any]:
        return _chroma_rows(self._chroma())

    def raw(self) -> dict[str, Any]:
        self.save_store()
        kinds: dict[str, dict[str, Any]] = {"string": {}, "hash": {}, "stream": {}}
        for name, (kind, value, ttl) in self._saved["redis"].items():
            if kind == "string":
                kinds[kind][name] = [value, None if ttl < 0 else AT + ttl / 1000]
            elif kind == "hash":
                kinds[kind][name] = {row: [text, None] for row, text in value.items()}
            else:
                kinds[kind][name] = [fields for _, fields in value]
        return {
            "values": kinds["string"],
            "hashes": kinds["hash"],
            "logs": kinds["stream"],
            "vectors": self._chroma_rows(),
            "files": self._files(),
        }


@functools.cache
def _chroma_client(port: int) -> Any:
    # Making one takes 0.1 s: it reads all certificates of authorities, twice.
    return chromadb.HttpClient("127.0.0.1", port)


def _names(client: Any) -> list[str]:
    return sorted(_text(name) for name in client.scan_iter())


def _text(reply: Any) -> str:
    return str(reply, "ascii")


def _redis_value(client: Any, name: str, kind: str) -> Any:
    if kind == "string":
        return _text(client.get(name))
    if kind == "hash":
        return {_text(row): _text(text) for row, text in client.hgetall(name).items()}
    return [
        [_text(position), {_text(field): _text(text) for field, text in fields.items()}]
        for position, fields in client.xrange(name)
    ]


def _embedded_rows(directory: Path) -> dict[str, Any]:
    # Chroma holds what it opened: the directory itself is left to the caches.
    copy = directory.parent.parent / "read"
    shutil.copytree(directory, copy)
    try:
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        client: Any = chromadb.PersistentClient(str(copy), settings)
        found = _chroma_rows(client)
        client.close()
        return found
    finally:
        shutil.rmtree(copy)


def _chroma_rows(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for collection in client.list_collections():
        if collection.name.startswith(CHROMA):
            rows = collection.get(include=["embeddings", "metadatas"])
            made = [
                [identity, [round(float(value), 6) for value in vector], dict(metadata)]
                for identity, vector, metadata in zip(
                    rows["ids"], rows["embeddings"], rows["metadatas"], strict=True
                )
            ]
            hnsw = collection.configuration_json["hnsw"]
            found[collection.name] = [{name: hnsw[name] for name in _CONFIGURED}, sorted(made)]
    return found
