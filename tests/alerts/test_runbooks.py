"""The commands of the runbooks, pasted as they stand, against a running cache and a real Redis."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes, servers
from tests.support.paths import ROOT

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
SET_FIRST = {
    "REDIS_URL", "REDIS_ADMIN", "CHROMA_URL", "CACHE_DIR", "NAMESPACE", "AGENT", "USER_ID",
    "PROMETHEUS", "ALERTMANAGER",
}  # fmt: skip
"""Variables that the index says to set, and the shell's own."""

AGENT = """
import asyncio, sys
from cache_core import MultiLevelCache

async def main():
    async with MultiLevelCache(namespace="shop", shared_intents=["shipping"]) as cache:
        await cache.put("is it raining", "ann", "yes", "weather")
        await cache.lookup("is it raining", "ann")
        await cache.tune({"l1_ttl": 1800.0}, author="test")
        await asyncio.sleep(1.5)
        print("ready", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def commands() -> list[str]:
    """Return what the pages tell to type, in blocks and in sentences, each once."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        found += [line for block in blocks for line in block.strip().splitlines()]
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found += re.findall(r"`((?:glasscache|redis-cli|amtool) [^`]+)`", prose)
    return list(dict.fromkeys(found))


def ours() -> list[str]:
    """Return those that work wherever there are a cache and a Redis."""
    # What runs until it is stopped, what ends the Redis, and forms to fill in.
    not_here = re.compile(r"glasscache (demo|dashboard|replay|warm)|SHUTDOWN|VERSION")
    wanted = re.compile(r"(timeout \d+ )?(glasscache|redis-cli) ")
    return [one for one in commands() if wanted.match(one) and not not_here.search(one)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cache that runs on a Redis of its own, and what the index tells to set for it."""
    directory = tmp_path_factory.mktemp("runbooks")
    with servers.redis_server(directory) as url:
        given = {
            **os.environ,
            **processes.ENVIRONMENT,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "REDIS_URL": url,
            "REDIS_ADMIN": f"redis://127.0.0.1:{servers.port_of(url)}/0",
            "CACHE_DIR": str(directory / "cache"),
            "CACHE_TIERS": "l1,l3,l4",
            "NAMESPACE": "shop",
            "USER_ID": "ann",
            "COLUMNS": "120",
        }
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT],
            env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == "ready\n"
            yield given
        finally:
            agent.kill()
            agent.communicate(timeout=10)


@pytest.mark.server
@pytest.mark.timeout(180)
def test_the_commands_work_as_they_stand(environment: dict[str, str]) -> None:
    """Each ends well, and those that look at the cache see it."""
    asked = ours()
    assert len(asked) > 25
    said: dict[str, str] = {}
    for command in asked:
        line = command.replace("timeout 16", "timeout 1")
        done = subprocess.run(
            ["bash", "-c", line],
            env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )  # fmt: skip
        said[command] = done.stdout + done.stderr
        fine = {0, 124} if "timeout" in command else {0, 1} if "| grep" in command else {0}
        assert done.returncode in fine, (command, said[command])
        assert "ERR " not in said[command], (command, said[command])
    assert "Replicas of 'shop'" in said['glasscache stats --namespace "$NAMESPACE"']
    assert "l1_ttl" in said['glasscache tune history --namespace "$NAMESPACE"']
    assert "Now version" in said['glasscache tune set l4_ttl=3h --namespace "$NAMESPACE"']


def test_every_variable_of_a_command_is_one_that_the_index_sets() -> None:
    """Nobody looks for a value at night."""
    used = {name for command in commands() for name in re.findall(r"\$\{?(\w+)", command)}
    assert used <= SET_FIRST
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    assert (
        set(re.findall(r"(?<![\w$])([A-Z_]+)=", index.split("```sh")[1].split("```")[0]))
        == SET_FIRST
    )


def test_what_changes_or_asks_a_cache_says_which() -> None:
    """Without its namespace a command ends well, and did nothing to the cache that has the alert."""
    acts = re.compile(r"glasscache (tune (set|revert)|invalidate|warm|explain) ")
    found = [one for one in commands() if acts.match(one)]
    assert len(found) > 8
    assert [one for one in found if '--namespace "$NAMESPACE"' not in one] == []
