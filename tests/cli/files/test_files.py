"""Files as people have them become rows: arrangements, columns, encodings, values, damage."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_core.cli.files import ANSWERS, REQUESTS, Column, How, Report, UnusableFile, read
from cache_core.cli.files.values import has_html, plain, seconds
from cache_core.model.exceptions import ConfigurationError

QUERY, ANSWER = "Where is it?", "Level 1, to the left."


def found(
    path: Path, columns: tuple[Column, ...] = ANSWERS, **how: Any
) -> tuple[list[dict[str, Any]], Report]:
    """Return the rows, each without what it does not have, and the report."""
    report = Report()
    rows = [row.values for row in read(path, columns, How(**how), report)]
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return kept, report


def file(tmp_path: Path, content: str | bytes, name: str = "faq.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def only(path: Path, columns: tuple[Column, ...] = ANSWERS, **how: Any) -> dict[str, Any]:
    (row,), _ = found(path, columns, **how)
    return row


# ---------------------------------------------------------------------------------- delimited text


def as_csv(header: tuple[str, ...], *rows: tuple[str, ...], **how: Any) -> str:
    out = io.StringIO()
    csv.writer(out, **how).writerows([header, *rows])
    return out.getvalue()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("query", "response"),
        ("question", "answer"),
        ("Questions", "Answers"),
        ("QUERIES", "REPLIES"),
        ("Query", "Response"),
        ("prompt", "completion"),
        ("input", "output"),
        ("title", "body"),
        ("user", "assistant"),
        ("utterance", "response"),
        ("Q", "A"),
        ("User Question", "Bot Response"),
        ("userQuestion", "botAnswer"),
        ("question_text", "answer_text"),
        ("FAQ question (English)", "Our answer"),
        ("Instruction", "Output"),
        ("subject", "content"),
        ("FAQ Questions", "Our Replies"),
    ],
)
def test_columns_are_found_by_their_names(tmp_path: Path, asked: str, said: str) -> None:
    """Whatever the case, the plural and the words around: the report says which were taken."""
    path = file(tmp_path, as_csv((asked, "Updated", said), (QUERY, "2026-01-01", ANSWER)))
    rows, report = found(path)
    assert rows == [{"query": QUERY, "response": ANSWER}]
    assert report.used == {"query": {asked: 1}, "response": {said: 1}}
    assert report.passed_over == ["Updated"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_delimiters_are_found(tmp_path: Path, delimiter: str, line_end: str) -> None:
    """Each common one, with every line end, though the texts are full of the others."""
    rows = [("Is it A, B; or C?\tOr | D?", f"One, two; three\t| {number}") for number in range(5)]
    text = as_csv(("query", "response"), *rows, delimiter=delimiter, lineterminator=line_end)
    assert [tuple(row.values()) for row in found(file(tmp_path, text))[0]] == rows


def test_a_space_after_the_delimiter_is_none_of_the_value(tmp_path: Path) -> None:
    """Neither in the header nor in a row, also before a quotation mark."""
    path = file(tmp_path, f'query, response\n{QUERY}, "{ANSWER}"\n"two" , three\n')
    rows, report = found(path)
    assert rows[0] == {"query": QUERY, "response": ANSWER}
    assert rows[1]["response"] == "three"
    assert not report.skipped


def test_excels_own_ways(tmp_path: Path) -> None:
    """`sep=;` in the first line, a title above the header, empty columns, trailing delimiters."""
    text = f"sep=;\r\nFAQ 2026;;\r\n;;\r\nQuestion;Answer;\r\n{QUERY};{ANSWER};\r\n;;\r\n"
    rows, report = found(file(tmp_path, text))
    assert rows == [{"query": QUERY, "response": ANSWER}]
    assert report.before == 2
    assert report.empty == 1


def test_quoted_lines_and_marks_stay(tmp_path: Path) -> None:
    """A line break, a delimiter and a doubled mark in quotation marks are text."""
    said = 'One,\n"two"\n\nthree; 12" wide'
    path = file(tmp_path, as_csv(("question", "answer"), (QUERY, said)))
    assert only(path)["response"] == said
    assert only(file(tmp_path, 'question,answer\n12" screen?,24" too\n')) == {
        "query": '12" screen?', "response": '24" too',
    }  # fmt: skip


def test_a_stray_quotation_mark_costs_one_row(tmp_path: Path) -> None:
    """A mark that is never closed takes no other row with it, and its line is named."""
    lines = ["question,answer", "one,1", '"two,2', "three,3", 'four,"4" is it', "five,5"]
    rows, report = found(file(tmp_path, "\n".join(lines)))
    assert [row["query"] for row in rows] == ["one", "three", "four", "five"]
    assert report.bad.total() == 1
    ((line, why),) = report.examples
    assert line == 3
    assert "quotation mark" in why


def test_an_unquoted_delimiter_is_not_cut_off(tmp_path: Path) -> None:
    """Half an answer is worse than none: the row is skipped, and what to do is said."""
    rows, report = found(file(tmp_path, "question,answer\nA,one, or two\nB,three\n"))
    assert rows == [{"query": "B", "response": "three"}]
    ((line, why),) = report.examples
    assert line == 2
    assert "quotation marks" in why


def test_rows_without_a_header_go_by_number(tmp_path: Path) -> None:
    """The error names what was taken for the header, and how to say that it is none."""
    path = file(tmp_path, f'"{QUERY}","{ANSWER}"\nmore,too\n')
    with pytest.raises(UnusableFile, match="--no-header"):
        found(path)
    rows, _ = found(path, mapped=["query=1", "response=2"], header=False)
    assert rows == [{"query": QUERY, "response": ANSWER}, {"query": "more", "response": "too"}]


@pytest.mark.parametrize("name", ["question", "Frage"])
def test_one_column_is_not_split(tmp_path: Path, name: str) -> None:
    """A list of questions is no table, whatever signs are in them."""
    asked = ["How long, please?", "A; B or C|D?", "and\tthen?"]
    path = file(tmp_path, "\n".join([name, *asked]), "questions.txt")
    rows, report = found(path, REQUESTS, mapped=[f"message={name}"])
    assert [row["message"] for row in rows] == asked
    assert report.form == "one column"
    path = file(tmp_path, "\n".join(asked), "questions.txt")
    rows, _ = found(path, REQUESTS, mapped=["message=1"], header=False)
    assert [row["message"] for row in rows] == asked


def test_marks_may_have_a_backslash(tmp_path: Path) -> None:
    """Escapes are read as databases export them; among doubled quotes a backslash is itself."""
    path = file(tmp_path, 'q,a\n"Say \\"hi\\", why?","It \\"is\\""\n')
    assert only(path) == {"query": 'Say "hi", why?', "response": 'It "is"'}
    path = file(tmp_path, 'q,a\n"Where is ""C:\\""?","In C:\\"\n')
    assert only(path) == {"query": 'Where is "C:\\"?', "response": "In C:\\"}


def test_very_long_fields_are_read(tmp_path: Path) -> None:
    """The csv module's own limit of 131,072 characters is none of ours."""
    said = "x" * 500_000
    assert only(file(tmp_path, f"query,response\n{QUERY},{said}\n"))["response"] == said


