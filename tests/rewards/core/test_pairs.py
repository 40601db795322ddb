"""Scores from comparisons."""

from itertools import permutations

import pytest

from rewards import RewardError
from rewards.core.pairs import comparisons, scores_of
from rewards.core.shown_clip import Question, ShownClip
from tests.rewards.judge_server import grey_clips

LEVELS = (0.1, 0.3, 0.9, 0.5)


def shown(*levels: float) -> list[ShownClip]:
    return [ShownClip.of(clip, 8.0) for clip in grey_clips(*levels)]


def level(clip: ShownClip) -> float:
    return float(clip.frames.mean() / 255)


def preference(question: Question) -> float:
    """A judge of brightness that also likes the first place, by 0.1."""
    a, b = question.clips
    return 0.5 + (level(a) - level(b)) / 2 + 0.1


@pytest.mark.parametrize("both", [False, True])
def test_every_pair_of_a_prompt_is_asked_in_an_order_that_no_place_decides(both: bool) -> None:
    clips, prompts = shown(*LEVELS, 0.2, 0.7), ["a cat"] * 4 + ["a dog"] * 2
    asked = comparisons(clips, prompts, both_orders=both, who="x")
    assert [one.prompt for one in asked].count("a dog") == (2 if both else 1)
    cats = [[round(level(c), 1) for c in one.clips] for one in asked if one.prompt == "a cat"]
    assert len(cats) == (12 if both else 6)
    assert len({frozenset(pair) for pair in cats}) == 6
    ordered = {tuple(c.digest for c in one.clips) for one in asked}
    if not both:
        assert all(a < b for a, b in ordered)
    for order in list(permutations(range(6)))[::37]:
        again = comparisons(
            [clips[i] for i in order], [prompts[i] for i in order], both_orders=both, who="x"
        )
        assert {tuple(c.digest for c in one.clips) for one in again} == ordered


def test_a_score_is_the_mean_preference_over_the_others_minus_a_half() -> None:
    """Against the definition, written out: a matrix of preferences, its rows' means."""
    clips, prompts = shown(*LEVELS), ["a cat"] * 4
    scores = scores_of(clips, prompts, preference, both_orders=False)
    for i, a in enumerate(clips):
        wins = []
        for j, b in enumerate(clips):
            if i != j:
                place = 0.1 if a.digest < b.digest else -0.1
                wins.append(0.5 + (level(a) - level(b)) / 2 + place)
        assert scores[i] == pytest.approx(sum(wins) / 3 - 0.5)
    assert sum(scores) == pytest.approx(0.0)


def test_both_orders_take_the_preference_for_a_place_out() -> None:
    levels = (0.2, 0.7, 0.4)
    clips = shown(*levels)
    scores = scores_of(clips, ["x"] * 3, preference, both_orders=True)
    exact = [level(clip) for clip in clips]
    expected = [sum(a - b for b in exact) / 2 / 2 for a in exact]
    assert scores == pytest.approx(expected)


def test_equal_clips_draw_without_being_asked() -> None:
    clips = shown(0.3, 0.3)
    assert comparisons(clips, ["x", "x"], both_orders=True, who="x") == []
    assert scores_of(clips, ["x", "x"], preference, both_orders=True) == [0.0, 0.0]
    three = comparisons(shown(0.3, 0.3, 0.8), ["x"] * 3, both_orders=False, who="x")
    assert len(three) == 1


def test_a_prompt_with_one_clip_is_refused() -> None:
    with pytest.raises(RewardError, match=r"x compares .* 'a dog' has one clip .*clips_per_prompt"):
        comparisons(shown(0.1, 0.2, 0.3), ["a", "a", "a dog"], both_orders=False, who="x")
