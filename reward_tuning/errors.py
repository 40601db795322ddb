"""What a person can mend about a recipe or a run."""


class TuningError(ValueError):
    """A mistake in a recipe, a prompt file or a run folder; the text says what to do next."""


LEFT_OUT = "... ({:,} letters left out) ..."


def shortened(text: str, limit: int) -> str:
    """A message of at most so many letters: its middle left out and counted, its end kept.

    The end of our messages is the next step.
    """
    if len(text) <= limit:
        return text
    kept = max(limit - len(LEFT_OUT.format(len(text))), 2)
    head, end = kept - kept // 3, kept // 3
    return text[:head] + LEFT_OUT.format(len(text) - head - end) + text[-end:]