# ---------------------------------------------------------------------------------- mapping


def test_columns_can_be_named(tmp_path: Path) -> None:
    """A mapped column beats every known name, in any case; an empty mapping ignores a column."""
    path = file(tmp_path, "Frage;Antwort;question;answer;context\na;b;c;d;e\n")
    assert only(path) == {"query": "c", "response": "d", "context": "e"}
    named = ["question=frage", "answer=ANTWORT", "context="]
    assert only(path, mapped=named) == {"query": "a", "response": "b"}


def test_a_context_can_be_made_of_several_columns(tmp_path: Path) -> None:
    """`context=A,B` is an object; a column whose name has a comma is still a column."""
    path = file(
        tmp_path, as_csv(("q", "a", "tenant", "locale", "x, y"), ("1", "2", "t", "de", "z"))
    )
    both = only(path, mapped=["context=tenant,locale"])
    assert both["context"] == {"tenant": "t", "locale": "de"}
    assert only(path, mapped=["response=x, y"])["response"] == "z"


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("query", "expected NAME=COLUMN"),
        ("nonsense=x", "NAME is one of query, response"),
        ("query=Frage", "has 'q', 'a'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, pair: str, said: str) -> None:
    """With what may be named, or the columns that there are."""
    path = file(tmp_path, "q,a\n1,2\n")
    with pytest.raises(ConfigurationError) as raised:
        found(path, mapped=[pair])
    assert not isinstance(raised.value, UnusableFile)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "header",
    ["Frage;Antwort", "pregunta;Respuesta", "Question;Réponse", "domande;risposte", "вопрос;ответ",
     "问题;答案", "質問;回答", "السؤال;الجواب", "text;Fragen;antworten"],
)  # fmt: skip
def test_names_in_other_languages_are_found(tmp_path: Path, header: str) -> None:
    """Without a mapping, and before names that mean little."""
    cells = ("x", QUERY, ANSWER)[-len(header.split(";")) :]
    path = file(tmp_path, as_csv(tuple(header.split(";")), cells))
    assert only(path) == {"query": QUERY, "response": ANSWER}


