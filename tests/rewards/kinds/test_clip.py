"""SRPO's semantic-relative preference: a difference of two cosines at the cost of one."""

import json
from pathlib import Path

import pytest
import torch

from rewards import FrameReward, Relative, RewardError, load_reward
from tests.rewards.tiny_clip import ARCHITECTURE, PROMPTS, flat_file, frames, random_state

GOOD, BAD = "a clean picture: {prompt}", "a torn picture: {prompt}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))


@pytest.mark.parametrize("k", [0.0, 0.3])
def test_score_and_gradient_are_those_of_two_scores(path: Path, k: float) -> None:
    plain = load_reward("clip", path)
    judge = load_reward("clip", path, relative=Relative(GOOD, BAD, k))
    shown = frames(len(PROMPTS), 2).requires_grad_()
    good = plain(shown, [f"a clean picture: {prompt}" for prompt in PROMPTS])
    bad = plain(shown, [f"a torn picture: {prompt}" for prompt in PROMPTS])
    expected = (1 + k) * good - bad
    found = judge(shown, PROMPTS)
    torch.testing.assert_close(found, expected)
    assert float((found - plain(shown, PROMPTS)).abs().min().detach()) > 1e-3
    (a,) = torch.autograd.grad(found.sum(), shown)
    (b,) = torch.autograd.grad(expected.sum(), shown)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_one_pass_of_the_image_tower(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge: FrameReward = load_reward("clip", path, relative=Relative(GOOD, BAD))
    passes = []
    score = type(judge).score_images

    def counted(self: FrameReward, *arguments: torch.Tensor) -> torch.Tensor:
        passes.append(len(arguments[0]))
        return score(self, *arguments)

    monkeypatch.setattr(type(judge), "score_images", counted)
    judge(frames(len(PROMPTS), 2), PROMPTS)
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("clean", BAD), "write {prompt} where the prompt goes"),
        ((GOOD, "torn"), "relative.negative is 'torn'"),
        ((GOOD, GOOD), "difference is 0"),
        ((GOOD, BAD, -0.1), "relative.k is -0.1"),
        ((GOOD, BAD, float("nan")), "relative.k is nan"),
    ],
)
def test_refusals(values: tuple[str, str, float], said: str) -> None:
    with pytest.raises(RewardError) as caught:
        Relative(*values)
    assert said in str(caught.value)


def test_a_judge_that_reads_nothing_has_no_relative() -> None:
    with pytest.raises(RewardError, match="kind aesthetic has no option relative"):
        load_reward("aesthetic", "tiny/aesthetic.safetensors", relative=Relative(GOOD, BAD))
