"""Dashboard: variables, annotations, links, and the layout of its panels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.builder.panels import DATASOURCE, TAG, Panel
from grafana.builder.queries import BUILDS, FIRING, RETUNED, WHERE

_COLUMNS = 24
_NOISE = ("auto", "auto_count", "auto_min", "placement")
"""Fields that the SDK adds: keys of interval variables on every variable, and a placement that
hides links and annotations in a menu."""


@dataclass(frozen=True)
class Placed:
    """Panel and its size on the grid of 24 columns; a unit of height is 30 pixels."""

    panel: Panel
    width: int
    height: int = 8


@dataclass(frozen=True)
class Section:
    """Heading of a row and the panels under it, from left to right."""

    title: str
    panels: Sequence[Placed]


@dataclass(frozen=True)
class Board:
    """Dashboard.

    Attributes:
        uid: Permanent id in its address: alerts and other dashboards link to it.
        title: The title.
        description: The purpose.
        sections: Sections from top to bottom.
        with_redis: Whether it has variables for redis_exporter's job and instance.
    """

    uid: str
    title: str
    description: str
    sections: Sequence[Section]
    with_redis: bool = False

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.uid}.json"


def to_json(board: Board) -> str:
    """Return *board* in Grafana's format, keys sorted, panels numbered in reading order.

    Raises:
        ValueError: If a line of panels is wider than the grid.
    """
    made = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(board))
        .annotations(_annotations())
        .link(_siblings())
    )
    top, number = 0, 1
    for section in board.sections:
        row = build.Row(section.title).id(number)
        made.with_row(row.grid_pos(model.GridPos(h=1, w=_COLUMNS, x=0, y=top)))
        top, number = top + 1, number + 1
        left, tallest = 0, 0
        for placed in section.panels:
            if left + placed.width > _COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            place = model.GridPos(h=placed.height, w=placed.width, x=left, y=top)
            made.with_panel(placed.panel.build(number, place))
            left, tallest, number = left + placed.width, max(tallest, placed.height), number + 1
        top += tallest
    found = json.loads(JSONEncoder().encode(made.build()), object_hook=_without_noise)
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _without_noise(value: dict[str, Any]) -> dict[str, Any]:
    is_legend = "displayMode" in value
    return {key: held for key, held in value.items() if key not in _NOISE or is_legend}


def _variables(board: Board) -> list[Any]:
    source = build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    found: list[Any] = [
        source,
        _values(
            "cluster", 'cache_build_info{cache!=""}', "Clusters, if scrapes name them.", every=".*"
        ),
        _values(
            "namespace",
            'cache_build_info{cache!="",cluster=~"$cluster"}',
            "Namespaces of Kubernetes, if scrapes name them.",
            every=".*",
        ),
        _values(
            "job",
            f'cache_build_info{{cache!="",{WHERE}}}',
            "The agents: scrape jobs that have a cache.",
        ),
        _values(
            "cache",
            f'cache_build_info{{{WHERE},job=~"$job"}}',
            "The namespaces of the caches.",
        ),
        _values(
            "instance",
            f'cache_build_info{{{WHERE},job=~"$job",cache=~"$cache"}}',
            "The agents' processes.",
            every=".+",
        ),
    ]
    if board.with_redis:
        found += [
            _values(
                "redis_job",
                'redis_up{cluster=~"$cluster"}',
                "The scrape jobs of redis_exporter.",
                of="job",
            ),
            _values(
                "redis_instance",
                'redis_up{cluster=~"$cluster",job=~"$redis_job"}',
                "The Redis servers, as redis_exporter's target names them.",
                of="instance",
                every=".+",
            ),
        ]
    return found


def _values(
    name: str, metric: str, description: str, of: str = "", every: str = ""
) -> build.QueryVariable:
    """Return a variable with the values of a label.

    Args:
        name: Name of the variable.
        metric: Selector of the series that have the label.
        description: What it chooses.
        of: The label, if it is called otherwise.
        every: Pattern for All; default: any of the listed values, and nothing else.
    """
    query = f"label_values({metric}, {of or name})"
    made = (
        build.QueryVariable(name)
        .label(name.replace("_", " "))
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .definition(query)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    return made.all_value(every) if every else made


def _annotations() -> list[Any]:
    return [
        _annotation(
            "Alerts",
            "red",
            FIRING,
            "{{alertname}}",
            "{{severity}} {{cluster}} {{namespace}} {{job}} {{cache}} {{instance}}",
        ),
        _annotation(
            "Tuning",
            "blue",
            RETUNED,
            "Tuning of {{cache}} changed",
            "version {{version}}, {{cluster}} {{namespace}} {{job}}",
        ),
        _annotation(
            "Releases",
            "purple",
            BUILDS,
            "glasscache {{version}}",
            "started in {{cluster}} {{namespace}} {{job}}",
        ),
    ]


def _annotation(name: str, color: str, query: str, title: str, text: str) -> build.AnnotationQuery:
    return (
        build.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(enable=True)
        .icon_color(color)
        .target(prometheus.Dataquery().expr(query).ref_id("Anno").interval("60s"))
        .expr(query)
        .step("60s")
        .title_format(title)
        .text_format(text)
    )


def _siblings() -> build.DashboardLink:
    return (
        build.DashboardLink("glasscache")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
        .tooltip("The other dashboards of the cache, with these variables and this time")
    )
