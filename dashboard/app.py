"""The app's entry: who may come in, and which pages there are. Run by `glasscache dashboard`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.shell import admit

_HERE = Path(__file__).parent

# A local icon: one by name would be fetched from the internet.
st.set_page_config(
    page_title="glasscache",
    page_icon=str(_HERE / "icon.png"),
    layout="wide",
    menu_items={"about": "The cache for LLM agents that you can see through."},
)
# The bar at the top is as high as this; Streamlit leaves twice as much. What is about to be
# refreshed does not fade, and no sign of running comes and goes: the page would flicker every two
# seconds, and be too pale to read; what takes long has a spinner. And all that is chosen is seen.
st.html(
    """<style>
    [data-testid=stMainBlockContainer] {padding-top: 4.75rem; padding-bottom: 3rem}
    [data-stale=true] {opacity: 1 !important; transition: none !important}
    [data-testid=stStatusWidget]:has([data-testid=stStatusWidgetRunningIcon]) {display: none}
    [data-testid=stMultiSelect] [role=group] {height: auto; max-height: none}
    [data-testid=stMultiSelectTagsContainer], [data-testid=stMultiSelectTagsContainer] > span
    {flex-wrap: wrap; overflow: visible; height: auto; mask-image: none}
    </style>"""
)
if st.context.theme.type == "dark":
    # White, which Streamlit takes, cannot be read on a colour that is bright enough for the dark.
    st.html(
        """<style>
        [data-testid^=stBaseButton-primary]:enabled *, [data-testid=stMultiSelect] [data-tag] *
        {color: #06201e !important}
        </style>"""
    )
st.logo(str(_HERE / "logo.svg"), size="large")

_PAGES = [
    ("overview", "Overview", ":material/monitoring:"),
    ("tuning", "Tuning", ":material/tune:"),
    ("review", "Review", ":material/rule:"),
    ("entries", "Entries", ":material/search:"),
    ("alerts", "Alerts", ":material/notifications:"),
    ("audit", "Audit", ":material/history:"),
]

_page = st.navigation(
    [
        st.Page(
            _HERE / "views" / f"{name}.py", title=title, icon=icon, url_path=name, default=not n
        )
        for n, (name, title, icon) in enumerate(_PAGES)
    ],
    position="top",
)
admit()
_page.run()
# On a narrow screen the list of pages lies over the page, and Streamlit leaves it there. The title
# is in it so that it runs once for each page that is opened.
st.html(
    f"""<script>/* {_page.title} */
    if (innerWidth < 768) document.querySelector(
        "[data-testid=stSidebar][data-collapsed=false] [data-testid=stSidebarCollapseButton] button"
    )?.click()
    </script>""",
    unsafe_allow_javascript=True,
)
