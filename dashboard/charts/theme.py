"""Theme: the colours of page and charts, light and dark, and Streamlit's options for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one theme; all text has a contrast of at least 4.5 to its background.

    Attributes:
        ground, panel: Background of the page, and of boxes and inputs.
        text, quiet: Colours of text, and of less important text.
        line: Colour of axes and borders.
        primary: Colour of buttons and chosen options.
        link: Colour of links.
        exact, semantic, partial, miss, error, bypass: Colours of the endings of a lookup.
        now, proposed: Colours of today's and the proposed value.
        band: Colour of the band of uncertainty.
    """

    ground: str
    panel: str
    text: str
    quiet: str
    line: str
    primary: str
    link: str
    exact: str
    semantic: str
    partial: str
    miss: str
    error: str
    bypass: str
    now: str
    proposed: str
    band: str

    @property
    def ways(self) -> tuple[str, ...]:
        """The colours of `figures.WAYS`."""
        return (self.exact, self.semantic, self.partial, self.miss, self.error, self.bypass)


LIGHT = Palette(
    ground="#ffffff",
    panel="#f1f5f6",
    text="#14262d",
    quiet="#50646d",
    line="#d5dee1",
    primary="#0b6e74",
    link="#0b6e74",
    exact="#0b7a75",
    semantic="#2f7fc1",
    partial="#b98411",
    miss="#93a3ab",
    error="#c0392b",
    bypass="#c9d3d7",
    now="#50646d",
    proposed="#b4530a",
    band="#2f7fc1",
)
DARK = Palette(
    ground="#0e171b",
    panel="#18252b",
    text="#e6eef0",
    quiet="#a3b4bb",
    line="#2c3c43",
    primary="#3cc8ba",
    link="#5fd3c8",
    exact="#2bbbad",
    semantic="#5aa9e6",
    partial="#e0b84c",
    miss="#6b7f88",
    error="#ef6f6c",
    bypass="#3d4f57",
    now="#a3b4bb",
    proposed="#f3a35c",
    band="#5aa9e6",
)


def palette(kind: str | None) -> Palette:
    """Return the colours of a theme, `light` or `dark`."""
    return DARK if kind == "dark" else LIGHT


def options() -> dict[str, str]:
    """Return Streamlit's options for the app's look and privacy."""
    fixed = {
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "client.toolbarMode": "viewer",
        "server.enableStaticServing": "false",
        "server.fileWatcherType": "none",
        "server.headless": "true",
        "theme.baseRadius": "0.5rem",
        "theme.showWidgetBorder": "true",
        "theme.metricValueFontSize": "1.75rem",
        "theme.headingFontSizes": '["2rem", "1.25rem", "1.25rem", "1.1rem", "1rem", "1rem"]',
        "theme.paddingTop": "1.5rem",
        "theme.paddingBottom": "3rem",
    }
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        fixed |= {f"theme.{name}.{key}": value for key, value in _named(colours).items()}
    return fixed


def _named(colours: Palette) -> Mapping[str, str]:
    dark = colours is DARK
    return {
        "primaryColor": colours.primary,
        "backgroundColor": colours.ground,
        "secondaryBackgroundColor": colours.panel,
        "textColor": colours.text,
        "linkColor": colours.link,
        "borderColor": colours.line,
        "redColor": colours.error,
        "greenColor": colours.exact,
        "blueColor": colours.semantic,
        "grayColor": colours.quiet,
        "codeTextColor": colours.text,
        "codeBackgroundColor": colours.panel,
        "redTextColor": "#ff9b96" if dark else "#a3261a",
        "greenTextColor": "#63d6c8" if dark else "#075e5a",
        "blueTextColor": "#8cc4f2" if dark else "#1d5f97",
        "orangeTextColor": "#f6b477" if dark else "#8a3f06",
        "yellowTextColor": "#edca70" if dark else "#765106",
        "grayTextColor": colours.quiet,
        "redBackgroundColor": "#3a1e1f" if dark else "#fbe9e7",
        "greenBackgroundColor": "#11312f" if dark else "#e0f2f0",
        "blueBackgroundColor": "#152c3d" if dark else "#e3f0fa",
        "orangeBackgroundColor": "#37270f" if dark else "#fdeedd",
        "yellowBackgroundColor": "#33290f" if dark else "#faf1d8",
        "grayBackgroundColor": colours.panel,
    }
