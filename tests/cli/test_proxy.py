"""`glasscache proxy` as a process, before its own fake model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import servers
from tests.support.paths import ROOT

FALLBACK = "nothing was printed"


@pytest.mark.slow
@pytest.mark.server
def test_the_example_is_answered_twice(tmp_path: Path) -> None:
    """The printed request is a miss, then a hit with the shop's answer, as clients see them."""
    port = servers.free_port()
    environment = {**os.environ, "CACHE_DIR": str(tmp_path), "CACHE_TIERS": "l1",
                   "COLUMNS": "200", "PYTHONPATH": str(ROOT)}  # fmt: skip
    code = "from cache_core.cli.app import main; main()"
    command = [sys.executable, "-c", code, "proxy", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            printed = "".join(process.stderr.readline() for _ in range(2))
            found = re.search(r"-d '(.*)'", printed)
            body = found.group(1) if found else FALLBACK
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            retrying = httpx.HTTPTransport(retries=8)  # until it listens
            with httpx.Client(transport=retrying, timeout=30.0) as client:
                replies = [client.post(url, content=body) for _ in range(2)]
        finally:
            process.terminate()
    outcomes = [reply.headers["x-glasscache-outcome"] for reply in replies]
    assert outcomes == ["miss", "hit"]
    texts = {reply.json()["choices"][0]["message"]["content"] for reply in replies}
    assert len(texts) == 1
    assert not texts.pop().startswith("Answer 1")
