"""Messages, users and the password of Redis appear on no page of the dashboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cache_core.config.settings import load_settings
from tests.support import servers
from tests.support.dashboard import PAGES, Open, agent, open_app

pytestmark = pytest.mark.server

__all__ = ["open_app"]

CANARIES = {
    "message": "canarymessage7f3a",
    "answer": "canaryanswer91bc",
    "user": "canaryuser55de",
    "password": "canarypassword2e8f",
    "key": "canarykeyc0ffee",
}


def everything(app: AppTest) -> str:
    """Return all that is sent to the browser: elements, tables, and the data of charts."""
    tables = [table.value.to_string() for table in app.dataframe]
    items = [item for block in (app.main, app.sidebar) for item in block]
    return "\n".join([*(str(item.proto) for item in items), *tables])


def shown(page: str, open_app: Open, directory: Path, patch: pytest.MonkeyPatch) -> str:
    """Return a page of a cache that was asked, answered, judged, and has a secret key."""
    message, answer, user = (CANARIES[name] for name in ("message", "answer", "user"))
    with servers.redis_server(directory, password=CANARIES["password"]) as url:
        patch.setenv("REDIS_URL", url)
        patch.setenv("CACHE_KEY", CANARIES["key"])
        read = load_settings()
        settings = {name: getattr(read, name) for name in ("key", "capture_message_content")}
        with agent(directory / "cache", url, settings=settings) as busy:

            async def work() -> None:
                for text in (f"{message} alpha beta gamma", f"gamma beta alpha {message}"):
                    await busy.cache.lookup(text, user)
                    await busy.cache.put(text, user, answer, "billing")
                    found = await busy.cache.lookup(text, user)
                    await busy.cache.feedback(found.lookup_id, correct=False)
                    await busy.cache.lookup(f"{text} delta", user)
                    await busy.cache.lookup(text, "eve")

            busy.run(work())
            busy.flush()
            app = open_app(page)
            assert not app.exception
            return everything(app)


each_page = pytest.mark.parametrize("page", PAGES)
on_redis = pytest.mark.parametrize("store_kind", ["redis"], indirect=True)


@on_redis
@each_page
def test_no_canary_is_on_a_page(
    page: str, store_kind: str, open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While content is not captured; whatever was asked, answered and judged."""
    found = shown(page, open_app, tmp_path, monkeypatch)
    assert len(found) > 500
    for what, canary in CANARIES.items():
        assert canary not in found, what


@on_redis
def test_captured_texts_would_have_been_found(
    store_kind: str, open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switched on, a reviewer sees the texts, and still no user, password or key."""
    monkeypatch.setenv("CACHE_CAPTURE_MESSAGE_CONTENT", "true")
    found = shown("review", open_app, tmp_path, monkeypatch)
    assert CANARIES["message"] in found
    for what in ("user", "password", "key"):
        assert CANARIES[what] not in found, what
