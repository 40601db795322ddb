"""Prompts are divided into claims at punctuation and conjunctions, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.qwen.claims import MOST, claims


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("A red ball", ["A red ball"]),
        (
            "a red ball rolls to the left, and a dog watches.",
            ["a red ball rolls to the left", "a dog watches"],
        ),
        ("a cat with a hat and a sandwich", ["a cat", "a hat", "a sandwich"]),  # not in "sandwich"
        ("一个红色的球向左滚动，同时一只狗在看。", ["一个红色的球向左滚动", "一只狗在看"]),
        ("2.5 metres of snow; WHILE it is dark", ["2.5 metres of snow", "it is dark"]),
        ("rain, rain, go away", ["rain", "go away"]),
        ("...", ["..."]),
    ],
)
def test_claims(prompt: str, found: list[str]) -> None:
    assert claims(prompt) == found


def test_the_rest_of_a_long_prompt_stays_in_the_last_claim() -> None:
    prompt = ", ".join(f"thing {n}" for n in range(20))
    assert claims(prompt)[:-1] == [f"thing {n}" for n in range(MOST - 1)]
    assert claims(prompt)[-1] == ", ".join(f"thing {n}" for n in range(MOST - 1, 20))


@given(st.text(min_size=1), st.integers(1, 9))
def test_any_prompt_has_claims_of_its_own_words(prompt: str, most: int) -> None:
    found = claims(prompt, most)
    assert 1 <= len(found) <= most
    assert all(one in prompt for one in found)
