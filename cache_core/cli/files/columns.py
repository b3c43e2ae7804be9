"""Columns of a file, found by name or mapped by the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cache_core.cli.files import values
from cache_core.cli.files.names import plural, squashed, words
from cache_core.model.exceptions import ConfigurationError

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """Value that a row may have.

    Attributes:
        name: The value's name in a row.
        names: Names of columns for it, the likeliest first.
        convert: Converts a file's value; raises `BadValue` with the expected form.
        required: Whether a row without it is useless.
        heads: Words that make a longer name likely, such as "FAQ question".
    """

    name: str
    names: tuple[str, ...]
    convert: Convert
    required: bool = False
    heads: frozenset[str] = frozenset()


def _forms(*words: str) -> frozenset[str]:
    """Return words with their plurals."""
    return frozenset(words) | frozenset(map(plural, words))


_ASKED_ABROAD = (
    "frage", "fragen", "pregunta", "preguntas", "pergunta", "perguntas", "domanda", "domande",
    "vraag", "vragen", "fråga", "frågor", "spørgsmål", "spørsmål", "kysymys", "pytanie", "otázka",
    "kérdés", "întrebare", "soru", "pertanyaan", "câu hỏi", "ερώτηση", "вопрос", "питання",
    "سؤال", "السؤال", "שאלה", "प्रश्न", "คำถาม", "问题", "問題", "質問", "질문",
)  # fmt: skip
_SAID_ABROAD = (
    "antwort", "antworten", "respuesta", "respuestas", "réponse", "réponses", "reponse", "reponses",
    "resposta", "respostas", "risposta", "risposte", "antwoord", "antwoorden", "svar", "vastaus",
    "odpowiedź", "odpověď", "válasz", "răspuns", "cevap", "yanıt", "jawaban", "câu trả lời",
    "απάντηση", "ответ", "відповідь", "إجابة", "جواب", "الإجابة", "الجواب", "תשובה", "उत्तर",
    "คำตอบ", "答案", "回答", "答え", "답변",
)  # fmt: skip
_ASKED = (
    "message", "query", "question", "q", "prompt", "user message", "user query", "user question",
    "user input", "user prompt", "input", "input text", "utterance", "request", "ask", "pattern",
    *_ASKED_ABROAD, "instruction + input", "instruction", "user", "human", "customer", "visitor",
    "title", "subject", "headline", "faq", "problem", "text", "content", "body",
)  # fmt: skip
_SAID = (
    "response", "answer", "a", "reply", "completion", "output", "output text", "bot response",
    "assistant response", "assistant message", "agent response", "model response", "llm response",
    "generated text", "chosen", *_SAID_ABROAD, "assistant", "bot", "gpt", "agent", "solution",
    "resolution", "body", "content", "description", "html", "text",
)  # fmt: skip
_WEAK = frozenset(
    map(
        squashed, ("title", "subject", "headline", "text", "content", "body", "description", "html")
    )
)
"""Names that columns of mere containers of rows have as well."""

_NOT_TEXT = _forms(
    *"""id date time at type count number no nr url link lang language source score
    rating length size token embedding vector hash status by author category topic code key index
    model cost latency timestamp created updated version flag intent label tag user group
    feedback""".split()
)
"""Words in names of columns about a question or answer that are not its text."""

_ASKED_HEADS = _forms("question", "query", "prompt", "message", "utterance")
_SAID_HEADS = _forms("answer", "response", "reply", "completion")

_USER = Column(
    "user_id",
    ("user_id", "user", "uid", "customer_id", "client_id", "account_id", "member_id", "visitor_id",
     "end_user", "end_user_id", "request_user_id", "customer", "client"),
    values.user,
)  # fmt: skip
_CONTEXT = Column(
    "context",
    ("context", "system", "system_prompt", "system_message", "system_instruction"),
    values.context,
)
_INTENT = Column("intent", ("intent", "intent_name", "intent_label"), values.label)

MESSAGE = Column("message", _ASKED, values.text, required=True, heads=_ASKED_HEADS)
QUERY = Column("query", _ASKED, values.text, required=True, heads=_ASKED_HEADS)
RESPONSE = Column("response", _SAID, values.text, required=True, heads=_SAID_HEADS)
HISTORY = Column(
    "history",
    ("history", "chat_history", "conversation_history", "message_history", "previous_messages",
     "earlier_turns"),
    values.turns,
)  # fmt: skip

ANSWERS = (
    QUERY,
    RESPONSE,
    _USER,
    _CONTEXT,
    HISTORY,
    _INTENT,
    Column("tags", ("tags",), values.labels),
)
"""Columns of prepared answers."""

REQUESTS = (
    MESSAGE,
    _USER,
    Column("answer_id", ("answer_id", "expected_answer_id", "answer_key"), values.label),
    Column("private", ("private", "is_private"), values.flag),
    _CONTEXT,
    HISTORY,
    Column(
        "standalone",
        ("standalone", "standalone_question", "standalone_query", "standalone_message",
         "rewritten_query", "rewritten_question", "condensed_question"),
        values.text,
    ),
    _INTENT,
    Column(
        "rag_results",
        ("rag_results", "documents", "docs", "retrieved_documents", "retrieved_docs",
         "retrieved_contexts", "source_documents", "contexts"),
        values.documents,
    ),
    Column(
        "t",
        ("t", "timestamp", "time", "ts", "created_at", "created", "date", "datetime", "asked_at",
         "sent_at", "start_time", "request_created_at", "logged_at", "received_at", "inserted_at",
         "event_time", "time_stamp", "unix_time", "epoch"),
        values.seconds,
    ),
)  # fmt: skip
"""Columns of recorded traffic."""

PAIRS = (
    Column("a", ("a", "question1", "question_1", "sentence1", "text1", "asked"), values.text,
           required=True),
    Column("b", ("b", "question2", "question_2", "sentence2", "text2", "stored"), values.text,
           required=True),
    Column("equivalent", ("equivalent", "is_duplicate", "duplicate", "same", "label", "match"),
           values.flag),
    Column("kind", ("kind", "category", "group"), values.label),
    Column("a_history", ("a_history", "history_a", "history1"), values.turns),
    Column("b_history", ("b_history", "history_b", "history2"), values.turns),
)  # fmt: skip
"""Columns of labelled pairs of questions."""

_ALIASES = {"message": "query", "question": "query", "prompt": "query", "answer": "response"}


def mapping(given: Iterable[str], columns: Sequence[Column]) -> dict[str, str]:
    """Return `NAME=COLUMN` pairs as a mapping; an empty COLUMN omits the value.

    Raises:
        ConfigurationError: If a pair is malformed, or no row has its name.
    """
    found: dict[str, str] = {}
    names = {alias(column.name): column.name for column in columns}
    for pair in given:
        name, equals, column = pair.partition("=")
        known = names.get(alias(name.strip()))
        if not equals or known is None:
            expected = ", ".join(column.name for column in columns)
            msg = f"--map {pair}: expected NAME=COLUMN, where NAME is one of {expected}"
            raise ConfigurationError(msg)
        if known in found:
            raise ConfigurationError(f"--map {pair}: {known} is mapped twice")
        found[known] = column.strip()
    return found


def alias(name: str) -> str:
    """Return the canonical name of a value with several: a message, query or question."""
    return _ALIASES.get(name, name)


class Matcher:
    """Finder of the columns of rows, whose names may differ from row to row.

    Attributes:
        asked: Name of the first required column: the question's.

    Args:
        columns: Columns to look for.
        given: Columns by name, as the caller maps them, which overrides guesses; for a context also
            several, separated by commas.
    """

    _KEPT = 1_000

    def __init__(self, columns: Sequence[Column], given: Mapping[str, str]) -> None:
        self._columns = columns
        self._given = given
        self.asked = next((column.name for column in columns if column.required), "")
        self._known: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}

    def is_complete(self, names: tuple[str, ...], *, weak: bool) -> bool:
        """Return whether *names* include all required columns, with *weak* names if allowed."""
        matched = self.match(names)
        required = [column.name for column in self._columns if column.required]
        return all(
            name in matched and (weak or squashed(matched[name][0]) not in _WEAK)
            for name in required
        )

    def wants(self, name: str) -> bool:
        """Return whether a column is looked for."""
        return any(column.name == name for column in self._columns)

    def knows(self, names: Iterable[str]) -> bool:
        """Return whether any of *names* is a column's."""
        known = {key for column in self._columns for key in _keys(column)}
        return not known.isdisjoint(map(squashed, names))

    def match(self, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Return the columns among *names* by their value; several columns make one value."""
        found = self._known.get(names)
        if found is None:
            found = self._match(names)
            if len(self._known) < self._KEPT:
                self._known[names] = found
        return found

    def _match(self, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        by_name = {squashed(name): name for name in reversed(names)}
        for name in names:
            by_name.setdefault(squashed(name.rpartition(".")[2]), name)
        found: dict[str, tuple[str, ...]] = {}
        for field, wanted in self._given.items():
            several = wanted.split(",") if field == "context" and wanted not in names else [wanted]
            present = [_present(part.strip(), names, by_name) for part in several]
            if all(present):
                found[field] = tuple(filter(None, present))
        for column in self._columns:
            taken = {name for used in found.values() for name in used}
            others = frozenset().union(
                *(other.heads for other in self._columns if other.heads != column.heads)
            )
            free = {
                key: name
                for key, name in by_name.items()
                if name not in taken and not _inside(name, taken, others)
            }
            likely = None if column.name in self._given else _named(column, free)
            if likely is not None:
                found[column.name] = (likely,)
        return found


def _inside(name: str, taken: Iterable[str], heads: frozenset[str]) -> bool:
    """Return whether a dotted name is in an object that is taken, or of another column."""
    return any(name.startswith(f"{used}.") for used in taken) or not heads.isdisjoint(
        words(name.rpartition(".")[0])
    )


def _present(name: str, names: Sequence[str], by_name: Mapping[str, str]) -> str | None:
    return name if name in names else by_name.get(squashed(name))


def _named(column: Column, free: Mapping[str, str]) -> str | None:
    """Return the name for *column*, by its whole name or a word in it; `None` without one."""
    for key in _keys(column):
        if key in free:
            # a column "user" is the asking user, unless the assistant's words are beside it
            if column.required and key in _SPEAKERS and not _ANSWERERS & free.keys():
                continue
            return free[key]
    likely = {
        name for name in free.values() if words(name) & column.heads and not words(name) & _NOT_TEXT
    }
    return likely.pop() if len(likely) == 1 else None


@lru_cache
def _keys(column: Column) -> tuple[str, ...]:
    """Return the folded names of a column; for texts also in the plural."""
    keys = map(squashed, column.names)
    if not column.required:
        return tuple(keys)
    return tuple(form for key in keys for form in (key, plural(key)))


_SPEAKERS = frozenset(map(squashed, ("user", "human", "customer", "visitor")))
_ANSWERERS = frozenset(map(squashed, ("assistant", "bot", "gpt", "agent")))
