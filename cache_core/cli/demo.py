"""`glasscache demo`: an agent, its customers and the cache between them, to look at."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
from opentelemetry import trace
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cache_core import MultiLevelCache, Settings
from cache_core.cli.console import err, fail, out, print_json, run
from cache_core.cli.stack import Stack, free_port, stack
from cache_core.defaults import default_instruments, telemetry
from cache_core.demo import SHOP, Knowledge, load_knowledge
from cache_core.demo.agent import STEPS, Agent, Score, SimulatedLLM, quantile
from cache_core.demo.board import Board, Place, Watch, snapshot
from cache_core.demo.traffic import USERS, ZIPF, Request, Traffic
from cache_core.exceptions import ConfigurationError
from cache_core.settings import load_settings, without_secrets

_NAMESPACE = "demo"
_PORT = 9464
_AGENT_SPAN = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "customer-service"}
_HEADLESS_REQUESTS = 500
_HEADLESS_SPEED = 50.0
_FRAME_SECONDS = 0.25
_STORE_SECONDS = 5.0
_IN_FLIGHT = 256
_WIDEST, _PRINTED_HEIGHT = 110, 30


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


def demo(
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests", "-n", min=1,
            help="Stop after this many requests. Default: go on until Ctrl-C; 500 if headless.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="No board: run fast, print one JSON document, exit.")
    ] = False,
    rate: Annotated[
        float,
        typer.Option(
            min=0.1, max=200, help="Requests per second of the live board, and of --steady."
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
        int, typer.Option(min=1, max=256, help="Requests at the same time, headless.")
    ] = 4,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1000,
            help="How many times faster than stated the simulated LLM answers. Reported latencies "
            "stay those stated. Default: 1 on the board, 50 headless.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Decides who asks what; the same seed is the same traffic.")
    ] = 1,
    with_stack: Annotated[
        bool,
        typer.Option(
            "--stack",
            help="Start what is installed of redis-server, redis_exporter, Prometheus and "
            "Alertmanager around it, on free ports, with the rules in alerts/; all end with it.",
        ),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535,
            help="Port of /metrics; 0 for a free one. Default: 9464, and a free one with --stack.",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="Address of /metrics; 0.0.0.0 where others must reach it.")
    ] = "127.0.0.1",
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="Keep L1, L3 and L4 in this Redis. Default: REDIS_URL, else an embedded store."
        ),
    ] = None,
    chroma_url: Annotated[
        str | None,
        typer.Option(help="Keep L2 in this Chroma server. Default: CHROMA_URL, else embedded."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1,
            help="Least similarity of a semantic hit. Default: the setting in force, 0.95.",
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share",
            help="Share the answers that are the same for everybody, by their intents. --no-share "
            "shows the default, where every answer is private, and what the cache advises then.",
        ),
    ] = True,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", file_okay=False,
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
        _demo(
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


async def _demo(options: Options) -> None:
    knowledge = load_knowledge()
    traffic = Traffic(knowledge, options.seed)
    watch, score = Watch(), Score(traffic.owners)
    with (
        _directory(options.directory) as directory,
        _interruptible() as stop,
        _around(options, directory) as around,
    ):
        settings = load_settings(
            dir=directory, redis_url=around.redis_url, chroma_url=options.chroma_url
        )
        cache = _cache(options, settings, knowledge, watch)
        async with _spans(), cache, _metrics(around.metrics_port, options.address) as url:
            note = await _until(stop, _ready(cache, options))
            if stop.is_set():
                return
            places = _places(settings, url, around)
            board = Board(cache, watch, score, knowledge, places, _describe(options))
            _tell(options, around, board)
            llm = SimulatedLLM(knowledge, options.seed, options.speed)
            agent = Agent(cache, llm, share_documents=options.share)
            started = time.monotonic()

            tracer = trace.get_tracer("glasscache.demo")

            async def serve(request: Request) -> None:
                with tracer.start_as_current_span("invoke_agent", attributes=_AGENT_SPAN):
                    served = await agent.answer(request)
                score.add(served)
                board.add(served)

            if options.live:
                await _run_live(traffic, serve, board, options, stop)
            elif options.steady:
                await _run_steady(traffic, serve, options, stop)
            else:
                await _run_headless(traffic, serve, options, stop)
            seconds = time.monotonic() - started
            notes = [text for text in (note, *around.missing) if text]
            report = _report(options, cache, score, places, seconds, notes)
            if options.stack:
                report["alerts"] = [{"status": how, "alert": name} for how, name in around.told]
            _finish(options, score, board, report)


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


# ---------------------------------------------------------------------------------- around


@contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        yield wanted
        return
    with tempfile.TemporaryDirectory(
        prefix="glasscache-demo-", ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


@contextmanager
def _around(options: Options, directory: Path) -> Iterator[Stack]:
    """Run the servers that were asked for; without any, only say where the others are."""
    if not options.stack:
        port = _PORT if options.port is None else options.port
        yield Stack(metrics_port=port, redis_url=options.redis_url)
        return
    with stack(directory / "stack", options.port or free_port()) as made:
        console = err if options.as_json else out
        table = Table("server", "where", box=None, header_style="bold", pad_edge=False)
        for place in made.places:
            table.add_row(place.name, place.where)
        console.print(table, highlight=False)
        for line in made.missing:
            console.print(line, style="yellow", highlight=False)
        yield made


def _tell(options: Options, around: Stack, board: Board) -> None:
    """Show the alerts that arrive: on the board, or as lines."""
    loop = asyncio.get_running_loop()

    def tell(status: str, name: str, summary: str) -> None:
        text = f"{status}: {name}: {summary}"
        if options.live:
            loop.call_soon_threadsafe(board.note, text)
        else:
            err.print(text, highlight=False)

    around.tell = tell


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Yield what Ctrl-C sets: it is the ordinary end of a demo, not an error."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Not on Windows, and not outside the main thread.
        with contextlib.suppress(KeyError, NotImplementedError, ValueError, RuntimeError):
            number = signal.Signals[name]
            loop.add_signal_handler(number, stop.set)
            handled.append(number)
    try:
        yield stop
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


async def _until(stop: asyncio.Event, work: Any) -> Any:
    """Return what *work* returns, or `None` if the demo was stopped before."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