def test_the_same_name_is_not_mapped_twice(tmp_path: Path) -> None:
    """A question and a message are one thing."""
    with pytest.raises(ConfigurationError, match="mapped twice"):
        found(file(tmp_path, "q,a\n1,2\n"), mapped=["query=q", "question=a"])


@pytest.mark.parametrize(
    "header",
    [
        "Stichwort,Auskunft",
        "question_en,question_de,answer_en,answer_de",
        "question_id,answer_date",
    ],
)
def test_unknown_or_ambiguous_columns_are_not_guessed(tmp_path: Path, header: str) -> None:
    """The error lists them, and the options that name them."""
    names = header.split(",")
    with pytest.raises(UnusableFile) as raised:
        found(file(tmp_path, as_csv(tuple(names), tuple("abcd"[: len(names)]))))
    assert all(repr(name) in str(raised.value) for name in names)
    assert "--map query=COLUMN --map response=COLUMN" in str(raised.value)


# ---------------------------------------------------------------------------------- encodings

UMLAUTS = "question;answer\nWo ist die Kasse für Männer?;Über der Straße, größtenteils.\n"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"],
)
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    """By the byte order mark or by what decodes; a guess is called one, with a word to see it by."""
    rows, report = found(file(tmp_path, UMLAUTS.encode(encoding)))
    assert rows[0]["response"] == "Über der Straße, größtenteils."
    assert report.guessed is (encoding in {"cp1252", "latin-1"})
    assert not report.guessed or report.example == "für"


def test_other_alphabets_are_not_taken_for_western(tmp_path: Path) -> None:
    """Cyrillic in a code page of its own is no Windows-1252: the encoding is asked for."""
    content = "вопрос;ответ\nГде касса?;Налево.\n".encode("cp1251")
    path = file(tmp_path, content)
    mapped = ["query=вопрос", "response=ответ"]
    with pytest.raises(UnusableFile, match="--encoding"):
        found(path, mapped=mapped)
    assert only(path, mapped=mapped, encoding="cp1251")["response"] == "Налево."


