"""Stage of a change of the tuning: watched for a bounded time, then confirmed or taken back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from cache_core.config.intents import duration
from cache_core.model.exceptions import ConfigurationError
from cache_core.model.stored import Number
from cache_core.policy.limits import MAX_WRONG

SHORTEST, LONGEST = 60.0, 7 * 86_400.0
"""Bounds of a stage's length, in seconds."""

WATCH = "glasscache"
"""Author of what the watch does, in the audit trail."""

_Length = Annotated[Number, Field(ge=SHORTEST, le=LONGEST)]
_Limit = Annotated[Number, Field(gt=0, le=MAX_WRONG)]


@dataclass(frozen=True, slots=True)
class Stage:
    """Watch over a change: what breaks a limit takes the change back, the end confirms it.

    Attributes:
        seconds: Length of the watch, 60 s to 7 days.
        max_wrong: Share of the hits that may be wrong, above 0 to 0.2; the lower bound of the 95 %
            interval by the verdicts must exceed it.
        max_errors: Share of the lookups that may fail, above 0 to 0.2; measured likewise.
    """

    seconds: _Length = 1_800.0
    max_wrong: _Limit = 0.01
    max_errors: _Limit = 0.01

    @classmethod
    def of(cls, length: float | str, max_wrong: float, max_errors: float) -> Stage:
        """Return a valid stage; *length* may have a unit, like `30m`.

        Raises:
            ConfigurationError: If a value is out of bounds.
        """
        values = {"seconds": length, "max_wrong": max_wrong, "max_errors": max_errors}
        try:
            values["seconds"] = float(duration(length))
            return TypeAdapter(cls).validate_python(
                {name: float(value) for name, value in values.items()}
            )
        except (TypeError, ValueError) as error:
            name = error.errors()[0]["loc"][0] if isinstance(error, ValidationError) else "seconds"
            raise ConfigurationError(
                f"a stage with {name}={values.get(str(name))!r} is rejected: it lasts 1m to 7d, "
                f"and its limits are shares above 0 to {MAX_WRONG:g}"
            ) from None


def clock_time(at: float) -> str:
    """Return a moment in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
