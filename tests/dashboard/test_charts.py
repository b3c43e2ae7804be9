"""Charts of the Streamlit app, as the plain values that they draw."""

from __future__ import annotations

import pytest

from dashboard.charts.overview import labelled


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([(100.0, 1)], ["v1"]),
        ([(100.0, 1), (500.0, 2)], ["v1", "v2"]),
        ([(510.0, 3), (500.0, 2), (100.0, 1)], ["v1", "v2–3", ""]),
        ([(500.0, 2), (510.0, 3), (579.0, 4), (581.0, 5)], ["v2–4", "", "", "v5"]),
    ],
)
def test_labels_of_changes_do_not_lie_on_each_other(
    changes: list[tuple[float, int]], labels: list[str]
) -> None:
    """A label takes 80 of a chart's 1,000 seconds; each change keeps a line of its own."""
    rows = labelled(changes, 1_000.0)
    assert [row["label"] for row in rows] == labels
    assert [row["time"].timestamp() for row in rows] == sorted(at for at, _ in changes)
