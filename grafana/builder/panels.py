"""Four kinds of panels: a number, lines over time, bars side by side, and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as shared_prometheus

TAG = "glasscache"
DATASOURCE = shared.DataSourceRef(type_val="prometheus", uid="${datasource}")

Steps = Sequence[tuple[float | None, str]]
"""Colours, and the value from which each applies; the first from None."""

PLAIN: Steps = ((None, "blue"),)
"""Colour of a value that is neither good nor bad."""

TITLES = {
    "glasscache-overview": "Overview",
    "glasscache-tiers": "Tiers",
    "glasscache-semantic": "Semantic",
    "glasscache-stores": "Stores",
}
"""Titles of the dashboards, by uid."""

RUNBOOKS = "https://github.com/glasscache/glasscache/blob/main/docs/runbooks/"
"""Pages of the alerts."""

_GREY = "#8e8e8e"
_TIERS = {"l1": "green", "l2": "blue", "l3": "purple", "l4": "#19b5b5"}
COLORS: Mapping[str, str] = {
    # endings of a lookup, and verdicts on hits
    "hit": "green",
    "partial": "yellow",
    "miss": "orange",
    "error": "red",
    "bypass": _GREY,
    "cancelled": "#c0c0c0",
    # puts, refreshes and invalidations
    "stored": "green",
    "queued": "blue",
    "dropped": "orange",
    "served stale": "yellow",
    "refreshed, stored": "green",
    "refreshed, error": "red",
    "refreshed, skipped": "blue",
    "refreshed, cancelled": "#c0c0c0",
    "by message": "green",
    "by document": "blue",
    "by tag": "purple",
    "by user": "orange",
    "by writer": "yellow",
    "by answer": "#19b5b5",
    "only in part": "yellow",
    "nobody": "orange",
    "correct (verify)": "green",
    "correct (feedback)": "light-green",
    "correct (review)": "super-light-green",
    "wrong (verify)": "red",
    "wrong (feedback)": "light-red",
    "wrong (review)": "super-light-red",
    # tiers, with their savings and costs
    **_TIERS,
    **{f"saved by {level}": color for level, color in _TIERS.items()},
    "spent on embedding": "orange",
    "spent on verification": "yellow",
    "spent on approval": "purple",
    # calls of the application's functions
    "ok": "green",
    "timeout": "orange",
    "applied": "green",
    "refused": "red",
    # reasons for a miss of L2
    "cold": "blue",
    "expired": "light-blue",
    "invalidated": "purple",
    "other_scope": "yellow",
    "below_threshold": "orange",
    "unsure": "light-orange",
    "guard_veto": "light-purple",
    "has_history": "light-green",
    "truncated": "light-yellow",
    "unreadable": "dark-yellow",
    "warming": "dark-blue",
    "context_limit": "dark-purple",
    "left_out": "dark-green",
    "too_old": "super-light-blue",
    "day_over": "super-light-purple",
    "corrupt": "dark-orange",
    "not_approved": "super-light-orange",
    "approval_failed": "light-red",
    "approval_late": "super-light-yellow",
    "approval_budget": "super-light-green",
    # burn rates
    "over 5m": "yellow",
    "over 1h": "orange",
    "over 6h": "purple",
    "over 1d": "blue",
    "over 3d": "green",
    # quantiles
    "p50": "green",
    "p95": "blue",
    "p99": "purple",
    # backends
    "redis": "yellow",
    "chroma": "blue",
    "vectors": "blue",
    "embedder": "purple",
    "embedded": "green",
}
"""Colours of lines by their legend, the same on all dashboards: red is a failure, green the cache's
purpose."""


def rising(warning: float, bad: float) -> Steps:
    """Return colours for a value that is bad if high."""
    return ((None, "green"), (warning, "orange"), (bad, "red"))


def falling(warning: float, good: float) -> Steps:
    """Return colours for a value that is bad if low."""
    return ((None, "red"), (warning, "orange"), (good, "green"))


@dataclass(frozen=True)
class Query:
    """PromQL query of a panel.

    Attributes:
        expr: The query.
        legend: Legend of each series, with {{label}}s.
        exemplar: Whether to request the exemplars, too.
        instant: Whether it covers the whole time range, and so has one value.
        unit: Unit of its column in a table.
    """

    expr: str
    legend: str = ""
    exemplar: bool = False
    instant: bool = False
    unit: str = "none"


@dataclass(frozen=True)
class Panel:
    """Panel.

    Attributes:
        kind: The kind of display.
        title: A question or a noun.
        description: The content, and its meaning.
        queries: The queries.
        unit: Grafana's name of the unit.
        then: uid of the dashboard to look at next.
        steps: Colours by value; of lines, drawn as dashed lines.
        names: Texts for values, with their colours.
        none: Text without data.
        stacked: Whether lines add up.
        limits: Beginnings of the legends of limits, drawn dashed and red.
        ends: Lowest and highest value of the axis, if known.
        decimals: Digits after the point.
        logarithmic: Whether the axis is logarithmic.
        says: Value of the series that a number shows; auto is the only one, if there is one series.
        colored: Legends of lines whose colours are those of `COLORS`.
        by_level: Tiers whose lines, named after tier and reason, are shades of the tier's colour.
        long_names: Whether the names of bars may be long, and so are above them.
        of_alerts: Whether its values link to the runbooks of the alerts they are named after.
    """

    kind: Literal["stat", "timeseries", "bargauge", "table"]
    title: str
    description: str
    queries: Sequence[Query]
    unit: str
    then: str
    steps: Steps = PLAIN
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    none: str = ""
    stacked: bool = False
    limits: str = ""
    ends: tuple[float | None, float | None] = (None, None)
    decimals: int | None = None
    logarithmic: bool = False
    says: Literal["auto", "name", "value_and_name"] = "auto"
    colored: Sequence[str] = ()
    long_names: bool = False
    of_alerts: bool = False
    by_level: Sequence[str] = ()

    def build(self, number: int, place: model.GridPos) -> Any:
        """Return the SDK's builder of the panel.

        Args:
            number: The panel's id in the dashboard.
            place: The place on the grid.
        """
        made: Any
        match self.kind:
            case "stat":
                made = _stat(self)
            case "timeseries":
                made = _lines(self)
            case "bargauge":
                made = _bars(self)
            case "table":
                made = _table(self)
        made.id(number).grid_pos(place).title(self.title).description(self.description)
        made.datasource(DATASOURCE).unit(self.unit).links([_link(self.then)])
        made.thresholds(
            build.ThresholdsConfig()
            .mode(model.ThresholdsMode.ABSOLUTE)
            .steps([model.Threshold(value=value, color=color) for value, color in self.steps])
        )
        if mappings := list(self._mappings()):
            made.mappings(mappings)
        if self.none:
            made.no_value(self.none)
        if self.decimals is not None:
            made.decimals(self.decimals)
        low, high = self.ends
        if low is not None:
            made.min(low)
        if high is not None:
            made.max(high)
        if self.of_alerts:
            made.data_links([_runbook()])
        for index, query in enumerate(self.queries):
            target = _target(query, index)
            if self.kind == "table":
                target.format(shared_prometheus.PromQueryFormat.TABLE)
            made.with_target(target)
        return made

    def _mappings(self) -> Iterator[model.ValueMap | model.SpecialValueMap]:
        """Yield the texts for values, and for none: neither good nor bad."""
        if self.names:
            results = {
                value: model.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(self.names.items())
            }
            yield model.ValueMap(options=results)
        if self.none and self.kind == "stat":
            nothing = model.ValueMappingResult(text=self.none, color=_GREY)
            match = model.SpecialValueMatch.NULL
            yield model.SpecialValueMap(
                options=model.DashboardSpecialValueMapOptions(match=match, result=nothing)
            )


def _target(query: Query, index: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(DATASOURCE).expr(query.expr).ref_id(_ref(index))
    target.legend_format(query.legend or "__auto")
    if query.exemplar:
        target.exemplar(exemplar=True)
    return target.instant() if query.instant else target.range()


def _ref(index: int) -> str:
    return chr(ord("A") + index)


def _link(uid: str) -> build.DashboardLink:
    return (
        build.DashboardLink(f"Next: {TITLES[uid]}")
        .type(model.DashboardLinkType.LINK)
        .url(f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}")
    )


def _runbook() -> build.DashboardLink:
    name = "${__field.labels.alertname}"
    link = build.DashboardLink(f"Runbook of {name}").type(model.DashboardLinkType.LINK)
    return link.url(f"{RUNBOOKS}{name}.md").target_blank(target_blank=True)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)


def _by_value() -> build.FieldColor:
    return build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)


def _stat(panel: Panel) -> stat.Panel:
    moving = not any(query.instant for query in panel.queries)
    graph = shared.BigValueGraphMode.AREA if moving else shared.BigValueGraphMode.NONE
    return (
        stat.Panel()
        .text_mode(shared.BigValueTextMode(panel.says))
        .reduce_options(_last())
        .color_mode(shared.BigValueColorMode.VALUE)
        .graph_mode(graph)
        .color_scheme(_by_value())
    )


def _bars(panel: Panel) -> bargauge.Panel:
    place = shared.BarGaugeNamePlacement
    return (
        bargauge.Panel()
        .reduce_options(_last())
        .orientation(shared.VizOrientation.HORIZONTAL)
        .display_mode(shared.BarGaugeDisplayMode.BASIC)
        .show_unfilled(show_unfilled=True)
        .text(common.VizTextDisplayOptions().title_size(12).value_size(14))
        .sizing(shared.BarGaugeSizing.MANUAL)
        .name_placement(place.TOP if panel.long_names else place.LEFT)
        .max_viz_height(36)
        .min(0)
        .color_scheme(_by_value())
    )


def _table(panel: Panel) -> table.Panel:
    """Return a table with a row for each set of labels and a column for each query."""
    columns = {f"Value #{_ref(index)}": query.legend for index, query in enumerate(panel.queries)}
    made = (
        table.Panel()
        .show_header(show_header=True)
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "renameByName": columns},
            )
        )
    )
    for query in panel.queries:
        made.override_by_name(
            query.legend, [model.DynamicConfigValue(id_val="unit", value=query.unit)]
        )
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    stacking = shared.StackingMode.NORMAL if panel.stacked else shared.StackingMode.NONE
    style = (
        shared.GraphThresholdsStyleMode.DASHED
        if len(panel.steps) > 1
        else shared.GraphThresholdsStyleMode.OFF
    )
    made = (
        timeseries.Panel()
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1)
        .fill_opacity(40 if panel.stacked else 0)
        .show_points(shared.VisibilityMode.AUTO)
        .stacking(common.StackingConfig().mode(stacking))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
        .tooltip(
            common.VizTooltipOptions()
            .mode(shared.TooltipDisplayMode.MULTI)
            .sort(shared.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(shared.LegendDisplayMode.LIST)
            .placement(shared.LegendPlacement.BOTTOM)
        )
    )
    if (flat := _FLAT.get(panel.unit)) is not None and panel.ends[1] is None:
        made.axis_soft_max(flat)
    if panel.logarithmic:
        made.scale_distribution(
            common.ScaleDistributionConfig().type(shared.ScaleDistribution.LOG).log(10)
        )
    for level in panel.by_level:
        shades = {"mode": "shades", "fixedColor": COLORS[level]}
        made.override_by_regexp(
            f"/^{level} /", [model.DynamicConfigValue(id_val="color", value=shades)]
        )
    for legend in panel.colored:
        fixed = {"mode": "fixed", "fixedColor": COLORS[legend]}
        made.override_by_name(legend, [model.DynamicConfigValue(id_val="color", value=fixed)])
    if panel.limits:
        made.override_by_regexp(f"/^{panel.limits}/", _LIMIT)
    return made


_FLAT = {"none": 1, "cps": 0.1, "wps": 0.1, "reqps": 0.1, "ops": 0.1, "s": 0.00001, "suffix:x": 1}
"""Least upper end of an axis by unit: without one Grafana draws zeros on an axis up to 100."""

_LIMIT = [
    model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "red"}),
    model.DynamicConfigValue(
        id_val="custom.lineStyle", value={"fill": "dash", "dash": [10.0, 10.0]}
    ),
    model.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
    model.DynamicConfigValue(id_val="custom.showPoints", value="never"),
    model.DynamicConfigValue(id_val="custom.lineInterpolation", value="stepAfter"),
]
