"""Values from files, cut so that a message stays one short line."""

from __future__ import annotations

LONGEST = 90
"""Characters of a value, so that a message with a path and the fault stays below 500."""


def shown(value: object, longest: int = LONGEST) -> str:
    """`repr` of a value from a file, on one line, its middle cut out where it is long.

    Args:
        value: From JSON, or a key: nested however deep, numbers of however many digits.
        longest: Characters.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, deep nesting
        return f"a {type(value).__name__} too long to show"
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be printed
    return text if len(text) <= longest else f"{text[: longest - 20]}…{text[-16:]}"
