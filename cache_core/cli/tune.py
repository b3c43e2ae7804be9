"""Commands that tune a running cache: show, set, history, revert."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from cache_core.cli.console import (
    counted,
    current_user,
    err,
    flowing,
    out,
    print_json,
    run,
    table,
)
from cache_core.cli.tune_values import assignment, is_relative, lines, shown, value
from cache_core.cli.where import (
    AsJson,
    Author,
    Directory,
    Namespace,
    Note,
    RedisUrl,
    opened,
)
from cache_core.exceptions import TuningConflict
from cache_core.housekeeping import agreed, replicas, serving
from cache_core.intent_tuning import INTENT_PREFIX
from cache_core.live_tuning import TUNED, TuningChange
from cache_core.multilevel_cache import MultiLevelCache
from cache_core.tuning import Tuning

app = typer.Typer(
    help=(
        "Change a running cache: threshold, TTLs, sharing, prices.\n\n"
        "What is tuned is kept in the store, beats what the agents were started with, and is in "
        "force in every replica within a second. Every change is kept, and can be taken back.\n\n"
        "Start with [bold]glasscache tune show[/bold]."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_ATTEMPTS = 5
_NAME_WIDTH = max(map(len, Tuning.bounds()))


@dataclass(frozen=True, slots=True)
class _InForce:
    """The tuning as the agents have it, or, while none runs, as this command does."""

    version: int
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    replicas: Sequence[Mapping[str, Any]]


async def _in_force(cache: MultiLevelCache) -> _InForce:
    beats = [beat for beat in await replicas(cache.parts) if beat.get("replica") != cache.replica]
    agents = [beat for beat in serving(beats) if isinstance(beat.get("tuning"), dict)]
    tuned = {name for name, origin in cache.tuning_origins.items() if origin == TUNED}
    own = cache.tuning.flat()
    values: dict[str, Any] = dict(own)
    origins = cache.tuning_origins
    if agents:
        common = agreed(beats, cache.replica)
        reported = [beat.get("tuning_origins") or {} for beat in agents]
        for name in set(origins) - tuned - {"intents"}:
            values[name] = common.get(name)
            found = {origin.get(name, "default") for origin in reported}
            origins[name] = found.pop() if len(found) == 1 else "differs by replica"
    return _InForce(cache.tuning.version, values, origins, beats)


def show(
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show the tuning in force, where each value comes from, and what it may be.

    `tuned` beats `the constructor`, that a changed module constant, that the environment, and
    that the default. What is not tuned is shown as the running agents report it.

    [bold]glasscache tune show --json | jq .values.semantic_threshold[/bold]
        One value, for a script.
    """

    async def work() -> _InForce:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await _in_force(cache)

    found = run(work())
    followers = [
        {name: beat.get(name) for name in ("replica", "pid", "tuning_version")}
        for beat in found.replicas
    ]
    if as_document:
        print_json(
            {
                "namespace": namespace,
                "version": found.version,
                "values": dict(found.values),
                "origins": dict(found.origins),
                "replicas": followers,
            }
        )
        return
    listed = table(title=f"Tuning of {namespace!r}, version {found.version}")
    for name in ("field", "value", "from", "may be"):
        listed.add_column(name, overflow="fold", min_width=_NAME_WIDTH if name == "field" else None)
    for name, bounds in Tuning.bounds().items():
        if name != "intents":
            value = found.values.get(name)
            listed.add_row(name, shown(value, bounds), found.origins[name], bounds.expected)
    for name, value in sorted(found.values.items()):
        if name.startswith(INTENT_PREFIX):
            may_be = Tuning.bounds().get(name.rpartition(".")[2])
            expected = may_be.expected if may_be is not None else "yes or no"
            listed.add_row(name, shown(value, may_be), TUNED, expected)
    out.print(listed)
    behind = [str(item["replica"]) for item in followers if item["tuning_version"] != found.version]
    if not followers:
        out.print("\nNo agent is running: what is not tuned is shown as this command has it.")
    elif behind:
        out.print(
            f"\nRunning: {counted(len(followers), 'replicas')}; "
            f"not at this version yet: {', '.join(behind)}"
        )
    else:
        out.print(f"\nRunning: {counted(len(followers), 'replicas')}, all at this version.")


