"""Texts that people paste: invisible characters removed, unusable ones reported."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_SHOWN = 60  # characters of a value in a message
_INVISIBLE = str.maketrans("\u00a0\u202f\u2028\u2029", "    ", "\ufeff\u200b\u2060\u180e\u00ad")
"""Byte-order marks, zero-width spaces and soft hyphens, which copying from web pages and joining
files leave in a text: they mean nothing, but a tokenizer reads them. Non-breaking spaces and line
separators become plain spaces."""
_EDGES = re.compile(r"^[\s\u200c-\u200f\u202a-\u202e]+|[\s\u200c-\u200f\u202a-\u202e]+$")
"""Joiners and direction marks have a meaning between letters, and none around a text."""


def cleaned(text: str) -> str:
    """Return a text without invisible characters and without surrounding space."""
    return _EDGES.sub("", text.translate(_INVISIBLE))


def short_json(value: Any) -> str:
    """Return a value as JSON, cut to `MAX_SHOWN` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def has_lone_surrogate(text: str) -> bool:
    """Return whether a text has half of a UTF-16 pair, which UTF-8 cannot encode.

    JSON may hold one as an escape, and a command line that is not UTF-8 becomes such a text.
    """
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def lone_surrogate(text: str) -> str | None:
    """Return what is wrong with a text that has a lone surrogate: no tokenizer reads it."""
    if has_lone_surrogate(text):
        return (
            f"{text[:MAX_SHOWN]!a} contains an invalid Unicode character (lone surrogate); give "
            "the text as UTF-8"
        )
    return None


def text_fault(name: str, value: Any) -> str | None:
    """Return what is wrong with the value of a text column; None for a text that is not empty."""
    if not (isinstance(value, str) and cleaned(value)):
        return f"{name} is {short_json(value)}; expected a text"
    wrong = lone_surrogate(value)
    if wrong is None and "\0" in value:
        wrong = f"{value[:MAX_SHOWN]!a} contains a NUL character; remove it"
    return None if wrong is None else f"{name} {wrong}"
