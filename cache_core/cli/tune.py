"""Commands that tune a running cache: show, shadow, set, history, confirm, revert."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cache_core.cli.console import (
    PlainCommand,
    PlainGroup,
    counted,
    current_user,
    err,
    fail,
    flowing,
    out,
    print_json,
    run,
    table,
)
from cache_core.cli.shadow import shadow
from cache_core.cli.where import (
    AsJson,
    Author,
    Directory,
    Namespace,
    Note,
    RedisUrl,
    opened,
)
from cache_core.config.intents import INTENT_PREFIX
from cache_core.config.live import TuningChange
from cache_core.config.looser import loosened_by_undoing
from cache_core.config.stage import Stage, clock_time
from cache_core.config.tuning import Bounds, Tuning
from cache_core.model import durations
from cache_core.model.exceptions import ConfigurationError, TuningConflict
from cache_core.observability.fleet import InForce

app = typer.Typer(
    cls=PlainGroup,
    help=(
        "Change a running cache: threshold, TTLs, sharing, prices.\n\n"
        "Tuned values are stored, override the agents' start values, and are in force in every "
        "replica within a second. Every change is recorded, and can be reverted.\n\n"
        "Start with [bold]glasscache tune show[/bold]."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_ATTEMPTS = 5
_NOTHING = "default"
_EMPTY = "none"


def _values(found: InForce) -> dict[str, Any]:
    """Return the values in force, flat; `None` for those that differ by replica."""
    return {**found.tuning.flat(), **dict.fromkeys(found.differing)}


def show(
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show the tuning in force, each value's origin, and its bounds.

    A tuned value comes first, then an argument of MultiLevelCache, a changed module constant, an
    environment variable, and the default. Values that are not tuned are those of the running
    agents.

    [bold]glasscache tune show --json | jq .values.semantic_threshold[/bold]
        One value, for a script.
    """

    async def work() -> tuple[InForce, list[TuningChange]]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await cache.operator.in_force(), await cache.tuning_history(1)

    found, newest = run(work())
    staged = next((change for change in newest if change.stage is not None), None)
    values = _values(found)
    followers = [
        {"replica": item.name, "pid": item.pid, "tuning_version": item.tuning_version}
        for item in found.replicas
    ]
    if as_document:
        print_json(
            {
                "namespace": namespace,
                "version": found.tuning.version,
                "values": values,
                "origins": dict(found.origins),
                "replicas": followers,
                "staged": None if staged is None else {**asdict(staged), "until": staged.until},
            }
        )
        return
    listed = table(title=f"Tuning of {namespace!r}, version {found.tuning.version}")
    for name in ("field", "value", "from", "may be"):
        listed.add_column(name, overflow="fold", no_wrap=name == "field")
    for name, bounds in Tuning.bounds().items():
        if name != "intents":
            value = values.get(name)
            listed.add_row(name, shown(value, bounds), found.origins[name], bounds.expected)
    out.print(listed)
    for name, value in sorted(values.items()):
        if name.startswith(INTENT_PREFIX):
            out.print(f"{name} {shown(value, Tuning.bounds().get(name.rpartition('.')[2]))}")
    if staged is not None:
        out.print(f"\n{_watched(staged, found.tuning)}")
    version = found.tuning.version
    behind = [item.name for item in found.replicas if item.tuning_version != version]
    if not followers:
        out.print("\nNo agent is running: untuned values are shown as this command reads them.")
    elif behind:
        out.print(
            f"\nRunning: {counted(len(followers), 'replicas')}; "
            f"not at this version yet: {', '.join(behind)}"
        )
    else:
        out.print(f"\nRunning: {counted(len(followers), 'replicas')}, all at this version.")


