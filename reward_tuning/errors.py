"""Errors that a person can mend, and how their messages are kept short."""

from collections.abc import Sequence


class TuningError(ValueError):
    """A mistake in a recipe, a file or a run folder; the message says what to do next."""


LEFT_OUT = "... ({:,} characters left out) ..."


def shortened(text: str, limit: int) -> str:
    """Return a message of at most `limit` characters, with the number of those left out.

    The middle is left out: the end of our messages is the next step.
    """
    if len(text) <= limit:
        return text
    kept = max(limit - len(LEFT_OUT.format(len(text))), 2)
    head, end = kept - kept // 3, kept // 3
    return text[:head] + LEFT_OUT.format(len(text) - head - end) + text[-end:]


def first_lines(lines: Sequence[str], most: int) -> list[str]:
    """Return the first lines of a message's list and, in a last one, the number of the others."""
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]


def short_repr(value: object, limit: int = 90) -> str:
    """Return the `repr` of a value from a file on one line, its middle left out if it is long.

    With the default limit, a message of a path, a value and a fault stays below 500 characters.

    Args:
        value: Value from JSON, or a key: nested however deep, numbers of however many digits.
        limit: Number of characters.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, deep nesting
        return f"a {type(value).__name__} too long to show"
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be printed
    return text if len(text) <= limit else f"{text[: limit - 20]}…{text[-16:]}"
