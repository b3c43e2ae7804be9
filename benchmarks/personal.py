"""Rates of the personal check: found data by kind and country, and false alarms.

Run from the project's root:

    python -m benchmarks.personal
"""

from __future__ import annotations

import time
from collections import Counter

from tests.support.personal_rates import cases, taken_wrongly, without_libphonenumber
from tests.support.personal_texts import PUBLIC


def main() -> None:
    """Print the rates, with the extra `personal` and without it."""
    print("## With libphonenumber\n")
    rates()
    print("\n## Without it\n")
    with without_libphonenumber():
        rates()


def rates() -> None:
    """Print the rates."""
    seen: Counter[str] = Counter()
    total: Counter[str] = Counter()
    missed_in: dict[str, set[str]] = {}
    start = time.perf_counter()
    for case in cases():
        total[case.kind] += 1
        if case.found:
            seen[case.kind] += 1
        else:
            missed_in.setdefault(case.kind, set()).add(case.where)
    seconds = (time.perf_counter() - start) / sum(total.values())
    print("| kind | texts | seen | not always in |\n|---|---|---|---|")
    for kind, count in total.items():
        where = ", ".join(sorted(filter(None, missed_in.get(kind, ())))) or "-"
        print(f"| {kind} | {count:,} | {seen[kind] / count:.1%} | {where} |")
    wrong = taken_wrongly()
    print(f"\n{len(wrong)} of {len(PUBLIC)} public answers held back: {wrong}")
    print(f"{1000 * seconds:.2f} ms a text")


if __name__ == "__main__":
    main()