@pytest.mark.parametrize(
    ("given", "error"), [("rot13", ConfigurationError), ("ascii", UnusableFile)]
)
def test_a_wrong_encoding_is_reported(tmp_path: Path, given: str, error: type[Exception]) -> None:
    """One that does not exist, and one by which the file does not decode."""
    with pytest.raises(error, match=given):
        found(file(tmp_path, UMLAUTS), encoding=given)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_read(tmp_path: Path, pack: Any) -> None:
    """Whatever they are called; a damaged one is an error and no traceback."""
    content = pack(json.dumps({"query": QUERY, "response": ANSWER}).encode())
    assert only(file(tmp_path, content, "faq.jsonl.gz"))["query"] == QUERY
    assert only(file(tmp_path, content, "faq"))["query"] == QUERY
    with pytest.raises(ConfigurationError, match="cannot be read"):
        found(file(tmp_path, content[:-12], "cut"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04rest", "Excel"),
        (b"%PDF-1.7", "PDF"),
        (b"\xd0\xcf\x11\xe0....", "CSV"),
        (b"PAR1....", "Parquet"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"\x7fELF\x02\x01\x01" + bytes(40) + b"\xff\xfe\x80", "not a text file"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, content: bytes, said: str) -> None:
    """And what to do with them is said."""
    with pytest.raises(UnusableFile, match=said):
        found(file(tmp_path, content, "faq.csv"))


# ---------------------------------------------------------------------------------- JSON

ROW = {"query": QUERY, "response": ANSWER}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.jsonl", json.dumps(ROW) + "\n\n" + json.dumps(ROW)),
        ("lines.txt", json.dumps(ROW) + "\n" + json.dumps(ROW) + "\n"),
        ("commas.json", json.dumps(ROW) + ",\n" + json.dumps(ROW) + ",\n"),
        ("array.json", json.dumps([ROW, ROW])),
        ("indented.json", json.dumps([ROW, ROW], indent=2)),
        ("one_a_line.json", f"[\n{json.dumps(ROW)},\n{json.dumps(ROW)}\n]\n"),
        ("objects.json", json.dumps(ROW, indent=2) + "\n" + json.dumps(ROW, indent=2)),
        ("mark.json", "\ufeff" + json.dumps([ROW, ROW])),
        ("held.json", json.dumps({"count": 2, "articles": [ROW, ROW]}, indent=1)),
        ("deeper.json", json.dumps({"data": {"items": [ROW, ROW]}, "links": [{"href": "x"}]})),
        ("by_id.json", json.dumps({"1": ROW, "2": ROW})),
        ("titled.json", json.dumps({"title": "FAQ", "description": "d", "faq": [ROW, ROW]})),
        ("columns.json", json.dumps({"question": [QUERY] * 2, "answer": [ANSWER] * 2})),
        ("pandas.json", json.dumps({"question": {"0": QUERY, "1": QUERY},
                                    "answer": {"0": ANSWER, "1": ANSWER}})),
        ("split.json", json.dumps({"columns": ["q", "a"], "data": [[QUERY, ANSWER]] * 2})),
        ("sheet.json", json.dumps({"values": [["q", "a"], *[[QUERY, ANSWER]] * 2]}, indent=1)),
        ("elastic.json", json.dumps({"hits": {"total": 2, "hits": [{"_id": 1, "_source": ROW}] * 2}})),
        ("nested.json", json.dumps([{"id": 1, "attributes": {"question": QUERY, "answer": ANSWER}}] * 2)),
    ],
)  # fmt: skip
def test_arrangements_of_json(tmp_path: Path, name: str, text: str) -> None:
    """Lines, arrays, objects behind each other, exports that hold the list, columns of pandas."""
    rows, report = found(file(tmp_path, text, name))
    assert rows == [ROW, ROW]
    assert not report.skipped


def test_an_object_of_questions_and_answers(tmp_path: Path) -> None:
    """The plainest of all FAQ files."""
    text = json.dumps({"Where?": "Here.", "When?": "Now."}, indent=2)
    rows, _ = found(file(tmp_path, text, "faq.json"))
    assert rows == [
        {"query": "Where?", "response": "Here."},
        {"query": "When?", "response": "Now."},
    ]


@pytest.mark.parametrize("text", ['{"query": "Where?"}', '{"user_id": "u", "note": "n"}'])
def test_a_row_that_lacks_something_is_no_pair(tmp_path: Path, text: str) -> None:
    """The name of a column is no question."""
    with pytest.raises(UnusableFile, match="no column for the"):
        found(file(tmp_path, text, "faq.json"))


def test_a_name_may_be_empty(tmp_path: Path) -> None:
    """A key without a letter is a column like another one."""
    row = {"": "x", "messages": [turn("user", QUERY), turn("assistant", ANSWER)]}
    assert only(file(tmp_path, json.dumps([row]), "log.json"), REQUESTS)["message"] == QUERY
    rows = [{"": ["a", "b"], "question": QUERY, "answer": ANSWER}]
    assert only(file(tmp_path, json.dumps(rows), "faq.json"))["query"] == QUERY


def test_retrieved_passages_are_no_context(tmp_path: Path) -> None:
    """`contexts`, as evaluation sets call them, are documents; `context` is the cache's."""
    rows = [{"question": QUERY, "contexts": ["d"]}, {"question": QUERY, "context": "c"}]
    assert found(file(tmp_path, json.dumps(rows), "rag.json"), REQUESTS)[0] == [
        {"message": QUERY, "rag_results": ("d",)},
        {"message": QUERY, "context": "c"},
    ]


def test_large_arrays_are_read_as_they_come(tmp_path: Path) -> None:
    """Values across the borders of what is read together, with a limit and without."""
    many = [{"query": f"q{number}", "response": "x" * 5_000} for number in range(1_000)]
    path = file(tmp_path, json.dumps(many, indent=1), "big.json")
    rows, report = found(path)
    assert rows == many
    assert report.form == "JSON"
    assert found(path, limit=3)[0] == many[:3]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n{"query": "a", "response": "b"},\n{"query": \n]', 4),
        ('[\n{"query": "a", "response": "b"},\n', 3),
        ('{"articles": [\n{"query": "a", "response": nothing}]}', 2),
        ("[" * 100_000, 1),
    ],
)
def test_broken_json_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    """A file that is cut or malformed is refused as a whole."""
    with pytest.raises(UnusableFile, match=f"line {line}\\b"):
        found(file(tmp_path, text, "faq.json"))


