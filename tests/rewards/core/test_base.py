import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewards import RewardError, load_reward
from rewards.clip_towers.tower import unit_length
from rewards.core.base import FrameReward, Reward, VideoReward, check_input, chunked_score
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, frames, random_state


class Quadratic(FrameReward):
    """score = sum(image * weight)**2 / 100 + length of the prompt; the gradient is known."""

    name = "quadratic"
    modules: list[nn.Module] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.weight = torch.linspace(-1, 1, 3 * 4 * 4).reshape(3, 4, 4)

    def condition(self, prompts: list[str]) -> Tensor:
        return torch.tensor([[float(len(p))] for p in prompts])

    def image_features(self, images: Tensor) -> Tensor:
        return unit_length(images.flatten(1))

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        return (images * self.weight).sum(dim=(1, 2, 3)) ** 2 / 100 + condition[:, 0]


def test_clip_score_is_the_mean_over_frames_with_its_own_prompt() -> None:
    judge, x = Quadratic(), torch.rand(2, 3, 3, 4, 4)
    expected = (x * judge.weight).sum(dim=(2, 3, 4)) ** 2 / 100 + torch.tensor([[1.0], [4.0]])
    torch.testing.assert_close(judge.per_frame(x, ["a", "bbbb"]), expected)
    torch.testing.assert_close(judge(x, ["a", "bbbb"]), expected.mean(dim=1))
    assert isinstance(judge, Reward)


class Change(VideoReward):
    """score = sum of squared differences of neighbouring frames + length of the prompt."""

    name = "change"
    modules: list[nn.Module] = []  # noqa: RUF012
    least_frames = 2
    device = torch.device("cpu")

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        lengths = torch.tensor([float(len(prompt)) for prompt in prompts])
        return frames.diff(dim=1).square().sum(dim=(1, 2, 3, 4)) + lengths


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_judge_of_whole_clips_gives_each_clip_its_prompt_and_gradient(chunk: int | None) -> None:
    judge = Change()
    judge.chunk = chunk
    x = torch.rand(3, 4, 3, 4, 4, requires_grad=True)
    scores = judge(x, ["a", "bb", "cccc"])
    differences = (x[:, 1:] - x[:, :-1]).pow(2).flatten(1).sum(dim=1)
    expected = differences + torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(scores, expected)
    weights = torch.tensor([1.0, -2.0, 3.0])
    (found,) = torch.autograd.grad((weights * scores).sum(), x)
    (wanted,) = torch.autograd.grad((weights * expected).sum(), x)
    torch.testing.assert_close(found, wanted)
    assert isinstance(judge, Reward)


def test_a_judge_of_whole_clips_says_how_many_frames_it_needs() -> None:
    with pytest.raises(RewardError, match="change compares frames and needs at least 2"):
        Change()(torch.rand(1, 1, 3, 4, 4), ["a"])


@pytest.mark.parametrize(
    ("x", "prompts", "said"),
    [
        (torch.rand(2, 3, 8, 8), ["a", "b"], "(2, 3, 8, 8)"),
        (torch.rand(1, 2, 8, 8, 3), ["a"], "(1, 2, 8, 8, 3)"),
        (torch.rand(1, 0, 3, 8, 8), ["a"], "nothing to score"),
        (torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), ["a"], "torch.uint8"),
        (torch.rand(1, 2, 3, 8, 8).half(), ["a"], "torch.float16"),
        (torch.rand(2, 2, 3, 8, 8), ["a"], "1 prompts for 2 clips"),
        (torch.rand(1, 2, 3, 8, 8), ["  "], "non-empty"),
        (torch.rand(1, 2, 3, 8, 8), "a", "list"),
        (torch.full((1, 2, 3, 8, 8), float("nan")), ["a"], "NaN"),
        (torch.rand(1, 2, 3, 8, 8) * 2 - 1, ["a"], "range over"),
        (torch.rand(1, 2, 3, 8, 8) * 255, ["a"], "range over"),
        (torch.full((1, 2, 3, 8, 8), float("inf")), ["a"], "range over"),
    ],
)
def test_bad_input_is_refused_with_its_value(x: Tensor, prompts: list[str], said: str) -> None:
    with pytest.raises(RewardError, match=re.escape(said)):
        check_input(x, prompts)


