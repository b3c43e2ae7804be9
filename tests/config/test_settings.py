"""Settings: where they come from, which wins, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import cache_core.multilevel_cache as published
from cache_core import ConfigurationError, MultiLevelCache, Settings
from cache_core.config.settings import load_settings
from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("REDIS_URL", "redis://h:1/2", "redis_url", "redis://h:1/2"),
        ("GLASSCACHE_REDIS_URL", "unix:///run/redis", "redis_url", "unix:///run/redis"),
        ("REDIS_URL", "", "redis_url", None),
        ("CHROMA_URL", "http://h:8000", "chroma_url", "http://h:8000"),
        ("EMBEDDING_MODEL", "/models/x", "embedding_model", "/models/x"),
        ("CACHE_DIR", "/var/x", "dir", Path("/var/x")),
        ("CACHE_KEY", "long enough", "key", "long enough"),
        ("CACHE_TIERS", " L1, l3 ", "tiers", frozenset({"l1", "l3"})),
        ("CACHE_EXACT_BUDGET", "0.1", "exact_budget", 0.1),
        ("CACHE_MAX_ENTRIES", "10", "max_entries", 10),
    ],
)
def test_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: Any
) -> None:
    """Each setting has its environment variable, the short names included."""
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == expected


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument of the constructor wins over the environment."""
    monkeypatch.setenv("REDIS_URL", "redis://environment")
    monkeypatch.setenv("SEMANTIC_THRESHOLD", "0.8")
    cache = MultiLevelCache("redis://argument", semantic_threshold=0.9)
    assert cache.settings.redis_url == "redis://argument"
    assert cache.tuning.semantic_threshold == 0.9
    assert MultiLevelCache().tuning.semantic_threshold == 0.8


def test_shared_intents_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming intents to share switches sharing by intent on."""
    assert MultiLevelCache().tuning.sharing == "private"
    monkeypatch.setenv("CACHE_SHARED_INTENTS", "faq, hours ,")
    tuning = MultiLevelCache().tuning
    assert (tuning.sharing, tuning.shared_intents) == ("intents", {"faq", "hours"})


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the key nor a URL's password is printed, not even in a refusal."""
    assert "hidden-key" not in repr(load_settings(key="hidden-key"))
    with pytest.raises(ConfigurationError) as refused:
        load_settings(redis_url="redis//user:hunter2@host")
    assert "hunter2" not in str(refused.value)


def test_the_namespace_is_checked() -> None:
    """A namespace that would not be safe in a key is refused with what is allowed."""
    for name in ("", "a b", "a:b", "{a}", "x" * 65, "\u00fc"):
        with pytest.raises(ConfigurationError, match="namespace"):
            MultiLevelCache(namespace=name)


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, 95])
def test_a_threshold_out_of_range(value: float) -> None:
    """A threshold outside 0..1 is refused with its origin: the constructor."""
    with pytest.raises(ConfigurationError, match=r"semantic_threshold=.*the constructor"):
        MultiLevelCache(semantic_threshold=value)


async def test_a_changed_module_constant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A constant changed after the constructor is read by initialize, and refused by its name."""
    cache = MultiLevelCache(
        settings=Settings(dir=tmp_path, tiers="l1"),
        embedding_model=HashEmbedder(),
        instruments=(),  # type: ignore[arg-type]
    )
    monkeypatch.setattr(published, "SEMANTIC_THRESHOLD", 95)
    with pytest.raises(ConfigurationError, match=r"semantic_threshold=95.*a module constant"):
        await cache.initialize()
    monkeypatch.setattr(published, "SEMANTIC_THRESHOLD", 0.9)
    monkeypatch.setattr(published, "L1_TTL", 60)
    await cache.initialize()
    assert (cache.tuning.semantic_threshold, cache.tuning.l1_ttl) == (0.9, 60)
    await cache.close()


@pytest.mark.parametrize("url", ["localhost:6379", "http://h", "redis//h", "rediss:/h"])
def test_a_bad_redis_url(url: str) -> None:
    """A URL of another scheme is refused, saying which are understood."""
    with pytest.raises(ConfigurationError, match="redis://"):
        MultiLevelCache(url)
    with pytest.raises(ConfigurationError, match="redis://"):
        MultiLevelCache(url, settings=Settings())


async def test_a_redis_url_that_only_looks_right(tmp_path: Path) -> None:
    """A URL with an impossible port is refused, or the cache goes on without its store."""
    try:
        cache = MultiLevelCache("redis://127.0.0.1:notaport", instruments=())
        found = await cache.lookup("alpha", "ann")
    except ConfigurationError as error:
        assert "redis_url" in str(error)  # noqa: PT017
    else:
        assert found.outcome == "error"
        await cache.close()


def test_shared_intents_as_one_text() -> None:
    """shared_intents="faq" would share every letter: it is a TypeError."""
    with pytest.raises(TypeError, match="list of intents"):
        MultiLevelCache(shared_intents="faq")
