"""TCP proxy that injects the faults of networks and failing servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

Mode = Literal[
    "pass",
    "black_hole",
    "refuse",
    "reset",
    "truncate",
    "dribble",
    "garbage",
    "lose_reply",
]
"""Treatment of the traffic:

- `pass`: forwarded, delayed by the proxy's `latency` and `jitter`.
- `black_hole`: connections are accepted, requests are dropped, nothing is ever answered.
- `refuse`: connections are refused, and open ones are reset.
- `reset`: half of a reply is forwarded, then the connection is reset.
- `truncate`: half of a reply is forwarded, then the connection is closed properly.
- `dribble`: replies arrive byte by byte, one each `dribble_seconds`.
- `garbage`: replies are random bytes of the same length.
- `lose_reply`: requests are executed, their replies are dropped, and the connection is reset.
"""

_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)


class ChaosProxy:
    """TCP proxy in front of a real server; a switch acts immediately, on open connections too.

    It is independent of the protocol: Redis, HTTP, and both under TLS pass through it.

    ```python
    async with ChaosProxy("127.0.0.1", 6379) as proxy:
        url = proxy.url("redis://127.0.0.1:6379/0")
        await proxy.switch("black_hole")
    ```

    Args:
        host, port: Address of the server.
        seed: Seed of the jitter and of the garbage.

    Attributes:
        port: The proxy's port on 127.0.0.1; the same after `refuse`.
        latency: Delay of every reply, in seconds.
        jitter: Maximal additional delay of a reply, in seconds.
        dribble_seconds: Seconds between two bytes of a reply.
        accepted: Number of connections accepted.
        requests: Number of chunks of data that clients sent.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.mode: Mode = "pass"
        self.latency = 0.0
        self.jitter = 0.0
        self.dribble_seconds = 0.01
        self.accepted = 0
        self.requests = 0
        self.port = 0
        self._target = (host, port)
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._pairs)

    def url(self, url: str) -> str:
        """Return *url* with the proxy's address instead of the server's."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; idempotent."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and reset open connections; idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.cut()

    async def switch(self, mode: Mode) -> None:
        """Change to *mode*."""
        self.mode = mode
        if mode == "refuse":
            await self.close()
        else:
            await self.start()

    async def cut(self) -> None:
        """Reset every open connection; new ones are treated by the mode."""
        pairs = list(self._pairs)
        for task in pairs:
            _reset(self._pairs[task])
            task.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        # In a task of its own: asyncio would log the cancellation of the server's task.
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._pair(reader, client))
        self._pairs[task] = client
        task.add_done_callback(lambda done: self._pairs.pop(done, None))

    async def _pair(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        server: asyncio.StreamWriter | None = None
        try:
            replies, server = await asyncio.open_connection(*self._target)
            there = asyncio.ensure_future(self._requests(reader, server))
            back = asyncio.ensure_future(self._replies(replies, client))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        except OSError:
            _reset(client)
        finally:
            if server is not None:
                server.transport.abort()
            client.close()
            with contextlib.suppress(OSError):
                await client.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            self.requests += 1
            if self.mode != "black_hole":
                server.write(data)
                await server.drain()

    async def _replies(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.latency or self.jitter:
                await asyncio.sleep(self.latency + self.jitter * self._random.random())
            mode = self.mode
            if mode == "black_hole":
                continue
            if mode == "lose_reply":
                return _reset(client)
            if mode in {"reset", "truncate"}:
                client.write(data[: len(data) // 2])
                await client.drain()
                return _reset(client) if mode == "reset" else None
            if mode == "dribble":
                for place in range(len(data)):
                    client.write(data[place : place + 1])
                    await client.drain()
                    await asyncio.sleep(self.dribble_seconds if self.mode == "dribble" else 0)
                continue
            client.write(self._random.randbytes(len(data)) if mode == "garbage" else data)
            await client.drain()
        return None


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a host does that has lost its state."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
