"""Served app: Streamlit's, with headers that protect the browser, also behind a proxy's path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from streamlit import config
from streamlit.starlette import App

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_Served = Callable[[_Message, Callable[[], Awaitable[_Message]], _Send], Awaitable[None]]

# Streamlit's pages have inline scripts and styles, and its charts are compiled in the browser.
# Nothing is fetched from, or sent to, anywhere else, and no other page may embed this one.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Headers:
    """ASGI middleware that adds `HEADERS` to every response.

    Args:
        app: The application.
    """

    def __init__(self, app: _Served) -> None:
        self._app = app

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: _Send
    ) -> None:
        """Answer a request."""

        async def sent(message: _Message) -> None:
            if message["type"] == "http.response.start":
                ours = dict(HEADERS)
                others = [
                    item for item in message.get("headers", ()) if item[0].lower() not in ours
                ]
                message["headers"] = [*others, *HEADERS]
            await send(message)

        await self._app(scope, receive, sent)


class Prefix:
    """ASGI middleware that gives requests the base path, if a proxy has stripped it.

    Args:
        app: The application, which serves under the base path only.
    """

    def __init__(self, app: _Served) -> None:
        self._app = app
        self._base = f"/{config.get_option('server.baseUrlPath').strip('/')}".rstrip("/")

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: _Send
    ) -> None:
        """Answer a request."""
        path = scope.get("path", "")
        base = self._base
        if (
            base
            and scope["type"] in {"http", "websocket"}
            and not f"{path}/".startswith(f"{base}/")
        ):
            scope = {**scope, "path": base + path, "raw_path": base.encode() + scope["raw_path"]}
        await self._app(scope, receive, send)


app = App(Path(__file__).parent / "app.py", middleware=[Middleware(Headers), Middleware(Prefix)])
