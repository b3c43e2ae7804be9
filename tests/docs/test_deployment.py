"""The recipes of docs/deployment.md, run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import processes
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
    "Flask and other WSGI applications": """
from concurrent.futures import ThreadPoolExecutor
def get(number):
    environ = {"QUERY_STRING": f"question=when+{number % 5}", "REMOTE_USER": "ann"}
    return b"".join(application(environ, lambda status, headers: None))
assert get(0) == b"At nine."
with ThreadPoolExecutor(4) as pool:
    assert set(pool.map(get, range(40))) == {b"At nine."}
assert len(asked) == 5
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
assert {answer("when do you open", "ann") for _ in range(5)} == {"At nine."}
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

BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE
)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title.split()[0] for title, _ in BLOCKS])
def test_a_recipe(title: str, code: str, tmp_path: Path) -> None:
    """It answers, computes once, and ends."""
    processes.run(BEFORE + code + AFTER[title], tmp_path, CACHE_TIERS="l1")


def test_every_recipe_is_run() -> None:
    """The page has no recipe that is not tested, and no test is left over."""
    assert {title for title, _ in BLOCKS} == set(AFTER)
    assert TEXT.count("```python") == len(BLOCKS)
