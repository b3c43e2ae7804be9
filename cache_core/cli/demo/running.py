"""Modes of sending requests: with a board, steadily, or as fast as possible."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from random import Random
from typing import Any

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cache_core.cli.console import err, out
from cache_core.cli.demo.board import Board
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.traffic import Request, Traffic

_FRAME_SECONDS = 0.25
_REPEAT_SECONDS = 5.0
_LINE_SECONDS = 10.0
_IN_FLIGHT = 256


async def run_live(
    traffic: Traffic, serve: Callable[[Request], Any], board: Board, options: Options,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    """Send requests and show the board."""

    async def draw(screen: Live) -> None:
        while True:
            # in the loop's own thread: no count may change while it is drawn
            screen.update(board.render(out.width, out.height), refresh=True)
            await asyncio.sleep(_FRAME_SECONDS)

    async def repeat() -> None:
        # a terminal that cannot move its cursor prints one board below the other
        while True:
            await asyncio.sleep(_REPEAT_SECONDS)
            out.print(board.render(out.width, out.height))

    with contextlib.ExitStack() as shown:
        shown.enter_context(_warnings_to(board))
        if out.is_dumb_terminal:
            drawing = asyncio.create_task(repeat())
        else:
            screen = Live(console=out, screen=True, auto_refresh=False)
            drawing = asyncio.create_task(draw(shown.enter_context(screen)))
        try:
            await run_steady(traffic, serve, options, stop)
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)


async def run_lines(
    traffic: Traffic, serve: Callable[[Request], Any], board: Board, options: Options,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    """Send requests and print a line about them from time to time."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            err.print(board.line(), highlight=False, soft_wrap=True)

    if options.as_json:
        await run_steady(traffic, serve, options, stop)
        return
    printing = asyncio.create_task(repeat())
    try:
        await run_steady(traffic, serve, options, stop)
    finally:
        printing.cancel()
        await asyncio.gather(printing, return_exceptions=True)


async def run_steady(
    traffic: Traffic, serve: Callable[[Request], Any], options: Options, stop: asyncio.Event
) -> None:
    """Send requests at random times, however long their answers take."""
    gaps = Random(options.seed)
    free = asyncio.Semaphore(_IN_FLIGHT)

    async def one(request: Request) -> None:
        async with free:
            await serve(request)

    async with asyncio.TaskGroup() as group:
        for request in islice(traffic, options.limit):
            group.create_task(one(request))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), gaps.expovariate(options.rate))
            if stop.is_set():
                break


@contextmanager
def _warnings_to(board: Board) -> Iterator[None]:
    """Show warnings on the board: printed, they would break it."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            board.note(record.getMessage())

    root = logging.getLogger()
    before, root.handlers = root.handlers, [Notes()]
    try:
        yield
    finally:
        root.handlers = before


async def run_headless(
    traffic: Traffic, serve: Callable[[Request], Any], options: Options, stop: asyncio.Event
) -> None:
    """Send the next request as soon as one is answered."""
    requests = islice(traffic, options.limit)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, transient=True,
        disable=options.as_json or not err.is_terminal,
    )  # fmt: skip
    with progress:
        task = progress.add_task("serving customers", total=options.limit)

        async def work() -> None:
            for request in requests:
                if stop.is_set():
                    return
                await serve(request)
                progress.advance(task)

        async with asyncio.TaskGroup() as group:
            for _ in range(options.concurrency):
                group.create_task(work())
