"""`glasscache demo`: one run from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import trace
from rich.text import Text

from cache_core import MultiLevelCache, Settings
from cache_core.cli.console import counted, err, fail, out
from cache_core.cli.console import run as run_command
from cache_core.cli.demo.agent import Agent, Score, SimulatedLLM
from cache_core.cli.demo.around import (
    data_directory,
    metrics_port,
    places_of,
    servers,
    show_alerts,
    spans,
)
from cache_core.cli.demo.board import Board, Place, Run, Watch
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.page import page
from cache_core.cli.demo.report import finish, report_of
from cache_core.cli.demo.running import run_headless, run_lines, run_live
from cache_core.cli.demo.shop import Knowledge, load_knowledge
from cache_core.cli.demo.traffic import Request, Traffic
from cache_core.cli.demo.truth import Truth
from cache_core.cli.demo.warmup import warm_up
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.urls import without_secrets
from cache_core.observability.defaults import default_instruments

_NAMESPACE = "demo"
_AGENT_SPAN = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "customer-service"}
_STORE_SECONDS = 5.0


def demo(options: Options) -> None:
    """Watch the cache at work: a customer-service agent, simulated customers and a live board.

    The agent, its knowledge base and its LLM are simulated; the cache, its embedding model, its
    stores and its metrics are the real ones. It starts warm: the requests of another day are
    replayed first. Every answer is checked against the truth: wrong ones, and private ones that
    reached another user, are counted and shown, and the verdicts recommend a threshold.

    [bold]glasscache demo[/bold]
        The live board; Ctrl-C ends it.

    [bold]glasscache demo --no-share[/bold]
        The private-by-default behaviour, with the cache's advice.

    [bold]glasscache demo --stack[/bold]
        With a Redis, a Prometheus that watches it, and alerts on the board.

    [bold]glasscache demo --requests 500 --json | jq .hit_rate[/bold]
        Headless, for scripts.

    [bold]curl -s http://127.0.0.1:9464/metrics | grep cache_lookups_total[/bold]
        While it runs.
    """
    if options.stack and options.redis_url:
        fail("--stack brings a Redis of its own: leave --redis-url out")
    run_command(_session(options))


async def _session(options: Options) -> None:
    """Open the cache and its environment, send the requests, print the report."""
    knowledge = load_knowledge()
    traffic = Traffic(knowledge, options.seed)
    watch, score = Watch(), Score(traffic.owners)
    with (
        data_directory(options.directory) as directory,
        interruptible() as stop,
        servers(options, directory) as around,
    ):
        settings = load_settings(
            dir=directory, redis_url=around.redis_url, chroma_url=options.chroma_url
        )
        cache = _cache(options, settings, knowledge, watch)
        with page(options, settings, _NAMESPACE, around) as shown:
            async with spans(), cache, metrics_port(around.metrics_port, options.address) as url:
                places = [*shown, *places_of(settings, url, around)]
                announce(options, [place for place in places if place not in around.places])
                note = await until(stop, ready(cache, options))
                truth = Truth(cache)
                warmed = await until(stop, warm_up(cache, knowledge, truth, options))
                if stop.is_set():
                    return
                watch.start_over()
                notes = [text for text in (note, *around.missing) if text]
                run = Run(options.traffic, places, str(warmed or ""), notes)
                begin(options, run)
                board = Board(cache, watch, score, knowledge, run, truth)
                show_alerts(options, around, board)
                llm = SimulatedLLM(knowledge, options.seed, options.llm_speed)
                agent = Agent(cache, llm, share_documents=options.share)
                seconds = await _serve(options, agent, traffic, score, truth, board, stop)
                report = report_of(options, cache, score, truth, warmed, run, seconds)
                if options.stack:
                    report["alerts"] = [
                        {"status": how, "alert": name} for how, name in around.received
                    ]
                finish(options, score, board, report)


async def _serve(
    options: Options, agent: Agent, traffic: Traffic, score: Score, truth: Truth,
    board: Board, stop: asyncio.Event,
) -> float:  # fmt: skip
    """Serve the customers; return how long, in seconds."""
    tracer = trace.get_tracer("glasscache.demo")

    async def serve(request: Request) -> None:
        with tracer.start_as_current_span("invoke_agent", attributes=_AGENT_SPAN):
            served = await agent.answer(request)
        score.add(served)
        board.add(served)
        await truth.add(served)

    started = time.monotonic()
    if options.live:
        await run_live(traffic, serve, board, options, stop)
    elif options.steady:
        await run_lines(traffic, serve, board, options, stop)
    else:
        await run_headless(traffic, serve, options, stop)
    return time.monotonic() - started


def _cache(
    options: Options, settings: Settings, knowledge: Knowledge, watch: Watch
) -> MultiLevelCache:
    return MultiLevelCache(
        settings=settings,
        namespace=_NAMESPACE,
        semantic_threshold=options.threshold,
        sharing="intents" if options.share else "private",
        shared_intents=knowledge.public_intents if options.share else (),
        instruments=[*default_instruments(_NAMESPACE), watch],
    )


@contextmanager
def interruptible() -> Iterator[asyncio.Event]:
    """Yield an event that Ctrl-C sets: the ordinary end of a demo, not an error."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # not on Windows, and not outside the main thread
        with contextlib.suppress(KeyError, NotImplementedError, ValueError, RuntimeError):
            number = signal.Signals[name]
            loop.add_signal_handler(number, stop.set)
            handled.append(number)
    try:
        yield stop
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


async def until(stop: asyncio.Event, work: Any) -> Any:
    """Return the result of *work*, or `None` if the demo was stopped earlier."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


def announce(options: Options, places: list[Place]) -> None:
    """Print where everything listens, before anything is loaded."""
    if options.as_json or not (options.live or options.steady):
        return
    for place in places:
        out.print(f"{place.name}: {place.where}", highlight=False, soft_wrap=True)
    if options.steady:
        end = "Ctrl-C to stop."
        if options.requests:
            end = f"It ends after {counted(options.requests, 'requests')}; {end}"
        out.print(f"Serving {options.traffic}. {end}", highlight=False, soft_wrap=True)


def begin(options: Options, run: Run) -> None:
    """Print what was replayed and what is missing, where no board shows it."""
    if options.steady and not options.as_json:
        for text in (run.warmed, *run.notes):
            if text:
                out.print(f"{text[:1].upper()}{text[1:]}", highlight=False, soft_wrap=True)


async def ready(cache: MultiLevelCache, options: Options) -> str:
    """Wait for the model and the stores; return a note about them."""
    console = out if options.live else err
    quiet: AbstractContextManager[Any] = contextlib.nullcontext()
    model = cache.settings.embedding_model
    shown = (
        quiet
        if options.as_json
        else console.status(Text(f"loading the embedding model {model} ..."))
    )
    with shown:
        await _reached(cache)
        try:
            await cache.ready()
        except ConfigurationError as error:
            why = str(error).removeprefix("L2 is on but unavailable: ")
            return f"L2 is off, so most hits are missing: {why}"
    return ""


async def _reached(cache: MultiLevelCache) -> None:
    """Fail if the requested Redis does not answer; the cache itself would keep trying."""
    url = cache.settings.redis_url
    waited = 0.0
    while url and cache.redis_client is None:
        if waited >= _STORE_SECONDS:
            fail(
                f"{without_secrets(url)} cannot be reached. Start it, or leave --redis-url and "
                "REDIS_URL out: the embedded store needs no server"
            )
        await asyncio.sleep(0.1)
        waited += 0.1
