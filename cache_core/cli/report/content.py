"""Content of a report, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cache_core.cli.doctor.causes import CAUSES
from cache_core.config.tuning import Tuning
from cache_core.model.reasons import long
from cache_core.model.values import BYPASS_REASONS
from cache_core.observability import prices
from cache_core.observability.advice import advice_on_sharing
from cache_core.observability.fleet import InForce
from cache_core.observability.history import Period, total
from cache_core.observability.sums import REST, IntentSums, Sums

FAST_SECONDS = 0.1
HIT_RATE = 0.75
L1_SHARE = 0.3
SAVED_SHARE = 0.7

FEW = 50
"""Lookups below which a rate says nothing."""

_ADVISED = 3
_BYPASS = frozenset(BYPASS_REASONS)
_LEAST_SECONDS = 3_600.0
"""Shortest range from which a month is projected."""

_MONTH_SECONDS = 30 * 86_400.0


class Target(NamedTuple):
    """A figure against its target.

    Attributes:
        name: The figure.
        found: Its value, in words.
        wanted: The target, in words.
        met: Whether it is met; `None` if too little was counted.
    """

    name: str
    found: str
    wanted: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """Verdict in words: met, missed, or too few lookups."""
        return {True: "met", False: "missed", None: "too few lookups"}[self.met]


class Reason(NamedTuple):
    """A reason why lookups had no answer.

    Attributes:
        name: As counted.
        lookups: Number of lookups.
        share: Of the lookups that could be answered, 0 to 1.
        meaning: The reason in words.
        fix: What would help; empty if nothing is known.
    """

    name: str
    lookups: int
    share: float
    meaning: str
    fix: str


class IntentRow(NamedTuple):
    """Figures of an intent, by its name in words."""

    name: str
    sums: IntentSums


@dataclass(frozen=True, slots=True)
class Report:
    """Content of the report on a time range.

    Attributes:
        namespace: Of the caches.
        since, until: The range, seconds since the epoch.
        periods: Its hours or days.
        sums: Their sum.
        found: The tuning in force.
    """

    namespace: str
    since: float
    until: float
    periods: Sequence[Period]
    sums: Sums
    found: InForce

    @property
    def tuning(self) -> Tuning:
        """The tuning in force."""
        return self.found.tuning

    @property
    def range(self) -> str:
        """The range in words."""
        return f"{moment(self.since)} to {moment(self.until)} UTC"

    @property
    def targets(self) -> list[Target]:
        """The figures against their targets."""
        sums = self.sums
        slow = sums.quantile(0.95, hits_only=True)
        return [
            self._rate("Hit rate", sums.hit_rate, HIT_RATE, "75 % or more"),
            self._rate("Answered by L1", sums.served("l1"), L1_SHARE, "30 to 35 %, or more"),
            Target(
                "Time of a hit, p95",
                "-" if slow is None else f"{1000 * slow:,.3g} ms",
                "under 100 ms",
                None if slow is None or self.is_short else slow < FAST_SECONDS,
            ),
            self._rate("Cost saved", sums.saved_share, SAVED_SHARE, "70 to 90 %"),
        ]

    def _rate(self, name: str, rate: float | None, least: float, wanted: str) -> Target:
        met = None if rate is None or self.is_short else rate >= least
        return Target(name, percent(rate), wanted, met)

    @property
    def is_short(self) -> bool:
        """True if there are too few lookups for a rate."""
        return self.sums.answerable < FEW

    @property
    def money(self) -> list[tuple[str, str]]:
        """Names and values of the sums of money and time."""
        sums = self.sums
        first = self.periods[0].start if self.periods else self.until
        seconds = self.until - max(first, self.since)
        rows = [
            ("without a cache", usd(sums.full_usd)),
            ("with the cache", usd(sums.full_usd - sums.net_usd)),
            ("saved", usd(sums.net_usd)),
        ]
        if seconds >= _LEAST_SECONDS:
            month = usd(sums.net_usd / seconds * _MONTH_SECONDS)
            rows.append(("saved in 30 days at this pace", month))
        if sums.spent_usd:
            rows.insert(2, ("of that, embeddings and checks", usd(sums.spent_usd)))
        if sums.saved_seconds is not None:
            rows.append(("waiting time saved", f"{sums.saved_seconds / 3_600:,.1f} h"))
        return rows

    @property
    def price(self) -> str:
        """The price by which money was counted, in words."""
        return prices.in_words(self.sums, self.tuning, self.found.origins)

    @property
    def reasons(self) -> list[Reason]:
        """Reasons why lookups had no answer, most first; without bypasses."""
        answerable = self.sums.answerable or 1
        names = sorted(self.sums.reasons.items(), key=lambda pair: -pair[1])
        return [
            Reason(
                name, count, count / answerable, long(name) or name,
                CAUSES[name].fix if name in CAUSES else "",
            )
            for name, count in names
            if name not in _BYPASS
        ]  # fmt: skip

    @property
    def intents(self) -> list[IntentRow]:
        """Intents by the number of lookups, most first."""
        found = sorted(
            self.sums.intents.items(), key=lambda pair: (pair[0] == REST, -pair[1].asked)
        )
        return [IntentRow("all others" if name == REST else name, sums) for name, sums in found]

    @property
    def advice(self) -> list[str]:
        """Advice on raising the hit rate, most first."""
        if self.is_short:
            return []
        found = []
        for reason in self.reasons:
            text = f"{reason.meaning}. {reason.fix}" if reason.fix else ""
            if reason.name == "other_scope":
                text = self._sharing(reason)
            if text:
                found.append(f"Up to {100 * reason.share:.1f} points: {text}")
        return found[:_ADVISED]

    def _sharing(self, reason: Reason) -> str:
        named = [
            name
            for name, item in sorted(
                self.sums.intents.items(), key=lambda pair: -pair[1].other_scope
            )
            if item.other_scope and name != REST
        ]
        return advice_on_sharing(reason.lookups, self.sums.answerable, named)

    def document(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        sums = self.sums
        return {
            "namespace": self.namespace,
            "since": self.since,
            "until": self.until,
            "lookups": sums.lookups,
            "hit_rate": sums.hit_rate,
            "targets": [{**item._asdict(), "verdict": item.verdict} for item in self.targets],
            "money": {
                "without_cache_usd": round(sums.full_usd, 6),
                "saved_usd": round(sums.net_usd, 6),
                "spent_usd": round(sums.spent_usd, 6),
                "saved_share": sums.saved_share,
                "saved_seconds": sums.saved_seconds,
                "price": self.price,
            },
            "wrong_verdicts": sums.wrong,
            "verdicts": sums.judged,
            "intents": {
                item.name: {**item.sums._asdict(), "hit_rate": item.sums.hit_rate}
                for item in self.intents
            },
            "reasons": [item._asdict() for item in self.reasons],
            "advice": self.advice,
            "sums": sums._asdict() | {"intents": {}},
            "periods": [
                {
                    "start": item.start,
                    "seconds": item.seconds,
                    "lookups": item.sums.lookups,
                    "hit_rate": item.sums.hit_rate,
                    "saved_usd": round(item.sums.net_usd, 6),
                    "without_cache_usd": round(item.sums.full_usd, 6),
                }
                for item in self.periods
            ],
        }


def made(
    namespace: str, periods: Sequence[Period], since: float, until: float, found: InForce
) -> Report:
    """Return the report on *periods*; the range is widened to the hours that they have."""
    first = min([since, *(item.start for item in periods)])
    return Report(namespace, first, until, periods, total(periods), found)


def moment(when: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time of UTC."""
    return datetime.fromtimestamp(when, UTC).strftime(form)


def percent(share: float | None) -> str:
    """Return a share as text; a dash for none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def usd(value: float) -> str:
    """Return a sum of money as text."""
    return f"{value:,.2f} USD"
