"""Counts a text's tokens, and finds parts unknown to the model.

With the model's own tokenizer this is exact; without it, it errs on the side of not matching.
"""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path
from typing import Any, Protocol, Self

from cache_core.model.exceptions import ConfigurationError

UNKNOWN_TOKENIZER = "unknown"
"""Name of a tokenizer of which nothing is known."""

BYTE_TOKENIZER = "bytes"
"""Name of any byte-level tokenizer, as OpenAI's models have one: it knows every text."""

DEFAULT_WINDOW = 256
"""Tokens that a model is taken to read if its window is unknown, as few as any common model's."""

_SPECIAL = 8
"""Tokens left for those at the beginning and end of a text."""


class Counter(Protocol):
    """Knowledge of what a model can read."""

    def fits(self, text: str, window: float) -> bool:
        """Return whether *text* has at most *window* tokens for certain."""
        ...

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text* for certain."""
        ...


def counter_for(tokenizer: str) -> Counter:
    """Return the counter of `unknown`, of `bytes`, or of a `tokenizer.json` by its path.

    Raises:
        ConfigurationError: If there is no such file, or it cannot be read.
    """
    if tokenizer in {UNKNOWN_TOKENIZER, BYTE_TOKENIZER}:
        return ByteCounter(knows_all=tokenizer == BYTE_TOKENIZER)
    file = Path(tokenizer).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    try:
        from tokenizers import Tokenizer

        return TokenCounter.of(Tokenizer.from_file(str(file)))
    except ModuleNotFoundError:
        msg = "a tokenizer file needs the package tokenizers: pip install tokenizers"
    except Exception as error:  # noqa: BLE001 - tokenizers raises Exception itself
        msg = (
            f"the tokenizer {tokenizer!r} cannot be read ({error}): give a tokenizer.json, its "
            f"directory, {BYTE_TOKENIZER!r} or {UNKNOWN_TOKENIZER!r}"
        )
    raise ConfigurationError(msg)


class ByteCounter:
    """Upper bound for the tokens of a model whose tokenizer is not at hand: the bytes of a text.

    No common tokenizer makes more tokens than the UTF-8 bytes of its normalised text.

    Args:
        knows_all: Whether the tokenizer is byte-level. Any other one may lack characters, which are
            all alike to its model then; only those of ASCII are in every vocabulary.
    """

    def __init__(self, *, knows_all: bool) -> None:
        self._knows_all = knows_all

    def fits(self, text: str, window: float) -> bool:
        """Return whether *text*, in its longest normal form, has at most *window* bytes."""
        return most_tokens(text) <= window

    def knows(self, text: str) -> bool:
        """Return whether the tokenizer is byte-level, or *text* is ASCII."""
        return encodable(text) == text if self._knows_all else text.isascii()


def most_tokens(text: str) -> int:
    """Return an upper bound of the tokens of *text* in any model, special ones included."""
    forms = {text, *(unicodedata.normalize(form, text) for form in ("NFKC", "NFKD"))}
    return _SPECIAL + max(len(encodable(form).encode()) for form in forms)


class TokenCounter:
    """Counts the tokens of texts, and finds parts that are unknown to a tokenizer.

    Only the tokenizer can count: the tokens of a character depend on its normaliser (up to three
    for a Hangul syllable in BERT's) and on its kind (up to four in a byte-level one).

    Args:
        tokenizer: A `tokenizers.Tokenizer` that neither truncates nor pads.
        unknown: Id of its token for unknown text; `None` if it makes none.
        prompt: The model's prefix to each text.
    """

    def __init__(self, tokenizer: Any, unknown: int | None, prompt: str = "") -> None:
        self._tokenizer = tokenizer
        self._unknown = unknown
        self._prompt = prompt

    @classmethod
    def of(cls, tokenizer: Any, prompt: str = "") -> Self:
        """Return a counter with a copy of *tokenizer*, which may truncate and pad.

        Args:
            tokenizer: A `tokenizers.Tokenizer`, or a transformers tokenizer built on one.
            prompt: The model's prefix to each text.

        Raises:
            ConfigurationError: For a tokenizer of another kind.
        """
        from tokenizers import Tokenizer

        fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(fast, Tokenizer):
            msg = (
                f"a tokenizer of the type {type(tokenizer).__name__} is not supported: it must be "
                "one of the tokenizers library, so that tokens can be counted. Choose another "
                "model (EMBEDDING_MODEL)"
            )
            raise ConfigurationError(msg)
        # A copy, because the worker changes the padding of the model's own.
        copy = Tokenizer.from_str(fast.to_str())
        copy.no_truncation()
        copy.no_padding()
        return cls(copy, _unknown_id(copy), prompt)

    def encode(self, text: str) -> Any:
        """Return the tokens of the prompt and *text*."""
        return self._tokenizer.encode(self._prompt + encodable(text))

    def fits(self, text: str, window: float) -> bool:
        """Return whether *text* has at most *window* tokens, which may be infinite."""
        return window == math.inf or len(self.encode(text).ids) <= window

    def knows(self, text: str) -> bool:
        """Return whether every part of *text* has a token of its own.

        Characters that the tokenizer drops are unknown, except marks, control and format characters
        and spaces.
        """
        if encodable(text) != text:
            return False
        read = self._tokenizer.encode(text, add_special_tokens=False)
        if self._unknown is not None:
            return self._unknown not in read.ids
        covered = bytearray(len(text))
        for start, end in read.offsets:
            covered[start:end] = b"\1" * (end - start)
        return all(
            seen or sign.isspace() or unicodedata.category(sign)[0] in "MC"
            for sign, seen in zip(text, covered, strict=True)
        )


def _unknown_id(tokenizer: Any) -> int | None:
    """Return the id of a tokenizer's token for unknown text, if its model makes one.

    A special token that its model never makes, as byte-level ones have, does not count.
    """
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    unknown = model.get("unk_token")
    return None if unknown is None else tokenizer.token_to_id(unknown)


def encodable(text: str) -> str:
    """Return *text* with lone surrogates replaced, which no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")
