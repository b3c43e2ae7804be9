"""The pictures: every panel of every dashboard, drawn by Grafana's own components.

They come from npm, 600 MB, and are not fetched here: `make pictures` does, and then runs this.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grafana import generate
from grafana.live import Prometheus
from grafana.pictures import build, draw
from grafana.pictures.answers import Span
from tests.support import servers

Json = dict[str, Any]

pytestmark = [
    pytest.mark.pictures,
    pytest.mark.server,
    pytest.mark.browser,
    pytest.mark.timeout(300),
]


@pytest.fixture(autouse=True)
def _components() -> None:
    """Skip the tests where the components are not there."""
    servers.require("chromium")
    if not build.has_components():
        pytest.skip("Grafana's components are not there: make pictures")


def watched(prometheus: Prometheus, **chosen: str) -> Span:
    """Return the time since the demo was started, however long its phases took."""
    return Span.back(time.time() - prometheus.start, 1.0, None, **chosen)


@pytest.mark.parametrize("chosen", [{"cache": "shop"}, {}], ids=["one cache", "two caches"])
def test_no_panel_is_empty_fails_or_has_a_title_that_is_cut(
    live: tuple[Prometheus, str], chosen: dict[str, str], tmp_path: Path
) -> None:
    """On live data every panel shows something, under a title that can be read."""
    prometheus, _ = live
    assert draw.draw_all(prometheus, watched(prometheus, **chosen), tmp_path) == []
    for name in (f"{board.uid}.png" for board in generate.BOARDS):
        with Image.open(tmp_path / name) as picture:
            assert picture.width == draw.WIDTH
            assert len(picture.getcolors() or ()) > 20


def test_a_cut_title_an_empty_panel_and_an_error_are_found(
    live: tuple[Prometheus, str], tmp_path: Path
) -> None:
    """Each fault of a panel is reported with its dashboard and title."""
    prometheus, _ = live
    board = json.loads((generate.DIRECTORY / "glasscache-overview.json").read_text())
    cut, empty, failing = [one for one in board["panels"] if one["type"] == "timeseries"][:3]
    board["panels"] = [cut, empty, failing]
    cut["title"] = "Does the hit rate " + "of every cache " * 20 + "reach its objective?"
    empty["targets"] = [empty["targets"][0] | {"expr": "vector(0) > 1"}]
    del failing["options"]
    (tmp_path / "board.json").write_text(json.dumps(board))
    found = draw.draw_all(prometheus, watched(prometheus), tmp_path, tmp_path)
    title = board["title"]
    assert found[:2] == [
        f"{title}: {cut['title']}: the title is cut",
        f"{title}: {empty['title']}: no data",
    ]
    assert found[2].startswith(f"{title}: {failing['title']}: TypeError")