async def _ready(cache: MultiLevelCache, options: Options) -> str:
    """Wait for the model and the stores; return what is to be said about them."""
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
            return f"without L2: {error}"
    return ""


async def _reached(cache: MultiLevelCache) -> None:
    """Fail if the Redis that was asked for does not answer; the cache itself would go on trying."""
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


@asynccontextmanager
async def _spans() -> AsyncIterator[None]:
    """Send spans, if the environment says where to."""
    if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{of}ENDPOINT") for of in ("", "TRACES_")):
        yield
        return
    export = telemetry().configure("glasscache-demo")
    try:
        yield
    finally:
        await asyncio.to_thread(export.shutdown)


@asynccontextmanager
async def _metrics(port: int, address: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve `/metrics`, on another port if that one is taken; yields the URL."""
    serve: Callable[[int, str], tuple[int, Callable[[], None]]] = telemetry().serve_metrics
    try:
        port, stop = serve(port, address)
    except OSError as error:
        taken, (port, stop) = port, serve(0, address)
        err.print(
            f"port {taken} cannot be used ({error.strerror}): /metrics is on port {port}",
            highlight=False,
        )
    try:
        yield f"http://{address}:{port}/metrics"
    finally:
        await asyncio.to_thread(stop)


def _places(settings: Settings, metrics: str, around: Stack) -> list[Place]:
    redis, chroma = settings.redis_url, settings.chroma_url
    places = [Place("metrics", metrics), *around.places]
    if redis and not around.places:
        places.append(Place("redis", without_secrets(redis)))
    if chroma:
        places.append(Place("chroma", without_secrets(chroma)))
    if not redis or not chroma:
        kept = "SQLite and Chroma" if not redis and not chroma else "Chroma" if redis else "SQLite"
        places.append(Place(f"embedded {kept}", str(settings.dir)))
    return places


def _describe(options: Options) -> str:
    pace = (
        f"{options.rate:g}/s"
        if options.live or options.steady
        else f"{options.concurrency} at once"
    )
    return f"{USERS} customers of {SHOP}, {pace}, seed {options.seed}"


# ---------------------------------------------------------------------------------- running


async def _run_live(
    traffic: Traffic, serve: Callable[[Request], Any], board: Board, options: Options,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    """Send requests, and show the board."""

    async def draw(screen: Live) -> None:
        while True:
            # In the loop's own thread: nothing that is counted may change while it is drawn.
            screen.update(board.render(out.width, out.height), refresh=True)
            await asyncio.sleep(_FRAME_SECONDS)

    with (
        _warnings_to(board),
        Live(console=out, screen=True, auto_refresh=False) as screen,
    ):
        drawing = asyncio.create_task(draw(screen))
        try:
            await _run_steady(traffic, serve, options, stop)
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)


async def _run_steady(
    traffic: Traffic, serve: Callable[[Request], Any], options: Options, stop: asyncio.Event
) -> None:
    """Send requests at random moments, however long their answers take."""
    gaps = Random(options.seed)
    free = asyncio.Semaphore(_IN_FLIGHT)

    async def one(request: Request) -> None:
        async with free:
            await serve(request)

    async with asyncio.TaskGroup() as group:
        for request in islice(traffic, options.requests):
            group.create_task(one(request))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), gaps.expovariate(options.rate))
            if stop.is_set():
                break


@contextmanager
def _warnings_to(board: Board) -> Iterator[None]:
    """Show warnings on the board: printed, they would tear it."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            board.note(record.getMessage())

    root = logging.getLogger()
    before, root.handlers = root.handlers, [Notes()]
    try:
        yield
    finally:
        root.handlers = before


async def _run_headless(
    traffic: Traffic, serve: Callable[[Request], Any], options: Options, stop: asyncio.Event
) -> None:
    """Send the next request as soon as one is answered."""
    requests = islice(traffic, options.requests)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, transient=True, disable=options.as_json,
    )  # fmt: skip
    with progress:
        task = progress.add_task("serving customers", total=options.requests)

        async def work() -> None:
            for request in requests:
                if stop.is_set():
                    return
                await serve(request)
                progress.advance(task)

        async with asyncio.TaskGroup() as group:
            for _ in range(options.concurrency):
                group.create_task(work())


