"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cache_core.cli.report.content import FEW, Report, percent, usd


def markdown(report: Report) -> str:
    """Return the report as a Markdown document."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    sums = report.sums
    yield f"# What the cache {_code(report.namespace)} did"
    yield ""
    yield f"{report.range}: {sums.lookups:,} lookups, {sums.answered:,} answered."
    if report.is_short:
        yield ""
        yield f"Fewer than {FEW} lookups that could be answered: rates say nothing."
    yield from _table(
        "Targets",
        ("", "found", "target", ""),
        [(item.name, item.found, item.wanted, item.verdict) for item in report.targets],
    )
    yield from _table("Money and time", ("", ""), report.money)
    yield ""
    yield report.price
    rows = [
        (
            _code(item.name), f"{item.sums.asked:,}", percent(item.sums.hit_rate),
            f"{item.sums.wrong:,} of {item.sums.wrong + item.sums.correct:,}",
            usd(item.sums.saved_usd),
        )
        for item in report.intents
    ]  # fmt: skip
    if rows:
        yield from _table(
            "By intent", ("intent", "lookups", "hit rate", "judged wrong", "saved"), rows
        )
    if report.reasons:
        yield from _table(
            "Why there was no answer",
            ("reason", "lookups", "which means"),
            [(item.name, f"{item.lookups:,}", item.meaning) for item in report.reasons],
        )
    if report.advice:
        yield ""
        yield "## What would raise the hit rate"
        yield ""
        for text in report.advice:
            yield f"- {text}"


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _code(text: str) -> str:
    return f"`{text}`"
