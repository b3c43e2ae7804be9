"""`glasscache demo`: its options, and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cache_core.cli.console import fail, out, run
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.session import session

_HEADLESS_REQUESTS = 500
_HEADLESS_SPEED = 50.0
_TRAFFIC, _CACHE, _WHERE = "Traffic", "The cache", "Where"


def demo(
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests", "-n", min=1,
            rich_help_panel=_TRAFFIC,
            help="Stop after this many requests. Default: go on until Ctrl-C; 500 if headless.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="No board: run fast, print one JSON document, exit.")
    ] = False,
    rate: Annotated[
        float,
        typer.Option(
            min=0.1, max=200, rich_help_panel=_TRAFFIC,
            help="Requests per second of the live board, and of --steady."
        ),
    ] = 5.0,
    steady: Annotated[
        bool,
        typer.Option(
            "--steady",
            help="No board: an agent in the background, at --rate, until it is stopped.",
        ),
    ] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, rich_help_panel=_TRAFFIC,
        help="Requests at the same time, headless.")
    ] = 4,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1000,
            rich_help_panel=_TRAFFIC,
            help="How many times faster than stated the simulated LLM answers. Reported latencies "
            "stay those stated. Default: 1 on the board, 50 headless.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(
            rich_help_panel=_TRAFFIC,
            help="Decides who asks what; the same seed is the same traffic.",
        )
    ] = 1,
    with_stack: Annotated[
        bool,
        typer.Option(
            "--stack",
            rich_help_panel=_WHERE,
            help="Start what is installed of redis-server, redis_exporter, Prometheus and "
            "Alertmanager around it, on free ports, with the rules in alerts/; all end with it.",
        ),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535,
            rich_help_panel=_WHERE,
            help="Port of /metrics; 0 for a free one. Default: 9464, and a free one with --stack.",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(
            rich_help_panel=_WHERE,
            help="Address of /metrics; 0.0.0.0 where others must reach it.",
        )
    ] = "127.0.0.1",
    redis_url: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHERE,
            help="Keep L1, L3 and L4 in this Redis. Default: REDIS_URL, else an embedded store."
        ),
    ] = None,
    chroma_url: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHERE,
            help="Keep L2 in this Chroma server. Default: CHROMA_URL, else embedded.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1,
            rich_help_panel=_CACHE,
            help="Least similarity of a semantic hit. Default: the setting in force, 0.95.",
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share",
            rich_help_panel=_CACHE,
            help="Share the answers that are the same for everybody, by their intents. --no-share "
            "shows the default, where every answer is private, and what the cache advises then.",
        ),
    ] = True,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", file_okay=False,
            rich_help_panel=_WHERE,
            help="Keep the data here: the next demo starts warm. Default: a temporary directory.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--snapshot", dir_okay=False, metavar="FILE.svg",
            help="Write the last board as a picture.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Watch the cache work: a customer-service agent, simulated customers and a live board.

    The agent, its knowledge base and its LLM are simulated; the cache, its embedding model, its
    stores and its metrics are the real ones. Every answer is checked against the truth: wrong
    ones, and private ones that reached another user, are counted and shown.

    [bold]glasscache demo[/bold]
        The live board; Ctrl-C ends it.

    [bold]glasscache demo --no-share[/bold]
        What private-by-default looks like, and the advice that goes with it.

    [bold]glasscache demo --stack[/bold]
        With a Redis, a Prometheus that watches it, and alerts on the board.

    [bold]glasscache demo --requests 500 --json | jq .hit_rate[/bold]
        Headless, for scripts.

    [bold]curl -s http://127.0.0.1:9464/metrics | grep cache_lookups_total[/bold]
        While it runs.
    """
    live = out.is_terminal and not as_json and not steady
    if with_stack and redis_url:
        fail("--stack brings a Redis of its own: leave --redis-url out")
    run(
        session(
            Options(
                requests=requests if requests or live or steady else _HEADLESS_REQUESTS,
                as_json=as_json,
                live=live,
                steady=steady,
                rate=rate,
                concurrency=concurrency,
                speed=speed or (1.0 if live or steady else _HEADLESS_SPEED),
                seed=seed,
                port=port,
                address=address,
                stack=with_stack,
                redis_url=redis_url,
                chroma_url=chroma_url,
                threshold=threshold,
                share=share,
                directory=directory,
                picture=picture,
            )
        )
    )
