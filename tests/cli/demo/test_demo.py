"""The demo: its knowledge base, its traffic, and whole runs of the command."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request

import pytest
from rich.console import Console

from cache_core import MultiLevelCache, Settings
from cache_core.cli.demo import report, running
from cache_core.cli.demo.agent import CLASSIFY, Agent, Bill, Score, SimulatedLLM
from cache_core.cli.demo.around import metrics_port
from cache_core.cli.demo.board import Board, Place, Run, Watch, snapshot
from cache_core.cli.demo.board.advice import advice
from cache_core.cli.demo.board.figures import figures
from cache_core.cli.demo.board.heading import heading
from cache_core.cli.demo.board.looks import bar, digits
from cache_core.cli.demo.board.why import WHY_WIDTH
from cache_core.cli.demo.command import announce, begin, ready
from cache_core.cli.demo.options import Options
from cache_core.cli.demo.page import page
from cache_core.cli.demo.report import finish
from cache_core.cli.demo.shop import Knowledge, load_knowledge
from cache_core.cli.demo.stack import Stack
from cache_core.cli.demo.stack.processes import Servers
from cache_core.cli.demo.traffic import Traffic
from cache_core.cli.demo.truth import Truth
from cache_core.cli.demo.warmup import Warmed
from cache_core.config.tuning import Tuning
from cache_core.model.question.wording import loose_form
from cache_core.model.reasons import REASONS
from cache_core.observability.instruments import CacheState
from tests.support.modules import require
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return load_knowledge()


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CACHE_", "REDIS_", "CHROMA_", "SEMANTIC_"))
    }
    code = "from cache_core.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "demo", *arguments],
        cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def run(*arguments: str) -> dict:
    process = start(*arguments)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return json.loads(output)


# ------------------------------------------------------------------------------ knowledge


def test_the_knowledge_base_is_large_enough_to_show_something(knowledge):
    """The demo has enough topics, phrasings, private answers and follow-ups for a cache to matter."""
    assert len(knowledge.topics) >= 60
    assert all(len(topic.phrasings) >= 8 for topic in knowledge.topics)
    assert any(topic.private for topic in knowledge.topics)
    assert sum(bool(topic.followups) for topic in knowledge.topics) >= 20


def test_every_id_is_unique_and_every_document_exists(knowledge):
    """Topics and follow-ups have ids of their own, and refer to documents that exist."""
    ids = [topic.id for topic in knowledge.topics]
    ids += [item.id for topic in knowledge.topics for item in topic.followups]
    assert len(ids) == len(set(ids))
    assert all(
        topic.documents and set(topic.documents) <= set(knowledge.documents)
        for topic in knowledge.topics
    )


def test_no_two_answers_are_asked_for_in_the_same_words(knowledge):
    """Each phrasing asks for one answer only."""
    asked = {}
    for topic in knowledge.topics:
        for phrasing in topic.phrasings:
            assert asked.setdefault(loose_form(phrasing), topic.id) == topic.id


def test_no_intent_has_both_private_and_public_answers(knowledge):
    """An intent is either private or public, so that it can be shared as a whole."""
    assert not set(knowledge.private_intents) & set(knowledge.public_intents)


# ------------------------------------------------------------------------------ traffic


def take(knowledge: Knowledge, seed: int, count: int = 2_000) -> list:
    return list(itertools.islice(Traffic(knowledge, seed), count))


def test_the_same_seed_is_the_same_traffic(knowledge):
    """Traffic depends on its seed alone."""
    assert take(knowledge, 3) == take(knowledge, 3)
    assert take(knowledge, 3) != take(knowledge, 4)


def test_few_customers_and_few_questions_make_most_of_the_traffic(knowledge):
    """A fifth of the customers, and of the answers, makes over 40 % of the traffic."""
    requests = take(knowledge, 1)
    for field in ("user_id", "answer_id"):
        counts = {}
        for request in requests:
            counts[getattr(request, field)] = counts.get(getattr(request, field), 0) + 1
        top = sorted(counts.values(), reverse=True)[: len(counts) // 5]
        assert sum(top) > 0.4 * len(requests)


def test_a_follow_up_comes_after_what_it_follows(knowledge):
    """The history of a follow-up is an exchange that the same customer had before."""
    seen = set()
    followed = 0
    for request in take(knowledge, 1):
        if request.history:
            followed += 1
            asked, answered = request.history
            assert (request.user_id, asked["content"], answered["content"]) in seen
        seen.add((request.user_id, request.message, request.response))
    assert followed > 50


def test_a_private_answer_names_one_customer_only(knowledge):
    """Each private answer belongs to one customer, and has no placeholder left."""
    traffic = Traffic(knowledge)
    private = [topic for topic in knowledge.topics if topic.private]
    assert len(traffic.owners) == len(private) * len(traffic.users)
    for request in take(knowledge, 2):
        assert traffic.owners.get(request.response) == (
            request.user_id if request.private else None
        )
        assert "{" not in request.response


# ------------------------------------------------------------------------------ agent, board


async def test_the_bill_does_not_depend_on_the_speed(knowledge):
    """A faster simulation costs as much as a slow one."""
    request = take(knowledge, 1, 1)[0]
    slow, fast = Bill(), Bill()
    assert await SimulatedLLM(knowledge, 1, 100).classify(request, slow) == request.intent
    await SimulatedLLM(knowledge, 1, 1_000).classify(request, fast)
    assert slow == fast
    assert slow.usd == CLASSIFY.usd


async def test_the_llm_has_no_answer_without_the_right_documents(knowledge):
    """The simulated LLM answers from the documents it is given."""
    request = take(knowledge, 1, 1)[0]
    llm = SimulatedLLM(knowledge, 1, 1_000)
    documents = await llm.retrieve(request, Bill())
    assert await llm.answer(request, documents, Bill()) == request.response
    assert await llm.answer(request, [{"id": "kb/other"}], Bill()) != request.response


def test_the_board_has_room_for_every_reason():
    """The short text of every reason fits its column."""
    assert max(len(words.short) for words in REASONS.values()) <= WHY_WIDTH, "none is cut off"


PLACES = [
    Place("metrics", "http://127.0.0.1:33855/metrics"),
    Place("redis", "redis://127.0.0.1:40001/0"),
    Place("redis_exporter", "http://127.0.0.1:40002/metrics"),
    Place("alertmanager", "http://127.0.0.1:40003"),
    Place("prometheus", "http://127.0.0.1:40004"),
    Place("embedded Chroma", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/demo-abcdefgh"),
]
SIZES = [(80, 24), (80, 40), (100, 40), (120, 40), (160, 50)]


@pytest.fixture(scope="module", params=["intents", "private"])
def watched(knowledge, request, tmp_path_factory) -> tuple:
    """A board after some traffic, with as many places as there may be."""

    async def play() -> tuple:
        watch, traffic = Watch(), Traffic(knowledge, 1)
        score = Score(traffic.owners)
        cache = MultiLevelCache(
            settings=Settings(dir=tmp_path_factory.mktemp("board")), instruments=[watch],
            sharing=request.param, shared_intents=knowledge.public_intents, namespace="board",
        )  # fmt: skip
        async with cache:
            await cache.ready()
            agent = Agent(cache, SimulatedLLM(knowledge, 1, 1_000), share_documents=True)
            truth = Truth(cache)
            warmed = str(Warmed(1_000, 0.57, 7.25))
            run = Run("200 customers of Northway, 5/s", PLACES, warmed)
            board = Board(cache, watch, score, knowledge, run, truth)
            for asked in itertools.islice(traffic, 80):
                served = await agent.answer(asked)
                score.add(served)
                board.add(served)
                await truth.add(served)
            await truth.judge()
            return board, cache, score, truth, await cache.verdicts()

    return asyncio.run(play())


def drawn(board: Board, width: int, height: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(board.render(width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_board_shows_what_matters_on_every_screen(watched, width, height):
    """Nothing but the text of a message is cut; what does not fit is omitted."""
    board, cache, score, *_ = watched
    lines = drawn(board, width, height)
    text = "\n".join(lines)
    assert len(lines) == height
    assert {len(line) for line in lines} == {width}

    flat = text.replace("│", " ").replace("\n", " ")
    unfolded = "".join(flat.split())
    for place in PLACES:
        assert place.where in unfolded, "where everything listens"
    for level in ("L1 exact", "L2 semantic", "L3 intent", "L4 rag"):
        line = next(line for line in lines if level in line)
        assert re.search(r"(\d %|-) +(<?\d+\.\d ms|-)", line), "hit rate and latency of each tier"
    assert f"{100 * cache.metrics.hit_rate:.1f} % of 60 %" in flat
    assert f"${cache.metrics.cost_saved_usd:,.2f}  of ${score.full_usd:,.2f}" in flat
    for name in ("p50", "p95"):
        assert re.search(rf"{name} .*ms|{name} .* s  without", text)

    shown = lines[next(i for i, line in enumerate(lines) if "Last lookups" in line) + 2 :]
    shown = shown[: next(i for i, line in enumerate(shown) if line.startswith("╰"))]
    assert len(shown) >= 3
    known = {
        *(words.short for words in REASONS.values()),
        "same words, shared by all",
        "same user, same words",
    }
    reason = re.compile(
        r"(nearest question is under|means the same \(from) 0.95\)? +│$|alike, but .*[a-z] +│$"
    )
    for line in shown:
        assert reason.search(line) or any(f"{text} " in line for text in known), line
        assert line.count("…") <= 1, "at most the message"
    cut = [line for line in lines if "…" in line and line not in shown]
    assert not cut


@pytest.mark.slow
def test_the_demo_judges_by_what_it_knows(watched):
    """Hits and near misses get verdicts, as in the store; few are too few to recommend anything."""
    board, _, score, truth, verdicts = watched
    assert truth.verdicts == len(verdicts) > 0
    hits = [item for item in verdicts if item.level]
    assert {item.source for item in hits} <= {"verify"}
    assert sum(not item.correct for item in hits) <= score.wrong
    assert {item.source for item in verdicts if not item.level} <= {"review"}
    assert truth.recommendation.threshold is None
    lines = [line.plain for line in advice(truth)]
    assert (
        lines[-1]
        == f"threshold 0.95, more verdicts needed  ({truth.verdicts} verdicts by the demo)"
    )
    assert "more verdicts needed" in "\n".join(drawn(board, 80, 26))
    best = dataclasses.replace(truth.recommendation.current, threshold=0.9, hit_rate=0.75)
    found = dataclasses.replace(truth.recommendation, threshold=0.9, estimate=best)
    advised = [
        line.plain for line in advice(types.SimpleNamespace(verdicts=500, recommendation=found))
    ]
    assert advised[0].startswith(
        "threshold 0.95, 0.9 recommended for at most 2% wrong hits: 75.0% hits"
    )
    assert len(advised[-1]) <= 60


@pytest.mark.parametrize("width", [60, 80, 100, 110, 200])
def test_no_outcome_is_cut(width):
    """Counts of all outcomes are whole beside the tiers."""
    cache = MultiLevelCache()
    cache.metrics.outcomes.update(
        hit=118_279, partial=11_201, miss=12_601, error=1_122, bypass=9_333
    )
    cache.metrics.lookups = 150_000
    console = Console(width=width, file=io.StringIO())
    console.print(figures(cache, Watch(), Score({}), width))
    cache.reset_metrics()
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    beside = ("118,279 hit", "11,201 partial", "12,601 miss", "1,122 error", "9,333 bypass")
    assert width < 78 or all(text in shown for text in beside)
    assert "…" not in shown


def test_a_model_that_loads_is_not_down(knowledge):
    """The board says that the model loads, and only then that it is down."""
    state = MultiLevelCache().state or CacheState({"embedder": False}, {}, {}, {}, Tuning(), 0, {})
    for loading, said in ((("embedder",), "model loading"), ((), "model down")):
        console = Console(width=80, file=io.StringIO())
        found = dataclasses.replace(state, loading=loading)
        console.print(heading(Run("traffic"), found, 0.0, 80))
        assert said in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(60, 20), *SIZES])
def test_the_board_fits_its_screen(knowledge, width, height):
    """Also before the first lookup, with a warning, and on a screen that is too small for it."""
    board = Board(MultiLevelCache(), Watch(), Score({}), knowledge, Run("no traffic"))
    warning = "l2 cannot answer: timeout (TimeoutError); " * 4 + "what to do about it"
    board.note(warning)
    lines = drawn(board, width, height)
    assert height - 1 <= len(lines) <= max(height, 27)
    shown = " ".join(" ".join(lines).replace("│", " ").split())
    assert warning in shown


def test_the_bar_of_the_hit_rate_needs_no_colours():
    """Bars of reached and unreached tiers differ in their strokes."""
    assert bar(0.25, 0.6, 8).plain == "━━──┃─── 25.0 % of 60 %"


def test_what_misses_the_threshold_does_not_look_as_if_it_met_it():
    """Similarities are rounded down."""
    assert (digits(0.94999), digits(0.95), digits(1.0)) == ("0.949", "0.950", "1.000")


async def test_a_dumb_terminal_gets_one_board_below_the_other(knowledge, monkeypatch):
    """A terminal whose cursor cannot move gets boards without escape sequences."""
    monkeypatch.setenv("TERM", "dumb")
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    assert terminal.is_dumb_terminal
    monkeypatch.setattr(running, "out", terminal)
    monkeypatch.setattr(running, "_REPEAT_SECONDS", 0.01)
    board = Board(MultiLevelCache(), Watch(), Score({}), knowledge, Run("no traffic", PLACES))
    stop = asyncio.Event()

    async def serve(request: object) -> None:
        while terminal.file.getvalue().count("Last lookups") < 2:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        stop.set()

    options = Options(rate=100.0, seed=1)
    await running.run_live(Traffic(knowledge), serve, board, options, stop)
    assert "\x1b" not in terminal.file.getvalue()  # type: ignore[attr-defined]


async def test_a_steady_run_prints_a_line_from_time_to_time(knowledge, monkeypatch, capsys):
    """Each line has the time, the lookups, the hit rate and the money, on at most 80 columns."""
    monkeypatch.setattr(running, "_LINE_SECONDS", 0.01)
    monkeypatch.setattr(running, "err", Console(stderr=True, width=80))
    board = Board(MultiLevelCache(), Watch(), Score({}), knowledge, Run("no traffic", PLACES))
    stop, printed = asyncio.Event(), []

    async def serve(request: object) -> None:
        while len(printed) < 2:
            await asyncio.sleep(0.01)
            printed.extend(capsys.readouterr().err.splitlines())
        stop.set()

    options = Options(rate=100.0, seed=1, steady=True)
    await running.run_lines(Traffic(knowledge), serve, board, options, stop)
    assert (
        printed[0]
        == "0:00 0 lookups, 0.0% hits, p50 0.0 ms instead of 0.0 ms, $0.00 saved, 0 wrong"
    )


async def test_a_steady_run_begins_with_its_addresses(capsys, monkeypatch):
    """Addresses and how to end it come first; a document has nothing before it."""
    options = Options(steady=True, requests=500)
    announce(options, PLACES)
    said = capsys.readouterr().out
    assert said.startswith("metrics: http://127.0.0.1:33855/metrics\n")
    assert said.endswith("seed 1. It ends after 500 requests; Ctrl-C to stop.\n")
    announce(dataclasses.replace(options, as_json=True), PLACES)
    assert capsys.readouterr().out == ""


def test_a_steady_run_says_what_it_was_warmed_with(capsys):
    """Without a board, what was replayed and what is missing is printed once."""
    run = Run("200 customers", PLACES, str(Warmed(1_000, 0.4, 9.0)), ["L2 is off"])
    steady = Options(steady=True)
    begin(steady, run)
    said = capsys.readouterr().out.splitlines()
    assert said == ["Warmed with 1,000 requests of another day in 9.0 s (40% hits)", "L2 is off"]
    for options in (Options(), dataclasses.replace(steady, as_json=True)):
        begin(options, run)
    assert capsys.readouterr().out == ""


def test_a_piped_report_is_as_wide_as_columns_says(knowledge, monkeypatch, capsys):
    """COLUMNS is honoured where the output is no terminal; without it a report has 110 columns."""
    board = Board(MultiLevelCache(), Watch(), Score({}), knowledge, Run("no traffic"))
    for columns, width in (("80", 80), ("200", 110), (None, 110)):
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(report, "out", Console())
        finish(Options(), Score({}), board, {"seconds": 1.0, "notes": []})
        assert max(map(len, capsys.readouterr().out.splitlines())) == width


@pytest.mark.slow
async def test_a_missing_tier_is_named_with_what_to_do(tmp_path):
    """Without L2 a note says that most hits are missing, why, and what to do; the board shows it."""
    settings = Settings(
        dir=tmp_path, redis_url=None, embedding_model=str(tmp_path), embedding_backend="onnx"
    )
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        note = await ready(cache, Options(as_json=True))
        assert note.startswith("L2 is off, so most hits are missing: ")
        assert "EMBEDDING_BACKEND" in note
        board = Board(cache, Watch(), Score({}), load_knowledge(), Run("no traffic", notes=[note]))
        shown = " ".join(" ".join(drawn(board, 80, 24)).replace("│", " ").split())
        assert "most hits are missing" in shown


def test_a_dashboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    """In place of its address stands what to install; without the dashboard nothing does."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = Settings(dir=tmp_path)
    with page(Options(steady=True), settings, "demo", Stack(0)) as places:
        assert places == [Place("dashboard", "pip install 'glasscache[dashboard]'")]
    for options in (Options(steady=True, dashboard=False), Options(steady=True, as_json=True)):
        with page(options, settings, "demo", Stack(0)) as places:
            assert places == []


