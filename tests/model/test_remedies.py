"""Log lines of a failing backend: its own message, and a remedy that fits."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aredis

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model import remedies
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited
from cache_core.model.remedies import remedy, said
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.patience import PATIENT


def failure(
    backend: str, kind: str, words: str, where: str = "", reason: str = "backend_error"
) -> BackendError:
    error = BackendError(reason, kind, words)  # type: ignore[arg-type]
    error.backend, error.where = backend, where
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (failure("redis", "ConnectionError", "refused", "REDIS_URL"), "that REDIS_URL names it"),
        (failure("redis", "ConnectionError", "refused", "redis_pool="), "redis_pool= names it"),
        (failure("redis", "ConnectionError", "Name or service not known", "GLASSCACHE_REDIS_URL"),
         "host name in GLASSCACHE_REDIS_URL"),
        (failure("redis", "ResponseError", "unknown command `XADD`"), "Redis 5.0 or later"),
        (failure("redis", "MovedError", "1 h:1"), "Cluster"),
        (failure("redis", "RedisClusterException", "All slots are not covered"), "CLUSTER NODES"),
        (failure("redis", "RedisClusterException", "Cluster mode is not enabled"), "no Cluster"),
        (failure("redis", "ResponseError", "SELECT is not allowed in cluster mode"), "database 0"),
        (failure("redis", "ResponseError", "unknown command 'SENTINEL'", "redis_url="),
         "Sentinels in redis_url="),
        (failure("redis", "ResponseError", "unknown command 'TIME'"), "Sentinel answers there"),
        (failure("redis", "MasterNotFoundError", "is down for its Sentinels"), "the failover"),
        (failure("redis", "ConnectionError", "Sentinel h:1: refused", "redis_url="),
         "redis_url= names them"),
        (failure("redis", "ConnectionError", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate has "
                 "expired"), "renew it"),
        (failure("redis", "ConnectionError", "CERTIFICATE_VERIFY_FAILED: Hostname mismatch, "
                 "certificate is not valid for 'h'", "redis_url="), "other hosts"),
        (failure("redis", "ConnectionError", "ssl_ca_certs=/a cannot be read: No such file",
                 "REDIS_URL"), "certificates that REDIS_URL names"),
        (failure("redis", "ConnectionError", "[X509: KEY_VALUES_MISMATCH]", "REDIS_URL"),
         "certificates that REDIS_URL names"),
        (failure("redis", "ConnectionError", "tlsv13 alert certificate required", "redis_url="),
         "ssl_certfile"),
        (failure("redis", "ResponseError", "NOREPLICAS Not enough"), "min-replicas-to-write"),
        (failure("redis", "InvalidResponse", "Protocol error", "REDIS_URL"), "port in REDIS_URL"),
        (failure("redis", "MasterDownError", "down", "redis_url="), "master in redis_url="),
        (failure("redis", "UnicodeDecodeError", "utf-16", "redis_pool="), "UTF-8"),
        (failure("redis", "MaxConnectionsError", "Too many", "redis_url="), "in redis_url="),
        (failure("redis", "RuntimeError", "is attached to a different loop", "redis_pool="),
         "no other event loop"),
        (failure("redis", "breaker_open", "", "redis_url=", "breaker_open"), "failed before"),
        (failure("redis", "NoPermissionError", "no permissions"), "CACHE_PREFIX"),
        (failure("redis", "BusyLoadingError", "LOADING"), "wait for it"),
        (failure("chroma", "ConnectError", "refused", "CHROMA_URL"), "that CHROMA_URL names it"),
        (failure("chroma", "NotFoundError", "Tenant [acme] not found", "CHROMA_URL"),
         "name another in CHROMA_URL"),
        (failure("chroma", "HttpAnswerError", "HTTP 404 Not Found", "CHROMA_URL"),
         "path in CHROMA_URL"),
        (failure("chroma", "HttpAnswerError", "HTTP 401 Unauthorized", "chroma_url="),
         "password in chroma_url="),
        (failure("chroma", "OSError", "No locks available", "CACHE_DIR"), "file locks"),
        (failure("embedded", "OperationalError", "unable to open database file", "CACHE_DIR"),
         "disk of CACHE_DIR"),
        (failure("embedded", "OperationalError", "the embedded store is not open"), "closed"),
        (failure("embedder", "ModelUnavailable", ""), "model cannot be loaded"),
        (failure("embedder", "AuthenticationError", "bad key", "my-model"), "my-model"),
        (failure("embedder", "RuntimeError", "HTTP 401", "my-model"), "my-model"),
        (failure("127.0.0.1:7000", "ConnectionError", "refused"), "127.0.0.1:7000 runs"),
        (failure("redis", "TimeoutError", "", "REDIS_URL", "timeout"), "Redis is stopped or slow"),
        (failure("chroma", "TimeoutError", "", "CHROMA_URL", "timeout"), "Chroma is stopped"),
        (failure("chroma", "TimeoutError", "", "CACHE_DIR", "timeout"), "disk of CACHE_DIR is slow"),
        (failure("embedded", "TimeoutError", "", "CACHE_DIR", "timeout"), "disk of CACHE_DIR is slow"),
        (failure("embedder", "TimeoutError", "", "my-model", "timeout"), "model, my-model, is slow"),
        (failure("approver", "TimeoutError", "", "", "timeout"), "approver is stopped or slow"),
        (failure("", "SomethingError", ""), "See the log"),
    ],
)  # fmt: skip
def test_a_remedy_names_what_is_configured(error: BackendError, told: str) -> None:
    """The variable or argument that leads there, and never that of another part."""
    found = remedy(error)
    assert told in found
    for name in ("REDIS_URL", "CHROMA_URL"):
        assert (name in found) == (name in error.where)


def test_what_a_backend_said() -> None:
    """On one line, bounded and without secrets; an embedder's words may quote the user."""
    assert said(failure("redis", "E", "a\nb")) == "E: a b"
    assert said(failure("redis", "E", "redis://me:hunter2@h refused")) == "E: redis://***@h refused"
    assert len(said(failure("chroma", "E", "x" * 1_000))) < 210
    assert said(failure("embedder", "E", "cannot encode 'my card is 4111...'")) == "E"
    assert said(BackendError("timeout", "TimeoutError")) == "TimeoutError"