def test_a_single_nan_is_found() -> None:
    x = torch.rand(2, 3, 3, 8, 8)
    x[1, 2, 0, 7, 7] = float("nan")
    with pytest.raises(RewardError, match="NaN"):
        check_input(x, ["a", "b"])


def test_rounding_at_the_ends_of_the_range_is_allowed() -> None:
    check_input(torch.tensor([-1e-6, 1 + 1e-6, 0.5]).reshape(1, 1, 3, 1, 1), ["a"])


@pytest.mark.parametrize("chunk", [1, 2, 3, 6, 7])
def test_chunked_gradient_equals_one_pass_with_one_chunk_at_a_time(chunk: int) -> None:
    sizes: list[tuple[int, bool]] = []
    weight = torch.randn(3, 5, 5, dtype=torch.float64)

    def score(images: Tensor, rows: slice) -> Tensor:
        sizes.append((len(images), torch.is_grad_enabled()))
        offset = torch.arange(6)[rows]
        return torch.tanh((images * weight).sum(dim=(1, 2, 3)) + offset)

    def soft_min(scores: Tensor) -> Tensor:  # couples all scores, so the order matters too
        return -torch.logsumexp(-3 * scores, dim=0)

    x = torch.rand(6, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    whole = score(x, slice(0, 6))
    (expected,) = torch.autograd.grad(soft_min(whole), x)
    sizes.clear()
    chunked = chunked_score(score, x, chunk)
    torch.testing.assert_close(chunked, whole, rtol=0, atol=0)
    (actual,) = torch.autograd.grad(soft_min(chunked), x)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=0)
    assert max(n for n, _ in sizes) == min(chunk, 6)
    if chunk < 6:  # nothing but the images is kept between the two passes
        passes = -(-6 // chunk)
        assert [graph for _, graph in sizes] == [False] * passes + [True] * passes


def test_chunk_saves_no_activation_beyond_the_images() -> None:
    saved: list[int] = []
    x = torch.rand(8, 3, 16, 16, requires_grad=True)

    def score(images: Tensor, rows: slice) -> Tensor:
        return images.exp().exp().exp().sum(dim=(1, 2, 3))

    def count(chunk: int | None) -> int:
        saved.clear()
        hooks = torch.autograd.graph.saved_tensors_hooks
        with hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
            chunked_score(score, x, chunk)
        return sum(saved)

    assert count(2) == x.numel()
    assert count(None) >= 3 * x.numel()


def test_chunk_below_one_is_refused() -> None:
    with pytest.raises(RewardError, match="chunk is 0"):
        chunked_score(lambda images, rows: images.sum(dim=(1, 2, 3)), torch.rand(2, 3, 4, 4), 0)


def test_gradient_ascent_raises_the_score_and_batches_do_not_mix(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    judge = load_reward("clip", path, architecture=ARCHITECTURE)
    x, prompts = frames(2, 2), ["a cat", "a dog"]
    alone = torch.cat([judge(x[i : i + 1], [prompts[i]]) for i in range(2)])
    torch.testing.assert_close(judge(x, prompts), alone, rtol=1e-5, atol=1e-6)
    before = judge(x, prompts)
    for _ in range(20):
        x.requires_grad_()
        (g,) = torch.autograd.grad(judge(x, prompts).sum(), x)
        step = g / g.flatten(1).norm(dim=1)[:, None, None, None, None]
        x = (x.detach() + 0.1 * step).clamp(0, 1)
    assert bool((judge(x, prompts) > before + 0.02).all())