@pytest.mark.parametrize("first", ['{"query": "x", ', '{"query"', "no json", '["a", '])
def test_a_broken_line_of_json_lines_costs_itself(tmp_path: Path, first: str) -> None:
    """Also when it is the first one."""
    path = file(tmp_path, f"{first}\n{json.dumps(ROW)}\n", "faq.jsonl")
    rows, report = found(path)
    assert rows == [ROW]
    assert report.examples[0][0] == 1
    with pytest.raises(UnusableFile, match="line 1: not JSON"):
        found(path, strict=True)


# ---------------------------------------------------------------------------------- chats

SYSTEM = {"role": "system", "content": "You help customers."}


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("holder", "who", "what"),
    [
        ("messages", "role", "content"),
        ("conversations", "from", "value"),
        ("turns", "speaker", "text"),
        ("conversation", "Role", "Content"),
        ("dialogue", "author", "utterance"),
    ],
)
@pytest.mark.parametrize("names", [("user", "assistant"), ("human", "gpt"), ("Customer", "Agent")])
def test_chats_are_requests_with_what_came_before(
    tmp_path: Path, holder: str, who: str, what: str, names: tuple[str, str]
) -> None:
    """Each question of a chat is a request: a system prompt is its context, the rest its history."""
    said = ["Hello", "Hi, what is it?", "Where is it?", "Level 1."]
    speakers = (names * 2)[:4]
    turns = [{who: "system", what: "You help."}]
    turns += [{who: speaker, what: text} for speaker, text in zip(speakers, said, strict=True)]
    rows, report = found(file(tmp_path, json.dumps([{holder: turns}] * 2)), REQUESTS)
    assert rows[0] == {"message": "Hello", "user_id": "conversation 1", "context": "You help."}
    assert rows[1]["message"] == "Where is it?"
    assert rows[1]["history"] == (turn("user", "Hello"), turn("assistant", "Hi, what is it?"))
    assert rows[3]["user_id"] == "conversation 2"
    assert report.used["message"] == {holder: 4}
    assert report.strangers == 2


def test_chats_as_answers(tmp_path: Path) -> None:
    """The first exchange is a question and an answer; a follow-up says that it is one."""
    turns = [SYSTEM, turn("user", QUERY), turn("assistant", "Let me see."), turn("tool", "level 1"),
             turn("assistant", ANSWER), turn("user", "Thanks"), turn("assistant", "Welcome")]  # fmt: skip
    rows, _ = found(file(tmp_path, json.dumps({"messages": turns}), "chats.jsonl"))
    assert rows[0] == {"query": QUERY, "response": ANSWER, "context": SYSTEM["content"]}
    assert rows[1]["history"]


def test_logs_of_requests_are_not_taken_apart(tmp_path: Path) -> None:
    """The last question is the message if the reply stands beside the turns."""
    turns = [SYSTEM, turn("user", "Hello"), turn("assistant", "Hi"), turn("user", QUERY)]
    reply = {"choices": [{"message": turn("assistant", ANSWER)}]}
    logged = {"request": {"body": {"messages": turns}}, "response": reply, "user": 42}
    path = file(tmp_path, json.dumps(logged), "log.jsonl")
    row = only(path)
    assert (row["query"], row["response"], row["user_id"]) == (QUERY, ANSWER, "42")
    assert len(row["history"]) == 2
    asked = only(path, REQUESTS)
    assert asked["message"] == QUERY
    assert asked["context"] == SYSTEM["content"]


def test_content_parts_are_their_text(tmp_path: Path) -> None:
    """Text parts are joined; a picture beside them makes the row one that cannot be used."""
    parts = [{"type": "text", "text": "Where "}, {"type": "text", "text": "is it?"}]
    picture = [*parts, {"type": "image_url", "image_url": {"url": "data:..."}}]
    rows = [{"messages": [turn("user", content), turn("assistant", ANSWER)]}
            for content in (parts, picture)]  # fmt: skip
    usable, report = found(file(tmp_path, "\n".join(map(json.dumps, rows)), "chats.jsonl"))
    assert [row["query"] for row in usable] == [QUERY]
    assert "image_url" in report.examples[0][1]
    both = {"messages": [*rows[1]["messages"], *rows[0]["messages"]]}
    usable, report = found(file(tmp_path, json.dumps(both), "chats.jsonl"))
    assert [row["query"] for row in usable] == [QUERY]
    assert report.bad.total() == 1


