"""Single flight within one process: calls for one key share a run."""

from __future__ import annotations

import asyncio

from cache_core.operations.compute.flight import SingleFlight


async def test_one_flight_per_key() -> None:
    """Calls for one key share a run, calls for another key have their own."""
    runs: list[str] = []
    flight: SingleFlight[str] = SingleFlight()

    async def work(name: str) -> str:
        runs.append(name)
        await asyncio.sleep(0.01)
        return name

    found = await asyncio.gather(
        *(flight.run(name, lambda name=name: work(name)) for name in ("a", "b", "a", "a"))  # type: ignore[misc]
    )
    assert found == [("a", False), ("b", False), ("a", True), ("a", True)]
    assert runs == ["a", "b"]
    assert await flight.run("a", lambda: work("a")) == ("a", False)


async def test_the_last_caller_turns_out_the_light() -> None:
    """Work is cancelled when its last caller is, and the key is free immediately."""
    cancelled = asyncio.Event()
    flight: SingleFlight[None] = SingleFlight()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cancelled.set()

    callers = [asyncio.ensure_future(flight.run("a", work)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for caller in callers[:2]:
        caller.cancel()
    await asyncio.sleep(0.01)
    assert not cancelled.is_set()
    callers[2].cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await asyncio.wait_for(cancelled.wait(), 1)
