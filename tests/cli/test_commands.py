"""The commands, run as a user runs them, on the real model."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner, Result

from cache_core import MultiLevelCache
from cache_core.cli import console, export, settings, stats, tune
from cache_core.cli.app import app
from cache_core.config.settings import TUNING_VARIABLES, Settings
from cache_core.config.tuning import Tuning
from cache_core.model.urls import without_secrets
from cache_core.observability.audit import AuditRecord
from cache_core.observability.sums import IntentSums, Sums
from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import Asker, fill, question
from tests.support.modules import require
from tests.support.patience import PATIENT
from tests.support.waiting import until


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    rows = [
        {"query": "How long does delivery take?", "response": "Three days."},
        {"query": "Can I return a bicycle?", "response": "Within 30 days."},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the commands time: a busy machine must not turn into an outcome."""
    for name, seconds in PATIENT.items():
        monkeypatch.setenv(f"CACHE_{name.upper()}", str(seconds))


@pytest.mark.slow
@pytest.mark.usefixtures("_patient")
def test_a_warmed_answer_is_explained_and_invalidated(
    store_kind: str, answers: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """warm, explain, invalidate --dry-run, invalidate, explain: each sees what the last did."""
    where = ["--dir", str(tmp_path / "data")]
    if store_kind == "redis":
        where += ["--redis-url", request.getfixturevalue("empty_redis")]

    warmed = document(run("warm", str(answers), *where, "--json"))
    assert warmed["warmed"] == 2
    assert warmed["dropped"] == 0

    asked = ["explain", "How long does the delivery take?", "--user", "u1", *where, "--json"]
    answer = run(*asked[:-1])
    assert "such as shared_intents, are unknown" in answer.stderr, "no agent is running"
    shown = " ".join(answer.stdout.split())
    assert "l2 answers" in shown
    assert "l3 miss, not asked" in shown
    tiers = {item["level"]: item for item in document(run(*asked))}
    assert tiers["l1"]["reason"] == "cold"
    assert tiers["l2"]["outcome"] == "hit"
    assert tiers["l2"]["similarity"] > 0.95

    question = ["invalidate", "how long does delivery take", *where, "--json"]
    assert document(run(*question, "--dry-run"))["removed"] == 2
    assert document(run(*question)) == {
        "removed": 2,
        "counts": {},
        "complete": True,
        "pending": [],
        "dry_run": False,
    }
    tiers = {item["level"]: item for item in document(run(*asked))}
    assert tiers["l2"]["outcome"] == "miss"


def test_invalidate_needs_one_target() -> None:
    """Naming nothing, or two things, is refused with the choices."""
    for arguments in ([], ["--document", "d", "--tag", "t"], ["--user", "u", "--tag", "t"]):
        result = run("invalidate", *arguments)
        assert result.exit_code == 2
        assert "name one of" in result.output


@pytest.mark.slow
def test_forgetting_a_user_says_how_much_was_erased(
    tmp_path: Path,
) -> None:
    """`invalidate --user` erases what a closed agent left behind."""

    async def fill() -> None:
        settings = Settings(dir=tmp_path / "data", tiers="l1,l3,l4")  # type: ignore[arg-type]
        async with MultiLevelCache(settings=settings, instruments=()) as cache:
            await cache.put("Where is my order?", "u1", "On its way.")
            await cache.put("Where is my order?", "u2", "Delivered.")

    import asyncio

    asyncio.run(fill())
    where = ["--dir", str(tmp_path / "data"), "--json"]
    assert document(run("invalidate", "--user", "u1", "--dry-run", *where))["removed"] == 1
    why = ["--author", "ana", "--note", "asked for it"]
    assert document(run("invalidate", "--user", "u1", *why, *where))["removed"] == 1
    assert document(run("invalidate", "--user", "u1", *where))["removed"] == 0
    assert document(run("invalidate", "--user", "u2", *where))["removed"] == 1

    async def trail() -> list[AuditRecord]:
        settings = Settings(dir=tmp_path / "data", tiers="l1,l3,l4")  # type: ignore[arg-type]
        async with MultiLevelCache(settings=settings, instruments=()) as cache:
            return (await cache.operator.audit_trail(10))[::-1]

    first, *others = asyncio.run(trail())
    assert (first.author, first.note, first.removed) == ("ana", "asked for it", 1)
    assert first.action == "invalidate user"
    assert "u1" not in first.target
    assert len(others) == 2


@pytest.mark.slow
def test_stats_show_a_running_replica_and_the_last_decisions(tmp_path: Path) -> None:
    """Beside a running agent, stats names its replica, its counts and what sharing would give."""
    program = """
import asyncio
from cache_core import MultiLevelCache
async def main():
    async with MultiLevelCache() as cache:
        await cache.put("Where is my order?", "u1", "On its way.", intent="order")
        await cache.lookup("Where is my order?", "u1")
        await cache.lookup("Where is my order?", "u2")
        await asyncio.sleep(1.5)
        print("looked up", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    environment = {
        **os.environ, "CACHE_DIR": str(tmp_path / "data"), "CACHE_TIERS": "l1,l3,l4",
    }  # fmt: skip
    agent = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "looked up\n"
        found = document(run("stats", "--dir", str(tmp_path / "data"), "--json"))
    finally:
        agent.kill()
        agent.communicate()
    (replica,) = found["replicas"]
    assert replica["pid"] == agent.pid
    assert replica["lookups"] == 2
    assert replica["hit_rates"]["overall"] == 50.0
    assert found["decisions"]["lookups"] == 2
    assert found["history"]["all"]["lookups"] in {0, 2}  # it was killed before it wrote, or after
    assert found["decisions"]["other_scope"] == 1
    assert found["decisions"]["other_scope_intents"] == {"order": 1}


def test_stats_fit_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure of two replicas is whole, one in trouble is reported, and reasons have words."""
    rates = {"overall": 100.0, "l1": 37.3, "l2": 100.0, "l3": 2.2, "l4": 12.5}
    replica = {
        "replica": "d469c79a", "pid": 4_194_304, "lookups": 1_234_567, "hit_rates": rates,
        "latency_ms": {"p50": 121.12}, "cost_savings_usd": 12_345.67,
        "backends": {"redis": True, "chroma": False, "embedder": True}, "loading": [],
        "freshness": {"shipping": {
            "unchanged_at_expiry": 12_345, "unchanged_before": 6, "changed": 789, "unknown": 5, "failed": 0,
            "recommended_ttl": 7_200,
        }},
    }  # fmt: skip
    sums = Sums(
        outcomes={"hit": 5_000_000, "miss": 5_000_000}, hits={"l1": 3_000_000, "l2": 2_000_000},
        reasons={"below_threshold": 4_999, "breaker_open": 1}, saved={"l1": 123_456.78},
        misses={"l1": {"other_scope": 1}}, intents={"order": IntentSums(other_scope=1)},
    )  # fmt: skip
    history = dict.fromkeys(("hour", "day", "week", "all"), stats.as_totals(sums))
    monkeypatch.setattr(stats, "out", Console(width=80))
    begins = {"backends": {"redis": True, "embedder": False}, "loading": ["embedder"]}
    replicas = [replica, replica | {"backends": {}}, replica | begins]
    stats._print_stats({"namespace": "shop", "replicas": replicas, "history": history})
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert max(map(len, lines)) <= 80
    (compared,) = [line.split() for line in lines if "shipping" in line]
    assert [word for word in compared if word.isalnum() or "," in word] == [
        "shipping", "37,035", "18", "2,367", "15", "0", "2", "h",
    ]  # fmt: skip
    assert "…" not in said
    rows = [line.split() for line in lines if line.startswith("d469c79a")]
    first = ["d469c79a", "4194304", "1,234,567", "100.0", "%", "121.12", "ms", "12,345.67", "USD"]
    assert rows[0] == [*first, "chroma"]
    assert rows[1] == [*first, "nothing"]
    assert rows[2] == [*first, "loading"]
    assert rows[3] == ["d469c79a", "37.3", "%", "100.0", "%", "2.2", "%", "12.5", "%"]
    assert re.search(r"below_threshold +4,999 +the nearest question is not similar", said)
    assert re.search(r"breaker_open +1 +a backend is unavailable", said)
    assert "1 lookup missed although" in said
    whole = ["last", "90", "days", "10,000,000", "50.0", "%", "30.0", "%", "20.0", "%"]
    assert [*whole, "123,456.78", "USD"] in [line.split() for line in lines]
    monkeypatch.setattr(stats, "out", Console(width=60))
    stats._print_stats({"namespace": "shop", "replicas": replicas, "history": history})
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 60
    assert "…" not in narrow
    assert Counter(re.sub(r"[\s─]", "", narrow)) == Counter(re.sub(r"[\s─]", "", said))


@pytest.mark.parametrize(
    ("number", "plural", "said"),
    [
        (0, "entries", "0 entries"),
        (1, "private entries", "1 private entry"),
        (1, "votes", "1 vote"),
        (1_000, "answers", "1,000 answers"),
    ],
)
def test_counts_have_their_nouns(number: int, plural: str, said: str) -> None:
    """One is one."""
    assert console.counted(number, plural) == said


@pytest.mark.slow
def test_one_is_one(tmp_path: Path) -> None:
    """The erasure of one entry is reported in the singular."""

    async def fill() -> None:
        settings = Settings(dir=tmp_path, tiers="l1,l3,l4")  # type: ignore[arg-type]
        async with MultiLevelCache(settings=settings, instruments=()) as cache:
            await cache.put("Where is my order?", "u1", "On its way.")

    asyncio.run(fill())
    result = run("invalidate", "--user", "u1", "--dir", str(tmp_path))
    assert "Invalidated 1 entry." in result.output
    assert "1 private entry" in result.output


@pytest.mark.parametrize("command", [["settings"], ["tune", "show"]])
def test_no_name_is_cut_at_80_columns(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and fields can be copied from a narrow terminal; values are written as they go."""
    monkeypatch.setenv("CACHE_DIR", str(tmp_path))
    for name in ("settings", "tune"):
        monkeypatch.setattr(importlib.import_module(f"cache_core.cli.{name}"), "out", narrow())
    said = run(*command).stdout
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    words = said.split()
    assert set(Tuning.bounds()) - {"intents"} <= set(words)
    if command == ["settings"]:
        assert {"CACHE_CAPTURE_MESSAGE_CONTENT", "CACHE_ENCRYPTION_KEYS", "no"} <= set(words)
        assert re.search(r"^CACHE_MAX_BYTES +1 GiB +default *$", said, re.MULTILINE)
        assert re.search(r"^CACHE_DIR +.* environment *$", said, re.MULTILINE)
        assert "[]" not in said
        assert re.search(
            r"^semantic_threshold +SEMANTIC_THRESHOLD +0.95 +default *$", said, re.MULTILINE
        )
        assert re.search(
            r"^shared_intents +CACHE_SHARED_INTENTS +none +default *$", said, re.MULTILINE
        )
    assert "1 h" in said


def test_every_variable_that_settings_name_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that the second table lists changes what starts."""
    given = {"SEMANTIC_THRESHOLD": "0.9", "CACHE_L1_TTL": "60", "CACHE_REFRESH_SHARE": "0.25"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(importlib.import_module("cache_core.cli.settings"), "out", narrow())
    said = run("settings").stdout
    for name, field, shown in (
        ("SEMANTIC_THRESHOLD", "semantic_threshold", "0.9"),
        ("CACHE_L1_TTL", "l1_ttl", "1 m"),
        ("CACHE_REFRESH_SHARE", "refresh_share", "0.25"),
    ):
        assert re.search(rf"^{field} +{name} +{shown} +environment *$", said, re.MULTILINE)
    named = {name for name in TUNING_VARIABLES if name != "semantic_threshold"}
    assert {f"CACHE_{name.upper()}" for name in named} | {"SEMANTIC_THRESHOLD"} <= set(said.split())
    assert sorted(name for names in settings.GROUPS.values() for name in names) == sorted(
        {*Settings.model_fields, *Tuning.bounds()} - {"intents"}
    )


def narrow() -> Console:
    return Console(width=80, markup=False, emoji=False)


def test_the_version_is_printed() -> None:
    """`--version` names the command and its version."""
    assert run("--version").stdout == f"glasscache {version('glasscache')}\n"


@pytest.mark.slow
def test_a_terminal_without_unicode_gets_no_traceback(tmp_path: Path) -> None:
    """A character that the terminal lacks is shown as a question mark."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CACHE_DIR": str(tmp_path)}
    program = "from cache_core.cli.app import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", program, "explain", "Wo ist mein Päckchen?"],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "P?ckchen" in shown.stdout


def test_a_setting_is_explained() -> None:
    """A part of a name shows the matching settings with their meaning, another one is an error."""
    said = " ".join(run("settings", "max_bytes").stdout.split())
    assert said.startswith("CACHE_MAX_BYTES = 1 GiB (default) Bytes of the embedded store")
    assert "Range: more than 0, to 30 d." in " ".join(run("settings", "L1").stdout.split())
    assert run("settings", "nonsense").exit_code == 2


def test_a_misspelt_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that nearly has a name of ours is named once; another program's is not."""
    monkeypatch.setenv("CACHE_SHARED_INTNETS", "faq")
    monkeypatch.setenv("CACHE_BACKEND", "django")
    said = run("settings").stderr
    assert "CACHE_SHARED_INTNETS is not read: did you mean CACHE_SHARED_INTENTS?" in said
    assert "CACHE_BACKEND" not in said
    assert "CACHE_SHARED_INTNETS" not in caplog.text, "it was printed already"
    monkeypatch.setenv("CACHE_SHARED_INTETNS", "faq")
    Settings(dir=tmp_path)
    Settings(dir=tmp_path)
    assert caplog.text.count("CACHE_SHARED_INTETNS is not read") == 1
    assert "CACHE_BACKEND" not in caplog.text


def test_a_misspelt_directory_is_an_error(tmp_path: Path) -> None:
    """A directory that is not there is neither made nor reported as empty; tuning may make it."""
    missing = tmp_path / "missing"
    for command in (["stats"], ["explain", "hi"], ["tune", "show"], ["invalidate", "hi"]):
        result = run(*command, "--dir", str(missing))
        assert result.exit_code == 2
        assert "there is no such directory" in result.stderr
    assert not missing.exists()
    (tmp_path / "file").write_text("")
    result = run("tune", "set", "l1_ttl=1h", "--dir", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert "cannot be used: Not a directory" in result.stderr
    assert run("tune", "set", "l1_ttl=1h", "--dir", str(missing)).exit_code == 0


def test_a_value_that_stays_the_same_is_tuned_from_now_on(tmp_path: Path) -> None:
    """Tuning a field to its start value is a change of what is tuned, and said so."""
    said = run("tune", "set", "semantic_threshold=0.95", "--dir", str(tmp_path)).stdout
    assert "semantic_threshold 0.95, tuned from now on" in said
    assert "->" not in said


def test_a_change_expects_the_version_that_it_was_made_from(tmp_path: Path) -> None:
    """--expected-version rejects a change, and a confirmation, after somebody else's."""
    where = ["--dir", str(tmp_path)]
    first = run("tune", "set", "l1_ttl=1h", "--expected-version", "0", *where)
    assert first.exit_code == 0
    late = run("tune", "set", "l1_ttl=2h", "--expected-version", "0", *where)
    assert late.exit_code == 2
    assert "version 1" in late.output
    again = run("tune", "set", "l1_ttl=2h", "--expected-version", "1", "--stage", "30m", *where)
    assert again.exit_code == 0
    assert run("tune", "confirm", "--expected-version", "1", *where).exit_code == 2
    assert run("tune", "confirm", "--expected-version", "2", *where).exit_code == 0


@pytest.mark.server
def test_an_invalidation_at_a_wrong_address_does_not_trouble_other_commands(tmp_path: Path) -> None:
    """Only the command that left it pending speaks of it, and says how to be rid of it."""
    wrong = f"redis://127.0.0.1:{servers.free_port()}"
    result = run("invalidate", "hi", "--redis-url", wrong, "--dir", str(tmp_path))
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "Check that Redis runs and that --redis-url names it" in said
    assert "delete the newest unconfirmed-*.jsonl" in said
    assert run("stats", "--dir", str(tmp_path)).stderr == ""


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or a password in the environment is not printed."""
    monkeypatch.setenv("CACHE_KEY", "very-secret-key")
    monkeypatch.setenv("REDIS_URL", "redis://me:hunter2@cache.internal:6379/0")
    result = run("settings")
    assert result.exit_code == 0
    assert "very-secret-key" not in result.output
    assert "hunter2" not in result.output
    monkeypatch.setenv("CHROMA_URL", "https://chroma.internal/?api_key=hunter2")
    shown = document(run("settings", "--json"))
    assert shown["settings"]["chroma_url"] == "https://chroma.internal/?api_key=***"
    assert shown["settings"]["redis_url"] == "redis://***@cache.internal:6379/0"
    assert shown["tuning"]["semantic_threshold"] == 0.95


def test_a_refused_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad environment ends in exit code 2 and a line that names variable, value and bounds."""
    monkeypatch.setenv("SEMANTIC_THRESHOLD", "1.5")
    result = run("settings")
    assert result.exit_code == 2
    assert "SEMANTIC_THRESHOLD='1.5' is ignored: Input should be less than or" in result.output
    assert "0 to 1" in result.output
    assert "Traceback" not in result.output
    shown = run("settings", "--json")
    assert shown.exit_code == 2
    assert json.loads(shown.stdout)["sources"]["semantic_threshold"] == "default"
    assert json.loads(shown.stdout)["tuning"]["semantic_threshold"] == 0.95


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://me:hunter2@h:6379/0", "redis://***@h:6379/0"),
        ("redis://:hunter2/with@slash@h", "redis://***@h"),
        ("redis://me:hunter2://x@h/0", "redis://***@h/0"),
        ("redis://me:hunter2?x@h/0", "redis://***@h/0"),
        ("redis://h/0?db=1&password=hunter2@x&ssl=1", "redis://h/0?db=1&password=***&ssl=1"),
        ("redis://h?ssl_password=hunter2", "redis://h?ssl_password=***"),
        ("rediss://me:hunter2@h?PASSWORD=hunter2", "rediss://***@h?PASSWORD=***"),
        ("redis:/me:hunter2@h", "***@h"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("unix://me:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("", ""),
    ],
)
def test_urls_are_printed_without_secrets(url: str, printed: str) -> None:
    """User and password are masked, wherever in a URL they are, even in a mistyped one."""
    assert without_secrets(url) == printed


@pytest.mark.parametrize("command", [["explain", "hi"], ["stats"], ["demo", "--json", "-n", "1"]])
@pytest.mark.slow
def test_a_store_that_is_away_is_named_without_its_password(
    command: list[str], tmp_path: Path
) -> None:
    """An unreachable server is named without its password."""
    url = f"redis://me:hunter2@127.0.0.1:{servers.free_port()}/0?password=hunter2"
    result = run(*command, "--redis-url", url, "--dir", str(tmp_path))
    assert result.exit_code == 2
    assert "cannot be reached" in result.output
    assert "redis://***@127.0.0.1:" in result.output
    assert "hunter2" not in result.output
    assert "CHROMA_URL" not in result.output, "that one is not away"


@pytest.mark.parametrize("name", ["REDIS_URL", "GLASSCACHE_REDIS_URL", "CHROMA_URL"])
def test_a_refused_url_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A URL of the wrong scheme is shown, so that the mistake is seen, without its password."""
    monkeypatch.setenv(name, "htp://me:hunter2@h?password=hunter2")
    result = run("settings")
    assert result.exit_code == 2
    assert "htp://***@h" in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize("text", ["[/red] hi", "[bold]hi", ":smile: [link=x]hi[/link]", "[/]"])
def test_what_users_write_is_not_markup(text: str, tmp_path: Path) -> None:
    """Brackets are shown as they were written, in tables and in messages."""
    where = ["--dir", str(tmp_path)]
    result = run("explain", text, "--user", text, *where)
    assert result.exit_code == 0, result.output
    assert repr(text) in " ".join(result.output.split())
    assert run("stats", "--namespace", "demo", *where).exit_code == 0
    failed = run("explain", "hi", "--context", "{" + text, *where)
    assert failed.exit_code == 2
    assert "looks like JSON" in failed.output


@pytest.mark.slow
def test_brackets_in_a_reason_are_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`[semantic]` in a message is shown, as the reason for the missing tier and as an error."""
    require("sentence_transformers")
    missing = str(tmp_path / "a[semantic]model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EMBEDDING_MODEL", missing)
    result = run("explain", "hi", "--dir", str(tmp_path))
    assert result.exit_code == 0
    assert "a[semantic]model" in "".join(result.output.split())
    said = "pip install 'glasscache[semantic]'"
    with pytest.raises(typer.Exit):
        console.fail(said)
    assert f"glasscache: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "replay",
        "evaluate",
        "warm",
        "invalidate",
        "explain",
        "reembed",
        "stats",
        "settings",
        "tune",
        "dashboard",
    ],
)
def test_help_teaches(command: str) -> None:
    """Every command says what it is for, and shows how it is called."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"glasscache {command}" in result.output.partition("Usage")[2].partition("\n")[2]


def test_help_flows() -> None:
    """Paragraphs fill the width of the terminal, whatever it is; examples keep their lines."""
    for command in app.registered_commands:
        for paragraph in str(command.help).split("\n\n"):
            assert "\n" not in paragraph or "\n    " in paragraph
            if "\n" in paragraph:
                lines = Text.from_markup(paragraph).plain.splitlines()
                assert max(map(len, lines)) <= 78, "an example fits a terminal of 80"


@pytest.mark.slow
def test_examples_in_help_are_indented() -> None:
    """The description of each example stands indented below it, in every command."""
    for prefix, group in ((), app), (("tune",), tune.app), (("export",), export.app):
        for command in group.registered_commands:
            shown = run(*prefix, str(command.name), "--help").output.splitlines()
            for line in Text.from_markup(str(command.help)).plain.splitlines():
                if line.startswith("    "):
                    assert any(row.startswith(f" {line}") for row in shown), line


@pytest.mark.server
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_commands_while_redis_is_away(how: str, tmp_path: Path) -> None:
    """Each says what is wrong and what to do, once, and ends; nothing speaks of an agent."""
    with servers.BreakableRedis(tmp_path) as server:
        where = ["--redis-url", server.url, "--dir", str(tmp_path / "data")]
        getattr(server, {"stopped": "stop", "killed": "kill"}[how])()
        for command in (
            ["stats", *where[:2]],
            ["explain", "hello", *where],
            ["invalidate", "hello", "--dry-run", *where],
            ["tune", "show", *where[:2]],
        ):
            started = time.monotonic()
            result = run(*command)
            assert time.monotonic() - started < 30
            assert result.exit_code == 2, result.output
            assert f"127.0.0.1:{server.port}" in result.stderr
            assert "To use another store, pass --redis-url" in result.stderr
            assert "Error" in result.stderr
            assert "agent" not in result.stderr
            assert "tried again" not in result.stderr
        assert run("settings").exit_code == 0


@pytest.mark.server
async def test_an_invalidation_while_redis_is_away_is_made_later(tmp_path: Path) -> None:
    """The command keeps it, says where, and the next process on that store makes it."""
    data = tmp_path / "data"
    with servers.BreakableRedis(tmp_path) as server:
        where = ["--redis-url", server.url, "--dir", str(data)]
        async with opened(tmp_path / "agent", redis_url=server.url) as cache:
            await fill(cache, 2)
        server.stop()
        try:
            result = await asyncio.to_thread(run, "invalidate", question(1), *where, "--json")
        finally:
            server.go_on()
        assert result.exit_code == 1, result.output
        assert json.loads(result.stdout)["complete"] is False
        said = " ".join(result.stderr.split())
        assert "the store cannot be reached" in said
        assert "a process with this namespace, data directory and store applies it" in said
        async with opened(data, redis_url=server.url) as cache:
            await until(lambda: not list(data.glob("unconfirmed-*")))
            assert (await Asker(cache).ask(1)).response is None
            await Asker(cache).served_by_l1([0])
        # Where it cannot be kept it says that.
        (tmp_path / "file").write_text("")
        server.stop()
        try:
            where[-1] = str(tmp_path / "file")
            result = await asyncio.to_thread(run, "invalidate", question(0), *where)
        finally:
            server.go_on()
        assert result.exit_code == 1, result.output
        assert "could not be saved" in " ".join(result.stderr.split())
