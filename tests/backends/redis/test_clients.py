"""Redis as it is given: an old one, RESP3, pools and clients, Sentinels by URL, a prescribed prefix."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aredis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.cluster import LoadBalancingStrategy

from cache_core import MultiLevelCache
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.replies import next_position
from cache_core.backends.redis.sentinels import SentinelAddress, parse_sentinel_url
from cache_core.backends.redis.store import RedisStore
from cache_core.config.settings import Settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.runtime.assembly import name_of_store, redis_client
from cache_core.testing import HashEmbedder
from tests.support import servers
from tests.support.certificates import Authority
from tests.support.patience import PATIENT

OLD_SERVERS = [
    path
    for path in os.environ.get("OLD_REDIS_SERVERS", "").split(os.pathsep)
    if path and shutil.which(path)
]


def make(**arguments: Any) -> MultiLevelCache:
    return MultiLevelCache(instruments=(), embedding_model=HashEmbedder(), **arguments)


async def works(cache: MultiLevelCache) -> bool:
    """Check that a put, an invalidation and a put after it do what they should."""
    documents = [{"id": "handbook"}]
    async with cache:
        await cache.put("when do you open", "ann", "At nine.", "hours", documents)
        assert (await cache.lookup("when do you open", "ann")).response == "At nine.", (
            cache.why_unavailable
        )
        for _ in range(2):
            assert (await cache.invalidate_document("handbook")).complete
            assert (await cache.lookup("when do you open", "ann")).response is None
            await cache.put("when do you open", "ann", "At ten.", "hours", documents)
            assert (await cache.lookup("when do you open", "ann")).response == "At ten."
        assert (await cache.forget_user("ann")).complete
        return (await cache.lookup("when do you open", "ann")).response is None


# --------------------------------------------------------------------------------------- versions


async def test_no_command_needs_a_new_server(
    empty_redis: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that Redis 5.0 does not know is sent: no exclusive range, no newer option."""
    with servers.admin(empty_redis) as client, client.monitor() as monitor:
        assert await works(make(settings=Settings(dir=tmp_path, redis_url=empty_redis)))
        client.echo("the end")
        sent: list[str] = []
        while not sent or "the end" not in sent[-1]:
            sent.append(str(monitor.next_command()["command"]))
    ranges = [command.split() for command in sent if command.upper().startswith("XRANGE")]
    assert any(words[2] != "-" for words in ranges), "a log was read from where it was left"
    assert not [words for words in ranges if words[2].startswith("(")]
    newer = {"GETEX", "GETDEL", "COPY", "LMOVE", "EXAT", "PXAT", "KEEPTTL", "MINID", "NOMKSTREAM"}
    assert not [command for command in sent if newer & set(command.upper().split())]


@pytest.mark.server
@pytest.mark.skipif(not OLD_SERVERS, reason="OLD_REDIS_SERVERS names no redis-server")
@pytest.mark.parametrize("program", OLD_SERVERS)
async def test_an_old_server(tmp_path: Path, program: str) -> None:
    """All works on the servers of Redis 5.0 and 6.0 that OLD_REDIS_SERVERS names."""
    port = servers.free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with servers.running(command, port):
        url = f"redis://127.0.0.1:{port}/0"
        assert await works(make(settings=Settings(dir=tmp_path, redis_url=url)))


@pytest.mark.parametrize(
    ("version", "told"),
    [("4.0.14", True), ("2.8", True), ("5.0.6", False), ("7.4.0", False), ("255.1", False),
     ("unstable", False)],
)  # fmt: skip
async def test_a_server_that_is_too_old_is_named(
    empty_redis: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    told: bool,
) -> None:
    """On the first contact, once, with the version that is needed."""

    async def info(self: object, section: str) -> dict[str, str]:
        return {"redis_version": version} if section == "server" else {}

    monkeypatch.setattr(aredis.Redis, "info", info)
    store = RedisStore(connect(empty_redis, timeout=2), write_timeout=5)
    await store.open()
    await store.tend()
    assert caplog.text.count(f"version {version}; 5.0 or later") == told
    await store.close()


@pytest.mark.parametrize(
    ("position", "following"),
    [
        ("5-0", "5-1"),
        ("1700000000000-7", "1700000000000-8"),
        ("5", "5-1"),
        (f"5-{2**64 - 1}", "6-0"),
        ("nothing", "nothing"),
        ("5-x", "5-x"),
        ("٥-1", "٥-1"),
    ],
)
def test_the_position_after_another(position: str, following: str) -> None:
    """The next ID of a stream; what is none is left to the server to refuse."""
    assert next_position(position) == following


# ------------------------------------------------------------------------------ pools and clients

GIVEN: dict[str, Callable[[str], Any]] = {
    "pool": aredis.ConnectionPool.from_url,
    "RESP3": lambda url: aredis.ConnectionPool.from_url(url, decode_responses=True, protocol=3),
    "pool of one": lambda url: aredis.ConnectionPool.from_url(url, max_connections=1),
    "blocking": lambda url: aredis.BlockingConnectionPool.from_url(url, max_connections=1),
    "other encoding": lambda url: aredis.ConnectionPool.from_url(
        url, encoding="latin-1", decode_responses=True
    ),
    "client": aredis.Redis.from_url,
    "client of one connection": lambda url: aredis.Redis.from_url(
        url, single_connection_client=True
    ),
    "URL": str,
}


