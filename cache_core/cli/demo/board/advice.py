"""Line of the board about the similarity threshold: what the verdicts recommend."""

from __future__ import annotations

from rich.text import Text

from cache_core.cli.demo.board.looks import EDGE
from cache_core.cli.demo.truth import LIMIT, Truth


def advice(truth: Truth) -> list[Text]:
    """Return the recommendation, from its longest wording to its shortest; none before it."""
    found = truth.recommendation
    if found is None or not truth.verdicts:
        return []
    now = f"{found.current.threshold:g}"
    short = f"{truth.verdicts:,} verdicts by the demo"
    by = f"{short}, which knows the right answers"
    limit = f"{LIMIT:.0%} wrong hits"
    if found.threshold is None or found.estimate is None:
        what = f"more verdicts needed to recommend one for at most {limit}"
        return [_line(now, what, by), _line(now, "more verdicts needed", short)]
    if found.threshold == found.current.threshold:
        return [_line(now, f"recommended for at most {limit}", by), _line(now, "kept", short)]
    best = f"{found.threshold:g} recommended"
    effect = f"{found.estimate.hit_rate:.1%} hits instead of {found.current.hit_rate:.1%}"
    return [
        _line(now, f"{best} for at most {limit}: {effect}", by),
        _line(now, f"{best} for at most {limit}: {effect}", short),
        _line(now, f"{best}: {effect}", short),
        _line(now, best, short),
    ]


def _line(now: str, what: str, by: str) -> Text:
    return Text.assemble(("threshold ", EDGE), now, ", ", (what, "bold"), (f"  ({by})", EDGE))
