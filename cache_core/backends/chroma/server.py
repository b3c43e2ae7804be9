"""Client of a Chroma server, with its own connections, login and certificate checks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from chromadb.api import AsyncServerAPI
from chromadb.api.async_client import AsyncClient
from chromadb.auth import UserIdentity
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT

from cache_core.backends.chroma.address import ChromaAddress, parse_chroma_url
from cache_core.backends.chroma.settings import own_settings
from cache_core.backends.trust import loading_authorities

_JSON = "application/json"


class HttpAnswerError(Exception):
    """Response of a server that is not Chroma, or that rejects the login."""


async def connect_server(url: str, timeout: float) -> Any:
    """Return a client of the server at *url*, with a *timeout* in seconds per request.

    Raises:
        Exception: Any error of httpx or Chroma, `HttpAnswerError` and `TrustStoreError`.
    """
    address = parse_chroma_url(url)
    settings = own_settings(
        chroma_api_impl="chromadb.api.async_fastapi.AsyncFastAPI",
        chroma_server_host=address.base,
        # Required, and not used: the base has one.
        chroma_server_http_port=0,
        chroma_server_ssl_enabled=address.base.startswith("https://"),
    )
    client = _Client(settings)
    client.use(_connections(address, timeout))
    try:
        await client.log_in(address.tenant or DEFAULT_TENANT, address.database or DEFAULT_DATABASE)
    except BaseException:
        await disconnect(client)
        raise
    return client


async def disconnect(client: Any) -> None:
    """Close the connections of *client*."""
    for connections in client.taken():
        await connections.aclose()


class _Client(AsyncClient):
    """Chroma's client, without shared connections.

    Chroma shares one set of connections per event loop between all servers, with the login of the
    first client, and without checking certificates.
    """

    def use(self, connections: httpx.AsyncClient) -> None:
        """Use *connections*, in this event loop only."""
        abstract: Any = AsyncServerAPI
        server: Any = self._system.instance(abstract)
        self._server: Any = server
        server._clients = {hash(asyncio.get_running_loop()): connections}  # noqa: SLF001 - the only way in
        # Otherwise Chroma keeps a system for every client ever made.
        self._identifier_to_system.pop(self._identifier, None)
        self._identifier_to_refcount.pop(self._identifier, None)

    def taken(self) -> list[httpx.AsyncClient]:
        """Stop using the connections and return them."""
        clients, self._server._clients = self._server._clients, {}  # noqa: SLF001 - as above
        return list(clients.values())

    async def log_in(self, tenant: str, database: str) -> None:
        """Check that the server knows this user, the tenant and the database."""
        identity: UserIdentity = await self._server.get_user_identity()
        # A user of one tenant, or one database, need not name it.
        if tenant == DEFAULT_TENANT and identity.tenant and identity.tenant != "*":
            tenant = identity.tenant
        known = identity.databases or []
        if database == DEFAULT_DATABASE and len(known) == 1 and known[0] != "*":
            database = known[0]
        await self._server.get_tenant(name=tenant)
        await self._server.get_database(name=database, tenant=tenant)
        self.tenant, self.database = tenant, database


def _connections(address: ChromaAddress, timeout: float) -> httpx.AsyncClient:
    with loading_authorities():
        return httpx.AsyncClient(
            timeout=timeout,
            # There is none to verify without TLS, and reading the authorities takes 30 ms.
            verify=not address.base.startswith("http://"),
            headers={**address.headers, "Content-Type": _JSON, "User-Agent": "glasscache"},
            event_hooks={"response": [_check]},
        )


async def _check(response: httpx.Response) -> None:
    """Raise `HttpAnswerError` for an error response that is not Chroma's own, or a failed login."""
    is_json = response.headers.get("content-type", "").startswith(_JSON)
    if response.is_success or (is_json and response.status_code not in {401, 403}):
        return
    place = response.headers.get("location", "")
    words = f"HTTP {response.status_code} {response.reason_phrase}"
    raise HttpAnswerError(f"{words}, to {place}" if place else words)
