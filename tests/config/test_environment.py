"""Environment variables: which are read, what they may be, and those that other programs set."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cache_core import MultiLevelCache
from cache_core.config.settings import Settings, load_settings, tuning_environment
from cache_core.model.exceptions import ConfigurationError
from cache_core.testing import HashEmbedder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_REDIS_URL", "redis://flask-cache:6379/3"),
        ("CACHE_CHROMA_URL", "http://elsewhere:8000"),
        ("CACHE_EMBEDDING_MODEL", "another"),
        ("CACHE_SEMANTIC_THRESHOLD", "0.5"),
        ("CACHE_URL", "redis://elsewhere"),
        ("CACHE_KEY_PREFIX", "app_"),
        ("CAPTURE_MESSAGE_CONTENT", "true"),
        ("cache_dir", "/nowhere"),
        ("redis_url", "redis://elsewhere"),
        ("TIERS", "l1"),
        ("KEY", "something long enough"),
        ("SHARING", "all"),
    ],
)
def test_only_documented_names_are_read(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A name that is not ours, in another case or without its prefix changes nothing."""
    before, tuned = Settings(), tuning_environment()
    monkeypatch.setenv(name, value)
    assert Settings() == before
    assert tuning_environment() == tuned


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_KEY", "v1"),
        ("CACHE_TIERS", "memory,disk"),
        ("CACHE_HEARTBEAT", "30"),
        ("CACHE_DECISIONS", "yes"),
        ("CACHE_EXACT_BUDGET", "0"),
        ("CACHE_MAX_ENTRIES", "unlimited"),
        ("CACHE_MAX_BYTES", "1G"),
        ("CACHE_COMPUTE_LEASE", "nan"),
        ("CACHE_PREFIX", "{app}"),
        ("CACHE_L1_TTL", "never"),
        ("CACHE_L2_TTL", "-1"),
        ("CACHE_SHARING", "some"),
        ("CACHE_RESPONSE_USD", "0,03"),
        ("SEMANTIC_THRESHOLD", "1.5"),
        ("SEMANTIC_THRESHOLD", "0,95"),
        ("CHROMA_URL", "localhost:8000"),
    ],
)
async def test_a_variable_that_cannot_work_is_ignored_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    """The cache works with the default, and one error names the variable and its value."""
    expected = Settings().model_dump(), MultiLevelCache().tuning
    monkeypatch.setenv(name, value)
    for _ in range(2):
        cache = MultiLevelCache(embedding_model=HashEmbedder(), instruments=())
        assert (cache.settings.model_dump(), cache.tuning) == expected
    await cache.put("alpha beta", "ann", "kept")
    assert await cache.get_multilevel("alpha beta", "ann") == "kept"
    await cache.close()
    told = [line for line in caplog.messages if line.startswith(f"{name}=")]
    assert len(told) == 1
    assert ("(2 characters)" if name == "CACHE_KEY" else repr(value)) in told[0]
    if name.startswith("CACHE_"):
        assert f"set GLASSCACHE_{name.removeprefix('CACHE_')} for glasscache" in told[0]


@pytest.mark.parametrize(
    "field", ["redis_url", "dir", "key", "tiers", "chroma_url", "decisions", "embedding_model"]
)
@pytest.mark.parametrize("value", ["", "  "])
def test_empty_is_not_given(monkeypatch: pytest.MonkeyPatch, field: str, value: str) -> None:
    """A variable that is empty, as compose files leave it, is the default."""
    monkeypatch.delenv("CACHE_DIR")
    before = Settings()
    for name in (f"GLASSCACHE_{field.upper()}", f"CACHE_{field.upper()}", field.upper()):
        monkeypatch.setenv(name, value)
    assert Settings() == before