def set_values(
    changes: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...", help="The changes.")],
    note: Note = "",
    author: Author = None,
    expected_version: Annotated[
        int | None,
        typer.Option(help="Refuse the change if somebody changed it after this version."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only validate the change, and show it.")
    ] = False,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Watch the change for this long (1m to 7d): it is taken back if a limit below is "
            "broken, else confirmed.",
            rich_help_panel="Stage",
        ),
    ] = None,
    max_wrong: Annotated[
        float, typer.Option(help="Share of hits that may be wrong.", rich_help_panel="Stage")
    ] = Stage().max_wrong,
    max_errors: Annotated[
        float, typer.Option(help="Share of lookups that may fail.", rich_help_panel="Stage")
    ] = Stage().max_errors,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Change one or more fields, in every replica, within a second.

    A time may be written as [bold]90s 15m 2h 7d[/bold]. [bold]FIELD=default[/bold] resets a
    field to the agents' start value; [bold]none[/bold] is an empty list; lists accept
    [bold]+this,-that[/bold]. An override for the answers of one intent is
    [bold]intent.LABEL.FIELD[/bold]: semantic_threshold, max_wrong, l1_ttl, l2_ttl, l4_ttl or
    shared.

    [bold]glasscache tune set semantic_threshold=0.9 l1_ttl=2h --note "too few hits"[/bold]
        Both together, as one version.

    [bold]glasscache tune set shared_intents=+faq,-orders --dry-run[/bold]
        Show the change without making it.

    [bold]glasscache tune set intent.refunds.semantic_threshold=0.97[/bold]
        Stricter where a wrong answer costs more.

    [bold]glasscache tune set semantic_threshold=0.9 --stage 30m --max-wrong 0.02[/bold]
        Taken back by itself if more than 2 % of the hits turn out wrong.
    """
    watch = None if stage is None else _stage(stage, max_wrong, max_errors)
    given = dict(assignment(text) for text in changes)

    async def work() -> tuple[TuningChange, InForce]:
        async with opened(
            namespace, redis_url, None, directory, semantic=False, creates=True
        ) as cache:
            relative = any(is_relative(name, value) for name, value in given.items())
            for attempt in range(_ATTEMPTS):
                expected = expected_version
                values: Mapping[str, Any] = {}
                if relative:
                    found = await cache.operator.in_force()
                    values = _values(found)
                    expected = found.tuning.version if expected is None else expected
                try:
                    change = await cache.tune(
                        {name: value(name, text, values) for name, text in given.items()},
                        author=author or current_user(),
                        note=note,
                        expected_version=expected,
                        dry_run=dry_run,
                        stage=watch,
                    )
                except TuningConflict:
                    if expected_version is not None or attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return change, await cache.operator.in_force()
            raise AssertionError

    change, found = run(work())
    _report(change, as_document=as_document, dry_run=dry_run)
    if change.stage is not None and change.after and not as_document and not dry_run:
        out.print(_watched(change, found.tuning))
    if not as_document:
        for advice in _without_effect(change, found):
            err.print(advice, style="yellow")


def _without_effect(change: TuningChange, found: InForce) -> Iterator[str]:
    """Yield which of the changed values have no effect, and what would give it to them."""
    mode = found.tuning.sharing
    private = mode == "private" and found.origins["sharing"] != "default"
    if private and change.after.get("shared_intents"):
        yield "sharing is 'private', so shared_intents has no effect: add sharing=intents"
    if mode != "auto" and change.after.get("promote_after"):
        yield f"sharing is {mode!r}, so promote_after has no effect: add sharing=auto"


def history(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Number of changes.")] = 20,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show the changes with author, time and reason, newest first.

    [bold]glasscache tune history --limit 5[/bold]
        The last five changes; undo them with glasscache tune revert.

    [bold]glasscache tune history --json | jq '.[0].note'[/bold]
        The reason of the last change, for a script.
    """

    async def work() -> list[TuningChange]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await cache.tuning_history(limit)

    found = run(work())
    if as_document:
        print_json([asdict(change) for change in found])
        return
    if not found:
        out.print(f"Nobody tuned {namespace!r} yet: glasscache tune set FIELD=VALUE")
        return
    for change in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(change.at))
        out.print(f"version {change.version}, {when}, {change.author}", style="bold")
        if change.reverts is not None:
            out.print(f"  back to version {change.reverts}")
        if change.until is not None:
            out.print(f"  staged until {clock_time(change.until)}")
        for line in lines(change):
            out.print(f"  {line}")
        if change.note:
            out.print(f"  why: {change.note}")


