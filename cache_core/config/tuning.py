"""Tuning: the values that may change while the cache runs, one frozen model swapped whole.

Each field is declared once, with its title, unit and bounds: validation, error messages, help
texts and the dashboard's sliders all come from here (`Tuning.bounds`).
"""

from __future__ import annotations

import re
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

from cache_core.config.intents import (
    INTENT_FIELDS,
    MAX_INTENTS,
    MAX_TTL,
    Intents,
    Overrides,
    Share,
    Ttl,
    Wrong,
    duration,
    flatten,
    number,
)
from cache_core.model import durations
from cache_core.model.values import Entry, Level
from cache_core.policy.limits import LEAST_SIMILARITY

MAX_SHARED_INTENTS = 1_000
MAX_PRICES = 200

_PRICE = re.compile(
    r"(?P<model>[^=\s,]{1,128})=(?P<read>[0-9]{1,6}(\.[0-9]{1,6})?)/"
    r"(?P<written>[0-9]{1,6}(\.[0-9]{1,6})?)",
    re.ASCII,
)


def _not_one(value: int) -> int:
    if value == 1:
        raise ValueError("1 would share every answer immediately: use 0 (never), or 2 or more")
    return value


def _unambiguous(prices: frozenset[str]) -> frozenset[str]:
    models: set[str] = set()
    for text in sorted(prices):
        found = _PRICE.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is no price: write MODEL=IN/OUT in USD per million tokens, like "
                "small=0.15/0.6"
            )
        if found["model"] in models:
            raise ValueError(f"{found['model']} has two prices: remove one")
        models.add(found["model"])
    return prices


