"""What was asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache_core.demo import SHOP
from cache_core.demo.traffic import USERS


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        requests: How many to send; `None` until interrupted.
        as_json: Only a JSON document on stdout.
        live: Whether to show the board while it runs.
        steady: Whether to send at *rate*, rather than as fast as is answered.
        rate: Requests per second, if steady.
        concurrency: Requests at once, if not.
        speed: How many times faster than stated the simulated LLM answers.
        seed: Of the traffic.
        port: For `/metrics`; `None` for the usual one, or a free one beside a stack.
        address: On which `/metrics` is served.
        stack: Whether to start the servers around it.
        redis_url, chroma_url: Servers to use instead of the embedded parts.
        threshold: Least similarity of a semantic hit.
        share: Whether the public intents are shared.
        directory: Where to keep the data; `None` for a temporary one.
        picture: Where to write the last board.
    """

    requests: int | None
    as_json: bool
    live: bool
    steady: bool
    rate: float
    concurrency: int
    speed: float
    seed: int
    port: int | None
    address: str
    stack: bool
    redis_url: str | None
    chroma_url: str | None
    threshold: float | None
    share: bool
    directory: Path | None
    picture: Path | None

    @property
    def traffic(self) -> str:
        """What the traffic is like, in a few words."""
        steady = self.live or self.steady
        pace = f"{self.rate:g}/s" if steady else f"{self.concurrency} at once"
        return f"{USERS} customers of {SHOP}, {pace}, seed {self.seed}"
