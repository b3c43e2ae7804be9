"""Every page of the Streamlit app in every state, on real stores."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from cache_core import Stage
from cache_core.observability import decisions
from dashboard.data.sessions import SESSIONS
from dashboard.data.words import plain
from tests.support import servers
from tests.support.dashboard import (
    PAGES,
    TOKEN,
    Agent,
    Open,
    agent,
    button,
    log_in,
    open_app,
    texts,
)
from tests.support.inside import inside

__all__ = ["open_app"]


@pytest.fixture
def redis_or_none(store_kind: str, request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("empty_redis")) if store_kind == "redis" else None


@pytest.fixture
def busy(tmp_path: Path, redis_or_none: str | None) -> Iterator[Agent]:
    """An agent that has answered questions, its texts recorded."""
    settings = {"capture_message_content": True}
    with agent(tmp_path / "cache", redis_or_none, settings=settings) as found:
        found.traffic()
        yield found


EMPTY = {
    "overview": "Nothing was looked up yet.",
    "history": "Nothing was looked up in this time.",
    "tuning": "There is nothing to replay yet.",
    "review": "There is nothing to judge.",
    "entries": "What would the cache say?",
    "alerts": "No replica is running on this store.",
    "audit": "Nobody changed the tuning.",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_an_empty_store_says_what_to_do(page: str, open_app: Open) -> None:
    """Before anything happened each page says so, and what to do; it changes nothing."""
    app = open_app(page)
    assert not app.exception
    assert EMPTY[page] in texts(app)
    assert "read-only" in texts(app)
    if page == "alerts":
        assert any("No Prometheus is configured" in item.value for item in app.warning)
        assert not app.success


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_busy_store_is_shown(page: str, open_app: Open, busy: Agent) -> None:
    """With traffic each page has something to show."""
    app = open_app(page)
    assert not app.exception
    assert not app.error
    shown = texts(app)
    if page in {"overview", "history", "tuning", "alerts"}:
        assert EMPTY[page] not in shown
    if page == "overview":
        values = {item.label: item.value for item in app.metric}
        assert values["Lookups"] == "180"
        hits = busy.cache.metrics.outcomes["hit"]
        assert values["Hit rate"] == f"{hits / 180:.1%}"
        assert busy.cache.replica in app.table[0].value["replica"].tolist()
        assert "another user had the answer" in shown
    if page == "history":
        values = {item.label: item.value for item in app.metric}
        counted = busy.cache.get_metrics()
        assert values["Saved, net"] == f"{counted['cost_savings_usd']:,.2f} USD"
        assert values["Hit rate"] == f"{counted['outcomes']['hit'] / 180:.1%}"
        assert app.dataframe[0].value["intent"].tolist() == ["billing"]
    if page == "review":
        assert "topic" in shown
        assert button(app, "Same question").disabled
    if page == "alerts":
        assert "every backend works" in shown


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_read_only_nothing_that_changes_anything_can_be_pressed(
    page: str, open_app: Open, busy: Agent
) -> None:
    """Without `--write`, every page says that it is read-only, and why."""
    app = open_app(page)
    if page == "tuning":
        app.slider[0].set_value(0.8).run()
    if page == "entries":
        next(item for item in app.text_input if item.key == "value_message").input("topic1 alpha")
        button(app, "Count matching entries").click().run()
    assert not app.exception
    assert "read-only" in texts(app)
    writing = ("Apply", "Same question", "Different", "Invalidate", "Erase", "Revert")
    buttons = [item for item in app.button if item.label.startswith(writing)]
    assert all(item.disabled for item in buttons)
    assert bool(buttons) == (page in {"tuning", "review", "entries"})
    if page in {"tuning", "entries"}:
        assert "glasscache dashboard --write" in texts(app)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_store_that_is_down_is_said(
    page: str, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing breaks when the store is unavailable; the page names it, without its password."""
    monkeypatch.setenv("REDIS_URL", f"redis://:hunter2@127.0.0.1:{servers.free_port()}/0")
    app = open_app(page)
    if page == "entries":
        app.text_input[0].input("hello")
        app.button[0].click().run()
    assert not app.exception
    assert any("cannot be reached" in item.value for item in app.error)
    assert "hunter2" not in texts(app)


