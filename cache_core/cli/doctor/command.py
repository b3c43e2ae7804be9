"""`glasscache doctor`: the checks, and their report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from cache_core.cli.console import err, print_json, run
from cache_core.cli.doctor.report import counts_of, document, show
from cache_core.cli.where import AsJson, ChromaUrl, Directory, Namespace, RedisUrl
from cache_core.config.settings import load_settings

_MONITORING = "Monitoring"


@dataclass
class Options:
    """Options of `glasscache doctor`."""

    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings, too, as in a pipeline.")
    ] = False
    as_document: AsJson = False
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="PROMETHEUS_URL", help="Its scrapes and rules are checked.",
            rich_help_panel=_MONITORING,
        ),
    ] = None  # fmt: skip
    alertmanager: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="ALERTMANAGER_URL", help="Its receivers are checked.",
            rich_help_panel=_MONITORING,
        ),
    ] = None  # fmt: skip
    grafana: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="GRAFANA_URL",
            help="Its dashboards are checked; GRAFANA_TOKEN logs in.",
            rich_help_panel=_MONITORING,
        ),
    ] = None  # fmt: skip
    grafana_token: Annotated[str | None, typer.Option(hidden=True, envvar="GRAFANA_TOKEN")] = None
    namespace: Namespace = "default"
    redis_url: RedisUrl = None
    chroma_url: ChromaUrl = None
    directory: Directory = None


def doctor(options: Options) -> None:
    """Check the running system: settings, Redis, model, monitoring, and where lookups end.

    Run it where an agent runs, with the agent's environment. Each finding has what was found, why
    it matters and how to fix it. It stores and serves no answer, and counts no lookup.

    The exit code is 1 if there is a failure, with --strict also for a warning, else 0.

    [bold]glasscache doctor --prometheus http://localhost:9090[/bold]
        Checks that the metrics are scraped, and the rules loaded, too.

    [bold]glasscache doctor --json | jq '.findings[] | select(.level == "failure")'[/bold]
        Only the failures.
    """
    settings = load_settings(
        redis_url=options.redis_url, chroma_url=options.chroma_url, dir=options.directory
    )
    # here, as the other commands need neither redis-py nor a model
    from cache_core.cli.doctor.examination import examined
    from cache_core.cli.doctor.gather import Addresses, gather

    addresses = Addresses(
        options.prometheus, options.alertmanager, options.grafana, options.grafana_token
    )
    with _quiet(), err.status("examining the system"):
        findings = examined(run(gather(settings, options.namespace, addresses)))
    if options.as_document:
        print_json(document(options.namespace, findings))
    else:
        show(findings)
    counts = counts_of(findings)
    if counts["failure"] or (options.strict and counts["warning"]):
        raise typer.Exit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the cache's log from the terminal: the findings say it all."""
    logger = logging.getLogger("glasscache")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
