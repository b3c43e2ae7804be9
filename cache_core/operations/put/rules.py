"""Rules for what of an answer is stored: those of its text, and the limits on its user."""

from __future__ import annotations

import logging
from typing import NamedTuple

from cache_core.model.logs import RateLimited, place_of
from cache_core.model.values import WithheldReason
from cache_core.operations.answers import What
from cache_core.operations.put.limits import WriteLimits
from cache_core.policy.cacheable import Cacheable, ended_badly, worthless

log = RateLimited(logging.getLogger("glasscache"))


class Rules(NamedTuple):
    """Rules for what is stored.

    Attributes:
        limits: How much one user may write.
        cacheable: The application's own rule; `None` without one.
    """

    limits: WriteLimits
    cacheable: Cacheable | None = None

    def withholds(self, message: str, what: What) -> WithheldReason | None:
        """Return why the response to *message* is not stored; `None` if it is, or there is none.

        The application's rule comes first; what it cannot judge is not stored.
        """
        if not what.response:
            return None
        if self.cacheable is not None:
            try:
                said = self.cacheable(message, what.response)
            except Exception as error:  # noqa: BLE001 - the agent must not fail because of it
                log.limited("cacheable", "cacheable= raised %s: nothing stored", place_of(error))
                return "rule_failed"
            if said is not None:
                if isinstance(said, bool):
                    return None if said else "not_cacheable"
                log.limited(
                    "cacheable type",
                    "cacheable= must return True, False or None, not %s: nothing stored",
                    type(said).__name__,
                )
                return "rule_failed"
        ended = None if what.finish_reason is None else ended_badly(what.finish_reason)
        return ended or worthless(what.response)
