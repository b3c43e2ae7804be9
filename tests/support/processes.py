"""Snippets of Python in a process of their own, as an application would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENT

_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "COVERAGE_PROCESS_START")

ENVIRONMENT = {f"CACHE_{name.upper()}": str(value) for name, value in PATIENT.items()}
"""Settings of a cache that was not made for a test: those of `tests.support.patience`."""


def run(code: str, directory: Path, **environment: str) -> str:
    """Run *code* as `directory/app.py`; return what it printed.

    Its environment has only what a shell needs, a cache directory, and *environment*.
    """
    script = directory / "app.py"
    script.write_text(code, encoding="utf-8")
    return run_script(script, directory, **environment)


def run_script(script: Path, directory: Path, **environment: str) -> str:
    """Run a script in *directory*; return what it printed, errors included if it failed."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        env={**kept, **ENVIRONMENT, "CACHE_DIR": str(directory / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
