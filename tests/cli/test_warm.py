"""`glasscache warm`: what an operator prepared becomes hits, and the command says which and how."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cache_core import MultiLevelCache, Settings
from cache_core.cli.app import app
from cache_core.model.values import LookupResult
from cache_core.testing import HashEmbedder

EXACT = frozenset({"l1"})


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory; tests that need no model do without L2."""
    monkeypatch.setenv("CACHE_TIERS", "l1")
    return tmp_path / "data"


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)


def said_by(result: Result) -> str:
    """Return everything that was printed, as one line."""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def faq(tmp_path: Path, text: str, name: str = "faq.csv") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def ask(data: Path, message: str, **how: Any) -> LookupResult:
    """Return what an agent of that directory would get."""

    async def asked() -> LookupResult:
        settings = Settings(dir=data, redis_url=None, tiers=EXACT)
        async with MultiLevelCache(settings=settings, instruments=()) as cache:
            return await cache.lookup(message, "ann", **how)

    return asyncio.run(asked())


def test_a_spreadsheet_becomes_hits(tmp_path: Path, data: Path) -> None:
    """The command says which columns it took, what it omitted, and what is now a hit."""
    file = faq(tmp_path, "Category;Questions;Answers\nx;Where?;Here.\n;;\nx;When?;\nx;Who?;Me.\n")
    result = run("warm", file, "--dir", data)
    said = said_by(result)
    assert result.exit_code == 0
    assert "faq.csv: columns separated by ';', 2 rows." in said
    assert "query <- 'Questions', response <- 'Answers'; passed over: 'Category'." in said
    assert "Skipped 2 rows: 1 empty row; 1 where the response is empty." in said
    assert "The first is line 4: the response is empty." in said
    assert "Stored 2 answers for all users of 'default'." in said
    assert (
        "'Where?' and the others are now hits for lookups without context=, for 1 h and word"
        in said
    )
    assert result.stdout.splitlines()[-1].startswith("'Where?'"), "a line in a log is whole"
    assert ask(data, "Where?").response == "Here."


def test_a_lifetime_of_ones_own(tmp_path: Path, data: Path) -> None:
    """`--ttl 7d` is what explain and the last line say."""
    result = run("warm", faq(tmp_path, "q,a\nWhere?,Here.\n"), "--ttl", "7d", "--dir", data)
    assert "'Where?' is now a hit for lookups without context=, for 7 days" in said_by(result)
    explained = run("explain", "Where?", "--dir", data)
    assert "TTL 7 days" in said_by(explained)


@pytest.mark.parametrize("ttl", ["31d", "0", "-1h", "soon", "1e9", "nan", ""])
def test_a_lifetime_that_cannot_be_is_refused(tmp_path: Path, data: Path, ttl: str) -> None:
    """Before the file is read, with what is expected."""
    result = run("warm", faq(tmp_path, "q,a\nWhere?,Here.\n"), f"--ttl={ttl}", "--dir", data)
    assert result.exit_code == 2
    assert "expected a time like 90s, 30m, 12h or 7d, up to 30 days" in said_by(result)
    assert not data.exists()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["text", "json", "file", "row"])
def test_answers_are_stored_in_the_context_of_the_agent(
    tmp_path: Path, data: Path, given: str
) -> None:
    """Given as text, as JSON, in a file, or by the rows: an agent that passes it meets them."""
    context: Any = "You help." if given == "text" else {"system": "You help.", "model": "m"}
    text = context if given == "text" else json.dumps(context, indent=1)
    rows = [{"q": "Where?", "a": "Here.", **({"context": context} if given == "row" else {})}]
    file = faq(tmp_path, json.dumps(rows), "faq.json")
    if given == "file":
        text = f"@{faq(tmp_path, text + chr(10), 'context.json')}"
    options = [] if given == "row" else ["--context", text]
    result = run("warm", file, *options, "--dir", data)
    assert "with the context" in said_by(result)
    assert ask(data, "Where?", context=context).response == "Here."
    assert ask(data, "Where?").response is None
    if given != "row":
        assert "serves the response" in said_by(run("explain", "Where?", *options, "--dir", data))


def test_an_option_beats_the_rows(tmp_path: Path, data: Path) -> None:
    """`--context` is that of all of them; `--map context=` leaves theirs out; tags add up."""
    file = faq(tmp_path, "q,a,context,tags\nWhere?,Here.,theirs,one;two\n")
    tags = ["--tag", "faq", "--tag", "one"]
    shown = document(run("warm", file, "--context", "mine", *tags, "--dry-run", "--json"))
    assert shown["first"][0]["context"] == "mine"
    assert shown["first"][0]["tags"] == ["faq", "one", "two"]
    assert run("warm", file, "--map", "context=", "--tag", "faq", "--dir", data).exit_code == 0
    assert ask(data, "Where?").response == "Here."
    removed = document(run("invalidate", "--tag", "faq", "--dir", data, "--json"))
    assert removed["removed"] == 1
    assert ask(data, "Where?").response is None


