"""Entry of the app: admission and pages. Run by `glasscache dashboard`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.ui.access import keep_login
from dashboard.ui.shell import admit

_UI = Path(__file__).with_name("ui")

# a local icon: one by name would be fetched from the internet
st.set_page_config(
    page_title="glasscache",
    page_icon=str(_UI / "icon.png"),
    layout="wide",
    menu_items={"about": "The cache for LLM agents that you can see through."},
)
# The bar at the top is this high; Streamlit leaves twice as much. Refreshing parts do not fade, and
# no running indicator comes and goes: the page would flicker every two seconds, and be too pale to
# read; slow parts have a spinner. And all chosen options are visible. The keyboard's focus is seen.
# On a narrow screen figures are two by two, tables have their first columns, and the list of pages
# is behind a button that says so.
st.html(
    """<style>
    [data-testid=stMainBlockContainer] {padding-top: 4.75rem; padding-bottom: 3rem}
    [data-stale=true] {opacity: 1 !important; transition: none !important}
    [data-testid=stStatusWidget]:has([data-testid=stStatusWidgetRunningIcon]) {display: none}
    [data-testid=stMultiSelect] [role=group] {height: auto; max-height: none}
    [data-testid=stMultiSelectTagsContainer], [data-testid=stMultiSelectTagsContainer] > span
    {flex-wrap: wrap; overflow: visible; height: auto; mask-image: none}
    [data-testid^=stTopNavLink]:focus-visible, [data-testid^=stSidebarNavLink]:focus-visible,
    [data-testid=stMain] :is(a, button, summary, [role=tab]):focus-visible
    {outline: 2px solid currentColor !important; outline-offset: 1px;
    box-shadow: none !important}
    @media (max-width: 640px) {
    [data-testid=stHorizontalBlock]:has(> [data-testid=stColumn] [data-testid=stMetric])
    > [data-testid=stColumn] {min-width: calc(50% - 1rem); flex: 1 1 calc(50% - 1rem)}
    [data-testid=stMetricDelta] * {white-space: normal !important}
    [data-testid=stMetricValue] {font-size: 1.3rem}
    [class*=st-key-narrow] tr > :nth-child(n+4) {display: none}
    [data-testid=stExpandSidebarButton]::after {content: "Menu"; padding: 0 .5rem 0 .25rem}
    }
    </style>"""
)
if st.context.theme.type == "dark":
    # Streamlit's white is illegible on a colour that is bright enough for the dark
    st.html(
        """<style>
        [data-testid^=stBaseButton-primary]:enabled *, [data-testid=stMultiSelect] [data-tag] *
        {color: #06201e !important}
        </style>"""
    )
st.logo(str(_UI / "logo.svg"), size="large")

_PAGES = [
    ("overview", "Overview", ":material/monitoring:"),
    ("history", "History", ":material/calendar_month:"),
    ("tuning", "Tuning", ":material/tune:"),
    ("review", "Review", ":material/rule:"),
    ("entries", "Entries", ":material/search:"),
    ("alerts", "Alerts", ":material/notifications:"),
    ("audit", "Audit", ":material/fact_check:"),
]

_page = st.navigation(
    [
        st.Page(_UI / "views" / f"{name}.py", title=title, icon=icon, url_path=name, default=not n)
        for n, (name, title, icon) in enumerate(_PAGES)
    ],
    position="top",
)
admit()
_page.run()
keep_login()
# On a narrow screen the list of pages covers the page, and Streamlit leaves it open. The title is
# in the script so that it runs once for each opened page.
st.html(
    f"""<script>/* {_page.title} */
    if (innerWidth < 768) document.querySelector(
        "[data-testid=stSidebar][data-collapsed=false] [data-testid=stSidebarCollapseButton] button"
    )?.click()
    </script>""",
    unsafe_allow_javascript=True,
)