def test_known_users_stay(tmp_path: Path) -> None:
    """Beside the turns or in them; else the conversation's own id."""
    turns = [turn("user", QUERY, created_at=1_793_000_000_000), turn("assistant", ANSWER)]
    rows = [{"messages": turns, "user_id": 42}, {"messages": turns, "id": "c7"}]
    read_rows, report = found(file(tmp_path, json.dumps(rows), "chats.json"), REQUESTS)
    assert [row["user_id"] for row in read_rows] == ["42", "conversation c7"]
    assert read_rows[0]["t"] == 1_793_000_000
    assert report.used["t"] == {"messages.created_at": 2}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_turn_in_each_row(tmp_path: Path, form: str) -> None:
    """Logs of single turns are put together by what names the chat, also if they are mixed."""
    header = ("session_id", "speaker", "utterance", "timestamp")
    turns = [("a", "customer", "Hello", "10"), ("b", "customer", QUERY, "11"),
             ("a", "agent", "Hi", "12"), ("b", "agent", ANSWER, "13"),
             ("a", "customer", QUERY, "14")]  # fmt: skip
    text = as_csv(header, *turns)
    if form == "jsonl":
        text = "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in turns)
    rows, report = found(file(tmp_path, text, f"log.{form}"), REQUESTS)
    assert [(row["user_id"], row["message"], row["t"]) for row in rows] == [
        ("conversation a", QUERY, 14), ("conversation b", QUERY, 11),
    ]  # fmt: skip
    assert rows[0]["history"] == (turn("user", "Hello"), turn("assistant", "Hi"))
    assert report.used["message"] == {"speaker + utterance": 2}
    assert report.passed_over == []
    answers, _ = found(file(tmp_path, text, f"log.{form}"))
    assert answers == [{"query": QUERY, "response": ANSWER}]


def test_turns_of_an_unknown_chat_are_rejected(tmp_path: Path) -> None:
    """They would be replayed as questions, what the agent said among them."""
    with pytest.raises(UnusableFile, match="conversation_id"):
        found(file(tmp_path, "role,text\nuser,Where?\nassistant,Here.\n"), REQUESTS)


def test_several_ways_to_ask(tmp_path: Path) -> None:
    """Each is a question of its own; of several answers the first is taken."""
    rows = {
        "intents": [{"tag": "x", "patterns": ["Where?", "Which way?"], "responses": ["A", "B"]}]
    }
    assert found(file(tmp_path, json.dumps(rows), "intents.json"))[0] == [
        {"query": "Where?", "response": "A"},
        {"query": "Which way?", "response": "A"},
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"request_body": {"messages": [turn("user", QUERY)]}, "request_user_id": "u"},
        {"body": {"messages": [turn("user", QUERY)]}, "user": "u"},
        {"input": [turn("user", QUERY)], "output": turn("assistant", ANSWER), "userId": "u"},
        {"input": {"messages": [turn("user", QUERY)]}, "output": "x", "user_id": "u"},
        {"contents": [{"role": "user", "parts": [{"text": QUERY}]}], "user_id": "u"},
        {"prompt": [turn("user", QUERY)], "completion": [turn("assistant", ANSWER)], "uid": "u"},
        {"messages": [turn("user", [{"type": "text", "text": QUERY}])], "end_user": "u"},
    ],
)
def test_logs_of_gateways(tmp_path: Path, row: dict[str, Any]) -> None:
    """Wherever they put the turns, and however they call the user; alone in the file or not."""
    for text in (json.dumps(row), json.dumps([row]), json.dumps(row) + "\n" + json.dumps(row)):
        rows, _ = found(file(tmp_path, text, "log.json"), REQUESTS)
        assert rows[0] == {"message": QUERY, "user_id": "u"}


