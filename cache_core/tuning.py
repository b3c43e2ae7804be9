"""What may change while the cache runs: one frozen, bounded model, swapped whole.

A field is declared once, with its title, unit and bounds: validation, error messages, the command
line's help and the sliders of the tuner all come from here (`Tuning.bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from cache_core.intent_tuning import (
    INTENT_FIELDS,
    MAX_INTENTS,
    MAX_TTL,
    Intents,
    Overrides,
    Share,
    Ttl,
    flatten,
    number,
)
from cache_core.models import Entry, Level

MAX_SHARED_INTENTS = 1_000


def _not_one(value: int) -> int:
    if value == 1:
        raise ValueError("one user is everybody's stranger: 0 for never, or 2 and more")
    return value


GuardName = Literal["numbers", "negation", "direction"]
Sharing = Literal["private", "intents", "all"]
PersonalAnswers = Literal["refuse", "share"]
Price = Annotated[float, BeforeValidator(number), Field(ge=0, le=1_000, allow_inf_nan=False)]
Grace = Annotated[float, BeforeValidator(number), Field(ge=0, le=MAX_TTL, allow_inf_nan=False)]
Last = Annotated[float, BeforeValidator(number), Field(ge=0, le=0.5, allow_inf_nan=False)]
Rate = Annotated[float, BeforeValidator(number), Field(ge=1, le=1_000_000, allow_inf_nan=False)]
Votes = Annotated[int, BeforeValidator(number), Field(ge=0, le=1_000), AfterValidator(_not_one)]
SharedIntent = Annotated[str, Field(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a field of the tuning may be, for whoever draws or explains it.

    Attributes:
        field: Its name.
        title, description, unit: In words; the unit may be empty.
        kind: `number`; `choice`: one of *choices*; `choices`: any of them; `labels`: a set of
            intents; `intents`: overrides per intent.
        default: As a JSON value.
        minimum, maximum: Of a number, inclusive unless *above*.
        above: Whether a number must be more than its minimum.
        step: By which a control should move a number.
        choices: What there is to choose from.
    """

    field: str
    title: str
    description: str
    unit: str
    kind: Literal["number", "choice", "choices", "labels", "intents"]
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What is expected, in a few words."""
        match self.kind:
            case "number":
                first = f"more than {self.minimum:g}, to" if self.above else f"{self.minimum:g} to"
                return f"{first} {self.maximum:,.10g} {self.unit}".rstrip()
            case "choice":
                return "one of " + ", ".join(self.choices)
            case "choices":
                return "any of " + ", ".join(self.choices) + ", or none"
            case "labels":
                return f"intents, {MAX_SHARED_INTENTS:,} at most"
            case "intents":
                return f"overrides per intent, {MAX_INTENTS} at most: {', '.join(INTENT_FIELDS)}"


def _field(default: Any, title: str, description: str, unit: str = "", step: float = 0.0) -> Any:
    extra: dict[str, Any] = {"unit": unit, "step": step}
    return Field(default=default, title=title, description=description, json_schema_extra=extra)


class Tuning(BaseModel):
    """The live values. A lookup reads them once, at its start, and uses them to its end.

    `version` is that of the last change, 0 when nobody changed anything. What the other fields
    are, and what they may be, is said by each field and by `bounds()`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=0, ge=0)
    semantic_threshold: Share = _field(
        0.95,
        "Similarity threshold",
        "Least cosine similarity at which L2 serves the answer to another question. Lower: more "
        "hits, more of them wrong.",
        step=0.005,
    )
    l1_ttl: Ttl = _field(
        3_600.0, "TTL of L1, exact answers", "Until an exact answer expires.", "s", 60
    )
    l2_ttl: Ttl = _field(
        86_400.0, "TTL of L2, similar answers", "Until a similar answer expires.", "s", 300
    )
    l3_ttl: Ttl = _field(21_600.0, "TTL of L3, intents", "Until an intent label expires.", "s", 300)
    l4_ttl: Ttl = _field(
        43_200.0, "TTL of L4, documents", "Until retrieved documents expire.", "s", 300
    )
    stale_seconds: Grace = _field(
        0.0,
        "Stale answers",
        "How long past its TTL an answer may be served when computing a new one fails; 0 for "
        "never. Answers are kept for twice their TTL, so more than a TTL has no effect.",
        "s",
        60,
    )
    refresh_share: Last = _field(
        0.0,
        "Eager refresh",
        "In the last part of an answer's life, this share of its TTL, a hit of get_or_compute "
        "makes it anew in the background; 0 for never.",
        step=0.01,
    )
    guards: tuple[GuardName, ...] = _field(
        ("numbers", "negation", "direction"),
        "Guards",
        "Vetoes on a similar question: one with other numbers or units, one that is negated, one "
        "that goes the other way.",
    )
    sharing: Sharing = _field(
        "private",
        "Sharing",
        "Whose new answers every user may get: nobody's, those of the shared intents, or all.",
    )
    shared_intents: Annotated[
        frozenset[SharedIntent], Field(max_length=MAX_SHARED_INTENTS), PlainSerializer(sorted)
    ] = _field(
        frozenset(), "Shared intents", "Intents whose new answers are the same for every user."
    )
    personal: PersonalAnswers = _field(
        "refuse",
        "Personal answers",
        "Whether an answer that looks personal (it or its question names an e-mail address, a "
        "phone, card, account or order number, the user) is kept private although the two above "
        "would share it.",
    )
    promote_after: Votes = _field(
        0,
        "Promote after",
        "How many different users must have got the same answer to a message until every user may "
        "get it. 0: never; 1 is refused.",
        "users",
        1,
    )
    puts_per_minute: Rate = _field(
        6_000.0,
        "Writes per user",
        "How many answers one user's lookups may store in a minute, in each replica; more are not "
        "stored.",
        "per minute",
        60,
    )
    shared_puts_per_minute: Rate = _field(
        600.0,
        "Shared writes per user",
        "How many of those may be for all users.",
        "per minute",
        10,
    )
    response_usd: Price = _field(
        0.03, "Price of a response", "What a cached response saves.", "USD", 0.001
    )
    intent_usd: Price = _field(
        0.001, "Price of an intent", "What a cached intent label saves.", "USD", 0.0001
    )
    retrieval_usd: Price = _field(
        0.005, "Price of a retrieval", "What cached documents save.", "USD", 0.0001
    )
    embedding_usd: Price = _field(
        0.0, "Price of an embedding", "What embedding one message costs.", "USD", 0.00001
    )
    verify_share: Share = _field(
        0.02,
        "Share that is verified",
        "Share of semantic hits compared with a fresh answer after they were served, where the "
        "agent gave a verify function.",
        step=0.005,
    )
    verification_usd: Price = _field(
        0.0, "Price of a verification", "What one such comparison costs.", "USD", 0.001
    )
    hit_rate_objective: Share = _field(
        0.6, "Hit rate objective", "Overall hit rate that the alert holds the cache to.", step=0.01
    )
    intents: Intents = _field(
        Overrides(),
        "Overrides per intent",
        "Another threshold, TTL or sharing for the answers of single intents. L2 goes by the "
        "intent of the stored answer.",
    )

    def ttl(self, level: Level, intent: str | None = None) -> float:
        """Return the TTL in seconds of a tier's entries, or of those with *intent*."""
        own = self.intents.get(intent) if intent is not None and self.intents else None
        match level:
            case "l1":
                return self.l1_ttl if own is None or own.l1_ttl is None else own.l1_ttl
            case "l2":
                return self.l2_ttl if own is None or own.l2_ttl is None else own.l2_ttl
            case "l3":
                return self.l3_ttl
            case "l4":
                return self.l4_ttl if own is None or own.l4_ttl is None else own.l4_ttl

    def threshold(self, intent: str | None = None) -> float:
        """Return the least similarity at which L2 serves an answer with *intent*, 0..1."""
        own = self.intents.get(intent) if intent is not None and self.intents else None
        if own is None or own.semantic_threshold is None:
            return self.semantic_threshold
        return own.semantic_threshold

    @property
    def lowest_threshold(self) -> float:
        """The least similarity at which L2 serves anything, 0..1."""
        own = (item.semantic_threshold for item in self.intents.values())
        return min(self.semantic_threshold, *(value for value in own if value is not None), 1.0)

    def shares(self, intent: str | None) -> bool:
        """Whether an answer with *intent* may be read by every user."""
        own = self.intents.get(intent) if intent is not None and self.intents else None
        if own is not None and own.shared is not None:
            return own.shared
        if self.sharing == "all":
            return True
        return self.sharing == "intents" and intent in self.shared_intents

    def withholds(self, entry: Entry, user: str | None) -> bool:
        """Whether *user* must not get an entry that was shared by a policy no longer in force."""
        return entry.by_policy and entry.withheld(
            user, shares=self.shares(entry.intent), promotes=self.promote_after > 0
        )

    def saves(self, level: Level, cost_usd: float | None) -> float:
        """Return what a hit of *level* saves, in USD; an entry's own cost beats the prices."""
        if level == "l3":
            return self.intent_usd
        if level == "l4":
            return self.retrieval_usd
        if cost_usd is not None:
            return cost_usd
        return self.response_usd + self.intent_usd + self.retrieval_usd

    def flat(self) -> dict[str, Any]:
        """Return every field but the version as JSON values, overrides as `intent.LABEL.FIELD`."""
        return flatten(self.model_dump(mode="json", exclude={"version"}))

    @classmethod
    def bounds(cls) -> dict[str, Bounds]:
        """Return what each field may be, in the order in which they are declared."""
        return dict(_BOUNDS)


_KINDS: Mapping[str, Literal["choice", "choices", "labels", "intents"]] = {
    "sharing": "choice",
    "personal": "choice",
    "guards": "choices",
    "shared_intents": "labels",
    "intents": "intents",
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "sharing": get_args(Sharing),
    "personal": get_args(PersonalAnswers),
    "guards": get_args(GuardName),
}


def _bounds() -> Iterator[Bounds]:
    defaults = Tuning().model_dump(mode="json")
    for name, field in Tuning.model_fields.items():
        if name == "version":
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        limits = {
            key: getattr(item, key)
            for item in field.metadata
            for key in ("ge", "gt", "le")
            if getattr(item, key, None) is not None
        }
        yield Bounds(
            name,
            field.title or name,
            field.description or "",
            str(extra["unit"]),
            _KINDS.get(name, "number"),
            defaults[name],
            limits.get("ge", limits.get("gt")),
            limits.get("le"),
            "gt" in limits,
            extra["step"] or None,  # type: ignore[arg-type]
            _CHOICES.get(name, ()),
        )


_BOUNDS: Mapping[str, Bounds] = {bounds.field: bounds for bounds in _bounds()}
