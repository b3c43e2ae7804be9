"""The Streamlit app in a real browser, on the store of an agent in another process."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from cache_core import MultiLevelCache, Settings
from cache_core.config.live import TuningChange
from dashboard.data.background import Background
from tests.support import servers
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TOKEN = "open-sesame-0123456789"
KEY, OTHER_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
PAGES = ("Overview", "History", "Tuning", "Review", "Entries", "Alerts", "Audit")

AGENT = """
import asyncio, json, sys, time
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder(), instruments=()) as cache:
        await cache.put("alpha beta gamma delta", "ann", "the answer", "billing", tags=["old"])
        last = None
        while True:
            exact = await cache.lookup("alpha beta gamma delta", "ann")
            near = await cache.lookup("alpha beta gamma", "ann")
            now = {"exact": exact.outcome, "near": near.outcome, "version": cache.tuning.version}
            if now != last:
                print(json.dumps({"at": time.time(), **now}), flush=True)
                last = now
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
"""An agent that says when its cache answers differently. The two questions are 0.82 similar."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, by Playwright; it asks nothing of the internet."""
    program = servers.require("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--headless=new", "--disable-background-networking"],
        )
        yield found
        found.close()


@pytest.fixture
def environment(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Environment that agent and app are started with."""
    found = {
        **os.environ,
        "CACHE_DIR": str(tmp_path / "cache"),
        "CACHE_DASHBOARD_TOKEN": TOKEN,
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
    }
    if store_kind == "redis":
        found["REDIS_URL"] = request.getfixturevalue("empty_redis")
    return found


class Agent:
    """An agent in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self._process = process
        self._said = said

    def until(self, **expected: Any) -> dict[str, Any]:
        """Return what the agent said when it last began to behave as *expected*."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            lines = self._said.read_text().splitlines()
            if lines:
                last: dict[str, Any] = json.loads(lines[-1])
                if all(last[name] == value for name, value in expected.items()):
                    return last
            assert self._process.poll() is None, "the agent ended"
            time.sleep(0.02)
        raise AssertionError(f"the agent never came to {expected}: {self._said.read_text()}")


@pytest.fixture
def agent(environment: dict[str, str], tmp_path: Path) -> Iterator[Agent]:
    said = tmp_path / "agent.jsonl"
    with said.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", AGENT], env=environment, stdout=out)
    try:
        found = Agent(process, said)
        found.until(exact="hit", near="miss")
        yield found
    finally:
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def app(environment: dict[str, str], tmp_path: Path, port: int) -> Iterator[str]:
    """The app, as the command starts it."""
    program = str(Path(sys.executable).with_name("glasscache"))
    command = [program, "dashboard", "--port", str(port), "--write"]
    log = (tmp_path / "dashboard.log").open("wb")
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path
    )
    try:
        servers.wait_for_port(port, process, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)
        log.close()


@pytest.fixture
def address(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with app(environment, tmp_path, servers.free_port()) as found:
        yield found


@contextlib.contextmanager
def opened(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """A page that is logged in; afterwards, nothing was asked of any other machine."""
    made = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **context})
    page = made.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws://", "http://")))
    page.goto(address)
    page.get_by_role("textbox", name="Your name").fill("ada")
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(heading(page, "Overview")).to_be_visible(timeout=30_000)
    try:
        yield page
    finally:
        made.close()
    foreign = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not foreign, "a request left the machine"
    assert len(asked) > 10


def heading(page: Page, title: str) -> Any:
    return page.get_by_role("heading", name=title, level=1, exact=True)


def go(page: Page, title: str) -> None:
    narrow = page.get_by_test_id("stExpandSidebarButton")
    if narrow.is_visible():
        narrow.click()
    page.get_by_role("link", name=title, exact=True).first.click()
    expect(heading(page, title)).to_be_visible(timeout=30_000)
    idle(page)
    # On a narrow screen the list of pages gives the page free again.
    expect(page.locator("[data-testid=stSidebar][data-collapsed=false]")).to_have_count(0)


def tab_to(page: Page, target: Any) -> None:
    """Press Tab until *target* has the focus."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if target.evaluate("node => node === document.activeElement"):
            return
    raise AssertionError(f"Tab does not reach {target}")


def kept(page: Page) -> bool:
    """Return whether the browser keeps a login."""
    return any(item["name"].startswith("glasscache-") for item in page.context.cookies())


def shifted(page: Page, seconds: float) -> float:
    """Return how much jumps while the page refreshes itself: the sum of Chromium's layout shifts."""
    found: float = page.evaluate(
        """seconds => new Promise(done => {
            let sum = 0
            new PerformanceObserver(list => {
                for (const entry of list.getEntries()) sum += entry.value
            }).observe({type: "layout-shift"})
            setTimeout(() => done(sum), 1000 * seconds)
        })""",
        seconds,
    )
    return found


def idle(page: Page) -> None:
    """Wait until the page is drawn: a key pressed while its script runs may be lost."""
    expect(page.get_by_test_id("stApp")).to_have_attribute(
        "data-test-script-state", "notRunning", timeout=60_000
    )


def slide_down(page: Page, slider: Locator, *, to: float) -> None:
    """Press the left arrow on the focused slider until it stays at `to`.

    A key pressed while the page is drawn again may be lost, so its value is read back.
    """

    def value() -> float:
        return float(slider.input_value())

    for _ in range(100):
        if value() > to + 1e-9:
            page.keyboard.press("ArrowLeft")
            continue
        page.wait_for_timeout(500)
        idle(page)
        if value() <= to + 1e-9:
            return
    pytest.fail(f"the slider stays at {value()}")


def history(environment: dict[str, str]) -> list[TuningChange]:
    async def work() -> list[TuningChange]:
        settings = Settings(
            dir=Path(environment["CACHE_DIR"]), redis_url=environment.get("REDIS_URL"),
            tiers=frozenset({"l1"}),
        )  # fmt: skip
        async with MultiLevelCache(settings=settings, instruments=()) as cache:
            return await cache.tuning_history(10)

    # Playwright has an event loop in this thread.
    background = Background()
    try:
        return background.run(work(), 20)
    finally:
        background.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["redis"])
