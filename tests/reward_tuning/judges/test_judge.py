"""From a judge's section to the judge: what is passed on, what is refused."""

import json
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.truncation import truncation_notes
from reward_tuning.schema.judge_kinds import HpsSection
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, frames, random_state

CPU = torch.device("cpu")


@pytest.fixture
def hps(tmp_path: Path) -> dict[str, object]:
    return {
        "kind": "hps",
        "checkpoint": str(
            flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))
        ),
    }


def test_a_soft_minimum_over_frames(hps: dict[str, object]) -> None:
    over = {"over_frames": {"kind": "soft_min", "sharpness": 40.0}}
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | over | {"chunk": 2}]))
    (judge,) = load_judges(recipe.rewards, 9, CPU)
    assert isinstance(judge, FramedJudge)
    x = frames(2, 9).requires_grad_()
    prompts = ["a cat", "a dog"]
    scores = judge.reward.per_frame(x, prompts)  # type: ignore[attr-defined]
    expected = -torch.exp(-40.0 * scores).mean(dim=1).log() / 40.0
    found = judge.scores(x, prompts)
    torch.testing.assert_close(found, expected)
    assert bool((found < scores.mean(dim=1)).all())
    loss, told = judge.loss(x, prompts, seeds=range(len(x)))
    torch.testing.assert_close(told, expected.detach())
    (gradient,) = torch.autograd.grad(loss, x)
    (wanted,) = torch.autograd.grad(-expected.mean(), x)
    # Gradients go up to 0.08, and near 0 fp32's noise depends on the processor: 4.5e-8 seen.
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=2e-7)


def test_the_best_frames_alone(hps: dict[str, object]) -> None:
    over = {"over_frames": {"kind": "best", "share": 0.3}}
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | over]))
    (judge,) = load_judges(recipe.rewards, 13, CPU)
    assert isinstance(judge, FramedJudge)
    x = frames(2, 13).requires_grad_()
    scores = judge.reward.per_frame(x, ["a cat", "a dog"])  # type: ignore[attr-defined]
    expected = [sum(sorted(row, reverse=True)[:3]) / 3 for row in scores.tolist()]  # int(3.9)
    found = judge.scores(x, ["a cat", "a dog"])
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    reached = gradient.flatten(2).norm(dim=2) > 0
    assert reached.sum(dim=1).tolist() == [3, 3]
    assert judge.scores(x[:, :2].repeat(1, 7, 1, 1, 1)[:, :13], ["a", "b"]).shape == (2,)


def test_a_judge_may_see_clips_in_grey(hps: dict[str, object]) -> None:
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | {"grayscale": True}]))
    (judge,) = load_judges(recipe.rewards, 3, CPU)
    assert isinstance(judge, FramedJudge)
    x = frames(1, 3)
    grey = 0.299 * x[:, :, 0] + 0.587 * x[:, :, 1] + 0.114 * x[:, :, 2]
    expected = judge.reward(torch.stack([grey] * 3, dim=2), ["a cat"])
    torch.testing.assert_close(judge.scores(x, ["a cat"]), expected)
    loss, told = judge.loss(x.clone().requires_grad_(), ["a cat"], seeds=range(len(x)))
    torch.testing.assert_close(told, expected.detach())
    assert loss.requires_grad
    assert float((judge.reward(x, ["a cat"]) - expected).detach().abs()) > 1e-4


def test_one_text_for_every_clip(hps: dict[str, object]) -> None:
    fixed = hps | {"prompt": "A high-quality image"}
    recipe = Recipe.model_validate(recipe_data(rewards=[fixed]))
    (judge,) = load_judges(recipe.rewards, 3, CPU)
    assert isinstance(judge, FramedJudge)
    x = frames(2, 3)
    expected = judge.reward(x, ["A high-quality image"] * 2)
    torch.testing.assert_close(judge.scores(x, ["a cat", "a dog"]), expected)
    assert float((judge.reward(x, ["a cat", "a dog"]) - expected).detach().abs().min()) > 1e-4
    long = " ".join(["cat"] * 100)
    assert truncation_notes([judge], [long], "prompts.train") == []  # it reads none of them
    with pytest.raises(TuningError, match=r"hps reads 77 tokens, but its prompt is longer"):
        load_judges([HpsSection.model_validate(hps | {"prompt": long})], 3, CPU)


def test_random_frames_are_drawn_for_a_batch_and_all_are_evaluated(hps: dict[str, object]) -> None:
    over = {"over_frames": {"kind": "random", "count": 2}, "frames": 5}
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | over]))
    (judge,) = load_judges(recipe.rewards, 9, CPU)
    assert isinstance(judge, FramedJudge)
    assert judge.positions == (0, 2, 4, 6, 8)
    seen: dict[int, int] = dict.fromkeys(judge.positions, 0)
    for seed in range(200):
        drawn = judge.drawn(torch.Generator().manual_seed(seed)).positions
        assert len(drawn) == 2
        assert drawn[0] < drawn[1]
        assert drawn == judge.drawn(torch.Generator().manual_seed(seed)).positions
        for position in drawn:
            seen[position] += 1
    assert all(50 < count < 110 for count in seen.values()), seen  # 80 expected, deviation 7
    x = frames(1, 9)
    every = judge.reward(x[:, [0, 2, 4, 6, 8]], ["a cat"])
    torch.testing.assert_close(judge.scores(x, ["a cat"]), every)