@pytest.mark.parametrize(
    "prompt", ["S", [{"type": "text", "text": "S"}], {"parts": [{"text": "S"}]}]
)
def test_system_prompts_beside_the_turns(tmp_path: Path, prompt: Any) -> None:
    """The same context is read from text, from parts and from a message."""
    row = {"system": prompt, "messages": [turn("user", QUERY), turn("assistant", ANSWER)]}
    assert only(file(tmp_path, json.dumps(row), "chat.jsonl"))["context"] == "S"


def test_instructions_with_their_input(tmp_path: Path) -> None:
    """Alpaca's three columns: the question is the instruction and what it is about."""
    rows = [{"instruction": "Translate.", "input": "Haus", "output": "house"},
            {"instruction": "Say hello.", "input": "", "output": "Hello"}]  # fmt: skip
    usable, report = found(file(tmp_path, json.dumps(rows), "alpaca.json"))
    assert [row["query"] for row in usable] == ["Translate.\n\nHaus", "Say hello."]
    assert report.passed_over == []


def test_chats_in_a_cell(tmp_path: Path) -> None:
    """A table's column may hold the turns as JSON."""
    turns = json.dumps([turn("user", QUERY), turn("assistant", ANSWER)])
    assert only(file(tmp_path, as_csv(("id", "messages"), ("1", turns))))["response"] == ANSWER


# ---------------------------------------------------------------------------------- values


