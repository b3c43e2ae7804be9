"""Cost of encryption at rest per entry: writing and reading an envelope, sealed and not.

python -m benchmarks.sealing [--json]
"""

from __future__ import annotations

import base64
import json
import secrets
import statistics
import sys
import time

from cache_core.model import envelope
from cache_core.model.sealing import Sealer
from cache_core.model.values import Entry

_ROUNDS = 15
_CALLS = 400
_SIZES = (200, 1_000, 10_000, 100_000)


def _microseconds(entry: Entry, sealer: Sealer | None) -> float:
    started = time.perf_counter()
    for _ in range(_CALLS):
        envelope.decode(envelope.encode(entry, "key", sealer), "key", ("s",), sealer)
    return (time.perf_counter() - started) / _CALLS * 1e6


def main() -> None:
    """Print the medians and their ratio, by the length of the answer."""
    sealer = Sealer([base64.b64encode(secrets.token_bytes(32)).decode()])
    rows = []
    for size in _SIZES:
        entry = Entry(response="answer " * (size // 7), scope="s", generation="g", created=1.0)
        pairs = [(_microseconds(entry, None), _microseconds(entry, sealer)) for _ in range(_ROUNDS)]
        rows.append(
            {
                "characters": size,
                "readable_us": round(statistics.median(pair[0] for pair in pairs), 1),
                "sealed_us": round(statistics.median(pair[1] for pair in pairs), 1),
                "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 2),
                "readable_bytes": len(envelope.encode(entry, "key")),
                "sealed_bytes": len(envelope.encode(entry, "key", sealer)),
            }
        )
    if "--json" in sys.argv:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value:,}" for name, value in row.items()))


if __name__ == "__main__":
    main()
