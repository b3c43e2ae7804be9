"""Frame of all pages: source, visitor, header, and messages about outages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import streamlit as st

from cache_core.config.settings import load_settings
from cache_core.model.exceptions import ConfigurationError
from dashboard.charts import Chart
from dashboard.charts.theme import Palette, palette
from dashboard.data.config import DashboardConfig
from dashboard.data.pace import pause
from dashboard.data.sources import Source
from dashboard.data.words import SourceUnavailableError, ago, plain
from dashboard.ui.access import Visitor, has_left, leave, visitor

_AGAIN_SECONDS = 3.0
"""Seconds until a page that could not be drawn is retried."""

_GREYED = """<style>
:is([data-testid=stMetric], [data-testid=stVegaLiteChart], [data-testid=stTable],
[data-testid=stDataFrame], [data-testid=stText], [data-testid=stMarkdown]:not(
[data-testid=stAlert] *)) {opacity: .5; filter: grayscale(1)}
</style>"""


@dataclass(frozen=True, slots=True)
class Page:
    """Context of a page.

    Attributes:
        source: The data source.
        visitor: The visitor.
        config: Settings of the app.
        look: Colours of the visitor's theme.
    """

    source: Source
    visitor: Visitor
    config: DashboardConfig
    look: Palette


@st.cache_resource(show_spinner=False, on_release=lambda source: source.close())
def _source(config: str, settings: str) -> Source:  # noqa: ARG001 - what it is kept by
    """Return the source of these settings; one for all browsers."""
    return Source(DashboardConfig(), load_settings())


def open_page(title: str, about: str) -> Page:
    """Begin a page: draw its header, and return its context."""
    config = DashboardConfig()
    try:
        settings = load_settings()
    except ConfigurationError as error:
        st.error(plain(str(error)), icon=":material/error:")
        st.stop()
    who: Visitor = st.session_state["who"]
    page = Page(
        _source(repr(config), settings.model_dump_json()),
        who,
        config,
        palette(st.context.theme.type),
    )
    st.session_state["page"] = page
    mode = ":green-badge[can write]" if who.may_write else ":gray-badge[read-only]"
    name = f" · {plain(who.name)}" if who.name else ""
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom", gap="small"
    ):
        with st.container(width="content", gap=None):
            st.title(title, anchor=False)
            quiet(about)
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", width="content"
        ):
            st.markdown(
                f":small[**{config.namespace}** on {page.source.kind} `{page.source.where}`"
                f"{name}] {mode}",
                width="content",
            )
            if who.can_leave:
                st.button("Log out", type="tertiary", on_click=leave)
    return page


def admit() -> None:
    """Admit the visitor, and remember them for the page."""
    st.session_state["who"] = visitor(DashboardConfig())


@contextlib.contextmanager
def telling(*, live: bool = False) -> Iterator[None]:
    """Show which source is unavailable instead of failing, and retry automatically.

    What is known stays on the screen, greyed, with its time. A visitor whose login has ended sees
    the login page instead, for a fragment alone asks nobody.

    Args:
        live: Whether the content is a fragment, which is redrawn regularly anyway.
    """
    page: Page = st.session_state["page"]
    if has_left(page.visitor):
        st.rerun()
    above = st.container()
    problem = ""
    try:
        yield
    except SourceUnavailableError as error:
        problem = str(error)
    outage = page.source.outage
    if outage is not None and not problem:
        seen = datetime.fromtimestamp(outage.since, UTC)
        problem = f"{outage.why} Below is the state of {seen:%H:%M:%S} UTC, {ago(outage.since)}."
        above.html(_GREYED)
    if problem:
        above.error(
            f"{problem}\n\nYour agent keeps running without the cache. This page retries.",
            icon=":material/cloud_off:",
        )
        if not live:
            _look_again()


def _look_again() -> None:
    """Redraw the whole page in a moment."""
    drawn = False

    @st.fragment(run_every=_AGAIN_SECONDS)
    def later() -> None:
        nonlocal drawn
        if drawn:
            st.rerun()
        drawn = True

    later()


def refreshed(name: str, draw: Callable[[], None], least: float) -> Callable[[], None]:
    """Draw a part of a page, and again every *least* seconds, or less often if that takes long.

    Args:
        name: Name of the part.
        draw: Draws it.
        least: Shortest pause in seconds.

    Returns:
        The fragment that was drawn.
    """
    pauses: dict[str, float] = st.session_state.setdefault("pauses", {})
    now = pauses.get(name, least)
    again = False

    @st.fragment(run_every=now)
    def live() -> None:
        nonlocal again
        started = time.perf_counter()
        with telling(live=True):
            draw()
        # the first drawing reads and loads what the others find
        if again:
            pauses[name] = pause(now, time.perf_counter() - started, least)
            if pauses[name] != now:
                st.rerun()
        again = True

    live()
    return live


def read_first(page: Page) -> None:
    """Read the log before the page is drawn, with a spinner if it takes long."""
    # the part that shows it reports an outage
    with contextlib.suppress(SourceUnavailableError), st.spinner("reading the recorded lookups"):
        page.source.recorded()


def show(chart: Chart, key: str) -> None:
    """Draw a chart."""
    st.vega_lite_chart(spec=chart.spec, width="stretch", key=key, alt=chart.alt)


def quiet(text: str) -> None:
    """Show less important text. Not as a caption: that is too pale for many readers."""
    st.markdown(f":small[:gray[{text}]]")


def empty(what: str, do: str) -> None:
    """Show that there is no data yet, and what to do about it."""
    with st.container(border=True):
        st.markdown(f"**{what}**  \n{do}")
