import random

import pytest

from base_model.tiny.captions import (
    CHINESE_WORDS,
    LANGUAGES,
    Language,
    draw_caption,
    every_caption,
    parse_caption,
    phrasings,
)
from base_model.tiny.scenes import ATTRIBUTES, Scene, scenes

SCENE = Scene("green", "star", "bright", "large", "left")


def test_every_caption_leads_back_to_its_scene() -> None:
    count = 0
    for scene in scenes():
        for language in LANGUAGES:
            for caption in phrasings(scene, language):
                assert parse_caption(caption) == (scene, language)
                count += 1
    # 1440 scenes x 2 languages x 4 templates x 2 verbs.
    assert count == 23040


def test_no_two_captions_are_the_same() -> None:
    every = every_caption()
    assert len(every) == len(set(every)) == 23040


def test_splits_share_no_caption() -> None:
    train, held_out = set(every_caption("train")), set(every_caption("held_out"))
    assert len(train) + len(held_out) == 23040
    assert train.isdisjoint(held_out)
    assert {parse_caption(c)[0].split for c in held_out} == {"held_out"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_several_phrasings_in_each_language(language: Language) -> None:
    assert {len(set(phrasings(scene, language))) for scene in scenes()} == {8}


def test_english_says_every_word_of_the_scene() -> None:
    for scene in scenes():
        for caption in phrasings(scene, "en"):
            assert caption.isascii()
            for word in (scene.colour, scene.shape, scene.background, scene.size):
                assert word in caption
    assert phrasings(SCENE, "en")[:2] == (
        "a large green star moves left on a bright background",
        "a large green star drifts to the left on a bright background",
    )


def test_chinese_says_every_word_of_the_scene() -> None:
    translated = [w for name, ws in ATTRIBUTES.items() if name != "motion" for w in ws]
    assert set(CHINESE_WORDS) == set(translated)
    assert len(set(CHINESE_WORDS.values())) == len(CHINESE_WORDS)
    for scene in scenes():
        for caption in phrasings(scene, "zh"):
            # No English word is left over: ideographs and full-width commas alone.
            assert all("\u4e00" <= sign <= "\u9fff" or sign == "，" for sign in caption)
            for word in (scene.colour, scene.shape, scene.background, scene.size):
                assert CHINESE_WORDS[word] in caption
    assert phrasings(SCENE, "zh")[0] == "一个大号绿色五角星在浅色背景上向左移动"


@pytest.mark.parametrize(
    "text",
    [
        "a dog runs on the beach",
        "",
        "a small red circle moves left on a dark background.",  # a full stop too many
        "A small red circle moves left on a dark background",  # a capital
        "a small red circle moves left on a dark",
        "a small mauve circle moves left on a dark background",
        "一个小号红色圆形在深色背景上",
    ],
)
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a caption of the embedded world") as error:
        parse_caption(text)
    assert repr(text) in str(error.value)
    example = str(error.value).split(": ", 1)[1].strip("'")
    assert parse_caption(example) == (scenes()[0], "en")


def test_draws_repeat_and_reach_every_phrasing() -> None:
    drawn = [draw_caption(SCENE, random.Random(i)) for i in range(200)]
    assert drawn == [draw_caption(SCENE, random.Random(i)) for i in range(200)]
    # Missing one of 16 in 200 draws has a chance of 16 (15/16)^200 = 4e-5, and is fixed by seed.
    assert set(drawn) == {c for language in LANGUAGES for c in phrasings(SCENE, language)}
    for language in LANGUAGES:
        one_language = {draw_caption(SCENE, random.Random(i), language) for i in range(100)}
        assert one_language == set(phrasings(SCENE, language))