def set_values(
    changes: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...", help="What to change.")],
    note: Note = "",
    author: Author = None,
    expected_version: Annotated[
        int | None,
        typer.Option(help="Refuse if somebody changed it since this version."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check, and show what would change.")
    ] = False,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Change one or more fields, in every replica, within a second.

    A time may be written as [bold]90s 15m 2h 7d[/bold]. [bold]FIELD=default[/bold] returns a
    field to what the agents were started with; [bold]none[/bold] is an empty list; lists take
    [bold]+this,-that[/bold]. An override for the answers of one intent is
    [bold]intent.LABEL.FIELD[/bold]: semantic_threshold, l1_ttl, l2_ttl, l4_ttl or shared.

    [bold]glasscache tune set semantic_threshold=0.9 l1_ttl=2h --note "too few hits"[/bold]
        Both at once, as one version.

    [bold]glasscache tune set shared_intents=+faq,-orders --dry-run[/bold]
        What would change, without changing it.

    [bold]glasscache tune set intent.refunds.semantic_threshold=0.97[/bold]
        Stricter where a wrong answer costs more.
    """
    given = dict(assignment(text) for text in changes)

    async def work() -> tuple[TuningChange, _InForce]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            relative = any(is_relative(name, value) for name, value in given.items())
            for attempt in range(_ATTEMPTS):
                expected = expected_version
                values: Mapping[str, Any] = {}
                if relative:
                    found = await _in_force(cache)
                    values = found.values
                    expected = found.version if expected is None else expected
                try:
                    change = await cache.tune(
                        {name: value(name, text, values) for name, text in given.items()},
                        author=author or current_user(),
                        note=note,
                        expected_version=expected,
                        dry_run=dry_run,
                    )
                except TuningConflict:
                    if expected_version is not None or attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return change, await _in_force(cache)
            raise AssertionError

    change, found = run(work())
    _report(change, as_document=as_document, dry_run=dry_run)
    private = found.values["sharing"] == "private" and found.origins["sharing"] != "default"
    if private and change.after.get("shared_intents") and not as_document:
        err.print(
            "sharing is 'private', so shared_intents has no effect: add sharing=intents",
            style="yellow",
        )


def history(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many, the newest first.")] = 20,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Show who changed what, when and why; the newest first.

    [bold]glasscache tune history --limit 5[/bold]
        The last five changes; glasscache tune revert takes them back.

    [bold]glasscache tune history --json | jq '.[0].note'[/bold]
        Why the last change was made, for a script.
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
    listed = table(title=f"Changes of {namespace!r}")
    for name in ("version", "when", "author", "what", "why"):
        listed.add_column(
            name, overflow="fold", justify="right" if name == "version" else "left",
            no_wrap=name == "when",
            min_width=_NAME_WIDTH if name == "what" else None,
        )  # fmt: skip
    for change in found:
        when = datetime.fromtimestamp(change.at).astimezone().strftime("%Y-%m-%d %H:%M")
        what = "\n".join(lines(change))
        why = change.note
        if change.reverts is not None:
            why = f"back to {change.reverts}" + (f": {why}" if why else "")
        listed.add_row(str(change.version), when, change.author, what, why)
    out.print(listed)


def revert(
    version: Annotated[
        int, typer.Argument(min=0, help="Whose state to restore; 0: nothing tuned.")
    ],
    note: Note = "",
    author: Author = None,
    namespace: Namespace = "default",
    redis_url: RedisUrl = None,
    directory: Directory = None,
    as_document: AsJson = False,
) -> None:
    """Restore what was tuned as of a version. It becomes a new version; nothing is lost.

    [bold]glasscache tune revert 11 --note "0.9 gave wrong answers"[/bold]
        As it was after version 11, whatever came later.

    [bold]glasscache tune revert 0[/bold]
        As if nobody had ever tuned it: what the agents were started with.
    """

    async def work() -> TuningChange:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            return await cache.revert_tuning(version, author=author or current_user(), note=note)

    _report(run(work()), as_document=as_document, dry_run=False)


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


_COMMANDS: Mapping[str, Callable[..., None]] = {
    "show": show,
    "set": set_values,
    "history": history,
    "revert": revert,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, help=flowing(_command))(_command)
