"""Commands that tune a running cache: show, set, history, revert."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from cache_core.cli.console import current_user, err, fail, flowing, out, print_json, run
from cache_core.cli.operate import (
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
from cache_core.tuning import Bounds, Tuning

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

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_NOTHING = "default"
_EMPTY = "none"
_ATTEMPTS = 5


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
    table = Table(title=f"Tuning of {namespace!r}, version {found.version}", title_justify="left")
    for name in ("field", "value", "from", "may be"):
        table.add_column(name, overflow="fold")
    for name, bounds in Tuning.bounds().items():
        if name != "intents":
            value = found.values.get(name)
            table.add_row(name, _shown(value, bounds), found.origins[name], bounds.expected)
    for name, value in sorted(found.values.items()):
        if name.startswith(INTENT_PREFIX):
            may_be = Tuning.bounds().get(name.rpartition(".")[2])
            expected = may_be.expected if may_be is not None else "yes or no"
            table.add_row(name, _shown(value, may_be), TUNED, expected)
    out.print(table)
    behind = [str(item["replica"]) for item in followers if item["tuning_version"] != found.version]
    if not followers:
        out.print("No agent is running: what is not tuned is shown as this command has it.")
    elif behind:
        out.print(f"{len(followers)} replicas run; not at this version yet: {', '.join(behind)}")
    else:
        out.print(f"{len(followers)} replicas run, all at this version.")


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
    given = dict(_assignment(text) for text in changes)

    async def work() -> tuple[TuningChange, _InForce]:
        async with opened(namespace, redis_url, None, directory, semantic=False) as cache:
            relative = any(_is_relative(name, value) for name, value in given.items())
            for attempt in range(_ATTEMPTS):
                expected = expected_version
                values: Mapping[str, Any] = {}
                if relative:
                    found = await _in_force(cache)
                    values = found.values
                    expected = found.version if expected is None else expected
                try:
                    change = await cache.tune(
                        {name: _value(name, text, values) for name, text in given.items()},
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
        The last five changes. Take one back with [bold]glasscache tune revert[/bold].
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
    table = Table(title=f"Changes of {namespace!r}", title_justify="left")
    for name in ("version", "when", "author", "what", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "version" else "left")
    for change in found:
        when = datetime.fromtimestamp(change.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        what = "\n".join(_lines(change))
        why = change.note
        if change.reverts is not None:
            why = f"back to {change.reverts}" + (f": {why}" if why else "")
        table.add_row(str(change.version), when, change.author, what, why)
    out.print(table)


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
    for line in _lines(change):
        out.print(f"  {line}")


def _lines(change: TuningChange) -> list[str]:
    lines = []
    for name, after in change.after.items():
        bounds = Tuning.bounds().get(name.rpartition(".")[2])
        old, new = _shown(change.before.get(name), bounds), _shown(after, bounds)
        lines.append(f"{name} {old} -> {'no longer tuned' if after is None else new}")
    return lines


def _shown(value: Any, bounds: Bounds | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _EMPTY
    if isinstance(value, float):
        text = f"{value:,.10g}"
        return f"{text} {bounds.unit}" if bounds is not None and bounds.unit else text
    return str(value)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        fail(f"{text!r}: expected FIELD=VALUE, like semantic_threshold=0.9")
    return name.strip(), value.strip()


def _is_list(name: str) -> bool:
    bounds = Tuning.bounds().get(name)
    return bounds is not None and bounds.kind in {"labels", "choices"}


def _is_relative(name: str, text: str) -> bool:
    return _is_list(name) and text.startswith(("+", "-"))


def _value(name: str, text: str, in_force: Mapping[str, Any]) -> Any:
    """Return what *text* means for a field; the library judges whether it may be."""
    if text == _NOTHING:
        return None
    if _is_list(name):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if text == _EMPTY:
            return []
        return _moved(name, parts, in_force) if _is_relative(name, text) else parts
    if name.endswith("_ttl") and (found := _DURATION.fullmatch(text)):
        return float(found[1]) * _SECONDS[found[2]]
    return text


def _moved(name: str, parts: Sequence[str], in_force: Mapping[str, Any]) -> list[str]:
    """Return a list in force with some added (+) and some taken away (-)."""
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
    "set": set_values,
    "history": history,
    "revert": revert,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, help=flowing(_command))(_command)
