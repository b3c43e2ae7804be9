"""`glasscache report` and `stats --watch`: what they say of a history, and in which form."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from cache_core.cli.app import app
from cache_core.cli.report import command
from cache_core.cli.report.content import Report, made
from cache_core.cli.report.markdown import markdown
from cache_core.cli.report.page import page
from cache_core.config.tuning import Tuning
from cache_core.observability.advice import advice_on_sharing
from cache_core.observability.fleet import InForce
from cache_core.observability.history import DAY, Period
from cache_core.observability.hours import HOUR
from cache_core.observability.sums import NONE, IntentSums, Sums
from tests.support.caches import opened
from tests.support.patience import PATIENT
from tests.support.waiting import wait_until

FIRST = 20_000 * DAY

SUMS = Sums(
    outcomes={"hit": 80, "miss": 19, "error": 1, "bypass": 5},
    reasons={"other_scope": 12, "cold": 7, "timeout": 1, "empty": 5},
    hits={"l1": 32, "l2": 48},
    misses={"l1": {"cold": 55, "other_scope": 12}},
    saved={"l1": 1.152, "l2": 1.728},
    spent_usd=0.08,
    unanswered_usd=0.72,
    prices={"0.036": 80},
    hit_latency=(0, 0, 0, 0, 70, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0),
    other_latency=(0,) * 10 + (20,) + (0,) * 4,
    verdicts={"review": {"correct": 9, "wrong": 1}},
    computed=10,
    compute_seconds=45.0,
    intents={
        "faq": IntentSums(l1=30, l2=40, computed=5, wrong=1, correct=9, saved_usd=2.52),
        "<b>": IntentSums(computed=3, other_scope=12),
    },
)


def report(sums: Sums = SUMS, hours: int = 1, **origins: str) -> Report:
    periods = [Period(FIRST + number * HOUR, HOUR, sums) for number in range(hours)]
    return made("shop", periods, FIRST + 600, FIRST + hours * HOUR, InForce(Tuning(), origins))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


# --------------------------------------------------------------------------------- content


def test_targets_are_met_or_missed() -> None:
    """Each figure stands beside its target; a rate of few lookups is no verdict."""
    found = {item.name: (item.found, item.met) for item in report().targets}
    assert found == {
        "Hit rate": ("80.0 %", True),
        "Answered by L1": ("32.0 %", True),
        "Time of a hit, p95": ("87.5 ms", True),
        "Cost saved": ("77.8 %", True),
    }
    worse = SUMS._replace(outcomes={"hit": 80, "miss": 200})
    assert [item.met for item in report(worse).targets][:2] == [False, False]
    few = report(SUMS._replace(outcomes={"hit": 10}))
    assert {item.verdict for item in few.targets} == {"too few lookups"}
    assert {item.found for item in report(NONE).targets} == {"-"}


def test_money_says_by_which_price() -> None:
    """With the cache and without it, a projection, and the price that it was counted with."""
    assert dict(report(hours=2).money) == {
        "without a cache": "7.20 USD",
        "with the cache": "1.60 USD",
        "of that, embeddings and checks": "0.16 USD",
        "saved": "5.60 USD",
        "saved in 30 days at this pace": "2,016.00 USD",
        "waiting time saved": "0.2 h",
    }
    assert "An answer counts 0.036 USD, the default: set your own" in report().price
    assert "default" not in report(response_usd="tuned").price
    changed = report(SUMS._replace(prices={"0.036": 60, "0.02": 20}))
    assert "earlier ones 0.02 (20)" in changed.price
    own = report(SUMS._replace(saved={"l1": 8.0})).price
    assert "the mean is 0.1 USD" in own


def test_advice_is_of_the_largest_reasons() -> None:
    """Advice names the intents to share; bypasses are no misses."""
    found = report()
    assert [(item.name, item.lookups) for item in found.reasons] == [
        ("other_scope", 12),
        ("cold", 7),
        ("timeout", 1),
    ]
    assert found.advice[0].startswith("Up to 12.0 points: 12 of 100 lookups missed although")
    assert "CACHE_SHARED_INTENTS=<b>" in found.advice[0]
    assert report(SUMS._replace(outcomes={"hit": 3})).advice == []
    assert advice_on_sharing(1_200, 12_345, []).startswith("1,200 of 12,345 lookups missed")


# --------------------------------------------------------------------------------- formats


class Tags(HTMLParser):
    """Tags of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing() -> None:
    """One file without scripts, links or images; stored text stays text; charts have words."""
    text = page(report(hours=30))
    found = Tags(text)
    names = {name for name, _ in found.tags}
    assert not names & {"script", "link", "img", "iframe", "a", "b>"}
    assert not [pair for _, pair in found.tags if {"src", "href", "onload"} & pair.keys()]
    assert "url(" not in text
    assert "http" not in text
    assert "&lt;b&gt;" in text
    charts = [pair["aria-label"] for name, pair in found.tags if name == "svg"]
    assert len(charts) == 2
    assert "Hit rate over time: 80.0\N{NO-BREAK SPACE}% overall" in str(charts[0])
    assert sum(name == "rect" for name, _ in found.tags) == 30 + 2 * 30


