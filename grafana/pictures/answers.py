"""Answers of a Prometheus to a dashboard, in the form that the page draws."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from grafana.live import Prometheus

Json = dict[str, Any]

_LABEL = re.compile(r"\{\{(\w+)\}\}")
_MOST_DOTS = 80


@dataclass(frozen=True)
class Span:
    """Time shown, in seconds since 1970.

    Attributes:
        start, end: Its ends.
        step: Seconds between two points.
        chosen: Values of the dashboard's variables; those left out are All.
    """

    start: float
    end: float
    step: float
    chosen: Mapping[str, str] = field(default_factory=dict)

    def filled(self, board: Json, prometheus: Prometheus) -> Span:
        """Return the same time with the values of all variables of a dashboard."""
        shown = max(1, round(self.end - self.start))
        chosen = prometheus.all_of(board, self.chosen)
        return replace(self, chosen={"__range": f"{shown}s", "__range_s": f"{shown}", **chosen})

    @classmethod
    def back(cls, seconds: float, scrape: float, end: float | None = None, **chosen: str) -> Span:
        """Return the last *seconds* before *end*, by default now, in steps that suit a picture."""
        last = time.time() if end is None else end
        return cls(last - seconds, last, max(scrape, seconds / 600), chosen)


def answered(board: Json, prometheus: Prometheus, span: Span) -> Json:
    """Return the dashboard with its panels' answers, marks and exemplars.

    Raises:
        ValueError: If Prometheus rejects a query.
        OSError: If it does not answer.
    """
    span = span.filled(board, prometheus)
    begin, end = (
        datetime.fromtimestamp(at, UTC).strftime("%H:%M") for at in (span.start, span.end)
    )
    return board | {
        "start": span.start * 1_000,
        "end": span.end * 1_000,
        "step": span.step * 1_000,
        "says": f"{begin} to {end} UTC",
        "marks": [
            mark for note in board["annotations"]["list"] for mark in _marks(note, prometheus, span)
        ],
        "panels": [
            panel
            | {
                "answers": [_answer(one, prometheus, span) for one in panel.get("targets", ())],
                "exemplars": _exemplars(panel, prometheus, span),
            }
            for panel in board["panels"]
        ],
    }


def _ranged(expr: str, prometheus: Prometheus, span: Span) -> list[Json]:
    query = prometheus.filled(expr, span.chosen)
    found: list[Json] = prometheus.get(
        "query_range", query=query, start=span.start, end=span.end, step=span.step
    )["result"]
    return found


def _answer(target: Json, prometheus: Prometheus, span: Span) -> Json:
    if target.get("instant"):
        query = prometheus.filled(target["expr"], span.chosen)
        found = prometheus.get("query", query=query, time=span.end)["result"]
    else:
        found = _ranged(target["expr"], prometheus, span)
    series = [
        {
            "name": _named(target["legendFormat"], one["metric"]),
            "labels": one["metric"],
            "times": [float(at) * 1_000 for at, _ in points],
            "values": [_number(value) for _, value in points],
        }
        for one in found
        for points in [one["values"] if "values" in one else [one["value"]]]
    ]
    return {"refId": target["refId"], "series": series}


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _named(legend: str, labels: Json) -> str:
    if legend == "__auto":
        return ""
    return " ".join(_LABEL.sub(lambda label: str(labels.get(label[1], "")), legend).split())


def _marks(note: Json, prometheus: Prometheus, span: Span) -> list[Json]:
    begun = (float(one["values"][0][0]) for one in _ranged(note["expr"], prometheus, span))
    return [
        {"time": at * 1_000, "color": note["iconColor"]}
        for at in begun
        if at > span.start + span.step
    ]


def _exemplars(panel: Json, prometheus: Prometheus, span: Span) -> list[tuple[float, float]]:
    found: set[tuple[float, float]] = set()
    for target in panel.get("targets", ()):
        if target.get("exemplar"):
            query = prometheus.filled(target["expr"], span.chosen)
            asked = prometheus.get("query_exemplars", query=query, start=span.start, end=span.end)
            found |= {
                (float(one["timestamp"]) * 1_000, float(one["value"]))
                for series in asked
                for one in series["exemplars"]
            }
    ordered = sorted(found)
    return ordered[:: max(1, len(ordered) // _MOST_DOTS)]