def nested(levels: int) -> Any:
    value: Any = {"end": 1}
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (1_793_000_000, 1_793_000_000),
        (51.5, 51.5),
        (1_793_000_000_123, 1_793_000_000.123),
        ("1793000000123456", 1_793_000_000.123456),
        ("2026-11-01T09:30:00Z", 1_793_525_400),
        ("2026-11-01 09:30:00", 1_793_525_400),
        ("2026-11-01T10:30:00+01:00", 1_793_525_400),
        ("2026-11-01 09:30:00 UTC", 1_793_525_400),
        ("2026-11-01", 1_793_491_200),
        ("", None),
        (None, None),
        (float("nan"), None),
    ],
)
def test_times_in_their_forms(given: Any, read_as: float | None) -> None:
    """Seconds, milli- and microseconds, ISO 8601 with and without a zone."""
    assert seconds(given) == (None if read_as is None else pytest.approx(read_as))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"message": True}, "message: expected text, found true/false"),
        ({"message": ["a", {"b": "c"}]}, "message: expected text"),
        ({"message": {"type": ["text"], "text": "m"}}, "message: expected text alone"),
        ({"user_id": "u"}, "no column for the message"),
        ({"message": " ", "user_id": "u"}, "the message is empty"),
        ({"message": "m", "user_id": ["u"]}, "user_id: expected text or a number, found a list"),
        ({"message": "m", "user_id": False}, "user_id: expected text or a number"),
        ({"message": "m", "private": "perhaps"}, "private: expected true or false"),
        ({"message": "m", "t": "last week"}, "t: expected seconds, milliseconds or ISO 8601"),
        ({"message": "m", "t": 10**400}, "t: expected seconds"),
        ({"message": "m", "t": True}, "t: expected a time"),
        ({"message": "m", "history": "x"}, "history: expected a list of turns"),
        ({"message": "m", "history": [3]}, "history: expected turns of text or objects"),
        ({"message": "m", "history": [{"content": float("nan")}]}, "history: expected JSON"),
        ({"message": "m", "rag_results": [float("inf")]}, "rag_results: expected JSON"),
        ({"message": "m", "context": {"a": float("nan")}}, "context: expected JSON"),
        ({"message": "m", "context": nested(101)}, "context: expected JSON"),
        ({"message": "m", "rag_results": [nested(600)]}, "rag_results: expected JSON"),
        ({"messages": [SYSTEM]}, "no turn of a user"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_reported(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    """Line, column, what was expected and what was found; the other rows are read."""
    path = file(tmp_path, json.dumps({"message": "fine"}) + "\n" + json.dumps(row), "log.jsonl")
    rows, report = found(path, REQUESTS)
    assert [row["message"] for row in rows] == ["fine"]
    ((line, why),) = report.examples
    assert line == 2
    assert said in why
    with pytest.raises(UnusableFile, match=r"log\.jsonl: line 2: "):
        found(path, REQUESTS, strict=True)


def test_what_can_be_read_in_more_than_one_form(tmp_path: Path) -> None:
    """Numbers as ids and answers, flags as text, contexts and documents as JSON in a cell."""
    header = ("message", "user", "private", "context", "rag_results", "history", "answer_id")
    row = ("m", "7", "Yes", '{"tenant": "t"}', '["d"]', '[["hi", "hello"]]', "12")
    read_row = only(file(tmp_path, as_csv(header, row)), REQUESTS)
    assert read_row == {
        "message": "m", "user_id": "7", "private": True, "context": {"tenant": "t"},
        "rag_results": ("d",), "answer_id": "12",
        "history": (turn("user", "hi"), turn("assistant", "hello")),
    }  # fmt: skip
    huge = {"message": 10**400, "user_id": 10**50}
    assert only(file(tmp_path, json.dumps(huge), "a.jsonl"), REQUESTS)["user_id"] == str(10**50)
    numbers = {"message": 5, "user_id": 42.0, "private": 0, "context": float("nan"), "t": None}
    read_row = only(file(tmp_path, json.dumps(numbers), "a.jsonl"), REQUESTS)
    assert read_row == {"message": "5", "user_id": "42", "private": False}


def test_html_becomes_its_text() -> None:
    """A line for each paragraph and item, the link behind its text, no script."""
    html = (
        "<h1>Opening</h1><p>Nine&nbsp;to <b>five</b>.<br>See <a href='https://a.example/x'>here</a>"
        "</p><script>alert(1)</script><ul><li>one</li><li>two &lt; three</li></ul>"
    )
    assert plain(html) == (
        "Opening\nNine to five.\nSee here (https://a.example/x)\n\n- one\n- two < three"
    )
    assert plain("Ask <ann@b.example>: is a < b > c?") == "Ask <ann@b.example>: is a < b > c?"


def test_html_that_never_ends_costs_no_more_than_its_length() -> None:
    """Half a megabyte of unclosed tags, links or comments is read in a moment."""
    for part in ("<b ", "<a href=", "<!--", "</a", "<script>", "<!["):
        text = part * (500_000 // len(part))
        started = time.monotonic()
        plain(text)
        has_html(text)
        assert time.monotonic() - started < 5, part


# ---------------------------------------------------------------------------------- damage


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A missing file, a directory and an empty file are told apart."""
    for path, said in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "is a directory"),
        (file(tmp_path, "", "1.csv"), "has no rows"),
        (file(tmp_path, "\n\n \n", "2.csv"), "has no rows"),
        (file(tmp_path, "query,response\n", "3.csv"), "has no rows"),
        (file(tmp_path, "[]", "4.json"), "has no rows"),
        (file(tmp_path, "{}", "5.json"), "has no rows"),
        (file(tmp_path, "3", "6.json"), "expected a list of rows, found the number 3"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            found(path)


_FRAGMENTS = st.sampled_from(
    ['"', ",", ";", "\t", "|", "\n", "\r", "\r\n", "{", "}", "[", "]", ":", "\\", "\x00", "\ufeff",
     "query", "response", '"messages"', '"role"', "user", "1e999", "NaN", "null", "<p>", "sep=;",
     "\ud800", "ü", "💥", "PK\x03\x04", "\x1f\x8b"]
)  # fmt: skip
_DAMAGED = st.one_of(
    st.binary(max_size=200),
    st.lists(_FRAGMENTS, max_size=40).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    ),
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": inner},
                optional={"": inner, "id": inner},
            ),
            max_size=3,
        ),
        st.dictionaries(
            st.sampled_from(["message", "query", "response", "messages", "role", "content", "t",
                             "context", "history", "private", "input", "instruction", "output",
                             "conversations", "from", "value", "id", "", "questions", "columns",
                             "data", "values", "session_id", "type", "text"]),
            inner, max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150)
@given(
    content=st.one_of(_DAMAGED, _JSON.map(json.dumps).map(str.encode)),
    suffix=st.sampled_from(["", ".csv", ".jsonl", ".json"]),
    columns=st.sampled_from([ANSWERS, REQUESTS]),
    header=st.booleans(),
)
def test_no_bytes_are_too_bad(
    content: bytes, suffix: str, columns: tuple[Column, ...], header: bool
) -> None:
    """Whatever a file holds gives rows, or an error that says what is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        path = file(Path(directory), content, f"any{suffix}")
        report = Report()
        try:
            rows = list(read(path, columns, How(header=header), report))
        except ConfigurationError:
            pass
        else:
            assert rows
            assert all(isinstance(row.values[columns[0].name], str) for row in rows)
        json.dumps(report.as_json())
