"""Questions for the benchmarks: any number of different ones, made of a few words."""

from __future__ import annotations

import itertools
from random import Random

_DO = (
    "cancel", "renew", "change", "upgrade", "share", "download", "replace", "return", "repair",
    "track", "activate", "block", "transfer", "insure", "rename", "print", "lend", "sell",
    "register", "clean", "delete", "test", "store", "compare", "order",
)  # fmt: skip
_OF = (
    "gym", "library", "train", "bank", "phone", "hotel", "museum", "garden", "office", "school",
    "cinema", "airline", "hospital", "car", "bicycle", "kitchen", "music", "travel", "energy",
    "water", "fishing", "parking", "wedding", "rental", "theatre",
)  # fmt: skip
_WHAT = (
    "membership", "card", "ticket", "contract", "password", "invoice", "address", "voucher",
    "account", "reservation", "key", "certificate", "schedule", "manual", "discount",
)  # fmt: skip


def pairs() -> list[tuple[str, str]]:
    """Return (a question, the same question in other words), thousands of them, shuffled.

    The order is always the same. They contain neither numbers nor negations, so that no guard
    vetoes.
    """
    tasks = [f"{do} my {of} {what}" for do, of, what in itertools.product(_DO, _OF, _WHAT)]
    Random(0).shuffle(tasks)
    return [(f"How do I {task}?", f"How can I {task}?") for task in tasks]


def unrelated() -> list[str]:
    """Return questions about other things than those of `pairs`, a thousand of them, shuffled."""
    found = [
        f"Why did the {of} {what} of our {who} look so strange?"
        for of, what, who in itertools.product(_OF, _WHAT, ("grandparents", "neighbours", "kings"))
    ]
    Random(1).shuffle(found)
    return found
