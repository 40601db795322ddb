"""The shipped prompt set `prompts/general.jsonl`: what it promises, and that it is one set."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import locate_prompts, prompt_path, shipped_folder

NAME = "prompts/general.jsonl"
PROMPTS = read_prompts(prompt_path(NAME))
SIZES = {  # of each language
    "people": 8,
    "animals": 8,
    "vehicles": 6,
    "food": 6,
    "nature": 8,
    "city": 6,
    "interiors": 6,
    "abstract": 4,
    "camera": 10,
    "actions": 8,
    "physics": 8,
    "styles": 10,
    "counts": 6,
    "relations": 6,
}
CONTEXT = 77  # tokens that CLIP reads, with its two marks
SMALL_WORDS = set(re.findall(r"\w+", "a an the of on in with and to at by from over its under"))
HAN = re.compile(r"[\u3400-\u9fff]")


def chinese(prompt: Prompt) -> bool:
    return HAN.search(prompt.text) is not None


def test_its_keys_are_those_of_a_prompt() -> None:
    lines = prompt_path(NAME).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(PROMPTS) == 200
    assert all(list(json.loads(line)) == ["prompt", "reward_prompt", "category"] for line in lines)


def test_languages_and_categories() -> None:
    for language in (True, False):
        assert Counter(p.category for p in PROMPTS if chinese(p) is language) == SIZES


def test_a_chinese_prompt_is_chinese_and_an_english_one_is_ascii() -> None:
    for prompt in PROMPTS:
        words = re.findall(r"[A-Za-z]+", prompt.text)
        assert not words if chinese(prompt) else prompt.text.isascii(), prompt.text
        assert prompt.reward_text.isascii()  # what judges of published weights were trained on


@pytest.mark.parametrize("count", [28, 32, 64, 128])
def test_its_first_prompts_are_a_balanced_set(count: int) -> None:
    """`evaluation.prompts` takes the first ones."""
    first = PROMPTS[:count]
    assert {prompt.category for prompt in first} == set(SIZES)
    assert abs(sum(map(chinese, first)) - count / 2) <= 1


def test_lengths() -> None:
    for prompt in PROMPTS:
        if chinese(prompt):  # a word has about two characters
            assert 60 <= len(HAN.findall(prompt.text)) <= 160, prompt.text
        else:
            assert 30 <= len(prompt.text.split()) <= 80, prompt.text
        assert 4 <= len(prompt.reward_text.split()) < 15, prompt.reward_text


def test_the_judges_read_every_word() -> None:
    open_clip = pytest.importorskip("open_clip")
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=2 * CONTEXT)
    counts = (tokenizer([prompt.reward_text for prompt in PROMPTS]) != 0).sum(dim=1)
    assert int(counts.max()) <= CONTEXT
    assert int(counts.min()) > 2


def pieces(text: str) -> set[str]:
    """Pairs of neighbouring words, or of Chinese characters."""
    parts = HAN.findall(text) or re.findall(r"[a-z']+", text.lower())
    return {" ".join(pair) for pair in itertools.pairwise(parts)}


def likeness(one: set[str], other: set[str]) -> float:
    """Jaccard index: 1 for equal sets."""
    return len(one & other) / max(len(one | other), 1)


def content(text: str) -> set[str]:
    """What a scene is about: its words without articles, prepositions and plurals."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {word.rstrip("s") for word in words - SMALL_WORDS}


def test_likeness_of_a_near_duplicate() -> None:
    text = PROMPTS[0].text
    assert likeness(pieces(text), pieces(text.replace(" in ", " with ", 1))) > 0.8


def test_no_two_prompts_are_alike() -> None:
    for texts, most in (
        ([prompt.text for prompt in PROMPTS], 0.15),
        ([prompt.reward_text for prompt in PROMPTS], 0.35),
    ):
        assert len({text.casefold() for text in texts}) == len(texts)
        for (a, one), (b, other) in itertools.combinations(
            [(text, pieces(text)) for text in texts], 2
        ):
            assert likeness(one, other) < most, (a, b)


def test_it_shares_no_prompt_with_those_that_recipes_train_on() -> None:
    others = [
        prompt
        for path in sorted(shipped_folder("recipes", "prompts").glob("*-train.jsonl"))
        for prompt in read_prompts(path)
    ]
    assert len(others) > 50
    texts = [(prompt.text, pieces(prompt.text)) for prompt in PROMPTS]
    for (a, mine), b in itertools.product(texts, {prompt.text for prompt in others}):
        assert likeness(mine, pieces(b)) < 0.15, (a, b)
    scenes = [(prompt.reward_text, content(prompt.reward_text)) for prompt in PROMPTS]
    for (a, scene), b in itertools.product(scenes, {prompt.reward_text for prompt in others}):
        other = content(b)
        assert len(scene & other) <= min(len(scene), len(other)) / 2, (a, b)


def test_no_prompt_asks_for_written_words() -> None:
    """Text in pictures is a task of its own, which these judges cannot read."""
    for prompt in PROMPTS:
        words = f"{prompt.text} {prompt.reward_text}".lower()
        assert not re.search(r"\b(text|letters?|words?|logo|caption|subtitles?)\b", words)
        assert not re.search(r"写着|文字|字幕|标语|招牌", words)


def test_it_is_found_by_its_shipped_name(tmp_path: Path) -> None:
    assert locate_prompts(NAME, tmp_path) == NAME
    overrides = [f"prompts.held_out={NAME}", "evaluation.prompts=200", f"output={tmp_path}/run"]
    recipe = load_recipe("easyanimate-v5.1-7b-hps", overrides, check_files=False)
    assert recipe.prompts.held_out == NAME