def revert(
    version: Annotated[
        int, typer.Argument(min=0, help="Version whose state to restore; 0: nothing tuned.")
    ],
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Restore the tuning as of a version. It becomes a new version; nothing is lost.

    [bold]glasscache tune revert 11 --note "0.9 gave wrong answers"[/bold]
        The state after version 11, whatever came later.

    [bold]glasscache tune revert 0[/bold]
        The untuned state: what the agents were started with.
    """

    async def work() -> TuningChange:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await cache.revert_tuning(version, author=author or current_user(), note=note)

    _report(run(work()), as_document=as_document, dry_run=False)


def confirm(
    note: Note = "",
    author: Author = None,
    expected_version: Annotated[
        int | None, typer.Option(help="Refuse if another version is staged.")
    ] = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """End the watch over a staged change now, and keep the change.

    It stays in force as any other change does.

    [bold]glasscache tune confirm --note "looked at 200 answers"[/bold]
        Other changes are possible again; glasscache tune revert takes it back.
    """

    async def work() -> TuningChange:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await cache.confirm_tuning(
                author=author or current_user(), note=note, expected_version=expected_version
            )

    change = run(work())
    if as_document:
        print_json(asdict(change))
    else:
        out.print(f"Now version {change.version}: {change.note}.")


def _stage(length: str, max_wrong: float, max_errors: float) -> Stage:
    try:
        return Stage.of(length, max_wrong, max_errors)
    except ConfigurationError as error:
        fail(str(error))


def _watched(change: TuningChange, now: Tuning) -> str:
    """Return how a staged change, in force as *now*, is watched, in words."""
    stage, until = change.stage, change.until
    if stage is None or until is None:
        return ""
    begin = f"Version {change.version} is staged until {clock_time(until)}. It is"
    end = "glasscache tune confirm or revert ends it now."
    if looser := loosened_by_undoing(change, now):
        return f"{begin} not taken back by itself, as that would loosen {', '.join(looser)}; {end}"
    return (
        f"{begin} taken back if more than {stage.max_wrong:.2%} of the hits are wrong or "
        f"{stage.max_errors:.2%} of the lookups fail, else confirmed; {end}"
    )


def _report(change: TuningChange, *, as_document: bool, dry_run: bool) -> None:
    if as_document:
        print_json({**asdict(change), "dry_run": dry_run, "changed": bool(change.after)})
        return
    if not change.after:
        out.print(f"Nothing to change: version {change.version} is like that already.")
        return
    verb = "Would be" if dry_run else "Now"
    out.print(f"{verb} version {change.version}:")
    for line in lines(change):
        out.print(f"  {line}")


# ------------------------------------------------------------------------------ values


def lines(change: TuningChange) -> list[str]:
    """Return a change in words, a line for each field."""
    found = []
    for name, after in change.after.items():
        bounds = Tuning.bounds().get(name.rpartition(".")[2])
        before = change.before.get(name)
        old = "not tuned" if before is None else shown(before, bounds)
        new = "no longer tuned" if after is None else shown(after, bounds)
        found.append(f"{name} {old} -> {new}" if old != new else f"{name} {new}, tuned from now on")
    return found


def shown(value: Any, bounds: Bounds | None) -> str:
    """Return a value for display, with its unit."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _EMPTY
    if isinstance(value, float):
        if bounds is not None and bounds.unit == "s":
            return durations.text(value)
        text = f"{value:,.10g}"
        return f"{text} {bounds.unit}" if bounds is not None and bounds.unit else text
    return str(value)


def assignment(text: str) -> tuple[str, str]:
    """Return field and value of `FIELD=VALUE`; anything else ends the command."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        fail(f"{text!r}: expected FIELD=VALUE, like semantic_threshold=0.9")
    return name.strip(), value.strip()


def _is_list(name: str) -> bool:
    bounds = Tuning.bounds().get(name)
    return bounds is not None and bounds.kind in {"labels", "choices", "prices"}


def is_relative(name: str, text: str) -> bool:
    """Return whether *text* edits a list rather than replacing it."""
    return _is_list(name) and text.startswith(("+", "-"))


def value(name: str, text: str, in_force: Mapping[str, Any]) -> Any:
    """Return the value in *text* for a field, not yet validated."""
    if text == _NOTHING:
        return None
    if _is_list(name):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if text == _EMPTY:
            return []
        return _moved(name, parts, in_force) if is_relative(name, text) else parts
    return text


def _moved(name: str, parts: Sequence[str], in_force: Mapping[str, Any]) -> list[str]:
    """Return the list in force with additions (+) and removals (-)."""
    now = in_force.get(name)
    if now is None:
        fail(f"{name} differs by replica: give the whole list, without + and -")
    found = dict.fromkeys(now)
    for part in parts:
        if part[0] not in "+-" or len(part) == 1:
            fail(f"{name}: {part!r} has neither + nor -; give either the whole list, or changes")
        if part[0] == "+":
            found[part[1:]] = None
        else:
            found.pop(part[1:], None)
    return list(found)


_COMMANDS: Mapping[str, Callable[..., None]] = {
    "show": show,
    "shadow": shadow,
    "set": set_values,
    "history": history,
    "confirm": confirm,
    "revert": revert,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=PlainCommand, help=flowing(_command))(_command)
