"""FastAPI with a cache: its life and the dependency."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from glasscache import MultiLevelCache, Settings
from glasscache.integrations.fastapi import current_cache, lifespan


def test_the_cache_lives_with_the_application(tmp_path: Any) -> None:
    """It is open in a route, and closed after the application ends."""
    cache = MultiLevelCache(settings=Settings(dir=tmp_path, tiers={"l1"}), instruments=())
    app = FastAPI(lifespan=lifespan(cache))

    @app.get("/ask")
    async def ask(
        question: str, cache: Annotated[MultiLevelCache, Depends(current_cache)]
    ) -> dict[str, Any]:
        answer = await cache.get_or_compute(question, "ann", lambda: "At nine.")
        return {"answer": answer, "hits": cache.metrics.outcomes["hit"]}

    with TestClient(app) as client:
        found = [client.get("/ask", params={"question": "When?"}).json() for _ in range(2)]
    assert found == [{"answer": "At nine.", "hits": hits} for hits in (0, 1)]
    assert not cache.is_open
