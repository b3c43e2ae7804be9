"""A report as one HTML file, which loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from cache_core.cli.report.content import FEW, HIT_RATE, Report, moment, percent, usd
from cache_core.cli.report.svg import Bar, bars
from cache_core.observability.history import DAY, Period, total
from cache_core.observability.hours import HOUR
from cache_core.observability.sums import Sums

_BY_HOUR_SECONDS = 3 * DAY
"""Range up to which the charts have a bar for each hour."""

_STYLE = """
:root{--ground:#fff;--text:#14262d;--quiet:#50646d;--line:#d5dee1;--good:#0b7a75;--rest:#93a3ab;
--bad:#b4530a}
@media(prefers-color-scheme:dark){:root{--ground:#0e171b;--text:#e6eef0;--quiet:#a3b4bb;
--line:#2c3c43;--good:#2bbbad;--rest:#6b7f88;--bad:#f3a35c}}
body{background:var(--ground);color:var(--text);font:16px/1.5 system-ui,sans-serif;margin:0 auto;
max-width:760px;padding:24px 20px 48px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:32px 0 8px}p{margin:6px 0}
.quiet{color:var(--quiet)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.card{border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.card b{display:block;font-size:24px;line-height:1.3}
.met{color:var(--good)}.missed{color:var(--bad)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:5px 16px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--quiet);font-weight:normal}.n{text-align:right;white-space:nowrap}
svg{display:block;width:100%;height:auto}svg text{fill:var(--quiet);font-size:11px}
.grid{stroke:var(--line)}.target{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 4}
.part0{fill:var(--good)}.part1{fill:var(--rest)}
.key i{display:inline-block;width:11px;height:11px;margin:0 6px 0 0;border-radius:2px}
.key span{margin-right:18px}
@media(max-width:500px){svg text{font-size:20px}th,td{padding-right:8px;font-size:14px}}
"""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><main>
"""

_KEY = """<p class="key quiet"><span><i style="background:var(--good)"></i>saved</span>
<span><i style="background:var(--rest)"></i>paid</span></p>"""


def page(report: Report) -> str:
    """Return the report as an HTML document."""
    sums = report.sums
    title = f"What the cache {report.namespace} did"
    summary = f"{report.range}: {sums.lookups:,} lookups, {sums.answered:,} answered."
    parts = [_HEAD.format(title=escape(title), style=_STYLE)]
    parts += [f"<h1>{escape(title)}</h1>", f'<p class="quiet">{summary}</p>']
    if report.is_short:
        parts.append(f"<p>Fewer than {FEW} lookups that could be answered: rates say nothing.</p>")
    parts.append('<div class="cards">')
    for item in report.targets:
        kind = {True: "met", False: "missed", None: "quiet"}[item.met]
        parts.append(
            f'<div class="card">{escape(item.name)}<b>{escape(item.found)}</b>'
            f'<span class="{kind}">{item.verdict}</span> '
            f'<span class="quiet">target: {escape(item.wanted)}</span></div>'
        )
    parts.append("</div>")
    parts += _charts(report)
    parts += ["<h2>Money and time</h2>", _table((), report.money, numbers={1})]
    parts.append(f'<p class="quiet">{escape(report.price)}</p>')
    parts += _intents(report)
    if report.reasons:
        rows = [(item.name, f"{item.lookups:,}", item.meaning) for item in report.reasons]
        parts.append("<h2>Why there was no answer</h2>")
        parts.append(_table(("reason", "lookups", "which means"), rows, numbers={1}))
    if report.advice:
        parts.append("<h2>What would raise the hit rate</h2><ul>")
        parts += [f"<li>{escape(text)}</li>" for text in report.advice]
        parts.append("</ul>")
    parts.append("</main></body></html>\n")
    return "".join(parts).replace(" %", "&nbsp;%")


def _intents(report: Report) -> list[str]:
    if not report.intents:
        return []
    rows = [
        (
            item.name, f"{item.sums.asked:,}", percent(item.sums.hit_rate),
            f"{item.sums.wrong:,} of {item.sums.wrong + item.sums.correct:,}",
            usd(item.sums.saved_usd),
        )
        for item in report.intents
    ]  # fmt: skip
    names = ("intent", "lookups", "hit rate", "wrong", "saved")
    return ["<h2>By intent</h2>", _table(names, rows, numbers={1, 2, 3, 4})]


def _charts(report: Report) -> list[str]:
    slots = _slots(report)
    rates = [
        Bar(name, [] if sums.hit_rate is None else [sums.hit_rate],
            f"{name}: {percent(sums.hit_rate)} of {sums.answerable:,}")
        for name, sums in slots
    ]  # fmt: skip
    money = [
        Bar(name, [sums.net_usd, max(sums.full_usd - sums.net_usd, 0.0)],
            f"{name}: {usd(sums.net_usd)} saved of {usd(sums.full_usd)}")
        for name, sums in slots
    ]  # fmt: skip
    most = max((sums.full_usd for _, sums in slots), default=0.0)
    whole = report.sums
    return [
        "<h2>Hit rate</h2>",
        bars(
            f"Hit rate over time: {percent(whole.hit_rate)} overall, the target is "
            f"{percent(HIT_RATE)}",
            rates, 1.0, "{:.0%}", HIT_RATE,
        ),
        "<h2>Cost, in USD</h2>",
        bars(
            f"Cost over time: {usd(whole.net_usd)} saved of {usd(whole.full_usd)}",
            money, most, "{:,.2f}",
        ),
        _KEY,
    ]  # fmt: skip


def _slots(report: Report) -> list[tuple[str, Sums]]:
    """Return the sums of each hour of the range, or of each day of a longer one, with its name."""
    by_hour = report.until - report.since <= _BY_HOUR_SECONDS
    width, form = (HOUR, "%H:%M") if by_hour else (DAY, "%m-%d")
    first, end = int(report.since // width), int(-(-report.until // width))
    found: dict[int, list[Period]] = {number: [] for number in range(first, end)}
    for item in report.periods:
        found.setdefault(item.start // width, []).append(item)
    return [(moment(number * width, form), total(found[number])) for number in sorted(found)]


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        kinds = [' class="n"' if number in numbers else "" for number in range(len(row))]
        pairs = zip(kinds, row, strict=True)
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in pairs)

    head = f"<thead><tr>{cells(names, 'th')}</tr></thead>" if names else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'