@pytest.mark.server
@pytest.mark.parametrize("store_kind", ["redis"])
def test_a_store_that_dies_and_returns(open_app: Open, tmp_path: Path, store_kind: str,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """An outage while the page is open is said, the last state stays; afterwards the page goes on."""
    port = servers.free_port()
    directory = tmp_path / "redis"
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(servers.redis_server(directory, port=port))
        monkeypatch.setenv("REDIS_URL", url)
        app = open_app("audit")
        assert not app.error
    app.run()
    (said,) = [item.value for item in app.error]
    assert "does not answer" in said
    assert re.search(r"Below is the state of \d\d:\d\d:\d\d UTC, \d+ s ago", said)
    assert "Nobody changed the tuning." in texts(app)
    with servers.redis_server(directory, port=port):
        deadline = time.monotonic() + 60
        while app.error and time.monotonic() < deadline:
            time.sleep(0.1)
            app.run()
        assert not app.error
        assert "Nobody changed the tuning." in texts(app)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_shown_to_who_has_not_logged_in(
    page: str, open_app: Open, busy: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token set every page is the login form, and only the right token opens it."""
    monkeypatch.setenv("CACHE_DASHBOARD_TOKEN", TOKEN)
    app = open_app(page)
    assert [item.value for item in app.title] == ["Log in"]
    assert not app.metric
    assert not app.dataframe
    assert "topic" not in texts(app)
    log_in(app, "wrong")
    assert [item.value for item in app.error] == ["That is not the token."]
    log_in(app, TOKEN)
    assert [item.value for item in app.title] == [page.capitalize()]


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_an_intent_is_no_markup(open_app: Open, busy: Agent) -> None:
    """An intent, which a model wrote, is shown as it is where it is a label, and else not named."""
    evil = "x ![p](https://pictures.test/1.png) <img src=https://pictures.test/2>"

    async def work() -> None:
        for number, intent in enumerate((evil, "a_b_c")):
            words = f"unique words of number {number}"
            await busy.cache.put(words, "ann", "at home", "faq")
            await busy.cache.put(words, "bob", None, intent)
            assert (await busy.cache.lookup(words, "bob")).intent == intent

    busy.run(work())
    busy.flush()
    shown = texts(open_app("overview"))
    assert "pictures" not in shown
    assert r"a\_b\_c" in shown
    assert "no label" in shown


@pytest.mark.slow
def test_the_owner_tunes_and_takes_it_back(open_app: Open, busy: Agent) -> None:
    """A threshold moved on the page is in force in the agent, audited, and can be reverted."""
    app = open_app("tuning", login=True)
    before = busy.cache.tuning.semantic_threshold
    app.slider[0].set_value(0.97).run()
    assert "Similarity threshold: 0.95 → **0.97**" in texts(app)
    next(item for item in app.text_input if item.label == "Why").input("fewer hits")
    button(app, "Apply").click().run()
    assert not app.exception
    assert any("Version 1 is in force" in item.value for item in app.success)
    assert "No change proposed." in texts(app)
    busy.run(busy.cache._engine.live.refresh())
    assert busy.cache.tuning.semantic_threshold == 0.97

    app.switch_page("ui/views/audit.py").run()
    row = app.dataframe[0].value.iloc[0]
    assert list(row.index[:2]) == ["version", "what"], "what a narrow screen shows"
    assert (row["who"], row["why"]) == ("ada", "fewer hits")
    assert row["what"] == "Similarity threshold: 0.95 → 0.97"
    app.selectbox[0].select(0).run()
    assert plain("Similarity threshold: 0.97 → 0.95") in texts(app), "what a revert would do"
    button(app, "Revert").click().run()
    assert not app.error
    busy.run(busy.cache._engine.live.refresh())
    assert busy.cache.tuning.semantic_threshold == before
    assert busy.cache.tuning.version == 2


def decided_by(app: AppTest, name: str) -> None:
    """Choose what serves similar questions."""
    label = "Similar questions are served by"
    next(item for item in app.button_group if item.label == label).set_value(name).run()


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_the_policys_effect_is_shown_before_it_is_turned_on(
    open_app: Open, busy: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of wrong hits moved on the page shows what would be served; then it is applied."""
    monkeypatch.setattr(decisions, "_SHADOWS", 1_000)
    busy.traffic()
    app = open_app("tuning", login=True)
    decided_by(app, "the learned policy")
    assert not app.slider, "the threshold does not decide"
    (limit,) = (item for item in app.number_input if item.label == "Wrong hits you accept, %")
    assert limit.value == 1.0
    limit.set_value(20.0).run()
    assert not app.exception
    shown = texts(app)
    assert "Limit of wrong hits, learned policy: off → **20%**" in shown
    assert f"{plain('Under the policy, by intent')}" in shown
    by_intent = app.dataframe[0].value
    assert set(by_intent["intent"]) >= {"billing"}
    assert by_intent["newly served"].sum() > 0
    assert re.search(r"Newly served: \*\*[1-9]", shown)
    assert "no verdicts" in shown
    assert "Served as today: **0**" in shown
    assert "No longer served: " in shown
    assert re.search(r"By [1-9]\d* of \d+ semantic lookups", shown)
    assert "cannot be estimated" not in shown
    assert any("Too few such hits were judged" in item.value for item in app.warning)
    button(app, "Apply").click().run()
    assert not app.exception
    busy.run(busy.cache._engine.live.refresh())
    assert busy.cache.tuning.max_wrong == 0.2
    assert "Limit of wrong hits" not in texts(app).partition("What happened")[0], "it is in force"
    decided_by(app, "a threshold")
    assert "Limit of wrong hits, learned policy: 20% → **off**" in texts(app)
    assert app.slider


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_a_shadow_that_is_not_warm_says_so(open_app: Open, tmp_path: Path) -> None:
    """Without a semantic lookup nothing is known of the policy, and no figure is shown."""
    with agent(tmp_path / "cache", None, settings={"tiers": frozenset({"l1"})}) as exact:
        exact.traffic(5)
        app = open_app("tuning", login=True)
        decided_by(app, "the learned policy")
        assert "The shadow of the policy is not warm" in texts(app)
        assert "Newly served" not in texts(app)


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_one_intent_is_given_values_of_its_own(open_app: Open, busy: Agent) -> None:
    """Every override has a control, and the agent follows it."""
    app = open_app("tuning", login=True)
    intent = next(item for item in app.selectbox if item.label == "Intent")
    intent.select("billing").run()
    assert not app.exception
    own = {item.label: item for item in app.number_input if "intent.billing" in (item.key or "")}
    assert list(own) == ["Similarity threshold", "Limit of wrong hits, %"]
    times = {item.label: item for item in app.selectbox if "intent.billing" in (item.key or "")}
    assert list(times) == ["Shared", "TTL of L1", "TTL of L2", "TTL of L4"]
    times["TTL of L1"].select("5m").run()
    button(app, "Apply").click().run()
    assert not app.exception
    busy.run(busy.cache._engine.live.refresh())
    assert busy.cache.tuning.ttl("l1", "billing") == 300


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_a_staged_change_is_shown_and_ended(open_app: Open, busy: Agent) -> None:
    """More hits without evidence warn, and propose a stage; it shows its evidence and is undone."""
    app = open_app("tuning", login=True)
    app.slider[0].set_value(0.8).run()
    assert any("Too few such hits were judged" in item.value for item in app.warning)
    button(app, "Apply").click().run()
    assert not app.exception
    (change,) = busy.run(busy.cache.tuning_history())
    assert change.stage == Stage(1_800.0, 0.01, 0.01)
    assert any("Version 1 is staged until" in item.value for item in app.info)
    assert "So far: 0 lookups, 0 failed, no hit was judged" in texts(app)
    app.slider[0].set_value(0.7).run()
    button(app, "Apply").click().run()
    assert any("is staged until" in item.value for item in app.error), "one at a time"
    button(app, "Keep now").click().run()
    assert not app.exception
    assert any("Version 2 is in force" in item.value for item in app.success)
    button(app, "Undo").click().run()
    newest = busy.run(busy.cache.tuning_history())[0]
    assert (newest.version, newest.reverts) == (3, 0), "the confirmation changed no value"
    app.slider[0].set_value(0.99).run()
    assert not app.warning, "fewer hits need no evidence"


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_keep_now_keeps_what_was_shown(open_app: Open, busy: Agent) -> None:
    """A page that shows an older stage keeps no newer one; a stricter change says that it stays."""
    busy.run(busy.cache.tune({"sharing": "all"}, author="ben", stage=Stage()))
    app = open_app("tuning", login=True)
    assert "It is taken back by itself if" in texts(app)
    busy.run(busy.cache.confirm_tuning(author="ben"))
    busy.run(busy.cache.tune({"sharing": "private"}, author="ben", stage=Stage()))
    button(app, "Keep now").click().run()
    assert not app.exception
    assert busy.run(busy.cache.tuning_history())[0].version == 3
    assert "It is not taken back by itself, as that would loosen: Sharing" in texts(app)


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_values_are_in_their_units(open_app: Open, busy: Agent) -> None:
    """TTLs are durations with presets, shares are percent, and money says by which price."""
    app = open_app("tuning", login=True)
    ttl = next(item for item in app.selectbox if item.label == "TTL of L3, intents")
    assert (ttl.value, "2d" in ttl.options) == ("6h", True)
    ttl.select("2d").run()
    shown = texts(app)
    assert "TTL of L3, intents: 6h → **2d**" in shown.replace("\\", "")
    assert "**Money**" in shown
    fields = {item.label: item.value for item in app.number_input}
    assert fields["Hit rate objective, %"] == 60.0
    assert fields["Share that is verified, %"] == 2.0
    app.slider[0].set_value(0.8).run()
    assert "at 0.036 USD an answer (the default price)" in texts(app).replace("\\", "")
    button(app, "Apply").click().run()
    busy.run(busy.cache._engine.live.refresh())
    assert busy.cache.tuning.l3_ttl == 172_800
    assert busy.cache.tuning.hit_rate_objective == 0.6


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_what_somebody_wrote_is_no_markup(open_app: Open, busy: Agent) -> None:
    """A note shows as it was written: no picture of it is fetched from anywhere."""
    note = "![](https://pictures.test/1.png) *soon* :red[now]\n# www.pictures.test a@b.test"
    busy.run(busy.cache.tune({"semantic_threshold": 0.9}, author="<b>", note=note))
    shown = texts(open_app("tuning"))
    joiner = "\N{WORD JOINER}"
    assert (
        rf"\!\[\]\(https\:{joiner}//pictures\.test/1\.png\) \*soon\* \:{joiner}red\[now\]" in shown
    )
    assert rf" \# www\.{joiner}pictures\.test a@{joiner}b\.test" in shown
    assert r"by \<b\>" in shown


@pytest.mark.slow
def test_a_conflict_is_shown(open_app: Open, busy: Agent) -> None:
    """A concurrent change of another operator is not overwritten."""
    app = open_app("tuning", login=True)
    app.slider[0].set_value(0.8).run()
    busy.run(busy.cache.tune({"semantic_threshold": 0.9}, author="bob"))
    busy.run(inside(busy.cache).housekeeper._beat())
    app.run()
    # The controls show what is in force now: nothing of the old proposal is left to apply.
    assert app.slider[0].value == 0.9
    assert "No change proposed." in texts(app)


@pytest.mark.slow
def test_a_reader_cannot_change_anything(
    open_app: Open, busy: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, controls can be moved, and what would make a change is off."""
    app = open_app("tuning")
    app.slider[0].set_value(0.8).run()
    assert button(app, "Apply").disabled
    app.switch_page("ui/views/review.py").run()
    assert button(app, "Same question").disabled
    assert button(app, "Different").disabled
    # A token alone does not switch writing on.
    monkeypatch.setenv("CACHE_DASHBOARD_TOKEN", TOKEN)
    app = open_app("tuning")
    log_in(app)
    app.switch_page("ui/views/tuning.py").run()
    app.slider[0].set_value(0.8).run()
    assert button(app, "Apply").disabled
    assert busy.cache.tuning.version == 0


@pytest.mark.slow
def test_a_review_becomes_a_verdict(open_app: Open, busy: Agent) -> None:
    """A press judges the pair that is shown, once; it is audited without any text."""
    app = open_app("review", login=True)
    first = {item.value for item in app.text}
    button(app, "Different").click().run()
    assert not app.exception
    assert {item.value for item in app.text} != first
    (verdict,) = busy.run(busy.cache.verdicts())
    assert (verdict.source, verdict.verdict) == ("review", "wrong")
    button(app, "Undecided").click().run()
    assert len(busy.run(busy.cache.verdicts())) == 1
    app.switch_page("ui/views/audit.py").run()
    row = app.dataframe[-1].value.iloc[0]
    assert (row["who"], row["what"]) == ("ada", "reviewed 1 pair")


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_a_verdict_is_taken_back(open_app: Open, busy: Agent) -> None:
    """The answer is open, no button asks to be pressed, and a slip is undone: pair by pair, audited."""
    app = open_app("review", login=True)
    shown = [item.value for item in app.text]
    assert len(shown) == 3
    assert shown[2].startswith("answer ")
    labels = ("Same question", "Different", "Undecided")
    assert {button(app, label).proto.type for label in labels} == {"secondary"}
    assert not [item for item in app.button if item.label == "Take back"]
    button(app, "Undecided").click().run()
    button(app, "Different").click().run()
    assert [item.verdict for item in busy.run(busy.cache.verdicts())] == ["wrong"]
    button(app, "Take back").click().run()
    assert busy.run(busy.cache.verdicts()) == []
    button(app, "Take back").click().run()
    assert [item.value for item in app.text] == shown
    assert not [item for item in app.button if item.label == "Take back"]
    actions = [item.action for item in busy.run(busy.cache.operator.audit_trail())]
    assert actions == ["withdraw review", "review"]


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_a_press_after_the_logout_judges_nothing(open_app: Open, busy: Agent) -> None:
    """A tab that is still open has the login page, and its buttons do nothing."""
    app = open_app("review", login=True)
    SESSIONS.end(app.session_state["signed_in"])
    button(app, "Different").click().run()
    assert not app.exception
    assert [item.value for item in app.title] == ["Log in"]
    assert busy.run(busy.cache.verdicts()) == []


@pytest.mark.slow
def test_without_capture_no_text_is_shown(
    open_app: Open, tmp_path: Path, redis_or_none: str | None
) -> None:
    """Pairs whose texts were not recorded cannot be judged, and the page says how they could."""
    with agent(tmp_path / "cache", redis_or_none) as found:
        found.traffic()
        app = open_app("review", login=True)
        shown = texts(app)
    assert "their texts were not recorded" in shown
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true" in shown
    assert "topic" not in shown
    assert not [item for item in app.button if item.label == "Same question"]


@pytest.mark.slow
def test_an_entry_is_found_explained_and_invalidated(
    open_app: Open, tmp_path: Path, redis_or_none: str | None
) -> None:
    """The real model: explained tier by tier, counted by a dry run, gone after, and audited."""
    with agent(tmp_path / "cache", redis_or_none, embedding_model=None) as found:
        message, user = "How long does delivery take?", "ann"
        found.run(found.cache.ready())
        found.run(found.cache.put(message, user, "Three days.", "delivery", [{"id": "kb/1"}]))
        app = open_app("entries", login=True)
        app.text_input[0].input("How long does the delivery take?")
        app.text_input[1].input(user)
        button(app, "Explain").click().run()
        assert not app.exception
        shown = texts(app)
        assert "**L2 semantic** :green-badge[answers]" in shown
        assert "**L3 intent** :gray-badge[miss: nothing stored] :gray-badge[not asked]" in shown
        assert "**L1 exact** :gray-badge[miss: nothing stored]" in shown

        next(item for item in app.text_input if item.key == "value_message").input(message)
        button(app, "Count matching entries").click().run()
        assert not app.exception
        counted = next(text.value for text in app.markdown if "Would invalidate" in text.value)
        assert "**4 entries**" in counted
        assert found.run(found.cache.lookup(message, user)).outcome == "hit"
        next(item for item in app.text_input if item.key == "invalidate_note").input("wrong")
        button(app, "Invalidate").click().run()
        assert any("invalidated on" in item.value for item in app.success)
        assert found.run(found.cache.lookup(message, user)).outcome != "hit"

        app.switch_page("ui/views/audit.py").run()
        row = app.dataframe[-1].value.iloc[0]
        assert (row["who"], row["removed"], row["why"]) == ("ada", "4", "wrong")
        assert row["what"].startswith("invalidate message: message ")
        assert "delivery" not in row["what"]


@pytest.mark.parametrize("store_kind", ["embedded"])
def test_alerts_degrade_when_prometheus_is_away(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Prometheus that cannot be asked is said; the rest of the page works."""
    monkeypatch.setenv("PROMETHEUS_URL", f"http://u:hunter2@127.0.0.1:{servers.free_port()}")
    app = open_app("alerts")
    assert not app.exception
    assert any("cannot be asked" in item.value for item in app.error)
    assert "hunter2" not in texts(app)
    assert "What the store itself shows" in texts(app)


@pytest.mark.server
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_what_alertmanager_has_is_shown_with_its_runbook(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real Alertmanager: its alert, worst first, and the link to what to do."""
    program, port = servers.require("prometheus-alertmanager"), servers.free_port()
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    command = [
        program, f"--config.file={config}", f"--storage.path={tmp_path}/am",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with servers.running(command, port):
        url = f"http://127.0.0.1:{port}"
        for name, severity in (("CacheHitRateLow", "warning"), ("CacheRedisDown", "critical")):
            alert = {
                "labels": {"alertname": name, "severity": severity, "cache": "default"},
                "annotations": {
                    "summary": f"{name}!",
                    "runbook_url": f"https://runbooks.test/{name}",
                },
            }
            assert httpx.post(f"{url}/api/v2/alerts", json=[alert]).status_code == 200
        monkeypatch.setenv("ALERTMANAGER_URL", url)
        app = open_app("alerts")
    assert not app.exception
    shown = [item.value for item in app.markdown if "firing" in item.value]
    assert [text.split("**")[1] for text in shown] == ["CacheRedisDown", "CacheHitRateLow"]
    links = [item.proto.url for item in app.get("link_button")]
    assert links == [
        "https://runbooks.test/CacheRedisDown",
        "https://runbooks.test/CacheHitRateLow",
    ]


@pytest.mark.parametrize("store_kind", ["redis"])
def test_nothing_is_counted_by_looking(open_app: Open, busy: Agent, empty_redis: str) -> None:
    """The app asks the store, never the agent; and it leaves no decision behind."""
    before = busy.cache.metrics.snapshot()
    with servers.admin(empty_redis) as client:
        (log,) = client.keys("*{decisions}*") or client.keys("*decisions*")
        length = client.xlen(log)
        for page in PAGES:
            open_app(page)
        assert client.xlen(log) == length
    assert busy.cache.metrics.snapshot() == before
    st.cache_resource.clear()
