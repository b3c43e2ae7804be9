"""Counts a text's tokens with the model's own tokenizer, and finds parts unknown to it."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any, Self

from cache_core.model.exceptions import ConfigurationError


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
