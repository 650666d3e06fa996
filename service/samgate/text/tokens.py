"""Texts to CLIP's tokens, as upstream's ``tokenize`` makes them."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from samgate.domain import IntArray
from samgate.errors import CompileError, InvalidArgument

if TYPE_CHECKING:
    from instant_clip_tokenizer import Tokenizer

FRAME = 2
"""Tokens that every text has beside its own: one before, one behind."""


@cache
def load_tokenizer() -> Tokenizer:
    """The tokenizer, with CLIP's vocabulary. Raises CompileError where it isn't installed."""
    if any(importlib.util.find_spec(name) is None for name in ("instant_clip_tokenizer", "ftfy")):
        raise CompileError(
            "prompts in words need a tokenizer: pip install 'samgate[text]' (there is none for Python above 3.12, or "
            "for Linux on Arm)"
        )
    from instant_clip_tokenizer import Tokenizer

    return Tokenizer()


def tokens_of(texts: Sequence[tuple[str, str]], context: int) -> IntArray:
    """int32 ``[T, context]`` of ``texts``, each with the field that it is from; what is left of a row is 0.

    Texts are mended as upstream does: wrongly decoded characters, HTML's entities, white space. ``<|startoftext|>`` and
    its like are no tokens in a text, as they are upstream, but what is written there.

    Raises InvalidArgument for one that is longer than ``context``, or has nothing that could be looked for.
    """
    import ftfy

    tokenizer = load_tokenizer()
    rows = np.zeros((len(texts), context), np.int32)
    for row, (field, text) in zip(rows, texts, strict=True):
        own = tokenizer.encode(html.unescape(html.unescape(ftfy.fix_text(text))).strip())
        if not own:
            raise InvalidArgument(field, "has no words")
        if len(own) > context - FRAME:
            raise InvalidArgument(field, f"has {len(own)} tokens (parts of words); the limit is {context - FRAME}")
        row[: len(own) + FRAME] = [tokenizer.start_of_text(), *own, tokenizer.end_of_text()]
    return rows
