"""Protection from others who reach the cache's servers: rights, encryption, plain formats."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.certificates import Authority
from tests.support.paths import ROOT
from tests.support.patience import PATIENT

# ------------------------------------------------------------------------------- rights in Redis


def _rights() -> list[str]:
    (line,) = re.findall(r"^user glasscache (.+)$", servers.ACL.read_text(), re.MULTILINE)
    return str(line).split()


def test_no_more_commands_are_allowed_than_are_used() -> None:
    """Each stands in the store's code, or is one of the client's own."""
    allowed = {right[1:] for right in _rights() if right.startswith("+")}
    backends = (ROOT / "cache_core/backends").rglob("*.py")
    code = "".join(path.read_text("utf-8") for path in backends if path.name != "examine.py")
    used = {word.lower() for word in re.findall(r'"([A-Z]{3,})"', code)}
    clients = {"ping", "info", "select", "command", "cluster|slots", "subscribe", "unsubscribe"}
    clients |= {"watch", "unwatch", "multi", "exec"}
    assert allowed <= used | clients, allowed - used - clients
    assert "-@all" in _rights()


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *", "SCAN 0", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET maxmemory 1",
        "CLIENT LIST", "CLIENT KILL TYPE normal", "EVAL return{1} 0", "ACL LIST", "SHUTDOWN",
        "MONITOR", "MODULE LIST", "REPLICAOF NO ONE", "SAVE", "RENAME gc1:a gc1:b",
        "DUMP gc1:a", "GET theirs", "SET theirs 1", "UNLINK theirs", "PUBLISH theirs 1",
        "SUBSCRIBE theirs", "MGET gc1:a theirs",
    ],
)  # fmt: skip
def test_the_caches_user_may_not(command: str, empty_redis: str) -> None:
    """Neither administer the server, nor list its keys, nor touch another application's."""
    with (
        contextlib.closing(redis.Redis.from_url(empty_redis)) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command.split())


def test_the_documented_user_is_the_shipped_one() -> None:
    """The ACL in SECURITY.md is that of `compose/redis.acl`."""
    documented = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ACL SETUSER glasscache on (.+)$", documented, re.MULTILINE)
    assert line.split()[1:] == _rights()[2:]


# ----------------------------------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def _tls_server(
    tmp_path: Path, authority: Authority, host: str = "127.0.0.1"
) -> contextlib.AbstractContextManager[str]:
    certificate, key = authority.issue(host)
    port = servers.free_port()

    @contextlib.contextmanager
    def serve() -> Iterator[str]:
        with servers.redis_server(
            tmp_path, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no",
            "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
            "--tls-ca-cert-file", str(authority.file), port=port,
        ) as url:  # fmt: skip
            yield url.replace("redis://", "rediss://")

    return serve()


@pytest.mark.server
async def test_a_cache_over_tls(tmp_path: Path, authority: Authority) -> None:
    """With `rediss://` all of a cache's traffic is encrypted, the subscription too."""
    with _tls_server(tmp_path, authority) as server:
        url = f"{server}?ssl_ca_certs={authority.file}"
        settings = Settings(dir=tmp_path / "cache", redis_url=url, **PATIENT)  # type: ignore[arg-type]
        async with MultiLevelCache(
            settings=settings, embedding_model=HashEmbedder(), instruments=()
        ) as cache:
            await cache.put("alpha beta", "ann", "answer", "faq", [{"id": "d"}])
            assert (await cache.lookup("alpha beta", "ann")).tier == "l1"
            assert (await cache.lookup("beta alpha", "ann")).tier == "l2"
            listening = cache._parts.store.listen("gc1:news")
            await anext(listening)
            await cache._parts.store.publish("gc1:news")
            await anext(listening)
            await listening.aclose()  # type: ignore[attr-defined]


@pytest.mark.server
@pytest.mark.parametrize("wrong", ["authority", "host"])
async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """Certificates are checked, with the host name; the log says what failed; the agent lives."""
    trusted = authority if wrong == "host" else Authority(tmp_path, "theirs")
    host = "127.0.0.2" if wrong == "host" else "127.0.0.1"
    with _tls_server(tmp_path, authority, host) as server:
        url = f"{server}?ssl_ca_certs={trusted.file}"
        settings = Settings(dir=tmp_path / "cache", redis_url=url, tiers=frozenset({"l1"}))
        async with MultiLevelCache(settings=settings, instruments=()) as cache:
            await cache.put("alpha", "ann", "answer")
            assert (await cache.lookup("alpha", "ann")).outcome == "error"
            assert await cache.get_or_compute("alpha", "ann", lambda: "made") == "made"
    assert "redis cannot be reached" in caplog.text
    assert "certificate verify failed" in caplog.text
    assert servers.PASSWORD not in caplog.text


# ------------------------------------------------------------------------------ plain formats

_UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
_UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "literal_eval"}
_PACKAGES = ("cache_core", "telemetry", "dashboard", "grafana", "alerts", "examples", "benchmarks")
_SOURCES = [path for name in _PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def _unsafe(code: str) -> set[str]:
    """Return what in *code* could run what somebody else wrote."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names} & _UNSAFE_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module).split(".")[0]} & _UNSAFE_MODULES
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                found |= {function.id} & _UNSAFE_CALLS
            elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                of = function.value.id
                found |= {function.attr} & {"literal_eval"}
                if (of, function.attr) in {
                    ("yaml", "load"),
                    ("torch", "load"),
                    ("pd", "read_pickle"),
                }:
                    found.add(f"{of}.{function.attr}")
            found |= {word.arg for word in node.keywords if word.arg == "allow_pickle"}
    return found


@pytest.mark.slow
def test_no_stored_bytes_are_ever_run() -> None:
    """No pickle or its kin, no eval: a writer to the store writes data, never code."""
    found = {str(path): _unsafe(path.read_text(encoding="utf-8")) for path in _SOURCES}
    assert len(found) > 100
    assert {path: unsafe for path, unsafe in found.items() if unsafe} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import loads", "eval(x)", "exec(x)", "ast.literal_eval(x)",
        "yaml.load(f)", "numpy.load(f, allow_pickle=True)", "import a, marshal", "def f():\n    import shelve",
    ],
)  # fmt: skip
def test_the_check_finds_it(code: str) -> None:
    """The check for unsafe deserialisation finds each way of it."""
    assert _unsafe(code)


# ------------------------------------------------------------------------------ SECURITY.md


def test_every_claim_names_a_test_that_exists() -> None:
    """Tests that SECURITY.md names exist."""
    text = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"def {name}\(", (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert missing == []