def test_the_intent_of_all(tmp_path: Path, data: Path) -> None:
    """`--intent` is that of every answer, and its tuning applies: TTLs of its own are reported."""
    changes = run("tune", "set", "intent.faq.l1_ttl=2h", "--dir", data)
    assert changes.exit_code == 0, changes.output
    result = run("warm", faq(tmp_path, "q,a\nWhere?,Here.\n"), "--intent", "faq", "--dir", data)
    assert "for 2 h" in said_by(result)


def test_the_later_row_wins(tmp_path: Path, data: Path) -> None:
    """Corrections stand at a file's end, also among rows of another context or intent."""
    rows = ["q,a,intent", "Where?,old,x", *(f"filler {n},x,y" for n in range(40)), "Where?,new,z"]
    result = run("warm", faq(tmp_path, "\n".join(rows)), "--dir", data)
    assert "1 row replaced by a later answer to the same question." in said_by(result)
    assert ask(data, "Where?").response == "new"


def test_follow_ups_are_not_stored_as_first_questions(tmp_path: Path, data: Path) -> None:
    """A chat's later answers depend on the turns before; the system prompt is the context."""
    turns = [{"role": "system", "content": "Help."}, {"role": "user", "content": "Where?"},
             {"role": "assistant", "content": "Here."}, {"role": "user", "content": "Sure?"},
             {"role": "assistant", "content": "Yes."}]  # fmt: skip
    file = faq(tmp_path, json.dumps({"messages": turns}), "chats.jsonl")
    result = run("warm", file, "--dir", data)
    assert "1 follow-up passed over" in said_by(result)
    assert 'with the context "Help."' in said_by(result)
    assert ask(data, "Where?", context="Help.").response == "Here."
    assert ask(data, "Sure?", context="Help.").response is None


@pytest.mark.slow
def test_html_is_reported_and_can_be_text(tmp_path: Path, data: Path) -> None:
    """An export's bodies are stored as they are unless their text is asked for."""
    article = {"id": 1, "title": "Where?", "body": "<p>Level <b>1</b></p>"}
    file = faq(tmp_path, json.dumps({"articles": [article]}), "zendesk.json")
    assert "1 response with HTML: stored and served as written. --html text" in said_by(
        run("warm", file, "--dir", data)
    )
    assert ask(data, "Where?").response == "<p>Level <b>1</b></p>"
    assert "HTML" not in said_by(run("warm", file, "--html", "text", "--dir", data))
    assert ask(data, "Where?").response == "Level 1"


@pytest.mark.slow
def test_agents_of_another_context_are_noticed(tmp_path: Path, data: Path) -> None:
    """The command warns if the namespace's lookups have contexts that no answer has."""
    for context in ({"model": "m"}, {"model": "m"}, None):
        ask(data, "Where?", context=context)
    file = faq(tmp_path, "q,a\nWhere?,Here.\n")
    said = said_by(run("warm", file, "--dir", data))
    assert "Of the last 3 lookups 2 had another context: they do not get these answers." in said
    found = document(run("warm", file, "--context", '{"model": "m"}', "--dir", data, "--json"))
    assert found["lookups_in_other_contexts"] == 1
    assert found["lookups_looked_at"] == 3


def test_answers_of_a_day_are_reported(tmp_path: Path, data: Path) -> None:
    """They end at midnight whatever `--ttl` says."""
    file = faq(tmp_path, "q,a\nAre you open today?,Yes.\nWhere?,Here.\n")
    said = said_by(run("warm", file, "--ttl", "7d", "--dir", data))
    assert "1 answer of a day or a moment, such as today or now: served until midnight" in said


def test_a_dry_run_stores_nothing(tmp_path: Path, data: Path) -> None:
    """It shows the first answers, and opens no cache."""
    rows = "\n".join(f"question {n},answer {n}" for n in range(7))
    result = run("warm", faq(tmp_path, f"q,a\n{rows}\n"), "--dry-run", "--dir", data)
    said = said_by(result)
    assert "question 4 answer 4" in said
    assert "question 5" not in said
    assert "Dry run: 7 answers would be stored. These are the first 5." in said
    assert not data.exists()