def test_the_agent_follows_the_page_within_a_second(
    browser: Browser, address: str, agent: Agent, environment: dict[str, str]
) -> None:
    """A threshold moved and taken back by keyboard alone: an agent elsewhere follows both."""
    with opened(browser, address) as page:
        tab_to(page, page.get_by_role("link", name="Tuning", exact=True).first)
        page.keyboard.press("Enter")
        expect(heading(page, "Tuning")).to_be_visible(timeout=30_000)
        idle(page)
        slider = page.get_by_role("slider", name="Similarity threshold")
        tab_to(page, slider)
        slide_down(page, slider, to=0.8)
        expect(page.get_by_text(re.compile(r"0\.95 → 0\.80?(?!\d)"))).to_be_visible(timeout=20_000)
        idle(page)
        apply = page.get_by_role("button", name="Apply to all replicas")
        assert apply.bounding_box()["y"] < 740, "it takes scrolling to see it"
        tab_to(page, page.get_by_role("textbox", name="Why"))
        page.keyboard.type("more hits")
        tab_to(page, apply)
        page.keyboard.press("Enter")
        # Nobody has judged such hits, so a stage is proposed.
        expect(page.get_by_text("Version 1 is staged until")).to_be_visible(timeout=20_000)
        followed = agent.until(near="hit", version=1)
        (change,) = history(environment)
        print(f"followed after {followed['at'] - change.at:.3f} s")
        assert (change.author, change.note) == ("ada", "more hits")
        assert followed["at"] - change.at < 1.0

        idle(page)
        tab_to(page, page.get_by_role("button", name="Take back"))
        page.keyboard.press("Enter")
        expect(page.get_by_text("Version 2 is in force on every replica")).to_be_visible(
            timeout=20_000
        )
        followed = agent.until(version=2)
        assert followed["near"] == "miss"
        assert followed["at"] - history(environment)[0].at < 1.0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_the_policy_is_tried_before_it_decides(
    browser: Browser, address: str, agent: Agent
) -> None:
    """The effect of a share of wrong hits stands beside its control, with Apply in sight."""
    with opened(browser, address, viewport={"width": 1280, "height": 800}) as page:
        go(page, "Tuning")
        page.get_by_text("the learned policy", exact=True).click()
        share = page.get_by_role("spinbutton", name="Wrong hits you accept, %")
        assert share.bounding_box()["y"] < 740, "it takes scrolling to see it"
        share.fill("20")
        share.press("Enter")
        expect(page.get_by_text("Newly served:")).to_be_visible(timeout=30_000)
        expect(page.get_by_text("Served as today: 0")).to_be_visible()
        idle(page)
        assert page.get_by_text("Newly served:").bounding_box()["y"] < 740
        apply = page.get_by_role("button", name="Apply to all replicas")
        assert apply.bounding_box()["y"] < 760, "it takes scrolling to see it"
        apply.click()
        agent.until(near="hit", version=1)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_review_by_keyboard_and_invalidate(browser: Browser, address: str, agent: Agent) -> None:
    """One key press is one verdict; an invalidation in the page reaches the agent immediately."""
    with opened(browser, address) as page:
        go(page, "Review")
        expect(page.get_by_text("alpha beta gamma delta")).to_be_visible(timeout=20_000)
        # The pair is drawn before its buttons: until they are there, no key means anything.
        expect(page.get_by_role("button", name="Undecided")).to_be_visible(timeout=20_000)
        idle(page)
        page.keyboard.press("d")
        expect(page.get_by_text("Verdicts: 1, of them reviews: 1")).to_be_visible(timeout=20_000)
        expect(page.get_by_text("There is nothing to judge.")).to_be_visible()

        go(page, "Entries")
        page.get_by_role("radio", name="Tag").click()
        page.get_by_role("textbox", name="Tag").fill("old")
        page.get_by_role("button", name="Count matching entries").click()
        expect(page.get_by_text("Would invalidate 3 entries")).to_be_visible(timeout=90_000)
        agent.until(exact="hit")
        page.get_by_role("button", name="Invalidate 3 entries").click()
        expect(page.get_by_text("entries are invalidated")).to_be_visible(timeout=30_000)
        agent.until(exact="miss")
        go(page, "Audit")
        expect(page.get_by_text("Invalidations and reviews")).to_be_visible()


