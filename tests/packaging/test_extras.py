"""Each extra brings the packages that it needs, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import extras, processes

MOST = {
    extras.BASE: 25, "semantic": 115, "semantic-server": 70, "semantic-redis": 60, "models": 65, "endpoint": 30, "otlp": 45,
    "encryption": 30, "personal": 30, "proxy": 35, "dashboard": 75, "all": 150,
}  # fmt: skip
"""Most packages of an install with an extra, its base included, on Linux without CUDA packages."""

WITH_TORCH = {"models"}
MOST_BESIDE_CHROMA = 25


def packages(extra: str) -> set[str]:
    """Return the packages that an install with *extra* brings.

    `all` is resolved, once; what its parts bring is in it. `semantic-server` cannot be a part.
    """
    requirements = extras.requirements(extra)
    found = resolved(*requirements) if extra == "semantic-server" else everything()
    return extras.needed(found, requirements)


def everything() -> extras.Packages:
    """Return the packages that `all` brings."""
    return resolved(*extras.requirements("all"))


def resolved(*requirements: str) -> extras.Packages:
    """Return what pip would install; without an index the test is skipped, or fails in CI."""
    try:
        return extras.resolved(*requirements)
    except extras.IndexUnreachableError as error:
        reason = f"no package index is reachable: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def test_every_extra_has_its_limit() -> None:
    """A new extra has to say how many packages it may bring."""
    assert set(MOST) == set(extras.names())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("extra", sorted(MOST.keys() - WITH_TORCH))
def test_an_extra_is_light(extra: str) -> None:
    """All but `models` come without torch and CUDA packages, and stay within their limit."""
    found = packages(extra)
    heavy = [name for name in found if extras.TORCH.fullmatch(name) or extras.CUDA.fullmatch(name)]
    assert heavy == []
    assert len(found) <= MOST[extra], sorted(found)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_semantic_tier_adds_little_to_chroma() -> None:
    """Besides what chromadb requires itself there are at most 25 packages."""
    (chroma,) = (item for item in extras.requirements("semantic") if item.startswith("chromadb"))
    beside = packages("semantic") - extras.needed(everything(), [chroma])
    assert len(beside) <= MOST_BESIDE_CHROMA, sorted(beside)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_with_a_server_the_embedded_chroma_is_not_installed() -> None:
    """`semantic-server` has the thin client, and nothing of Kubernetes or the embedded index."""
    found = packages("semantic-server")
    assert "chromadb-client" in found
    assert found.isdisjoint({"chromadb", "kubernetes", "uvicorn"})


def test_one_install_never_has_two_distributions_of_one_module() -> None:
    """Extras that may be combined in `all` do not overwrite each other's files."""
    needed = " ".join(extras.requirements("all"))
    assert "chromadb-client" not in needed
    assert "phonenumberslite" not in needed


@pytest.fixture(scope="module")
def thin_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Chroma's thin client, whose dependencies are among those of chromadb."""
    folder = tmp_path_factory.mktemp("thin")
    (client,) = (
        item for item in extras.requirements("semantic-server") if item.startswith("chromadb-")
    )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "1",
               "--target", str(folder), client]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        reason = f"chromadb-client cannot be installed: {done.stderr}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


THIN = """
import asyncio, json

import chromadb

from cache_core import ConfigurationError, MultiLevelCache
from cache_core.testing import HashEmbedder

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder(), sharing='all') as cache:
        try:
            await cache.ready()
        except ConfigurationError as error:
            return str(error)
        await cache.put('is it raining here', 'ann', 'yes')
        found = await cache.lookup('here is it raining', 'bob')
        await cache.invalidate('is it raining here')
        gone = await cache.lookup('here is it raining', 'cid')
        return [found.response, found.tier, gone.response]

print(json.dumps([chromadb.is_thin_client, asyncio.run(main())]))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_thin_client_serves_l2_from_a_server(
    thin_client: Path, chroma_url: str, tmp_path: Path
) -> None:
    """L2 with chromadb-client in place of chromadb stores, finds and invalidates on a server."""
    done = processes.run(
        THIN, tmp_path, PYTHONPATH=os.pathsep.join([str(thin_client), *sys.path]),
        CHROMA_URL=chroma_url, CACHE_NAMESPACE="thin",
    )  # fmt: skip
    assert json.loads(done) == [True, ["yes", "l2", None]]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_thin_client_without_a_server_is_explained(thin_client: Path, tmp_path: Path) -> None:
    """L2 is off, and the remedy is a URL or the other extra."""
    place = os.pathsep.join([str(thin_client), *sys.path])
    thin, said = json.loads(processes.run(THIN, tmp_path, PYTHONPATH=place))
    assert thin
    assert "CHROMA_URL" in said
    assert "pip install 'glasscache[semantic]'" in said
