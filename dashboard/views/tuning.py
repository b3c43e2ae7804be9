"""Move a value, see what it would have done to recorded traffic, apply it to all replicas."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from cache_core.exceptions import GlasscacheError, TuningConflict
from cache_core.models import Level
from cache_core.tuning import INTENT_PREFIX, Bounds, Tuning
from dashboard import charts
from dashboard.estimates import Estimates, outcome
from dashboard.shell import Page, empty, open_page, quiet, show, telling
from dashboard.sources import ago
from dashboard.words import described, title, value

_OUTCOMES = 3
_OVERRIDES = ("semantic_threshold", "l1_ttl", "l2_ttl", "l4_ttl", "shared")


def tuning(page: Page) -> None:
    """Draw the page."""
    with telling():
        said = st.session_state.pop("tuning_done", None)
        if said:
            st.success(said, icon=":material/check_circle:")
        with st.spinner("replaying the recorded lookups"):
            estimates = page.source.estimates()
        _data(page, estimates)
        proposed = _controls(page, estimates)
        _proposal(page, estimates, proposed)
        _what_happened(page)


def _data(page: Page, estimates: Estimates) -> None:
    """Say what the page goes by."""
    now = estimates.tuning
    lookups = len(estimates.decisions)
    span = ""
    if lookups:
        first = datetime.fromtimestamp(estimates.decisions[0].at, UTC)
        span = f", since {first:%Y-%m-%d %H:%M} UTC"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"Version **{now.version}** is in force. What follows replays the newest "
            f"**{lookups:,}** recorded lookups{span}, judged by "
            f"**{len(estimates.verdicts):,}** verdicts.",
            width="stretch",
        )
        if st.button("Use the newest", icon=":material/refresh:", help="Look at the log again."):
            page.source.estimates(fresh=True)
            st.rerun()
    if not lookups:
        empty(
            "There is nothing to replay yet.",
            "Values can be changed all the same. Once your agent has looked something up, this "
            "page shows what a change would have done.",
        )


# ---------------------------------------------------------------------------------- controls


def _controls(page: Page, estimates: Estimates) -> dict[str, Any]:
    """Draw all controls; return the proposed values that differ from those in force, flat."""
    now = estimates.tuning
    proposed: dict[str, Any] = {}
    names = ["Similarity", "TTLs", "Sharing", "Single intents", "Everything else"]
    similarity, ttls, sharing, single, rest = st.tabs(names)
    with similarity:
        proposed["semantic_threshold"] = _similarity(page, estimates)
    with ttls:
        proposed |= _ttls(page, estimates)
    with sharing:
        proposed |= _sharing(page, estimates)
    with single:
        overrides = _overrides(estimates)
    with rest:
        done = {*proposed, "intents"}
        for bounds in Tuning.bounds().values():
            if bounds.field not in done:
                proposed[bounds.field] = _control(bounds, now)
    return _changed(now, proposed, overrides)


def _key(field: str, now: Tuning) -> str:
    # With the version: after a change, whoever made it, the controls show what is in force.
    return f"{field}@{now.version}"


def _control(bounds: Bounds, now: Tuning) -> Any:
    """Draw the control of a field as its bounds say; return its value as a JSON value."""
    current = now.flat()[bounds.field]
    key = _key(bounds.field, now)
    label = f"{bounds.title}, {bounds.unit}" if bounds.unit else bounds.title
    if bounds.kind == "number":
        return st.number_input(
            label,
            min_value=None if bounds.minimum is None else float(bounds.minimum),
            max_value=None if bounds.maximum is None else float(bounds.maximum),
            value=float(current),
            step=None if bounds.step is None else float(bounds.step),
            format="%.10g",
            key=key,
            help=f"{bounds.description} {bounds.expected}.",
        )
    if bounds.kind == "choice":
        return st.segmented_control(
            label, bounds.choices, default=current, required=True, key=key, help=bounds.description
        )
    return st.multiselect(label, bounds.choices, default=current, key=key, help=bounds.description)


def _similarity(page: Page, estimates: Estimates) -> float:
    now = estimates.tuning
    bounds = Tuning.bounds()["semantic_threshold"]
    key = _key("semantic_threshold", now)
    left, right = st.columns([1, 2], gap="medium")
    with left:
        chosen = st.slider(
            bounds.title,
            min_value=float(bounds.minimum or 0),
            max_value=float(bounds.maximum or 1),
            value=now.semantic_threshold,
            step=bounds.step,
            format="%.3f",
            key=key,
            help=bounds.description,
        )
        limit = st.number_input(
            "Wrong hits you accept, % of hits",
            min_value=0.1, max_value=50.0, value=1.0, step=0.1, format="%.1f", key="limit",
        ) / 100  # fmt: skip
        _recommendation(estimates, limit, key)
    if not estimates.decisions:
        return float(chosen)
    with right:
        arguments = (estimates.curve, now.semantic_threshold, float(chosen))
        show(charts.threshold_hits(*arguments, page.look), "threshold_hits")
        if any(item.evidence for item in estimates.curve):
            show(charts.threshold_wrong(*arguments, limit, page.look), "threshold_wrong")
        else:
            empty(
                "Nobody has judged any hit yet.",
                "How many hits would be wrong is known from verdicts: of the agent's `verify` "
                "function, of users by `feedback`, or of you, on the page *Review*.",
            )
    return float(chosen)


def _recommendation(estimates: Estimates, limit: float, key: str) -> None:
    found = estimates.recommend(limit)
    with st.container(border=True):
        if found.threshold is None:
            st.markdown("**No recommendation yet**")
        else:
            st.markdown(f"**Recommended: {found.threshold:g}**")
        for reason in found.reasons:
            quiet(reason)
        threshold = found.threshold
        if threshold is not None:
            st.button(
                f"Try {threshold:g}",
                disabled=threshold == estimates.tuning.semantic_threshold,
                on_click=lambda: st.session_state.update({key: threshold}),
                help="Moves the control; nothing is applied.",
            )


def _ttls(page: Page, estimates: Estimates) -> dict[str, float]:
    now = estimates.tuning
    found: dict[str, float] = {}
    levels: tuple[Level, ...] = ("l1", "l2", "l3", "l4")
    for row in (levels[:2], levels[2:]):
        for level, column in zip(row, st.columns(2, gap="medium"), strict=True):
            field = f"{level}_ttl"
            with column:
                chosen = float(_control(Tuning.bounds()[field], now))
                found[field] = chosen
                report = estimates.ttl(level)
                if report.hits:
                    show(charts.ages(report, chosen, page.look), f"ages_{level}")
                else:
                    empty(f"No hit of {level.upper()} is recorded.", charts.duration(chosen) + ".")
    return found


def _sharing(page: Page, estimates: Estimates) -> dict[str, Any]:
    now = estimates.tuning
    sharing = _control(Tuning.bounds()["sharing"], now)
    bounds = Tuning.bounds()["shared_intents"]
    missed = [item.intent for item in estimates.sharing if item.intent]
    chosen = st.multiselect(
        bounds.title,
        sorted({*now.shared_intents, *missed}),
        default=sorted(now.shared_intents),
        accept_new_options=True,
        key=_key("shared_intents", now),
        help=bounds.description,
    )
    if estimates.sharing:
        show(charts.sharing(estimates.sharing, chosen, page.look), "sharing")
        quiet(
            "Only you can know whether these answers are the same for everybody. "
            "A replay cannot tell who would have found another user's answer to a similar "
            "question: the hits won are a lower bound. Answers stored before stay private."
        )
    elif estimates.decisions:
        empty(
            "No lookup missed an answer that another user had.",
            "There is nothing to win by sharing more.",
        )
    return {"sharing": sharing, "shared_intents": sorted(chosen)}


def _overrides(estimates: Estimates) -> dict[str, Any]:
    """Draw the controls of one intent; return every override there is to be, flat."""
    now = estimates.tuning
    kept = {name: own for name, own in now.flat().items() if name.startswith(INTENT_PREFIX)}
    quiet(Tuning.bounds()["intents"].description)
    if kept:
        st.markdown("\n".join(f"- {title(name)}: {value(name, own)}" for name, own in kept.items()))
    seen = {item.intent for item in estimates.decisions if item.intent}
    intent = st.selectbox(
        "Intent", sorted({*seen, *now.intents}), index=None, key=_key("intent", now),
        accept_new_options=True, placeholder="Choose one, or write its label",
    )  # fmt: skip
    if not intent:
        return kept
    columns = st.columns(len(_OVERRIDES))
    for name, column in zip(_OVERRIDES, columns, strict=True):
        field = f"{INTENT_PREFIX}{intent}.{name}"
        own = _override(name, column, kept.get(field), _key(field, now))
        kept.pop(field, None)
        if own is not None:
            kept[field] = own
    return kept


def _override(name: str, column: Any, current: Any, key: str) -> Any:
    """Draw the control of an override; `None` is as for all other intents."""
    if name == "shared":
        words = {True: "by all users", False: "by nobody"}
        return column.selectbox(
            "Shared", [True, False], format_func=words.__getitem__, key=key,
            index=None if current is None else int(not current), placeholder="as all",
        )  # fmt: skip
    bounds = Tuning.bounds()[name]
    return column.number_input(
        f"{bounds.title.partition(',')[0]}{', ' + bounds.unit if bounds.unit else ''}",
        min_value=float(bounds.minimum or 0),
        max_value=None if bounds.maximum is None else float(bounds.maximum),
        value=None if current is None else float(current),
        step=bounds.step,
        format="%.10g",
        placeholder="as all",
        key=key,
        help=bounds.description,
    )


def _changed(
    now: Tuning, proposed: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    flat = now.flat()
    found = {
        name: chosen
        for name, chosen in proposed.items()
        if not _same(flat[name], sorted(chosen) if isinstance(chosen, (list, set)) else chosen)
    }
    names = {name for name in (*flat, *overrides) if name.startswith(INTENT_PREFIX)}
    for name in sorted(names):
        if not _same(flat.get(name), overrides.get(name)):
            found[name] = overrides.get(name)
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return abs(one - other) < 1e-9
    return bool((sorted(one) if isinstance(one, list) else one) == other)


# ---------------------------------------------------------------------------------- applying


def _proposal(page: Page, estimates: Estimates, proposed: dict[str, Any]) -> None:
    """Show old → new with the expected effect, and apply it."""
    st.subheader("Proposed change", anchor=False)
    if not proposed:
        empty("Nothing is changed.", "Move a value above to see here what it would do.")
        return
    flat = estimates.tuning.flat()
    with st.container(border=True):
        lines = [
            f"- {title(name)}: {value(name, flat.get(name))} → **{value(name, chosen)}**"
            for name, chosen in proposed.items()
        ]
        st.markdown("\n".join(lines))
        _expectation(estimates, proposed)
        with st.form("apply", border=False):
            note = st.text_input(
                "Why", max_chars=200, placeholder="For the audit trail",
                disabled=not page.visitor.may_write,
            )  # fmt: skip
            sent = st.form_submit_button(
                "Apply to all replicas",
                type="primary",
                disabled=not page.visitor.may_write,
                help=page.visitor.why_not or None,
            )
        if page.visitor.why_not:
            quiet(page.visitor.why_not)
    if sent and page.visitor.may_write:
        _apply(page, estimates.tuning.version, proposed, note)


def _apply(page: Page, version: int, proposed: Mapping[str, Any], note: str) -> None:
    try:
        change = page.source.tune(
            proposed, author=page.visitor.name, note=note, expected_version=version
        )
    except TuningConflict as error:
        st.error(f"{error}. Reload the page.", icon=":material/sync_problem:")
        return
    except GlasscacheError as error:
        st.error(str(error), icon=":material/block:")
        return
    st.session_state["tuning_done"] = (
        f"Version {change.version} is in force on every replica within a second."
    )
    st.rerun()


def _expectation(estimates: Estimates, proposed: Mapping[str, Any]) -> None:
    if not estimates.decisions:
        return
    recorded = estimates.hit_rate
    columns = st.columns(3)
    for column, (name, rate) in zip(columns, estimates.expected(proposed), strict=False):
        column.metric(
            f"Hit rate, by {title(name).lower()} alone" if len(proposed) > 1 else "Hit rate",
            f"{rate:.1%}",
            f"{100 * (rate - recorded):+.1f} points to {recorded:.1%} recorded",
        )
    threshold = proposed.get("semantic_threshold")
    then = estimates.at(threshold) if threshold is not None else None
    now = estimates.at(estimates.tuning.semantic_threshold)
    if then is None or now is None:
        return
    if then.wrong_share is None or then.wrong_high is None:
        columns[1].metric("Wrong hits", "not known", "no verdicts", delta_color="off")
    else:
        columns[1].metric(
            "Wrong hits" if then.enough else "Wrong hits, too few verdicts to rely on",
            f"{then.wrong_share:.2%}",
            f"at most {then.wrong_high:.2%}",
            delta_color="off",
            delta_arrow="off",
        )
    more = then.saved_usd - now.saved_usd
    per_thousand = 1000 * more / max(1, then.lookups)
    columns[2].metric(
        "Saved, for 1,000 lookups",
        f"{1000 * then.saved_usd / max(1, then.lookups):,.2f} USD",
        f"{per_thousand:+,.2f} USD",
        help=f"Mean lookup {then.latency_ms:.1f} ms, now {now.latency_ms:.1f} ms.",
    )


def _what_happened(page: Page) -> None:
    st.subheader("What happened after the last changes", anchor=False)
    changes = page.source.changes(_OUTCOMES + 1)
    if not changes:
        empty(
            "Nothing was changed yet.",
            "After a change this compares what was expected with what came.",
        )
        return

    @st.fragment(run_every=max(page.config.refresh, 2.0))
    def live() -> None:
        with telling():
            _outcomes(page)

    live()


def _outcomes(page: Page) -> None:
    changes = page.source.changes(_OUTCOMES + 1)
    recorded, verdicts = page.source.recorded(), page.source.verdicts()
    tuning = page.source.tuning()
    for number, change in enumerate(changes[:_OUTCOMES]):
        until = changes[number - 1].at if number else None
        found = outcome(change, recorded.decisions, verdicts, tuning, until)
        with st.container(border=True):
            note = f" “{change.note}”" if change.note else ""
            st.markdown(
                f"**Version {change.version}** by {change.author}, {ago(change.at)}.{note}  \n"
                f"{described(change)}"
            )
            before, expected, since = st.columns(3)
            before.metric("Hit rate before", _percent(found.before))
            expected.metric(
                "Expected",
                _percent(found.expected),
                help="By replaying what was recorded before. Several values at once are not "
                "predicted together.",
            )
            since.metric(
                "Since",
                _percent(found.since),
                f"{found.lookups:,} lookups: {found.low:.1%} to {found.high:.1%}"
                if found.lookups
                else "no lookups yet",
                delta_color="off",
                delta_arrow="off",
            )
            if found.verdicts:
                quiet(f"{found.wrong:,} of {found.verdicts:,} judged hits since were wrong.")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


tuning(open_page("Tuning", "Move a value, see what it would have done, apply it."))
