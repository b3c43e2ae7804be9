"""Findings as a document, and on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cache_core.cli.console import out
from cache_core.cli.doctor.finding import CHECKS, LEVELS, Finding, Level

_STYLES: dict[Level, str] = {
    "failure": "bold red", "warning": "yellow", "note": "cyan", "ok": "green", "skipped": "dim",
}  # fmt: skip


def counts_of(findings: Sequence[Finding]) -> Counter[Level]:
    """Return the number of findings by level."""
    return Counter(item.level for item in findings)


def document(namespace: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings as JSON values."""
    counts = counts_of(findings)
    return {
        "namespace": namespace,
        "counts": {level: counts[level] for level in LEVELS},
        "findings": [
            {
                "name": item.name, "level": item.level, "subject": item.check.subject,
                "checked": item.check.what, "found": item.found, "why": item.check.why,
                "fix": item.fix,
            }
            for item in findings
        ],
    }  # fmt: skip


def show(findings: Sequence[Finding]) -> None:
    """Print the findings by subject, and a line that counts them."""
    for subject in dict.fromkeys(check.subject for check in CHECKS.values()):
        of_it = [item for item in findings if item.check.subject == subject]
        out.print(subject, style="bold")
        shown = Table.grid(padding=(0, 1))
        shown.add_column(width=max(map(len, LEVELS)))
        shown.add_column(overflow="fold")
        for item in of_it:
            if item.level != "skipped":
                shown.add_row(Text(item.level, _STYLES[item.level]), _in_words(item))
        for line in _skipped(of_it):
            shown.add_row(Text("skipped", _STYLES["skipped"]), Text(line, "dim"))
        out.print(Padding(shown, (0, 0, 1, 2)))
    out.print(_summary(findings))


def _in_words(item: Finding) -> Text:
    text = Text.assemble((item.name, "bold"), "  ", item.found)
    if item.level != "ok":
        text.append(f"\nWhy: {item.check.why}", "dim")
        text.append(f"\nFix: {item.fix}")
    return text


def _skipped(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each reason; without names where it skips all."""
    left = [item for item in findings if item.level == "skipped"]
    for reason in dict.fromkeys(item.found for item in left):
        names = [item.name for item in left if item.found == reason]
        yield reason if len(names) == len(findings) else f"{', '.join(names)}: {reason}"


def _summary(findings: Sequence[Finding]) -> Text:
    text, counts = Text(), counts_of(findings)
    for level in LEVELS:
        if not counts[level]:
            continue
        plural = level if level in {"ok", "skipped"} else f"{level}s"
        text.append(f"{', ' if text else ''}{counts[level]} ")
        text.append(level if counts[level] == 1 else plural, _STYLES[level])
        if level in {"failure", "warning"}:
            names = ", ".join(item.name for item in findings if item.level == level)
            text.append(f" ({names})")
    return text.append(".")