def test_our_own_prefix_beats_a_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with GLASSCACHE_ win if another program uses CACHE_KEY or REDIS_URL."""
    monkeypatch.setenv("CACHE_KEY", "v1")
    monkeypatch.setenv("GLASSCACHE_KEY", "a secret of ours")
    monkeypatch.setenv("REDIS_URL", "redis://the-application")
    monkeypatch.setenv("GLASSCACHE_REDIS_URL", "redis://ours")
    assert (Settings().key, Settings().redis_url) == ("a secret of ours", "redis://ours")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600), ("3600s", 3600), ("90", 90), ("1.5 h", 5400), ("2D", 172_800), ("15m", 900)],
)
def test_durations(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    """A time may have a unit in every variable that is one, and in the constructor."""
    monkeypatch.setenv("CACHE_L1_TTL", text)
    monkeypatch.setenv("CACHE_STALE_SECONDS", text)
    monkeypatch.setenv("CACHE_COMPUTE_WAIT", "2m")
    monkeypatch.setenv("CACHE_EXACT_BUDGET", "80ms")
    cache = MultiLevelCache()
    assert cache.tuning.l1_ttl == cache.tuning.stale_seconds == seconds
    assert cache.settings.compute_wait == 120
    assert cache.settings.exact_budget == pytest.approx(0.08)


async def test_a_redis_url_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nothing is cached, and nothing raises: another store would miss the invalidations there."""
    for url in ("cache:6379", "http://me:hunter2@h", "redis://h:notaport", "redis://h?db=x"):
        monkeypatch.setenv("REDIS_URL", url)
        caplog.clear()
        cache = MultiLevelCache(embedding_model=HashEmbedder(), instruments=())
        await cache.put("alpha", "ann", "lost")
        assert (await cache.lookup("alpha", "ann")).outcome == "error"
        assert await cache.get_or_compute("alpha", "ann", lambda: "computed") == "computed"
        assert cache.why_unavailable.count("REDIS_URL") > 1
        assert "Correct REDIS_URL, or unset it" in cache.why_unavailable
        await cache.close()
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "nothing is cached" in errors[0].getMessage().lower()
        assert "hunter2" not in caplog.text
    assert not (tmp_path / "cache" / "glasscache.db").exists()


def test_encryption_keys_that_cannot_work_still_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them everything would be stored readable."""
    monkeypatch.setenv("CACHE_ENCRYPTION_KEYS", "short")
    with pytest.raises(ConfigurationError, match="openssl"):
        MultiLevelCache()


@pytest.mark.parametrize("value", ["~/cache", "~", "~/a/../b"])
def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    """CACHE_DIR from a .env file, which no shell has expanded, and dir= likewise."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CACHE_DIR", value)
    assert Settings().dir == load_settings(dir=value).dir == Path(value).expanduser()


def test_a_directory_does_not_move_with_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative directory is that of the start."""
    monkeypatch.chdir(tmp_path)
    assert Settings(dir=Path("cache")).dir == tmp_path / "cache"


_NAMELESS = """
import asyncio, pwd, sys
def unknown(*_):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
from cache_core import MultiLevelCache
from cache_core.cli.app import main
async def agent():
    async with MultiLevelCache(instruments=()) as cache:
        await cache.put('a', 'ann', 'b')
        assert await cache.get_multilevel('a', 'ann') == 'b'
        print(cache.settings.dir)
if sys.argv[1] == 'settings':
    main()
asyncio.run(agent())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HOME": ""},
        {"HOME": "/proc/none"},
        {"HOME": "/proc"},
        {"CACHE_DIR": "~/x"},
        {"CACHE_DIR": "/proc/none"},
        {"REDIS_URL": "redis://127.0.0.1:1/0"},
    ],
)
def test_a_user_without_a_home(tmp_path: Path, variables: dict[str, str]) -> None:
    """For a user id without a name or HOME the cache and its commands work, in a logged directory."""
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CACHE_TIERS": "l1"}
    for word in ("agent", "settings"):
        if word == "agent" and "REDIS_URL" in variables:
            continue
        done = subprocess.run(
            [sys.executable, "-c", _NAMELESS, word],
            env={**own, "TMPDIR": str(tmp_path), **variables},
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == (2 if word == "settings" and "~" in str(variables) else 0)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "~").exists()
    if not variables.get("HOME") and "REDIS_URL" not in variables:
        assert next(tmp_path.glob("glasscache-*/glasscache.db"))


@pytest.mark.parametrize("value", ["cache", "~no-such-user-here/cache"])
def test_a_directory_that_cannot_be_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """A working directory that was deleted, or a user that is unknown: ignored and named."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("CACHE_DIR", value)
    with caplog.at_level(logging.ERROR):
        assert Settings().dir.is_absolute()
    assert f"CACHE_DIR={value!r} is ignored" in caplog.text
    monkeypatch.chdir(tmp_path)
