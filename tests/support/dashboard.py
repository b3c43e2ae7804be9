"""Helpers for tests of the Streamlit app: an agent at work, and the app on its store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from cache_core import MultiLevelCache, Settings
from cache_core.testing import HashEmbedder
from dashboard.data.background import Background
from tests.support.inside import inside
from tests.support.paths import ROOT

APP = ROOT / "dashboard" / "app.py"
PAGES = ("overview", "history", "tuning", "review", "entries", "alerts", "audit")
TOKEN = "open-sesame-0123456789"


class Agent:
    """A cache in a thread of its own, as an agent's process has one."""

    def __init__(self, cache: MultiLevelCache, background: Background) -> None:
        self.cache = cache
        self._background = background

    def run(self, work: Any) -> Any:
        return self._background.run(work, 30)

    def flush(self) -> None:
        """Let the app see what was decided and counted, and that this replica is alive."""

        async def work() -> None:
            await self.cache._parts.decisions.flush()
            await inside(self.cache).housekeeper._beat()
            await inside(self.cache).housekeeper.write_history()

        self.run(work())

    def traffic(self, lookups: int = 60) -> None:
        """Answer questions: exact hits, semantic ones, near misses, and a private answer."""

        async def work() -> None:
            for number in range(lookups):
                words = f"topic{number % 5} alpha beta gamma"
                user = f"user{number % 3}"
                found = await self.cache.lookup(words, user)
                if found.response is None:
                    await self.cache.put(words, user, f"answer {number % 5}", "billing")
                await self.cache.lookup(f"topic{number % 5} gamma beta alpha", user)
                await self.cache.lookup(f"topic{number % 5} alpha beta", user)

        self.run(work())
        self.flush()


@contextmanager
def agent(
    directory: Path, redis_url: str | None, namespace: str = "default", **arguments: Any
) -> Iterator[Agent]:
    """An open cache with a word-based embedder."""
    background = Background()
    fixed = arguments.pop("settings", {})
    settings = Settings(dir=directory, redis_url=redis_url, **fixed)
    arguments.setdefault("embedding_model", HashEmbedder())
    cache = MultiLevelCache(settings=settings, namespace=namespace, instruments=(), **arguments)
    background.run(cache.initialize(), 30)
    try:
        yield Agent(cache, background)
    finally:
        background.run(cache.close(), 30)
        background.close()


Open = Callable[..., AppTest]


@pytest.fixture
def open_app(
    store_kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Open]:
    """Open the app at a page, on the store of this run."""
    if store_kind == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("empty_redis"))
    for name in ("TOKEN", "WRITE", "WRITERS", "NAMESPACE"):
        monkeypatch.delenv(f"CACHE_DASHBOARD_{name}", raising=False)
    for name in ("PROMETHEUS_URL", "ALERTMANAGER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    # For every app it would read the metadata of all installed packages: a second each.
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", list)

    def open_(page: str = "overview", *, login: bool = False) -> AppTest:
        if login:
            monkeypatch.setenv("CACHE_DASHBOARD_TOKEN", TOKEN)
            monkeypatch.setenv("CACHE_DASHBOARD_WRITE", "1")
        app = AppTest.from_file(str(APP), default_timeout=60).run()
        if login:
            log_in(app)
        if page != "overview":
            app.switch_page(f"ui/views/{page}.py").run()
        return app

    yield open_
    st.cache_resource.clear()


def log_in(app: AppTest, token: str = TOKEN, name: str = "ada") -> None:
    app.text_input[0].input(name)
    app.text_input[1].input(token)
    app.button[0].click().run()


def texts(app: AppTest) -> str:
    """Everything that the page says."""
    kinds = (
        app.title, app.header, app.subheader, app.markdown, app.caption, app.error, app.info, app.success,
        app.warning, app.text,
    )  # fmt: skip
    return "\n".join(str(item.value) for kind in kinds for item in kind)


def button(app: AppTest, label: str) -> Any:
    return next(item for item in app.button if item.label.startswith(label))