def test_a_long_range_has_a_bar_for_each_day() -> None:
    """Ten days have ten bars, whatever their hours are."""
    text = page(report(hours=10 * 24))
    assert text.count('class="part1"') == 10
    assert "1970" not in text


@pytest.mark.parametrize("sums", [SUMS, NONE, Sums(outcomes={"bypass": 3}, reasons={"empty": 3})])
def test_every_format_is_made_of_any_sums(sums: Sums, capsys: Any) -> None:
    """Also of nothing, and of bypasses alone."""
    found = report(sums)
    command._print(found)
    assert capsys.readouterr().out
    assert markdown(found).startswith("# What the cache `shop` did\n")
    assert page(found).endswith("</html>\n")
    document = json.loads(json.dumps(found.document()))
    assert document["lookups"] == sums.lookups


@pytest.mark.parametrize("width", [80, 60])
def test_the_text_fits(width: int, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 and at 60 columns nothing is cut."""
    monkeypatch.setattr(command, "out", Console(width=width))
    command._print(report())
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    assert "…" not in said
    assert "another user has an answer to this very message" in " ".join(said.split())


# --------------------------------------------------------------------------------- commands


@pytest.mark.slow
def test_a_report_of_a_real_cache(
    store_kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts of a cache that has ended are in the report, in every format."""
    for name, seconds in PATIENT.items():
        monkeypatch.setenv(f"CACHE_{name.upper()}", str(seconds))
    where = ["--dir", str(tmp_path / "data")]
    given: dict[str, Any] = {}
    if store_kind == "redis":
        given["redis_url"] = request.getfixturevalue("empty_redis")
        where += ["--redis-url", given["redis_url"]]

    async def traffic() -> None:
        async with opened(tmp_path / "data", tiers="l1,l3,l4", **PATIENT, **given) as cache:
            await cache.put("How long is delivery?", "ann", "Three days.", "faq")
            await cache.lookup("How long is delivery?", "ann")
            await cache.lookup("How long is delivery?", "bob")

    asyncio.run(traffic())
    found = json.loads(run(*where, "--json").stdout)
    assert (found["lookups"], found["hit_rate"]) == (2, 0.5)
    assert found["intents"]["faq"]["l1"] == 1
    assert found["money"]["saved_usd"] == pytest.approx(0.037, abs=0.001)
    assert "2 lookups, 1 answered" in run(*where).stdout
    assert "| faq |" in run(*where, "--format", "markdown").stdout.replace("`", "")
    file = tmp_path / "report.html"
    assert run(*where, "--format", "html", "--output", str(file)).exit_code == 0
    assert "2 lookups" in file.read_text()
    later = run(*where, "--since", "2d", "--until", "25h")
    assert "Nothing was looked up in this time." in later.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "--since yesterday is no time: write 90m, 24h or 7d"),
        (["--since", "90"], "--since 90 is no time"),
        (["--since", "1h", "--until", "2h"], "is not before"),
    ],
)
def test_a_range_that_is_none_is_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    """The message says how to write a time."""
    found = run("--dir", str(tmp_path), *arguments)
    assert found.exit_code == 2
    assert said in " ".join(found.output.split())


def test_dates_are_of_utc() -> None:
    """A date without a zone is one of UTC, a duration is a time ago."""
    now = FIRST + 1.0
    assert command._moment("--since", "1h", now) == now - 3_600
    assert command._moment("--since", "2024-10-04", now) == FIRST
    assert command._moment("--since", "2024-10-04T02:00+02:00", now) == FIRST


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The command ends with one line."""
    (tmp_path / "data").mkdir()
    found = run("--dir", str(tmp_path / "data"), "--output", str(tmp_path))
    assert found.exit_code == 2
    assert "--output" in found.output


@pytest.mark.slow
def test_stats_are_watched_until_they_are_interrupted(tmp_path: Path) -> None:
    """`stats --watch` shows lookups that come later, and ends at Ctrl-C."""
    (tmp_path / "data").mkdir()
    seen = tmp_path / "seen"
    environment = {**os.environ, "CACHE_DIR": str(tmp_path / "data"), "CACHE_TIERS": "l1"}
    # What a shell starts in the background ignores Ctrl-C, and so do its children.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-c", f"{heeding}; from cache_core.cli.app import main; main()"]
    with seen.open("w") as file:
        watching = subprocess.Popen(
            [*program, "stats", "--watch", "--every", "500ms"], env=environment, stdout=file
        )
    try:

        async def traffic() -> None:
            async with opened(tmp_path / "data", tiers="l1") as cache:
                await cache.lookup("a question", "ann")

        wait_until(lambda: "Nothing was looked up yet." in seen.read_text(), seconds=90)
        asyncio.run(traffic())
        wait_until(lambda: re.search(r"last 90 days +1 ", seen.read_text()), seconds=90)
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