@pytest.mark.parametrize("kind", GIVEN)
async def test_what_can_be_used_as_a_pool(empty_redis: str, tmp_path: Path, kind: str) -> None:
    """Any pool or client of redis.asyncio, and a URL; the application's own stay open."""
    given = GIVEN[kind](empty_redis)
    assert await works(make(redis_pool=given, settings=Settings(dir=tmp_path, put_budget=5)))
    if isinstance(given, aredis.Redis):
        assert await given.ping()
    if not isinstance(given, str):
        await given.aclose()


REFUSED: dict[str, Callable[[], Any]] = {
    "synchronous pool": redis.ConnectionPool,
    "synchronous client": redis.Redis,
    "synchronous Sentinel": lambda: redis.Sentinel([("127.0.0.1", 1)]),
    "Sentinel": lambda: Sentinel([("127.0.0.1", 1)]),
    "replicas": lambda: Sentinel([("127.0.0.1", 1)]).slave_for("main").connection_pool,  # type: ignore[no-untyped-call]
    "replica client": lambda: Sentinel([("127.0.0.1", 1)]).slave_for("main"),  # type: ignore[no-untyped-call]
    "pipeline's class": lambda: aredis.ConnectionPool,
    "cluster's replicas": lambda: RedisCluster(
        startup_nodes=[ClusterNode("127.0.0.1", 1)],
        load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN,
    ),
    "bytes": lambda: b"redis://127.0.0.1",
    "number": lambda: 6379,
    "false": lambda: False,
    "list": list,
    "bad URL": lambda: "localhost:6379",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_as_a_pool(kind: str) -> None:
    """It is refused by the constructor, in words that name the argument."""
    with pytest.raises((TypeError, ConfigurationError), match=r"redis_pool=|redis_url="):
        make(redis_pool=REFUSED[kind]())


def test_an_asynchronous_object_is_not_called_synchronous() -> None:
    """A subscription of redis.asyncio is no pool either, but for another reason."""
    with pytest.raises(TypeError, match=r"PubSub$"):
        make(redis_pool=aredis.Redis().pubsub())


def test_a_cluster_client_is_taken() -> None:
    """A cluster client is used as it is: it knows its nodes; another Cluster is another store."""
    client, other = (RedisCluster(startup_nodes=[ClusterNode("h", port)]) for port in (1, 2))
    assert make(redis_pool=client).settings.redis_url is None
    assert RedisStore(client).client is client
    assert not name_of_store(Settings(), client).is_same(name_of_store(Settings(), other))


@pytest.mark.parametrize(
    "rest", ["/zero", "?colour=blue", "?protocol=4", "?db=zero", "/0?socket_timeout=soon"]
)
def test_an_address_that_cannot_be_used(rest: str) -> None:
    """It is refused with the setting to correct, and no other database is used for it."""
    client = redis_client(Settings(redis_url=f"redis://127.0.0.1:1{rest}"), None)
    with pytest.raises(redis.ConnectionError, match=r"redis_url= redis:.* is refused: "):
        asyncio.run(client.ping())


@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_protocol_of_the_url(empty_redis: str, tmp_path: Path, protocol: int) -> None:
    """`?protocol=3` in REDIS_URL works as RESP2 does."""
    url = f"{empty_redis}?protocol={protocol}"
    cache = make(settings=Settings(dir=tmp_path, redis_url=url))
    assert await works(cache)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
async def test_a_file_of_certificates_that_is_missing(tmp_path: Path, option: str) -> None:
    """It is named with its option, and may be there the next time."""
    path = tmp_path / "later.pem"
    url = f"rediss://127.0.0.1:1/0?{option}={path}"
    client = redis_client(Settings(redis_url=url), None)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError, match=f"{option}={path} cannot be read: No such"):
            await client.ping()
    path.write_text("nothing", "ascii")
    with pytest.raises(redis.ConnectionError, match=r"SSL|X509|certfile"):
        await client.ping()


def test_connections_share_the_certificates_that_were_loaded(tmp_path: Path) -> None:
    """They are loaded once, which takes longer than a lookup may, and again after a change."""
    file = Authority(tmp_path, "ours").file
    pool = connect(f"rediss://h/0?ssl_ca_certs={file}", timeout=1).connection_pool

    def context() -> Any:
        connection: Any = pool.connection_class(**pool.connection_kwargs)
        return connection.ssl_context.get()

    one = context()
    assert context() is one
    file.write_bytes(Authority(tmp_path, "theirs").file.read_bytes() * 2)
    assert context() is not one