def test_the_dashboard_of_a_stack_reads_the_alerts_of_its_prometheus(tmp_path, monkeypatch):
    """It gets the addresses of the stack's servers; without a stack, whatever the shell has."""
    require("streamlit")
    given = []
    monkeypatch.setenv("PROMETHEUS_URL", "http://of-the-shell:9090")
    monkeypatch.setenv("ALERTMANAGER_URL", "http://of-the-shell:9093")
    monkeypatch.setattr(
        Servers,
        "launch",
        lambda *arguments: given.append(arguments[-1]) or types.SimpleNamespace(pid=-1),
    )
    started = Stack(0, places=[
        Place("redis", "redis://r"), Place("alertmanager", "http://a"), Place("prometheus", "http://p"),
    ])  # fmt: skip
    partly = Stack(0, places=[Place("prometheus", "http://p")])
    for around in (started, partly, Stack(0)):
        with page(Options(steady=True), Settings(dir=tmp_path), "demo", around):
            pass
    of_stack, of_part, alone = given
    assert of_stack["PROMETHEUS_URL"] == "http://p"
    assert of_stack["ALERTMANAGER_URL"] == "http://a"
    assert of_part["ALERTMANAGER_URL"] == "", "not that of the shell, which knows other alerts"
    assert alone["PROMETHEUS_URL"] == "http://of-the-shell:9090"