GuardName = Literal["numbers", "negation", "direction", "order", "opposites", "letters", "language"]
Sharing = Literal["private", "intents", "auto", "all"]
PersonalAnswers = Literal["refuse", "share"]
Price = Annotated[float, BeforeValidator(number), Field(ge=0, le=1_000, allow_inf_nan=False)]
Grace = Annotated[float, BeforeValidator(duration), Field(ge=0, le=MAX_TTL, allow_inf_nan=False)]
Last = Annotated[float, BeforeValidator(number), Field(ge=0, le=0.5, allow_inf_nan=False)]
Margin = Annotated[float, BeforeValidator(number), Field(ge=0, le=0.3, allow_inf_nan=False)]
Rate = Annotated[float, BeforeValidator(number), Field(ge=1, le=1_000_000, allow_inf_nan=False)]
Votes = Annotated[int, BeforeValidator(number), Field(ge=0, le=1_000), AfterValidator(_not_one)]
SharedIntent = Annotated[str, Field(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a field of the tuning, for display and validation.

    Attributes:
        field: The field's name.
        title, description, unit: Texts for display; the unit may be empty.
        kind: `number`; `choice`: one of *choices*; `choices`: any of them; `labels`: a set of
            intents; `prices`: a set of prices of models; `intents`: overrides per intent.
        default: The default, as a JSON value.
        minimum, maximum: Bounds of a number, inclusive unless *above*.
        above: Whether a number must exceed its minimum.
        step: Increment of a number in a control.
        choices: The permitted values.
    """

    field: str
    title: str
    description: str
    unit: str
    kind: Literal["number", "choice", "choices", "labels", "prices", "intents"]
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """Short description of the permitted values."""
        match self.kind:
            case "number":
                first = f"more than {self.minimum:g}, to" if self.above else f"{self.minimum:g} to"
                if self.unit == "s":
                    return f"{first} {durations.text(self.maximum or 0.0)}"
                return f"{first} {self.maximum:,.10g} {self.unit}".rstrip()
            case "choice":
                return "one of " + ", ".join(self.choices)
            case "choices":
                return "any of " + ", ".join(self.choices) + ", or none"
            case "labels":
                return f"intents, {MAX_SHARED_INTENTS:,} at most"
            case "prices":
                return f"MODEL=IN/OUT, {MAX_PRICES} at most"
            case "intents":
                return f"overrides per intent, {MAX_INTENTS} at most: {', '.join(INTENT_FIELDS)}"


def _field(default: Any, title: str, description: str, unit: str = "", step: float = 0.0) -> Any:
    extra: dict[str, Any] = {"unit": unit, "step": step}
    return Field(default=default, title=title, description=description, json_schema_extra=extra)


class Tuning(BaseModel):
    """The live values. A lookup reads them once, at its start.

    `version` is that of the last change, 0 without any. `bounds()` describes the other fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=0, ge=0)
    semantic_threshold: Share = _field(
        0.95,
        "Similarity threshold",
        "Lowest cosine similarity at which L2 serves the answer to another question. Lower: more "
        "hits, more of them wrong.",
        step=0.005,
    )
    max_wrong: Wrong = _field(
        0.0,
        "Limit of wrong hits, learned policy",
        "Share of hits that may be wrong. Above 0 the learned policy replaces the threshold, and "
        "finds the most hits within that share; 0 turns it off.",
        step=0.001,
    )
    approve_margin: Margin = _field(
        0.0,
        "Band of approval",
        "Distance in similarity below the threshold within which an answer is served once it was "
        "approved, where the agent has an approver; 0 for none. An invalidation of a message "
        "reaches as far.",
        step=0.01,
    )
    approvals_per_minute: Rate = _field(
        60.0,
        "Approvals",
        "Most answers that are put to the approver per minute, in each replica; without a call, "
        "an answer in doubt is not served.",
        "per minute",
        10,
    )
    l1_ttl: Ttl = _field(
        3_600.0, "TTL of L1, exact answers", "Time until an exact answer expires.", "s", 60
    )
    l2_ttl: Ttl = _field(
        86_400.0, "TTL of L2, similar answers", "Time until a similar answer expires.", "s", 300
    )
    l3_ttl: Ttl = _field(
        21_600.0, "TTL of L3, intents", "Time until an intent label expires.", "s", 300
    )
    l4_ttl: Ttl = _field(
        43_200.0, "TTL of L4, documents", "Time until retrieved documents expire.", "s", 300
    )
    stale_seconds: Grace = _field(
        0.0,
        "Stale answers",
        "Time past its TTL for which an answer may be served if computing a new one fails; 0 for "
        "never. Answers are kept for twice their TTL, so more than a TTL has no effect.",
        "s",
        60,
    )
    refresh_share: Last = _field(
        0.0,
        "Eager refresh",
        "Last part of an answer's life, as a share of its TTL, in which a hit of get_or_compute "
        "recomputes it in the background; 0 for never.",
        step=0.01,
    )
    recheck_share: Last = _field(
        0.0,
        "Answers checked again",
        "Share of the hits of get_or_compute on popular shared answers that recompute them in the "
        "background, to find out whether they changed: at 0.02 an answer's fiftieth hit; 0 for "
        "never. It costs as many computations.",
        step=0.005,
    )
    guards: tuple[GuardName, ...] = _field(
        ("numbers", "negation", "direction", "order", "opposites", "letters", "language"),
        "Guards",
        "Vetoes on a similar question: different numbers, units, times or codes; a negation; the "
        "other direction (from, to); the same words in another order; an opposite (on, off); other "
        "codes, case, marks or lines; languages other than English, or unknown words.",
    )
    sharing: Sharing = _field(
        "private",
        "Sharing",
        "New answers that every user may get: none, those of the shared intents, also what enough "
        "different users got (auto), or all.",
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
        5,
        "Promote after",
        "With the sharing auto: number of different users who must get the same answer to a "
        "message, within more than an hour, before every user may get it. 0: never; 1 is refused.",
        "users",
        1,
    )
    puts_per_minute: Rate = _field(
        6_000.0,
        "Writes per user",
        "Most answers that one user's lookups may store per minute, in each replica; more are not "
        "stored.",
        "per minute",
        60,
    )
    shared_puts_per_minute: Rate = _field(
        600.0,
        "Shared writes per user",
        "Most answers of those that may be for all users.",
        "per minute",
        10,
    )
    response_usd: Price = _field(
        0.03, "Price of a response", "Saving by a cached response.", "USD", 0.001
    )
    intent_usd: Price = _field(
        0.001, "Price of an intent", "Saving by a cached intent label.", "USD", 0.0001
    )
    retrieval_usd: Price = _field(
        0.005, "Price of a retrieval", "Saving by cached documents.", "USD", 0.0001
    )
    prices: Annotated[
        frozenset[str],
        Field(max_length=MAX_PRICES),
        AfterValidator(_unambiguous),
        PlainSerializer(sorted),
    ] = _field(
        frozenset(),
        "Prices of models",
        "USD per million tokens read and written, as MODEL=IN/OUT, like small=0.15/0.6. By these "
        "tuning.cost_usd computes what an answer cost, for put.",
    )
    embedding_usd: Price = _field(
        0.0, "Price of an embedding", "Cost of embedding one message.", "USD", 0.00001
    )
    embedding_tokens_usd: Price = _field(
        0.0,
        "Price of embedded tokens",
        "Cost of a million tokens, where an embedding endpoint (EMBEDDING_URL) reports how many a "
        "message had.",
        "USD",
        0.01,
    )
    verify_share: Share = _field(
        0.02,
        "Share that is verified",
        "Share of semantic hits compared with a fresh answer after they were served, where the "
        "agent gave a verify function.",
        step=0.005,
    )
    verification_usd: Price = _field(
        0.0, "Price of a verification", "Cost of one such comparison.", "USD", 0.001
    )
    approval_usd: Price = _field(
        0.0,
        "Price of an approval",
        "Cost of one call of the approver; a model that reports tokens and has a price costs that.",
        "USD",
        0.0001,
    )
    hit_rate_objective: Share = _field(
        0.6,
        "Hit rate objective",
        "Target for the overall hit rate, checked by an alert.",
        step=0.01,
    )
    intents: Intents = _field(
        Overrides(),
        "Overrides per intent",
        "Another threshold, limit of wrong hits, TTL or sharing for single intents. L2 uses the "
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
        """Return the lowest similarity at which L2 serves an answer with *intent*, 0 to 1."""
        if self.allowed_wrong(intent):
            return LEAST_SIMILARITY
        own = self.intents.get(intent) if intent is not None and self.intents else None
        if own is None or own.semantic_threshold is None:
            return self.semantic_threshold
        return own.semantic_threshold

    def approvable(self, intent: str | None = None) -> float:
        """Return the lowest similarity at which an answer with *intent* may be approved.

        Above 1 where none may: without a band, and for a threshold of 1, which keeps an intent from
        being matched by similarity.
        """
        own = self.intents.get(intent) if intent is not None and self.intents else None
        threshold = self.semantic_threshold
        if own is not None and own.semantic_threshold is not None:
            threshold = own.semantic_threshold
        if not self.approve_margin or threshold >= 1:
            return 2.0
        return max(LEAST_SIMILARITY, threshold - self.approve_margin)

    def reach(self, intent: str | None = None) -> float:
        """Return the lowest similarity at which L2 may ever serve an answer with *intent*."""
        return min(self.threshold(intent), self.approvable(intent))

    def allowed_wrong(self, intent: str | None = None) -> float:
        """Return the share of hits with *intent* that may be wrong; 0 where the threshold holds."""
        own = self.intents.get(intent) if intent is not None and self.intents else None
        return self.max_wrong if own is None or own.max_wrong is None else own.max_wrong

    @property
    def learns(self) -> bool:
        """True if the learned policy decides on any answer."""
        return self.max_wrong > 0 or any(item.max_wrong for item in self.intents.values())

    @property
    def lowest_threshold(self) -> float:
        """The lowest similarity at which L2 may ever serve anything, 0 to 1."""
        if self.learns:
            return min(LEAST_SIMILARITY, self.semantic_threshold)
        return min(self.reach(), *(self.reach(intent) for intent in self.intents), 1.0)

    def shares(self, intent: str | None) -> bool:
        """Return whether every user may read an answer with *intent*."""
        own = self.intents.get(intent) if intent is not None and self.intents else None
        if own is not None and own.shared is not None:
            return own.shared
        if self.sharing == "all":
            return True
        return self.sharing in {"intents", "auto"} and intent in self.shared_intents

    @property
    def votes(self) -> bool:
        """True if answers become shared because enough users got them."""
        return self.sharing == "auto" and self.promote_after > 0

    def promotes(self, intent: str | None) -> bool:
        """Return whether every user may read an answer with *intent* that enough users got."""
        own = self.intents.get(intent) if intent is not None and self.intents else None
        return self.votes and (own is None or own.shared is not False)

    def withholds(self, entry: Entry, user: str | None) -> bool:
        """Return whether *user* must not get an entry because its sharing policy has changed."""
        return entry.by_policy and entry.withheld(
            user, shares=self.shares(entry.intent), promotes=self.promotes(entry.intent)
        )

    def saves(self, level: Level, cost_usd: float | None) -> float:
        """Return the saving of a hit of *level*, in USD; an entry's own cost comes first."""
        if level == "l3":
            return self.intent_usd
        if level == "l4":
            return self.retrieval_usd
        if cost_usd is not None:
            return cost_usd
        return self.response_usd + self.intent_usd + self.retrieval_usd

    def cost_usd(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Return what an answer of *model* cost, in USD; `None` without a price for it.

        Args:
            model: Name in *prices*.
            tokens_in, tokens_out: Numbers of tokens read and written.
        """
        for text in self.prices:
            found = _PRICE.fullmatch(text)
            if found is not None and found["model"] == model:
                read, written = float(found["read"]), float(found["written"])
                return (tokens_in * read + tokens_out * written) / 1_000_000
        return None

    def flat(self) -> dict[str, Any]:
        """Return every field but the version as JSON values, overrides as `intent.LABEL.FIELD`."""
        return flatten(self.model_dump(mode="json", exclude={"version"}))

    @classmethod
    def bounds(cls) -> dict[str, Bounds]:
        """Return the bounds of each field, in the order of declaration."""
        return dict(_BOUNDS)


_KINDS: Mapping[str, Literal["choice", "choices", "labels", "prices", "intents"]] = {
    "sharing": "choice",
    "personal": "choice",
    "guards": "choices",
    "shared_intents": "labels",
    "prices": "prices",
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
