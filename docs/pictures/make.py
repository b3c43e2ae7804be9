"""Makes the pictures of the dashboard: `python docs/pictures/make.py`, in ten minutes.

Two days of the demo's customers in front of a real cache with the real model, the clock running
ahead; what was served and what nearly was is judged by what is true. Then customers go on in real
time, an Alertmanager has an alert, `glasscache dashboard` runs on the same store, a browser looks.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright
from shop import alertmanager, dashboard, play

from cache_core.backends.embedder.choosing import make_embedder

HERE = Path(__file__).parent
QUESTION = "How long does delivery take?"
SHOWN = {
    "overview-light", "overview-dark", "tuning-light", "tuning-dark", "tuning-ttls-light",
    "tuning-sharing-light", "review-light", "history-light", "entries-light", "alerts-light",
    "audit-light", "overview-light-narrow",
}  # fmt: skip
"""The pictures that the documentation shows."""


def go(page: Page, title: str) -> None:
    """Open a page of the app, and wait until it is drawn."""
    narrow = page.get_by_test_id("stExpandSidebarButton")
    if narrow.is_visible():
        narrow.click()
    page.get_by_role("link", name=title, exact=True).first.click()
    expect(page.get_by_role("heading", name=title, level=1, exact=True)).to_be_visible(
        timeout=60_000
    )
    settle(page)


def settle(page: Page) -> None:
    """Wait until nothing is being drawn any more."""
    idle = ("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stApp")).to_have_attribute(*idle, timeout=60_000)
    page.wait_for_timeout(2_000)
    expect(page.get_by_test_id("stApp")).to_have_attribute(*idle, timeout=60_000)


def shoot(page: Page, path: Path) -> None:
    """Take a picture of the whole page, as long as it is."""
    page.mouse.move(2, 2)
    width = page.viewport_size["width"] if page.viewport_size else 1280
    height = page.evaluate(
        "() => { const m = document.querySelector('[data-testid=stMainBlockContainer]');"
        " return Math.ceil(m.getBoundingClientRect().height + 56) }"
    )
    page.set_viewport_size({"width": width, "height": max(700, height)})
    page.wait_for_timeout(1_200)
    page.screenshot(path=path)
    page.set_viewport_size({"width": width, "height": 1000})


def look(
    browser: Browser, address: str, token: str, width: int, theme: Any, into: Path, *, every: bool
) -> None:
    """Take a picture of every page."""
    context = browser.new_context(
        viewport={"width": width, "height": 1000}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(address)

    def take(what: str) -> None:
        name = f"{what}-{theme}{'' if width > 500 else '-narrow'}"
        if every or name in SHOWN:
            shoot(page, into / f"dashboard-{name}.png")

    page.get_by_role("textbox", name="Your name").fill("ada")
    take("login")
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible(timeout=60_000)
    page.get_by_text("All recorded").click()
    settle(page)
    take("overview")

    go(page, "History")
    take("history")

    go(page, "Tuning")
    if page.get_by_role("button", name="Try 0").is_enabled():
        page.get_by_role("button", name="Try 0").click()
    settle(page)
    take("tuning")
    for tab in ("TTLs", "Sharing", "Single intents", "Everything else"):
        page.get_by_role("tab", name=tab).click()
        settle(page)
        take("tuning-" + tab.lower().replace(" ", "-"))

    go(page, "Review")
    if width > 500 and theme == "light":
        for key in "ssds":
            page.keyboard.press(key)
            page.wait_for_timeout(1_500)
    take("review")

    go(page, "Entries")
    page.get_by_role("textbox", name="Message").first.fill(QUESTION)
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_text("Stored for this message")).to_be_visible(timeout=120_000)
    settle(page)
    if width > 500 and theme == "light":
        page.get_by_role("textbox", name="Message").last.fill(QUESTION)
        page.get_by_role("button", name="Count matching entries").click()
        expect(page.get_by_text("Would invalidate")).to_be_visible(timeout=60_000)
    settle(page)
    take("entries")
    if width > 500 and theme == "light":
        page.get_by_role("textbox", name="Why").fill("the carrier changed")
        page.get_by_role("button", name="Invalidate").click()
        expect(page.get_by_text("invalidated on")).to_be_visible(timeout=60_000)

    go(page, "Alerts")
    take("alerts")
    go(page, "Audit")
    take("audit")
    context.close()


def main() -> None:
    """Play, look, end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=HERE, help="folder for the pictures")
    parser.add_argument("--all", action="store_true", help="every page, not only those in the docs")
    parser.add_argument("--data", type=Path, help="where the day is kept, and found again")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shop-") as name:
        directory = options.data or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        live, end = threading.Event(), threading.Event()
        player = threading.Thread(
            target=lambda: asyncio.run(play(directory / "cache", make_embedder(), live, end))
        )
        player.start()
        while not live.wait(1):
            if not player.is_alive():
                sys.exit("the customers never came")
        with (
            alertmanager(directory) as alerts,
            dashboard(directory / "cache", alerts) as (address, token),
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--headless=new"]
            )
            for width in (1280, 400):
                for theme in ("light", "dark"):
                    print(f"{width} pixels, {theme}", file=sys.stderr)
                    look(browser, address, token, width, theme, options.into, every=options.all)
            browser.close()
        end.set()
        player.join()


if __name__ == "__main__":
    main()
