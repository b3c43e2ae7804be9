"""`glasscache dashboard`: the Streamlit app, on loopback."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import typer

from cache_core.cli.console import err, fail
from cache_core.cli.where import ChromaUrl, Directory, Namespace, RedisUrl
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import ConfigurationError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Public(NamedTuple):
    """Address under which a proxy shows the dashboard.

    Attributes:
        origin: Scheme, host and port, as a browser sends them.
        host: The host name alone.
        path: Path of the pages, without slashes around it; may be empty.
    """

    origin: str
    host: str
    path: str

    @property
    def url(self) -> str:
        """The address with its final slash."""
        return f"{self.origin}/{self.path}/" if self.path else f"{self.origin}/"


def dashboard(
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    chroma_url: ChromaUrl = None,
    directory: Directory = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Any but a loopback address needs a token, or a login "
            "configured in Streamlit's secrets.",
            rich_help_panel="Server",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to listen on.", rich_help_panel="Server")
    ] = 8501,
    public_url: Annotated[
        str | None,
        typer.Option(
            help="Address by which browsers reach it through a proxy, as "
            "https://ops.example.com/tuner/. Default: CACHE_DASHBOARD_PUBLIC_URL.",
            rich_help_panel="Server",
        ),
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Let users with the token make changes. Default: CACHE_DASHBOARD_WRITE, else "
            "read-only.",
            rich_help_panel="Server",
        ),
    ] = False,
) -> None:
    """Show how the cache performs, replay a change on recorded traffic, apply it everywhere.

    Reads the agent's store, not the agent's process. Making changes needs [bold]--write[/bold] and
    a token: CACHE_DASHBOARD_TOKEN, or one that is generated and printed.

    [bold]glasscache dashboard --write[/bold]
        On http://127.0.0.1:8501, for the cache that REDIS_URL or CACHE_DIR names.

    [bold]glasscache dashboard --namespace demo --dir demo[/bold]
        For a running [bold]glasscache demo --dir demo[/bold].

    [bold]glasscache dashboard --public-url https://ops.example.com/tuner/[/bold]
        On loopback, behind a proxy with a login and TLS.
    """
    public = _public(public_url or os.environ.get("CACHE_DASHBOARD_PUBLIC_URL", ""))
    if importlib.util.find_spec("streamlit") is None:
        fail("the dashboard's extra is missing: pip install 'glasscache[dashboard]'")
    environment = _environment(namespace, redis_url, chroma_url, directory, write=write)
    may_write = environment.get("CACHE_DASHBOARD_WRITE", "").lower() in {"1", "true", "yes", "on"}
    token = environment.get("CACHE_DASHBOARD_TOKEN")
    if not token and not _has_login():
        if host not in _LOOPBACK:
            fail(
                f"--host {host} can be reached from other machines: set CACHE_DASHBOARD_TOKEN, or "
                "configure a login in .streamlit/secrets.toml"
            )
        if may_write:
            token = environment["CACHE_DASHBOARD_TOKEN"] = secrets.token_urlsafe(18)
            environment["CACHE_DASHBOARD_TOKEN_PRINTED"] = "1"  # noqa: S105 - says where it is
            err.print(f"Token for this run: {token}", highlight=False, soft_wrap=True)
    shown = f"[{host}]" if ":" in host else host
    local = f"http://{shown}:{port}"
    where = f"{public.url}, by a proxy to {local}" if public else local
    err.print(
        f"Dashboard: {where} ({'can write' if may_write else 'read-only'}). Ctrl-C ends it.",
        highlight=False,
        soft_wrap=True,
    )
    # first on the path: an application may have a package of that name itself
    place = Path(__file__).parents[2]
    path = [str(place), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    command = _command(place / "dashboard", host, port, public)
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell wanted


def _environment(
    namespace: str,
    redis_url: str | None,
    chroma_url: str | None,
    directory: Path | None,
    *,
    write: bool,
) -> dict[str, str]:
    """Return this process's environment with the options; reject invalid ones."""
    given = {
        "CACHE_DASHBOARD_NAMESPACE": namespace,
        "GLASSCACHE_REDIS_URL": redis_url,
        "GLASSCACHE_CHROMA_URL": chroma_url,
        "GLASSCACHE_DIR": str(directory.absolute()) if directory is not None else None,
        "CACHE_DASHBOARD_WRITE": "1" if write else None,
    }
    environment = {**os.environ, **{name: value for name, value in given.items() if value}}
    try:
        load_settings(redis_url=redis_url, chroma_url=chroma_url, dir=directory)
    except ConfigurationError as error:
        fail(str(error))
    return environment


def _public(given: str) -> Public | None:
    """Return a public address in its parts; `None` without one. Rejects what is no such address."""
    text = given.strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    path = parts.path.strip("/") if host else ""
    odd = parts.username or parts.password or parts.query or parts.fragment if host else True
    if odd or host is None or parts.scheme not in {"http", "https"} or not _is_path(path):
        fail(
            "--public-url is an address as https://ops.example.com/tuner/: http or https, a host, "
            "and perhaps a port and a path"
        )
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        netloc += f":{port}"
    return Public(f"{parts.scheme}://{netloc}", host, path)


def _is_path(path: str) -> bool:
    """Return whether *path* is empty, or plain segments that no proxy rewrites."""
    return re.fullmatch(r"([\w.~-]+(/[\w.~-]+)*)?", path, re.ASCII) is not None and not (
        {".", ".."} & {*path.split("/")}
    )


def _has_login() -> bool:
    """Return whether Streamlit's secrets configure a login by OIDC."""
    import tomllib

    for folder in (Path.cwd(), Path.home()):
        try:
            found = tomllib.loads((folder / ".streamlit" / "secrets.toml").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if "auth" in found:
            return True
    return False


def _command(place: Path, host: str, port: int, public: Public | None) -> list[str]:
    """Return the command that starts the app at *place*."""
    spec = importlib.util.spec_from_file_location(
        "_glasscache_theme", place / "charts" / "theme.py"
    )
    if spec is None or spec.loader is None:
        fail(f"the dashboard is not at {place}: install glasscache again")
    theme = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = theme
    spec.loader.exec_module(theme)
    options = {
        **theme.options(), "server.address": host, "server.port": str(port),
        # the address is printed already
        "logger.hideWelcomeMessage": "true",
        # after every refresh it would look at all recorded lookups: Python collects often enough
        "runner.postScriptGC": "false",
    }  # fmt: skip
    if host in _LOOPBACK:
        # reject other host names that lead here (DNS rebinding)
        options["server.allowedHosts"] = tuple(
            sorted(_LOOPBACK | ({public.host} if public else set()))
        )
    if public is not None:
        # a proxy may hand on the browser's Host, or put its own in place of it
        options["server.corsAllowedOrigins"] = public.origin
        if public.path:
            options["server.baseUrlPath"] = public.path
    flags = [
        f"--{name}={value}"
        for name, values in options.items()
        for value in (values if isinstance(values, tuple) else (values,))
    ]
    return [sys.executable, "-P", "-m", "streamlit", "run", str(place / "served.py"), *flags]
