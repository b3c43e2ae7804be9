"""Charts with title, units, labelled marks, and alternative texts."""

from dashboard.charts.base import Chart
from dashboard.charts.history import money, rates
from dashboard.charts.overview import endings, hit_rate, latency, reasons
from dashboard.charts.replayed import ages, evidence, sharing
from dashboard.charts.threshold import DRAWN, threshold_curve, threshold_wrong

__all__ = [
    "DRAWN",
    "Chart",
    "ages",
    "endings",
    "evidence",
    "hit_rate",
    "latency",
    "money",
    "rates",
    "reasons",
    "sharing",
    "threshold_curve",
    "threshold_wrong",
]
