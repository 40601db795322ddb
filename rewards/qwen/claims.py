"""The claims of a prompt, each of which one can ask about: its clauses and their parts.

Judges of text alignment that ask one question about everything overlook what is missing; TIFA
(arXiv 2303.11897) and its kin ask about each part. They let a language model write the questions;
this divides the prompt by its punctuation and conjunctions, in English and Chinese, without one.
"""

from __future__ import annotations

import re

MOST = 8
"""Claims of a prompt; the last one holds the rest of a longer prompt."""

_BETWEEN = re.compile(
    r"[,;:.!?\n，。；：！？、]+(?!\d)|\b(?:and|while|with|then|as well as)\b|并且|同时|然后",
    flags=re.IGNORECASE,
)


def claims(prompt: str, most: int = MOST) -> list[str]:
    """Divide a prompt into its claims.

    "a red ball rolls to the left, and a dog watches" -> "a red ball rolls to the left", "a dog
    watches". A prompt that cannot be divided is one claim.

    Args:
        prompt: In English or Chinese.
        most: Number of claims, 1 or more; further text stays part of the last one.

    Returns:
        At least one text for a prompt that is not empty, in order, none twice.
    """
    found: list[tuple[str, int]] = []  # with the place where each begins
    begin = 0
    ends = [(match.start(), match.end()) for match in _BETWEEN.finditer(prompt)]
    for stop, after in [*ends, (len(prompt), len(prompt))]:
        text = prompt[begin:stop].strip()
        if any(character.isalnum() for character in text):
            found.append((text, begin))
        begin = after
    texts = [text for text, _ in found[:most]]
    if len(found) > most:
        texts[-1] = prompt[found[most - 1][1] :].strip()
    return list(dict.fromkeys(texts)) or [prompt]
