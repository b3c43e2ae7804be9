"""Draws the dashboards on the data of a Prometheus: `python -m grafana.pictures http://localhost:9090`.

Needs node with npm, and Chromium; the first time it fetches Grafana's components, 600 MB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana.live import Prometheus
from grafana.pictures.answers import Span
from grafana.pictures.draw import draw_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; return the exit code, which is 1 if something is wrong with a picture."""
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures", description=__doc__)
    parser.add_argument("url", help="of the Prometheus")
    parser.add_argument("--scrape", type=float, default=15.0, help="its scrape interval, seconds")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far to look back")
    parser.add_argument("--end", type=float, help="of the time shown, seconds since 1970; now")
    parser.add_argument("--to", type=Path, default=Path("docs/images/dashboards"), help="directory")
    options = parser.parse_args(arguments)
    span = Span.back(60 * options.minutes, options.scrape, options.end)
    wrong = draw_all(Prometheus(options.url, options.scrape, span.start), span, options.to)
    sys.stdout.writelines(f"{problem}\n" for problem in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
