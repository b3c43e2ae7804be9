"""The recipes of docs/deployment.md, run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.modules import require
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")

BEFORE = """
asked = []
def ask_the_model():
    asked.append(1)
    return "At nine."

"""

AFTER = {
    "FastAPI and others with a lifespan": """
import asyncio
async def main():
    async with lifespan(None):
        assert cache.is_open
        assert await ask("when do you open", "ann") == "At nine."
        assert await asyncio.to_thread(asyncio.run, ask("when do you open", "ann")) == "At nine."
    assert not cache.is_open
asyncio.run(main())
assert len(asked) == 1
""",
    "Flask": """
from concurrent.futures import ThreadPoolExecutor
def get(number):
    given = {"query_string": {"question": f"when {number % 5}"}, "environ_overrides": {"REMOTE_USER": "ann"}}
    return app.test_client().get("/ask", **given).text
with ThreadPoolExecutor(4) as pool:
    assert set(pool.map(get, range(40))) == {"At nine."}
assert len(asked) == 5
assert cache.get_multilevel("when 1", "bob") is None
""",
    "Django": """
import asyncio
from types import SimpleNamespace
from django.conf import settings
from django.test import AsyncClient, Client

def ann(get_response):
    async def auser():
        return user
    def answer(request):
        request.user, request.auser = user, auser
        return get_response(request)
    user = SimpleNamespace(get_username=lambda: "ann")
    return answer

settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], MIDDLEWARE=["__main__.ann"])
for _ in range(3):
    assert Client().get("/ask", {"question": "when"}).content == b"At nine."
    found = asyncio.run(AsyncClient().get("/ask-async", {"question": "when"}))
    assert found.content == b"At nine."
assert len(asked) == 1
assert cache.get_multilevel("when", "bob") is None
""",
    "gunicorn, with and without `--preload`": """
import os
pid = os.fork()
if pid == 0:
    post_fork(None, None)
    found = asyncio.run(cache.get_or_compute("when", "ann", ask_the_model))
    os._exit(0 if found == "At nine." and cache.is_open else 1)
assert os.waitpid(pid, 0)[1] == 0
""",
    "Celery": """
from celery.contrib.testing.worker import start_worker
app.conf.update(broker_url="memory://", result_backend="cache+memory://")
with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
    tasks = [answer.delay("when do you open", "ann") for _ in range(5)]
    assert {task.get(timeout=30, disable_sync_subtasks=False) for task in tasks} == {"At nine."}
assert len(asked) == 1
""",
    "AWS Lambda and other functions": """
event = {"question": "when do you open", "user": "ann"}
assert [handler(event, None)["body"] for _ in range(3)] == ["At nine."] * 3
assert len(asked) == 1
""",
    "multiprocessing": """
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        assert all_of(["when", "where"], method) == ["At nine."] * 2
""",
}

NEEDS = {"Flask": "flask", "Django": "django", "Celery": "celery"}

BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE
)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title.split()[0] for title, _ in BLOCKS])
def test_a_recipe(title: str, code: str, tmp_path: Path) -> None:
    """It answers, computes once, and ends."""
    if title in NEEDS:
        require(NEEDS[title])
    processes.run(BEFORE + code + AFTER[title], tmp_path, CACHE_TIERS="l1")


def test_every_recipe_is_run() -> None:
    """The page has no recipe that is not tested, and no test is left over."""
    assert {title for title, _ in BLOCKS} == set(AFTER)
    assert TEXT.count("```python") == len(BLOCKS)
