"""Words of prompts that the embedded world does not know."""

import pytest

from base_model.tiny.captions import every_caption
from base_model.tiny.vocabulary import known_words, unknown_words


def test_every_caption_is_known() -> None:
    assert not [text for text in every_caption() if unknown_words(text)]
    assert {"circle", "红", "drifts"} <= known_words()


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("A Red CIRCLE", []),
        ("a dog and a red dog", ["dog", "and"]),
        ("红色的狗跑了", ["狗跑了"]),
        ("3 stars, it's", ["3", "stars", "it", "s"]),
        ("", []),
    ],
)
def test_unknown_words_in_order_and_once(text: str, unknown: list[str]) -> None:
    assert unknown_words(text) == unknown
