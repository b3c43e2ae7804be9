"""Options of `glasscache demo`, declared once for the command and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cache_core.cli.console import out
from cache_core.cli.demo.shop import SHOP
from cache_core.cli.demo.traffic import USERS

_HEADLESS_REQUESTS = 500
_WARM_REQUESTS = 1_000
_HEADLESS_SPEED = 50.0
_TRAFFIC, _CACHE, _WHERE = "Traffic", "The cache", "Where"


@dataclass(frozen=True, slots=True)
class Options:
    """Given options; the properties are derived from them."""

    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            "-n",
            min=1,
            rich_help_panel=_TRAFFIC,
            help="Stop after this many requests. Default: run until Ctrl-C; 500 if headless.",
        ),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="No board: run fast, print one JSON document, exit.")
    ] = False
    rate: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=200,
            rich_help_panel=_TRAFFIC,
            help="Requests per second of the live board, and of --steady.",
        ),
    ] = 5.0
    steady: Annotated[
        bool,
        typer.Option(
            "--steady",
            help="No board: serve at --rate until Ctrl-C, and print a line every ten seconds.",
        ),
    ] = False
    warm: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100_000,
            rich_help_panel=_TRAFFIC,
            help="Requests of another day to replay first, for 12 s at most; 0 starts cold. "
            "Default: 1000; 0 if headless.",
        ),
    ] = None
    concurrency: Annotated[
        int,
        typer.Option(
            min=1, max=256, rich_help_panel=_TRAFFIC, help="Concurrent requests, headless."
        ),
    ] = 4
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=1000,
            rich_help_panel=_TRAFFIC,
            help="Speed-up of the simulated LLM. Reported latencies are those without it. "
            "Default: 1 on the board, 50 headless.",
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            rich_help_panel=_TRAFFIC,
            help="Seed of the traffic; the same seed gives the same traffic.",
        ),
    ] = 1
    stack: Annotated[
        bool,
        typer.Option(
            "--stack",
            rich_help_panel=_WHERE,
            help="Start redis-server, redis_exporter, Prometheus and Alertmanager, as far as they "
            "are installed, on free ports, with the shipped rules; all end with the demo.",
        ),
    ] = False
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            rich_help_panel=_WHERE,
            help="Port of /metrics; 0 for a free one. Default: 9464, and a free one with --stack.",
        ),
    ] = None
    address: Annotated[
        str,
        typer.Option(
            rich_help_panel=_WHERE,
            help="Address of /metrics; 0.0.0.0 if other machines must reach it.",
        ),
    ] = "127.0.0.1"
    redis_url: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHERE,
            help="Redis for L1, L3 and L4. Default: REDIS_URL, else an embedded store.",
        ),
    ] = None
    chroma_url: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHERE,
            help="Chroma server for L2. Default: CHROMA_URL, else embedded.",
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=_CACHE,
            help="Lowest similarity of a semantic hit. Default: the setting in force, 0.95.",
        ),
    ] = None
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share",
            rich_help_panel=_CACHE,
            help="Share answers that are the same for everybody, by intent. --no-share shows "
            "the default, with every answer private, and the cache's advice.",
        ),
    ] = True
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            file_okay=False,
            rich_help_panel=_WHERE,
            help="Data directory: the next demo starts warm. Default: a temporary directory.",
        ),
    ] = None
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard/--no-dashboard",
            rich_help_panel=_WHERE,
            help="Start glasscache dashboard for it, read-only, on a free port; not if headless.",
        ),
    ] = True
    picture: Annotated[
        Path | None,
        typer.Option(
            "--snapshot",
            dir_okay=False,
            metavar="FILE.svg",
            help="Write the last board as a picture.",
        ),
    ] = None

    @property
    def live(self) -> bool:
        """True if the board is shown during the run."""
        return out.is_terminal and not self.as_json and not self.steady

    @property
    def limit(self) -> int | None:
        """Number of requests; `None` until interrupted."""
        return self.requests or (None if self.live or self.steady else _HEADLESS_REQUESTS)

    @property
    def warm_requests(self) -> int:
        """Number of requests to replay before the start."""
        if self.warm is not None:
            return self.warm
        return _WARM_REQUESTS if self.live or self.steady else 0

    @property
    def dashboard_wanted(self) -> bool:
        """True if the dashboard is started with it."""
        return self.dashboard and not self.as_json and (self.live or self.steady)

    @property
    def llm_speed(self) -> float:
        """Speed-up of the simulated LLM."""
        return self.speed or (1.0 if self.live or self.steady else _HEADLESS_SPEED)

    @property
    def traffic(self) -> str:
        """The traffic in a few words."""
        steady = self.live or self.steady
        pace = f"{self.rate:g}/s" if steady else f"{self.concurrency} concurrent"
        return f"{USERS} customers of {SHOP}, {pace}, seed {self.seed}"