def test_lines_of_a_lasting_outage_become_rare(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a second at first, then once a minute; after a minute of quiet it begins anew."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log = RateLimited(logging.getLogger("tests"), longest=60.0)
    written: list[float] = []
    for tick in [*range(400), 600, 601]:
        now = 100.0 + tick
        caplog.clear()
        log.limited("topic", "line")
        if caplog.records:
            written.append(tick)
    assert written[:4] == [0, 1, 3, 7]
    assert len(written) < 16
    assert written[-2:] == [600, 601]


async def test_no_part_is_blamed_for_another(
    tmp_path: Path, empty_redis: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An unavailable Chroma is named with its own words, and Redis, which works, is not."""
    url = f"http://127.0.0.1:{servers.free_port()}"
    fixed = Settings(**{**PATIENT, "dir": tmp_path, "redis_url": empty_redis, "chroma_url": url})
    async with MultiLevelCache(settings=fixed, embedding_model=HashEmbedder()) as cache:
        while "chroma" not in caplog.text:
            assert (await cache.lookup("alpha", "ann")).response is None
            await asyncio.sleep(0.05)
        assert cache.state is not None
        assert cache.state.backends["redis"]
    assert "All connection attempts failed" in caplog.text
    assert "Check that Chroma runs and that chroma_url= names it" in caplog.text
    assert "REDIS_URL" not in caplog.text
    assert "redis_url=" not in caplog.text


async def test_a_refusal_is_named_in_the_servers_words(
    tmp_path: Path, empty_redis: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password in a pool: what Redis said, and that the pool has to be corrected."""
    url = servers.redis_url(servers.port_of(empty_redis), password="wrong")
    pool = aredis.ConnectionPool.from_url(url)
    fixed = Settings(dir=tmp_path, tiers=frozenset({"l1"}))
    async with MultiLevelCache(redis_pool=pool, settings=fixed) as cache:
        assert "invalid username-password pair" in cache.why_unavailable
        assert "Check the user and password in redis_pool=" in cache.why_unavailable
    await pool.aclose()
    assert "REDIS_URL" not in caplog.text


@pytest.mark.parametrize("backend", ["redis", "chroma", "vectors", "embedded", "embedder", ""])
@pytest.mark.parametrize("reason", ["backend_error", "timeout"])
def test_no_remedy_names_a_variable_that_is_not_set(backend: str, reason: Any) -> None:
    """Without an address that was given, a remedy names neither REDIS_URL nor CHROMA_URL."""
    for name in ("Anything", *remedies._REMEDIES, *remedies._OF_EMBEDDERS):
        assert not VARIABLE.search(words_for(backend, reason, name))
    for text in remedies._BY_TEXT:
        assert not VARIABLE.search(words_for(backend, reason, "Anything", text))


VARIABLE = re.compile(r"REDIS_URL|CHROMA_URL|[{}]")


def words_for(backend: str, reason: Any, name: str, text: str = "") -> str:
    error = BackendError(reason, name, text)
    error.backend = backend
    return remedy(error)
