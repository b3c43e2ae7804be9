"""Served app: Streamlit's, with protecting headers, logins by cookie, and a proxy's path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from streamlit import config
from streamlit.starlette import App

from dashboard.data.config import DashboardConfig
from dashboard.data.sessions import (
    LIFE_SECONDS,
    PATH,
    SESSIONS,
    TICKET,
    cookie_name,
    own_origin,
)

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
        self._base = _base()

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


def _base() -> str:
    """Return the base path, with a slash before it; empty without one."""
    return f"/{config.get_option('server.baseUrlPath').strip('/')}".rstrip("/")


async def session(request: Request) -> Response:
    """Give a browser that has a ticket its cookie, or take it away.

    Scripts cannot read the cookie, other sites cannot send it, and no token is in any address.
    """
    app_config = DashboardConfig()
    origin = request.headers.get("origin", "")
    allowed = config.get_option("server.corsAllowedOrigins")
    ours = own_origin(origin, request.headers.get("host", ""), allowed)
    if app_config.token is None or not ours:
        return Response(status_code=403)
    cookie = cookie_name(app_config.namespace, config.get_option("server.port"))
    login: str | None = ""
    if request.method == "POST":
        login = SESSIONS.redeem(request.headers.get(TICKET, ""))
        if login is None:
            return Response(status_code=403)
    else:
        SESSIONS.end(request.cookies.get(cookie, ""))
    response = Response(status_code=204)
    response.set_cookie(
        cookie, login or "", max_age=LIFE_SECONDS if login else 0,
        path=f"{_base()}/", secure=origin.startswith("https://"), httponly=True, samesite="strict",
    )  # fmt: skip
    return response


app = App(
    Path(__file__).parent / "app.py",
    routes=[Route(f"{_base()}/{PATH}", session, methods=["POST", "DELETE"])],
    middleware=[Middleware(Headers), Middleware(Prefix)],
)
