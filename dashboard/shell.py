"""What all pages share: source, visitor, header, and what is said when something is away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import streamlit as st

from cache_core.exceptions import ConfigurationError
from cache_core.settings import load_settings
from dashboard.access import Visitor, visitor
from dashboard.charts import Chart
from dashboard.config import DashboardConfig
from dashboard.sources import Source
from dashboard.theme import Palette, palette
from dashboard.words import SourceAwayError

_AGAIN_SECONDS = 3.0
"""Until a page that could not be drawn is tried again."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a page works with.

    Attributes:
        source: Of its data.
        visitor: Who looks.
        config: Of the app.
        look: The colours of the visitor's theme.
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
    """Begin a page: its header, and what it works with."""
    config = DashboardConfig()
    try:
        settings = load_settings()
    except ConfigurationError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()
    who: Visitor = st.session_state["who"]
    page = Page(
        _source(repr(config), settings.model_dump_json()),
        who,
        config,
        palette(st.context.theme.type),
    )
    mode = ":green-badge[can write]" if who.may_write else ":gray-badge[read-only]"
    name = f" · {who.name}" if who.name else ""
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom", gap="small"
    ):
        with st.container(width="content", gap=None):
            st.title(title, anchor=False)
            quiet(about)
        st.markdown(
            f":small[**{config.namespace}** on {page.source.kind} `{page.source.where}`{name}] "
            f"{mode}",
            width="content",
        )
    return page


def admit() -> None:
    """Let in whoever may look, and remember who it is for the page."""
    st.session_state["who"] = visitor(DashboardConfig())


@contextlib.contextmanager
def telling(*, live: bool = False) -> Iterator[None]:
    """Say on the page which source is away instead of failing, and look again by itself.

    Args:
        live: What is within is a fragment, which is drawn again and again anyway.
    """
    try:
        yield
    except SourceAwayError as error:
        st.error(
            f"{error}\n\nThe agent goes on without its cache. This page comes back by itself.",
            icon=":material/cloud_off:",
        )
        if not live:
            _look_again()


def _look_again() -> None:
    """Draw the whole page anew in a moment."""
    drawn = False

    @st.fragment(run_every=_AGAIN_SECONDS)
    def later() -> None:
        nonlocal drawn
        if drawn:
            st.rerun()
        drawn = True

    later()


def read_first(page: Page) -> None:
    """Read the log before the page is drawn, and say so if it takes long."""
    # Whether it is away is said by what shows it.
    with contextlib.suppress(SourceAwayError), st.spinner("reading the recorded lookups"):
        page.source.recorded()


def show(chart: Chart, key: str) -> None:
    """Draw a chart."""
    st.altair_chart(chart.chart, width="stretch", key=key, alt=chart.alt)


def quiet(text: str) -> None:
    """Say what matters less. Not a caption: that is too pale to read for many."""
    st.markdown(f":small[:gray[{text}]]")


def empty(what: str, do: str) -> None:
    """Say that there is nothing yet, and what to do about it."""
    with st.container(border=True):
        st.markdown(f"**{what}**  \n{do}")