@pytest.fixture
def encrypting(environment: dict[str, str], request: pytest.FixtureRequest) -> Agent:
    """An agent that encrypts what it stores."""
    environment["CACHE_ENCRYPTION_KEYS"] = KEY
    found: Agent = request.getfixturevalue("agent")
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("store_kind", "key"), [("embedded", KEY), ("redis", OTHER_KEY)])
def test_encrypted_entries_are_listed(
    key: str | None,
    browser: Browser,
    encrypting: Agent,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """With the agent's key they are shown; without it they are counted, and none is hidden."""
    assert encrypting.until(exact="hit")
    own = {name: value for name, value in environment.items() if name != "CACHE_ENCRYPTION_KEYS"}
    if key is not None:
        own["CACHE_ENCRYPTION_KEYS"] = key
    with app(own, tmp_path, servers.free_port()) as address, opened(browser, address) as page:
        go(page, "Entries")
        page.get_by_role("textbox", name="Message").first.fill("alpha beta gamma delta")
        page.get_by_role("button", name="Explain").click()
        table = page.get_by_test_id("stDataFrame")
        expect(table).to_be_visible(timeout=90_000)
        idle(page)
        # Behind the canvas that shows them, where no role is looked for.
        cells = table.locator("[role=gridcell]")
        warning = page.get_by_text("cannot be read with the encryption keys of this app")
        if key == KEY:
            expect(cells.filter(has_text="the answer")).to_have_count(2)
            expect(cells.filter(has_text="billing").first).to_be_attached()
            expect(warning).to_have_count(0)
        else:
            expect(cells.filter(has_text="cannot be read")).to_have_count(3)
            expect(cells.filter(has_text="the answer")).to_have_count(0)
            expect(warning).to_have_text(re.compile("^3 entries cannot be read"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_login_and_view_survive_a_reload_and_a_new_tab(browser: Browser, address: str) -> None:
    """A cookie that no script reads, until logging out; the address has the view and no token."""
    with opened(browser, address) as page:
        wait_until(lambda: kept(page), "the cookie")
        assert "glasscache" not in page.evaluate("document.cookie")
        page.get_by_role("radio", name="All recorded").click()
        page.wait_for_url(re.compile(r"window=All"))
        assert TOKEN not in page.url
        page.reload()
        expect(heading(page, "Overview")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("radio", name="All recorded")).to_be_checked(timeout=30_000)
        tab = page.context.new_page()
        tab.goto(f"{address}/audit")
        expect(heading(tab, "Audit")).to_be_visible(timeout=30_000)
        expect(tab.get_by_text("can write")).to_be_visible()
        tab.get_by_role("button", name="Log out").click()
        expect(heading(tab, "Log in")).to_be_visible(timeout=30_000)
        wait_until(lambda: not kept(page), "the end of the cookie")
        expect(heading(page, "Log in")).to_be_visible(timeout=30_000)
        page.reload()
        expect(heading(page, "Log in")).to_be_visible(timeout=30_000)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["redis"])
def test_a_page_comes_back_by_itself(
    browser: Browser, environment: dict[str, str], tmp_path: Path
) -> None:
    """Redis stands still and goes on: the page need not be loaded again."""
    (tmp_path / "own").mkdir()
    with servers.BreakableRedis(tmp_path / "own") as redis:
        environment["REDIS_URL"] = redis.url
        with (
            app(environment, tmp_path, servers.free_port()) as address,
            opened(browser, address) as page,
        ):
            redis.stop()
            page.get_by_role("link", name="Audit", exact=True).first.click()
            expect(page.get_by_text("This page retries")).to_be_visible(timeout=60_000)
            redis.go_on()
            expect(page.get_by_text("Nobody changed the tuning.")).to_be_visible(timeout=60_000)
            expect(page.get_by_text("This page retries")).to_have_count(0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["embedded"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_that_is_chosen_can_be_seen(theme: Any, browser: Browser, address: str) -> None:
    """Ten shared intents in a narrow field, each to be read; a label that is none is refused."""
    names = [f"intent_of_some_length_{number}" for number in range(10)]
    with opened(browser, address, color_scheme=theme) as page:
        go(page, "Tuning")
        page.get_by_role("tab", name="Sharing").click()
        field = page.get_by_role("combobox", name="Shared intents")
        for name in names:
            field.fill(name)
            field.press("Enter")
            idle(page)
        # An open list hides what is behind it.
        field.press("Escape")
        box = page.get_by_test_id("stMultiSelect").filter(has=field).bounding_box()
        assert box
        for name in names:
            tag = page.get_by_label(name, exact=True).bounding_box()
            assert tag
            assert box["x"] <= tag["x"]
            assert tag["x"] + tag["width"] <= box["x"] + box["width"]
            assert tag["y"] + tag["height"] <= box["y"] + box["height"]
        found = Axe().run(page).response["violations"]
        assert [item["id"] for item in found if item["impact"] in {"serious", "critical"}] == []

        page.get_by_role("tab", name="Single intents").click()
        field = page.get_by_role("combobox", name="Intent", exact=True)
        field.fill("two words")
        field.press("Enter")
        expect(page.get_by_text("An intent label has 1 to 64")).to_be_visible(timeout=30_000)


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[str]:
    """An OpenID Connect provider that knows ada and bob; the app is told of it by its secrets."""
    port = servers.free_port()
    users = [
        json.dumps({"sub": name, "email": f"{name}@example.com", "email_verified": True})
        for name in ("ada", "bob")
    ]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    command += [part for user in users for part in ("--user-claims", user)]
    with servers.running(command, port):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_who_logs_in_by_openid_connect_and_may_write(
    browser: Browser, environment: dict[str, str], tmp_path: Path, identity: str
) -> None:
    """The provider says who it is; of those only the named ones may make changes."""
    port = servers.free_port()
    place = f"http://127.0.0.1:{port}"
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text(
        f"""[auth]
redirect_uri = "{place}/oauth2callback"
cookie_secret = "{TOKEN}{TOKEN}"
client_id = "glasscache"
client_secret = "{TOKEN}"
server_metadata_url = "{identity}/.well-known/openid-configuration"
""",
        encoding="utf-8",
    )
    del environment["CACHE_DASHBOARD_TOKEN"]
    environment["CACHE_DASHBOARD_WRITERS"] = "ada@example.com, eve@example.com"
    with app(environment, tmp_path, port) as address:
        for name, mode in (("ada", "can write"), ("bob", "read-only")):
            page = browser.new_context().new_page()
            page.goto(address)
            expect(heading(page, "Log in")).to_be_visible(timeout=30_000)
            expect(page.get_by_text("Hit rate")).to_have_count(0)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("button", name=name).click(timeout=30_000)
            expect(heading(page, "Overview")).to_be_visible(timeout=30_000)
            # A word joiner behind the sign keeps the browser from making a link of it.
            expect(page.get_by_text(f"{name}@\u2060example.com")).to_be_visible()
            expect(page.get_by_text(mode)).to_be_visible()
            page.context.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("store_kind", ["embedded"])
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (400, "dark")])
def test_every_page_is_accessible(
    width: int, theme: Any, browser: Browser, address: str, agent: Agent
) -> None:
    """No serious finding of axe, wide and light, narrow and dark; and nothing is cut off."""
    axe = Axe()
    found: list[str] = []
    view = {"viewport": {"width": width, "height": 1000}, "color_scheme": theme}
    with opened(browser, address, **view) as page:
        for title in PAGES:
            if title != "Overview":
                go(page, title)
            idle(page)
            page.wait_for_timeout(600)
            if title == "Overview" and theme == "light":
                # Two refreshes and more, while the agent goes on; 0.1 is what is called good.
                page.wait_for_timeout(1_500)
                assert shifted(page, 5) < 0.02
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for finding in axe.run(page).response["violations"]:
                if finding["impact"] in {"serious", "critical"}:
                    where = [str(node["target"]) for node in finding["nodes"]]
                    nodes = [node["html"][:160] for node in finding["nodes"][:3]]
                    found.append(f"{title}: {finding['id']}: {where[:3]} {nodes}")
    assert not found, "\n".join(found)
