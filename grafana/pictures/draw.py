"""Drawing of the dashboards: a page with Grafana's components, in Chromium."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, Route, sync_playwright

from grafana.live import DIRECTORY, Prometheus
from grafana.pictures.answers import Span, answered
from grafana.pictures.build import FONT, ICONS, bundle

WIDTH = 1_440
"""Pixels, as in `page.tsx`."""

_PATIENCE = 300_000
"""Milliseconds: a busy machine is no failure."""

_SITE = "http://pictures.invalid/"
"""Base of the page: nothing is sent, each request is answered here."""

_HAS_ICONS = """() => [...document.querySelectorAll(".panel")].every(
    (panel) => panel.querySelectorAll("svg").length >= 2)"""
"""Each panel's title has two icons, for its description and its link, which are loaded."""

_ICONS, _FONTS = "build/img/icons/", "fonts/inter/"
"""Paths at which the components look for what a Grafana server has."""


def draw_all(prometheus: Prometheus, span: Span, to: Path, boards: Path = DIRECTORY) -> list[str]:
    """Draw each dashboard into a file of its name; return what is wrong with them.

    That is an error, a panel without data, a cut title or name, or a number too small to read,
    each with its dashboard and panel.

    Args:
        prometheus: The Prometheus to query.
        span: Time shown, and the chosen variables.
        to: Directory of the pictures.
        boards: Directory of the dashboards.

    Raises:
        FileNotFoundError: If npm is not installed.
        subprocess.CalledProcessError: If the components cannot be fetched.
    """
    site = bundle()
    to.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for path in sorted(boards.glob("*.json")):
            page = browser.new_page(viewport={"width": WIDTH, "height": 4_000})
            page.set_default_timeout(_PATIENCE)
            board = json.loads(path.read_text(encoding="utf-8"))
            wrong += _drawn(page, site, answered(board, prometheus, span))
            (to / f"{path.stem}.png").write_bytes(_small(page.locator("#board").screenshot()))
            page.close()
        browser.close()
    return wrong


def _drawn(page: Page, site: Path, board: dict[str, object]) -> list[str]:
    def serve(route: Route) -> None:
        name = route.request.url.removeprefix(_SITE)
        path = site / name
        if name.startswith(_ICONS):
            path = ICONS / name.removeprefix(_ICONS)
        elif name.startswith(_FONTS):
            path = FONT
        if path.is_file():
            route.fulfill(path=path)
        else:
            route.fulfill(status=404)

    raised: list[str] = []
    page.on("pageerror", lambda error: raised.append(f"{board['title']}: {error}"))
    page.route(f"{_SITE}**", serve)
    page.goto(f"{_SITE}index.html")
    page.evaluate("board => draw(board)", board)
    page.wait_for_function(_HAS_ICONS)
    found: list[str] = page.evaluate("problems()")
    return raised + found


def _small(shot: bytes) -> bytes:
    """Return a picture in 256 colours."""
    small = BytesIO()
    picture = Image.open(BytesIO(shot)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()