@pytest.mark.slow
@pytest.mark.server
def test_the_dashboard_of_a_demo_answers_and_ends_with_it(tmp_path):
    """The page is served while the demo runs, and nothing listens there afterwards."""
    require("streamlit")
    settings = Settings(dir=tmp_path, redis_url=None)
    with page(Options(steady=True), settings, "demo", Stack(0)) as places:
        url = places[0].where
        deadline = time.monotonic() + 100
        while not _answers(f"{url}/_stcore/health"):
            assert time.monotonic() < deadline, (tmp_path / "dashboard.log").read_text()
            time.sleep(0.2)
    assert not _answers(f"{url}/_stcore/health")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_snapshot_does_not_call_out(knowledge, tmp_path):
    """The SVG of the board refers to nothing outside itself."""
    board = Board(MultiLevelCache(), Watch(), Score({}), knowledge, Run("no traffic"))
    snapshot(board, tmp_path / "board.svg")
    picture = (tmp_path / "board.svg").read_text()
    assert picture.startswith("<svg")
    assert "url(" not in picture.replace("url(#", "")


# ------------------------------------------------------------------------------ the command


@pytest.mark.slow
def test_a_headless_run_says_what_the_cache_did():
    """The JSON report of a run adds up, and has no leak and few wrong answers."""
    report = run("--requests", "120", "--json", "--seed", "1", "--port", "0")
    assert report["requests"] == 120
    assert sum(report["outcomes"].values()) == 120
    assert 0.08 < report["hit_rate"] < 0.7
    assert report["hit_rate"] == pytest.approx(sum(report["served_by"].values()), abs=1e-3)
    assert report["private_leaks"] == 0
    assert report["wrong_share"] <= 0.05
    assert set(report["sharing"]["shared_intents"]) == set(load_knowledge().public_intents)
    spent = report["spent"]
    assert report["saved_usd"] == pytest.approx(
        spent["without_cache_usd"] - spent["with_cache_usd"]
    )
    assert report["listening"]["metrics"].startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_a_warm_start_is_reported_and_not_counted():
    """The replay fills the cache, the report says what was replayed, and counts what came after."""
    cold, warm = (
        run("--requests", "60", "--json", "--port", "0", "--warm", count) for count in ("0", "150")
    )
    assert cold["warmed"] is None
    assert warm["warmed"]["requests"] == 150
    assert 0 < warm["warmed"]["hit_rate"] < 1
    assert sum(warm["outcomes"].values()) == warm["requests"] == 60
    assert warm["hit_rate"] > cold["hit_rate"]
    assert warm["verdicts"]["given"] > 0


