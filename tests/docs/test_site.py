"""The site: every page has a place, and it is built without a warning or a foreign resource."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.modules import require
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
VARIABLE = re.compile(
    r"\"((?:GLASSCACHE|CACHE|EMBEDDING|SEMANTIC|REDIS|CHROMA|OTEL|PROMETHEUS|ALERTMANAGER|GRAFANA)"
    r"(?:_[A-Z0-9]+)+)\""
)
"""Name of an environment variable, as a whole text in the code."""


def test_every_page_has_one_place() -> None:
    """The navigation names each page of docs/ once, and no other."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert sorted(named(config["nav"])) == pages


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """The site builds with `--strict`; no page or style sheet loads a resource from a host."""
    require("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = [
        f"{page.relative_to(tmp_path)}: {url}"
        for page in tmp_path.rglob("*.html")
        for url in resources(page.read_text(encoding="utf-8"))
    ]
    assert loaded
    assert [url for url in loaded if "//" in url] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", styles)


def test_the_reference_is_what_the_code_says() -> None:
    """`python docs/reference/make.py` would change nothing, and leaves out no adapter."""
    make = runpy.run_path(str(DOCS / "reference" / "make.py"))
    for name, text in make["pages"]().items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text
    modules = {path.stem for path in (ROOT / "glasscache" / "integrations").glob("*.py")}
    assert modules - set(make["INTEGRATIONS"]) == {"__init__", "wire", "keyed"}


def test_every_variable_has_a_place() -> None:
    """Each environment variable that the code names as a whole is in a page.

    `GLASSCACHE_` is a prefix of every setting's name, which one sentence says for all.
    """
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    found = {
        name
        for package in ("glasscache", "cache_core", "telemetry", "dashboard")
        for path in (ROOT / package).rglob("*.py")
        for name in VARIABLE.findall(path.read_text(encoding="utf-8"))
    }
    assert {"CACHE_DASHBOARD_TOKEN", "OTEL_SDK_DISABLED", "PROMETHEUS_URL"} <= found
    assert sorted(name for name in found if name.removeprefix("GLASSCACHE_") not in pages) == []


def named(entries: Any) -> Iterator[str]:
    """Yield the pages of a navigation."""
    if isinstance(entries, str):
        yield entries
        return
    for entry in entries.values() if isinstance(entries, dict) else entries:
        yield from named(entry)


def resources(page: str) -> list[str]:
    """Return the addresses that a browser loads for a page: no links that a reader follows."""
    reader = _Resources()
    reader.feed(page)
    return reader.urls


class _Resources(HTMLParser):
    """Addresses of scripts, styles, pictures and frames."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in {"src", "srcset"} or (name == "href" and tag == "link")
            if loads and value and not value.startswith("data:"):
                self.urls.append(value)