# ---------------------------------------------------------------------------------- the end


def _finish(options: Options, score: Score, board: Board, report: dict[str, Any]) -> None:
    if options.picture is not None:
        snapshot(board, options.picture)
    if options.as_json:
        print_json(report)
        return
    width = min(_WIDEST, out.width) if out.is_terminal else _WIDEST
    Console(width=width, markup=False, emoji=False).print(board.render(width, _PRINTED_HEIGHT))
    kept = f"data kept in {options.directory}" if options.directory else "temporary data removed"
    seconds = report["seconds"]
    out.print(f"{score.requests:,} requests in {seconds:.0f} s; {kept}.", highlight=False)
    for note in report["notes"]:
        out.print(note, style="yellow", highlight=False)


def _report(
    options: Options, cache: MultiLevelCache, score: Score, places: list[Place], seconds: float,
    notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    metrics = cache.get_metrics()
    hits, answerable = cache.metrics.outcomes["hit"], max(1, cache.metrics.lookups)
    return {
        "requests": score.requests,
        "seed": options.seed,
        "seconds": round(seconds, 2),
        "hit_rate": round(cache.metrics.hit_rate, 4),
        "hit_rate_objective": cache.tuning.hit_rate_objective,
        "partial": round(cache.metrics.outcomes["partial"] / answerable, 4),
        "served_by": {tier: metrics["tiers"][tier]["served_share"] for tier in ("l1", "l2")},
        "outcomes": metrics["outcomes"],
        "wrong": score.wrong,
        "wrong_share": round(score.wrong / hits, 4) if hits else 0.0,
        "private_leaks": score.leaks,
        "latency_ms": {
            name: {
                "with_cache": round(1000 * quantile(score.cached_seconds, share), 2),
                "llm": round(1000 * quantile(score.llm_seconds, share), 2),
            }
            for name, share in (("p50", 0.5), ("p95", 0.95))
        },
        "lookup_ms": metrics["latency_ms"],
        "saved_usd": round(cache.metrics.cost_saved_usd, 6),
        "spent": {
            "with_cache_usd": round(score.spent_usd, 6),
            "without_cache_usd": round(score.full_usd, 6),
        },
        "tiers": metrics["tiers"],
        "miss_reasons": metrics["miss_reasons"],
        "error_reasons": metrics["error_reasons"],
        "sharing": metrics["sharing"],
        "semantic_threshold": cache.tuning.semantic_threshold,
        "traffic": {"users": USERS, "zipf": ZIPF, "concurrency": options.concurrency},
        "llm": {
            "simulated": True,
            "speed": options.speed,
            "latency_ms": {step.name: round(1000 * step.seconds) for step in STEPS},
            "prices_usd": {step.name: step.usd for step in STEPS},
        },
        "listening": {place.name.replace(" ", "_").lower(): place.where for place in places},
        "notes": notes,
    }