@pytest.mark.slow
def test_what_is_private_by_default_comes_with_advice(tmp_path):
    """Without sharing the report says which setting would share, and leaks nothing."""
    report = run("--requests", "200", "--json", "--port", "0", "--no-share", "--dir", str(tmp_path))
    assert report["sharing"]["mode"] == "private"
    assert report["sharing"]["other_scope_misses"] > 0
    assert "CACHE_SHARED_INTENTS" in report["sharing"]["advice"]
    assert report["private_leaks"] == 0
    assert any(tmp_path.iterdir())


@pytest.mark.slow
def test_metrics_are_served_while_it_runs_and_an_interrupt_ends_it_well():
    """Metrics can be scraped during a run, and SIGINT ends it with a report."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start("--json", "--requests", "100000", "--speed", "5", "--port", str(port))
    try:
        assert _wait_for(f"http://127.0.0.1:{port}/metrics", 'cache_lookups_total{cache="demo"')
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    report = json.loads(output)
    assert 0 < report["requests"] < 100_000
    assert report["listening"]["metrics"] == f"http://127.0.0.1:{port}/metrics"


def _wait_for(url: str, wanted: str) -> bool:
    """Return whether *url* shows *wanted* with a count that is not 0 within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.2)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            continue
        if any(line.startswith(wanted) and not line.endswith(" 0.0") for line in lines):
            return True
    return False


async def test_a_taken_port_is_said_and_another_one_used(capsys):
    """A port that is in use is reported, and metrics are served on another one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with metrics_port(port) as url:
            assert url != f"http://127.0.0.1:{port}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status == 200
    assert f"port {port} cannot be used" in capsys.readouterr().err


@pytest.mark.slow
def test_a_redis_that_does_not_answer_is_an_error_in_one_line():
    """An unreachable Redis ends the command with status 2 and a line without the password."""
    process = start(
        "--requests", "5", "--json", "--port", "0", "--redis-url", "redis://:s3@127.0.0.1:1"
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert "redis://***@127.0.0.1:1 cannot be reached" in " ".join(errors.split())
    assert "s3" not in errors
