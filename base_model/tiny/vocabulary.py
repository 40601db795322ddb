"""Words of the embedded world's captions, and the words of a prompt that are not among them."""

from __future__ import annotations

import re
from functools import cache

from base_model.tiny.captions import LANGUAGES, phrasings
from base_model.tiny.scenes import ATTRIBUTES, Scene

_WORD = re.compile(r"[^\W\d_\u3400-\u9fff]+|[\u3400-\u9fff]|\d+")
"""A word of letters, a Chinese character, or a number."""


@cache
def known_words() -> frozenset[str]:
    """Return the English words and Chinese characters of all captions, in lower case."""
    # Each word of a caption comes from one attribute or from none: scenes that together have every
    # value stand for all (6 for 1440, a hundredth of a second for a tenth).
    every = tuple(ATTRIBUTES.values())
    places = range(max(map(len, every)))
    some = (Scene(*(values[i % len(values)] for values in every)) for i in places)
    texts = (text for scene in some for lang in LANGUAGES for text in phrasings(scene, lang))
    return frozenset(word for text in texts for word in _words(text))


def unknown_words(text: str) -> list[str]:
    """Return the words of a prompt that no caption has, in order and without repeats.

    Consecutive Chinese characters count as one word. Case does not matter.
    """
    known, found = known_words(), list(_WORD.finditer(text.lower()))
    unknown: list[str] = []
    end = -1
    for one in found:
        if one[0] in known:
            continue
        if one.start() == end and one[0] > "\u3400":
            unknown[-1] += one[0]
        else:
            unknown.append(one[0])
        end = one.end() if one[0] > "\u3400" else -1
    return list(dict.fromkeys(unknown))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
