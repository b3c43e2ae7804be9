"""Learning from misses: whether the nearest answer would have been right, once a fresh one comes.

A lookup that missed leaves its nearest candidate here; the put that follows brings the fresh
answer, and comparing the two gives a label. Where names or texts do not tell, that is done after
the put; what stays unknown gives none. Labels go into one log of the namespace, which every
replica follows, so all of them know the same. No text is in it, and nothing about private answers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cache_core.backends.base import Logs
from cache_core.backends.log import PAGE, Log
from cache_core.model.keys import Keys
from cache_core.model.stored import Flag, Format, Moment, Plain, Share
from cache_core.model.values import Entry, Miss, Query
from cache_core.observability.evidence import Evidence as Lookup
from cache_core.observability.instruments import Instruments
from cache_core.observability.records import LabelRecord
from cache_core.observability.verdicts import Verdict
from cache_core.operations.recognition import Recognition
from cache_core.policy.answers import AnswerText, named_or_equal
from cache_core.policy.answers import Verdict as Likeness
from cache_core.policy.evidence import Evidence
from cache_core.policy.limits import LEAST_SIMILARITY
from cache_core.tiers.semantic.choosing import key_of

LABELS = "labels"
LABELS_KEPT = 20_000
"""Newest labels of a namespace; older ones are forgotten when a replica starts."""

_OPEN = 1_000
"""Misses whose put has not come yet."""

_LONGEST = 8_192
"""Characters of an answer that are kept until then."""

_LEAST = LEAST_SIMILARITY - 0.1
"""Similarity of a candidate that is worth a label: a little below where anything is served."""

_UNSENT = 1_000
"""Labels that wait for the store."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label.

    Attributes:
        at: The store's time, seconds since the epoch.
        replica: Name of the process that learned it.
        answer: Key of the candidate's answer.
        similarity: Of the question to the candidate, 0..1.
        right: Whether that answer would have been right.
        lookup_id: Id of the lookup that missed; empty in labels of older versions.
        fresh: Key of the fresh answer; empty if that is private, and in labels of older versions.
    """

    at: Moment
    replica: Plain
    answer: Plain
    similarity: Share
    right: Flag
    lookup_id: Plain = ""
    fresh: Plain = ""


FORMAT = Format(Label)


def label_log(store: Logs, keys: Keys) -> Log[Label]:
    """Return the log of labels in the store."""
    return Log(store, keys.own(LABELS), FORMAT, LABELS_KEPT)


class _Miss(NamedTuple):
    """A miss with a candidate, until its put comes."""

    key: str
    stored: AnswerText
    similarity: float
    lookup_id: str
    fresh: str = ""


class Learning:
    """Labels of candidates, and the evidence made of them.

    Args:
        store: Store of the log.
        keys: Digests, and the log's name.
        evidence: Gets what is learned.
        verdicts: Log of the verdicts on hits.
        recognition: Compares answers.
        instruments: Count the labels.
        replica: Name of this process.
    """

    def __init__(
        self,
        store: Logs,
        keys: Keys,
        evidence: Evidence,
        verdicts: Log[Verdict],
        recognition: Recognition,
        instruments: Instruments,
        replica: str,
    ) -> None:
        self._store = store
        self._keys = keys
        self._evidence = evidence
        self._verdicts = verdicts
        self._recognition = recognition
        self._instruments = instruments
        self._replica = replica
        self._log = label_log(store, keys)
        self._open: OrderedDict[tuple[str, str | None, str], _Miss] = OrderedDict()
        self._unsent: list[Label] = []
        self._read_to = self._verdicts_to = ""
        self._started = False
        self.dropped = 0
        """Labels lost because the store was unavailable for too long."""

    def note(self, evidence: Lookup) -> None:
        """Remember the candidate of a lookup that L2 could not answer."""
        semantic = evidence.found.of("l2")
        answer = None if semantic is None else semantic.answer
        if not isinstance(answer, Miss) or answer.candidate is None or answer.unvetoed is None:
            return
        entry = answer.candidate
        if answer.unvetoed < _LEAST or len(entry.response or "") > _LONGEST:
            return
        stored = AnswerText(entry.response or "", entry.answer)
        key, similarity = key_of(self._keys, entry), min(1.0, answer.unvetoed)
        miss = _Miss(key, stored, similarity, evidence.record.lookup_id)
        self._open[_name(evidence.query)] = miss
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)

    def fresh(self, query: Query, entry: Entry, *, shared: bool) -> None:
        """Compare the fresh answer to a message with the candidate that its lookup found.

        In the background, unless names or texts are enough to tell.

        Args:
            query: The message.
            entry: The answer.
            shared: Whether it is for everybody.
        """
        miss = self._open.pop(_name(query), None)
        if miss is None or not entry.response:
            return
        answer = AnswerText(entry.response, entry.answer)
        miss = miss._replace(fresh=key_of(self._keys, entry) if shared else "")
        sure = named_or_equal(answer, miss.stored)
        if sure is not None:
            self._learn(miss, right=sure)
        elif self._recognition.full:
            self._instruments.record(LabelRecord("unknown"))
        else:
            self._recognition.start(partial(self._compare, miss, answer))

    async def _compare(self, miss: _Miss, answer: AnswerText) -> None:
        verdict: Likeness = "unknown"
        try:
            verdict = await self._recognition.verdict(answer, miss.stored)
        finally:
            if verdict == "unknown":
                self._instruments.record(LabelRecord("unknown"))
            else:
                self._learn(miss, right=verdict == "same")

    def _learn(self, miss: _Miss, *, right: bool) -> None:
        self._instruments.record(LabelRecord("right" if right else "wrong"))
        label = Label(
            self._store.now(), self._replica, miss.key, miss.similarity, right, miss.lookup_id,
            miss.fresh,
        )  # fmt: skip
        self._take(label)
        self._unsent.append(label)
        self.dropped += len(self._unsent) > _UNSENT
        del self._unsent[:-_UNSENT]

    def _take(self, label: Label) -> None:
        self._evidence.learn(label.answer, label.similarity, right=label.right)
        if label.fresh and label.right:
            self._evidence.link(label.answer, label.fresh)
        elif label.fresh:
            self._evidence.part(label.answer, label.fresh)

    def forget(self) -> None:
        """Drop the answers that wait for their put."""
        self._open.clear()

    async def tend(self) -> None:
        """Learn what the other replicas did, and send what this one learned.

        Raises:
            BackendError: If the store is unavailable; nothing is lost then.
        """
        starts = not self._started
        while rows := await self._log.since(self._read_to):
            for at, label in rows:
                self._read_to = at
                # At the start, those of an earlier life of this process are news as well.
                if label is not None and (starts or label.replica != self._replica):
                    self._take(label)
        self._started = True
        while self._unsent:
            labels = self._unsent[:PAGE]
            await self._log.append(labels)
            del self._unsent[: len(labels)]
        while found := await self._verdicts.since(self._verdicts_to):
            for at, verdict in found:
                self._verdicts_to = at
                if verdict is not None and verdict.level == "l2" and verdict.source != "review":
                    self._evidence.judge(correct=verdict.correct)


def _name(query: Query) -> tuple[str, str | None, str]:
    return query.exact, query.user, query.context
