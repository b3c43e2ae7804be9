"""The dashboard of the demo's cache, as a child process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache_core import Settings
from cache_core.cli.demo.board import Place
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.stack import Stack
from cache_core.cli.demo.stack.processes import Servers, free_port, url_of
from cache_core.cli.demo.stack.servers import ALERTMANAGER, PROMETHEUS

_NAME = "dashboard"
_INSTALL = "pip install 'glasscache[dashboard]'"
_MAIN = "from cache_core.cli.app import main; main()"
_VARIABLES = {PROMETHEUS.name: "PROMETHEUS_URL", ALERTMANAGER.name: "ALERTMANAGER_URL"}


@contextmanager
def page(
    options: Options, settings: Settings, namespace: str, around: Stack
) -> Iterator[list[Place]]:
    """Start `glasscache dashboard` on a free port; yield its address, or what to install.

    It reads the alerts of the Prometheus *around*, if there is one. It starts while the demo goes
    on, with a lower priority; it ends with the block, or with this process.
    """
    if not options.dashboard_wanted:
        yield []
    elif importlib.util.find_spec("streamlit") is None:
        yield [Place(_NAME, _INSTALL)]
    else:
        port = free_port()
        command = (sys.executable, "-c", _MAIN, "dashboard", "--namespace", namespace)
        given = {
            "GLASSCACHE_DIR": str(settings.dir),
            "GLASSCACHE_REDIS_URL": settings.redis_url or "",
            "GLASSCACHE_CHROMA_URL": settings.chroma_url or "",
            **_watching(around),
        }
        logs = Path(settings.dir)
        logs.mkdir(parents=True, exist_ok=True)
        with Servers.guarded(logs) as servers:
            process = servers.launch(
                _NAME, [*command, "--port", str(port)], {**os.environ, **given}
            )
            with contextlib.suppress(OSError, AttributeError):
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)
            yield [Place(_NAME, url_of(port))]


def _watching(around: Stack) -> dict[str, str]:
    """Return variables with the addresses of a stack; without one, the shell's stay."""
    if not around.places:
        return {}
    where = {one.name: one.where for one in around.places}
    return {variable: where.get(name, "") for name, variable in _VARIABLES.items()}
