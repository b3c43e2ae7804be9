"""Text of a file: decompressed and decoded, from a path or standard input."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO, cast

from cache_core.cli.files.errors import UnusableFile
from cache_core.model.exceptions import ConfigurationError

STDIN = Path("-")

MAX_RECORD = 64 * 2**20
"""Most characters of a line or JSON value."""

_CHUNK = 2**20
_IN_MEMORY = 2**26
_HEAD = 4_096

_COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive: save the sheet as CSV (UTF-8), or unzip"),
    (b"\xd0\xcf\x11\xe0", "an old Office file: open it and save the sheet as CSV (UTF-8)"),
    (b"%PDF", "a PDF: only CSV and JSON can be read"),
    (b"PAR1", "a Parquet file: convert it to JSON Lines or CSV"),
    (b"SQLite format 3", "an SQLite database: export the table as CSV"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: pipe it, `zstd -dc FILE | glasscache ... -`"),
)  # fmt: skip

_WESTERN = 0.3
"""Largest share of non-ASCII letters in a text of a Western European language."""

FAULTS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors raised by reading a damaged or vanished file."""


class Source(NamedTuple):
    """An open file.

    Attributes:
        name: The file's name, for messages.
        text: The file's text, seekable; line ends are unchanged.
        encoding: The encoding in use.
        guessed: Whether that is a guess that may be wrong.
        example: A word that shows whether a guess is right.
    """

    name: str
    text: TextIO
    encoding: str
    guessed: bool = False
    example: str = ""


@contextmanager
def opened(path: Path, encoding: str | None = None) -> Iterator[Source]:
    """Open a file, `-` for standard input.

    Args:
        path: A plain file, or one compressed by gzip, bzip2 or xz.
        encoding: Its encoding; default: by its byte order mark, else UTF-8, else UTF-16, else
            Windows-1252 if it looks Western European.

    Raises:
        ConfigurationError: If it cannot be opened, or the encoding does not exist.
        UnusableFile: If it is not text.
    """
    name = "standard input" if path == STDIN else path.name or str(path)
    if encoding is not None:
        _check_encoding(encoding)
    with ExitStack() as stack:
        try:
            data = _binary(path, stack)
            found = (encoding, "") if encoding is not None else _encoding(data)
            data.seek(0)
        except FAULTS as error:
            raise ConfigurationError(_unreadable(path, error)) from None
        if found is None:
            raise UnusableFile(
                "neither UTF-8 nor UTF-16, and it does not look Western European: name its "
                "encoding, for example --encoding cp1251, gb18030 or shift_jis"
            )
        wrapper = io.TextIOWrapper(data, encoding=found[0], newline="")
        text = cast("TextIO", stack.enter_context(wrapper))
        yield Source(name, text, found[0], bool(found[1]), found[1])


def lines(text: TextIO) -> Iterator[str]:
    """Yield the lines with their ends.

    Raises:
        UnusableFile: If a line has more than 64 million characters.
    """
    number = 0
    while line := text.readline(MAX_RECORD):
        number += 1
        if len(line) == MAX_RECORD:
            raise UnusableFile(f"line {number} has more than {MAX_RECORD:,} characters")
        yield line


def _unreadable(path: Path, error: BaseException) -> str:
    if isinstance(error, IsADirectoryError):
        return f"{path} is a directory: name one file, or pipe them: cat {path}/* | ... -"
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{path} cannot be read: {why}"


def _check_encoding(encoding: str) -> None:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError):
        msg = f"--encoding {encoding}: no such encoding; try utf-8, utf-16, cp1252, cp1251, gb18030"
        raise ConfigurationError(msg) from None


def _binary(path: Path, stack: ExitStack) -> IO[bytes]:
    """Return the file's bytes, seekable and decompressed."""
    if path == STDIN:
        data: IO[bytes] = sys.stdin.buffer
    else:
        data = stack.enter_context(path.open("rb"))
    if path == STDIN or not data.seekable():
        spooled = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the stack closes it
        copy = stack.enter_context(spooled)
        shutil.copyfileobj(data, copy)
        copy.seek(0)
        data = cast("IO[bytes]", copy)
    head = data.read(16)
    data.seek(0)
    for mark, what in _NOT_TEXT:
        if head.startswith(mark):
            raise UnusableFile(f"this is {what}")
    for mark, unpack in _COMPRESSED.items():
        if head.startswith(mark):
            return stack.enter_context(cast("IO[bytes]", unpack(data)))
    return data


def _encoding(data: IO[bytes]) -> tuple[str, str] | None:
    """Return the encoding and, if guessed, a word in it; `None` if unknown."""
    head = data.read(_HEAD)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, ""
    if b"\x00" in head:
        return _wide(head), ""
    data.seek(0)
    if _decodes(data, "utf-8"):
        return "utf-8", ""
    data.seek(0)
    western = "cp1252" if _decodes(data, "cp1252") else "latin-1"
    data.seek(0)
    text = data.read(_CHUNK).decode(western)
    letters = [letter for letter in text if letter.isalpha() or not letter.isascii()]
    foreign = sum(not letter.isascii() for letter in letters)
    if foreign > _WESTERN * len(letters):
        return None
    word = re.search(r"\w*[^\W\x00-\x7f]\w*|[^\x00-\x7f]+", text)
    return western, word[0][:30] if word else "?"


def _wide(head: bytes) -> str:
    """Return the byte order of UTF-16 without a mark.

    Raises:
        UnusableFile: If they are not UTF-16.
    """
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < len(head) / 8 or min(even, odd) > len(head) / 16:
        raise UnusableFile("this is not a text file: CSV or JSON is expected")
    return "utf-16-le" if odd > even else "utf-16-be"


def _decodes(data: IO[bytes], encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while chunk := data.read(_CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