# -------------------------------------------------------------------------------------- Sentinels


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "redis+sentinel://one:26380,two/main/3?protocol=3",
            ((("one", 26380), ("two", 26379)), "main", "redis://sentinel/3?protocol=3", {}),
        ),
        (
            "rediss+sentinel://me:p%40ss@[::1]:5,[fe80::1]/my%20main",
            (
                (("::1", 5), ("fe80::1", 26379)),
                "my main",
                "rediss://me:p%40ss@sentinel",
                {},
            ),
        ),
        (
            "redis+sentinel://:pw@h/main/0?sentinel_username=s&sentinel_password=t%26u&db=4",
            (
                (("h", 26379),),
                "main",
                "redis://:pw@sentinel/0?db=4",
                {"username": "s", "password": "t&u"},
            ),
        ),
        (
            "rediss+sentinel://h/main?sentinel_ssl=True&ssl_ca_certs=/ca",
            ((("h", 26379),), "main", "rediss://sentinel?ssl_ca_certs=%2Fca", {}, True),
        ),
    ],
)
def test_a_sentinel_url(url: str, address: tuple[Any, ...]) -> None:
    """Sentinels, name, login and options, each where it belongs."""
    assert parse_sentinel_url(url) == SentinelAddress(*address)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h:26379",
        "redis+sentinel://h:26379/",
        "redis+sentinel:///main",
        "redis+sentinel://h:port/main",
        "redis+sentinel://h:70000/main",
        "redis+sentinel://h,,i/main",
        "redis+sentinel://h/main/zero",
        "redis+sentinel://h/main?sentinel_color=blue",
        "redis+sentinel://h/main?sentinel_ssl=maybe",
        "redis-sentinel://h/main",
    ],
)
def test_a_sentinel_url_that_cannot_work(url: str) -> None:
    """The constructor names it, and what is expected."""
    with pytest.raises(ConfigurationError, match=r"redis_url=.*(expected|Sentinel|ort)"):
        make(redis_url=url)


# ----------------------------------------------------------------------------------------- prefix


@pytest.mark.parametrize(
    ("prefix", "keys", "channels"),
    [("myapp", "~myapp:*", "&myapp:*"), ("team/a:gc", "~team/a:*", "&team/a:*")],
)
async def test_a_prescribed_prefix(
    empty_redis: str, tmp_path: Path, prefix: str, keys: str, channels: str
) -> None:
    """Every key and channel begins with it, so an ACL with that prefix and no other is enough."""
    rules = ["on", ">secret", keys, "resetchannels", channels, "+@all", "-@admin", "-@dangerous"]
    with servers.admin(empty_redis) as client:
        client.execute_command("ACL", "SETUSER", "tenant", "reset", *rules, "+info")
        client.execute_command("ACL", "LOG", "RESET")
        try:
            url = servers.redis_url(servers.port_of(empty_redis), "tenant", "secret")
            fixed = Settings(dir=tmp_path, redis_url=url, prefix=prefix)
            async with make(settings=fixed) as cache:
                await cache.tune({"semantic_threshold": 0.9}, author="tests")
                await cache.feedback("none", correct=True)
            assert await works(make(settings=fixed))
            assert not client.execute_command("ACL", "LOG")
            assert {key.decode().startswith(f"{prefix}:") for key in client.scan_iter()} == {True}
        finally:
            client.execute_command("ACL", "DELUSER", "tenant")


async def test_prefixes_share_nothing(empty_redis: str, tmp_path: Path) -> None:
    """Two caches with different prefixes on one server do not see each other's answers."""
    url = servers.any_key(empty_redis)
    for prefix in ("one", "two"):
        async with make(
            settings=Settings(dir=tmp_path / prefix, redis_url=url, prefix=prefix)
        ) as cache:
            assert (await cache.lookup("alpha", "ann")).response is None
            await cache.put("alpha", "ann", prefix)
            assert (await cache.lookup("alpha", "ann")).response == prefix


async def test_prefixes_share_no_index_and_no_pending_invalidation(
    empty_redis: str, tmp_path: Path
) -> None:
    """Nor with one directory and one secret: neither removes what is the other's."""
    url = servers.any_key(empty_redis)
    one, two = (
        Settings(**PATIENT, dir=tmp_path, redis_url=url, prefix=prefix, key="k" * 32)
        for prefix in ("team/one", "two")
    )
    async with make(settings=one, sharing="all") as cache:
        await cache.put("alpha beta", "ann", "one")
        assert (await cache.lookup("Alpha, beta", "bob")).tier == "l2"
    async with make(settings=two, sharing="all") as cache:
        assert (await cache.lookup("Alpha, beta", "bob")).reasons == ("cold",)
        await cache.put("alpha beta", "ann", "two")
    async with make(settings=one, sharing="all") as cache:
        assert (await cache.lookup("Alpha, beta", "bob")).response == "one"
    away = one.model_copy(update={"redis_url": f"redis://127.0.0.1:{servers.free_port()}"})
    assert not name_of_store(one, None).is_same(name_of_store(two, None))
    assert not name_of_store(one, None).is_same(name_of_store(away, None))
    assert name_of_store(one, None).is_same(name_of_store(one, None))
