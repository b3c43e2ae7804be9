"""Runs every query of the dashboards on a Prometheus: `python -m grafana.live http://localhost:9090`.

Reports the panels that would be empty there.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).with_name("dashboards")
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")
_VARIABLE = re.compile(r"\$(\w+)")
_OPTIONAL = ("cluster", "namespace")
"""Labels that not every Prometheus gives its targets."""

_ANY: Mapping[str, str] = {}


class Target(NamedTuple):
    """Query of a panel; `exemplar` and `instant` say how Grafana sends it."""

    dashboard: str
    panel: str
    expr: str
    exemplar: bool
    instant: bool


class Prometheus:
    """HTTP API of a Prometheus.

    Args:
        url: URL of the server.
        scrape: The scrape interval, in seconds.
        start: Begin of the dashboards' time range, in seconds since 1970.
    """

    def __init__(self, url: str, scrape: float, start: float) -> None:
        self.url = url.rstrip("/")
        self._scrape = scrape
        self.start = start

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an API response.

        Raises:
            ValueError: If Prometheus rejects the query, with its message.
            OSError: If it does not answer.
        """
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # the user's own
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise
            raise ValueError(error.read().decode()) from None

    def values(self, query: str, chosen: Mapping[str, str]) -> list[str]:
        """Return the values of a variable.

        Args:
            query: `label_values(selector, label)`.
            chosen: Values of the other variables.
        """
        found = _LABEL_VALUES.fullmatch(query)
        if found is None:
            msg = f"{query!r} is not label_values(selector, label)"
            raise ValueError(msg)
        selector = self.filled(found["selector"], chosen)
        answer: list[str] = self.get(
            f"label/{found['label']}/values", start=self.start, **{"match[]": selector}
        )
        return answer

    def all_of(self, dashboard: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, str]:
        """Return a dashboard's variables as Grafana fills them: All is one of the listed values.

        Args:
            dashboard: Its JSON.
            chosen: Values of the variables that are not All.
        """
        found = dict(chosen)
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and variable["name"] not in found:
                listed = "|".join(map(re.escape, self.values(variable["query"], found)))
                every = listed.replace("\\", r"\\")  # a pattern within a string of PromQL
                found[variable["name"]] = variable.get("allValue") or every
        return found

    def filled(self, expr: str, chosen: Mapping[str, str]) -> str:
        """Return *expr* with its variables replaced; those not in *chosen* match everything."""
        shown = max(1, round(time.time() - self.start))
        known = {
            "__rate_interval": f"{math.ceil(max(self._step + self._scrape, 4 * self._scrape))}s",
            "__interval": f"{math.ceil(self._step)}s",
            "__range": f"{shown}s",
            "__range_s": f"{shown}",
        } | dict(chosen)
        return _VARIABLE.sub(
            lambda match: known.get(match[1], ".*" if match[1] in _OPTIONAL else ".+"), expr
        )

    @property
    def _step(self) -> float:
        return max(self._scrape, (time.time() - self.start) / 1_000)

    def numbers(self, target: Target, chosen: Mapping[str, str] = _ANY) -> list[float]:
        """Return all finite numbers that Grafana would show for *target*."""
        expr = self.filled(target.expr, chosen)
        if target.instant:
            series = self.get("query", query=expr)["result"]
            texts = [one["value"][1] for one in series]
        else:
            series = self.get(
                "query_range", query=expr, start=self.start, end=time.time(), step=self._step
            )["result"]
            texts = [text for one in series for _, text in one["values"]]
        return [number for number in map(float, texts) if math.isfinite(number)]

    def exemplars(self, target: Target) -> list[dict[str, str]]:
        """Return the labels of the exemplars behind *target*."""
        expr = self.filled(target.expr, {})
        found = self.get("query_exemplars", query=expr, start=self.start, end=time.time())
        return [one["labels"] for series in found for one in series["exemplars"]]


def targets(dashboard: dict[str, Any]) -> Iterator[Target]:
    """Yield every query of a dashboard's panels."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield Target(
                dashboard["uid"],
                panel["title"],
                target["expr"],
                target.get("exemplar", False),
                target.get("instant", False),
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Report empty panels; return the exit code, which is 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m grafana.live", description=__doc__)
    parser.add_argument("url", help="of the Prometheus")
    parser.add_argument("--scrape", type=float, default=15.0, help="its scrape interval, seconds")
    parser.add_argument("--hours", type=float, default=6.0, help="how far to look back")
    options = parser.parse_args(arguments)
    prometheus = Prometheus(options.url, options.scrape, time.time() - options.hours * 3_600)
    empty = asked = 0
    for path in sorted(DIRECTORY.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        chosen = prometheus.all_of(dashboard, {})
        for target in targets(dashboard):
            asked += 1
            if not prometheus.numbers(target, chosen):
                empty += 1
                sys.stdout.write(f"{target.dashboard}: {target.panel}: no data\n  {target.expr}\n")
    sys.stdout.write(f"{asked - empty} of {asked} queries have data\n")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