@pytest.mark.parametrize(
    ("text", "options", "code", "said"),
    [
        ("Stichwort,Auskunft\na1,b1\n", [], 1, "Columns found: 'Stichwort', 'Auskunft'. Name them: --map"),
        ("Stichwort,Auskunft\na1,b1\n", ["--map", "query=Nix"], 2, "It has 'Stichwort', 'Auskunft'"),
        ("Stichwort,Auskunft\na1,b1\n", ["--map", "Stichwort"], 2, "expected NAME=COLUMN"),
        ("q,a\nWhere?,\n,\n", [], 1, "Line 2: the response is empty"),
        ("q,a\nWhere?,Here.\nWhen?,\n", ["--strict"], 1, "faq.csv: line 3: the response is empty"),
        ("", [], 1, "faq.csv has no rows"),
        (None, [], 2, "No such file"),
        ("q,a\nWhere?,Here.\n", ["--encoding", "klingon"], 2, "no such encoding"),
        ("q,a\nWhere?,Here.\n", ["--tag", " "], 2, "--tag is empty"),
        ("q,a\nWhere?,Here.\n", ["--context", "{"], 2, "looks like JSON but is not"),
        ("q,a\nWhere?,Here.\n", ["--context", "@/nowhere"], 2, "No such file"),
        ("q,a\nWhere?,Here.\n", ["--context", "x" * 70_000], 2, "65,536 at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(
    tmp_path: Path, data: Path, text: str | None, options: list[str], code: int, said: str
) -> None:
    """In one line with the next step; nothing is stored. 2 is for misuse, 1 for a useless file."""
    file = tmp_path / "faq.csv" if text is None else faq(tmp_path, text)
    result = run("warm", file, *options, "--dir", data)
    assert result.exit_code == code
    assert said in said_by(result)
    assert not data.exists()


def test_answers_that_are_too_large_are_counted(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejected answer is not reported as stored."""
    monkeypatch.setenv("CACHE_MAX_MESSAGE_BYTES", "1000")
    monkeypatch.setenv("CACHE_MAX_VALUE_BYTES", "10000")
    monkeypatch.setenv("CACHE_TIERS", "l1,l3")
    question, answer = f"{'long ' * 500},x", f"When?,{'long ' * 5_000}"
    file = faq(tmp_path, f"q,a\n{question}\nWhere?,Here.\n")
    said = said_by(run("warm", file, "--dir", data))
    assert "Not stored: 1 answer" in said
    file = faq(tmp_path, f"q,a\n{answer}\nWhere?,Here.\n")
    said = said_by(run("warm", file, "--intent", "faq", "--dir", data))
    assert "Stored 1 answer" in said
    assert "Not stored: 1 answer; the question, answer or context is too large." in said


@pytest.mark.slow
def test_answers_that_only_the_same_words_find_are_counted(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question longer than the model reads is not found by what is like it."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l2")
    file = faq(tmp_path, f"q,a\n{'word and more ' * 200},x\nWhere is it?,Here.\n")
    said = said_by(run("warm", file, "--dir", data))
    assert (
        "are now hits for lookups without context=, for 24 h, as are questions that mean the same."
        in said
    )
    assert "1 answer by the same words only: longer than the model reads." in said


@pytest.mark.parametrize("how", ["stdin", "fifo"])
def test_a_file_may_be_a_pipe(tmp_path: Path, data: Path, how: str) -> None:
    """`-` is standard input; what cannot be read twice is read all the same."""
    content = "question;answer\nWo für?;Dort.\n".encode("cp1252")
    if how == "stdin":
        result = run("warm", "-", "--dir", data, "--json", stdin=content)
    else:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        code = f"import sys; open(sys.argv[1], 'wb').write({content!r})"
        with subprocess.Popen([sys.executable, "-c", code, str(fifo)]):
            result = run("warm", fifo, "--dir", data, "--json")
    found = document(result)
    assert found["warmed"] == 1
    assert found["file"]["encoding"] == "cp1252"


def test_help_says_that_answers_are_shared() -> None:
    """The help says that an operator's answers are for every user."""
    said = said_by(run("warm", "--help"))
    assert "shared with all users" in said.replace("│", "")


async def test_a_file_of_many_contexts_keeps_its_order(tmp_path: Path) -> None:
    """Rows of other contexts between two answers to one question do not change which one wins."""
    settings = Settings(dir=tmp_path / "data", redis_url=None)
    async with MultiLevelCache(
        settings=settings, instruments=(), embedding_model=HashEmbedder()
    ) as cache:
        from cache_core.cli.files import FileRow
        from cache_core.cli.prepared import Options, prepared
        from cache_core.cli.warming import store

        def row(query: str, response: str, context: str | None) -> FileRow:
            return FileRow(1, {"query": query, "response": response, "context": context, "history": None,
                           "user_id": None, "intent": None, "tags": None})  # fmt: skip

        rows = [row("Where is it?", "old", None), row("Where is it?", "theirs", "c"),
                row("where is it", "new", None)]  # fmt: skip
        found = prepared(rows, Options(None, None, (), plain=False))
        assert (await store(cache, found.answers, None)).number == 3
        assert (await cache.lookup("Where is it?", "ann")).response in {"old", "new"}
        assert (await cache.lookup("it where is", "ann")).response == "new"
        assert (await cache.lookup("Where is it?", "ann", context="c")).response == "theirs"
