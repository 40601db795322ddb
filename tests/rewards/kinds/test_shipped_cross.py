"""The embedded ImageReward and MPS as shipped: what they read, and what they are blind to."""

import random

import pytest
import torch

from base_model.tiny.captions import phrasings
from base_model.tiny.render import draw_staging, render_staged
from base_model.tiny.scenes import Scene
from reward_tuning.pretrain.judge_accuracy import attribute_accuracy, preference_accuracy
from rewards import FrameReward, load_reward

SCENE = Scene("red", "star", "dark", "large", "left")

# Share of held-out frames whose true word scores highest, in the worse language, and of preference
# pairs ordered right, on 256 of each; chance is 1/6, 1/4, 1/3 and 1/2.
MEASURED = {
    "image_reward": {"colour": 1.0, "background": 1.0, "size": 0.99, "shape": 0.73, "pairs": 0.93},
    "mps": {"colour": 1.0, "background": 1.0, "size": 0.98, "shape": 0.70, "pairs": 0.90},
}


def load(kind: str) -> FrameReward:
    judge = load_reward(kind, f"tiny/{kind.replace('_', '-')}.safetensors")
    assert isinstance(judge, FrameReward)
    return judge


def least(share: float, count: int) -> float:
    """Three standard errors below a measured share."""
    return share - 3 * (max(share * (1 - share), 0.01) / count) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", MEASURED)
def test_attributes_of_unseen_combinations(kind: str) -> None:
    accuracy = attribute_accuracy(load(kind), 48, seed=1)
    for key, share in accuracy.items():
        expected = MEASURED[kind].get(key.partition("/")[0])
        if expected is not None:
            assert share >= least(expected, 48), key


@pytest.mark.parametrize("kind", MEASURED)
def test_the_better_frame_is_preferred_on_unseen_combinations(kind: str) -> None:
    assert preference_accuracy(load(kind), 120, seed=1)["all"] >= least(
        MEASURED[kind]["pairs"], 120
    )


@pytest.mark.parametrize("kind", MEASURED)
def test_climbing_the_gradient_raises_the_score(kind: str) -> None:
    judge = load(kind)
    clip = render_staged(SCENE, draw_staging(SCENE, random.Random(5)))[None, :2]
    frames, prompt = 0.1 + 0.8 * clip, [phrasings(SCENE, "en")[0]]
    first = float(judge(frames, prompt))
    for _ in range(10):
        frames = frames.requires_grad_()
        (gradient,) = torch.autograd.grad(judge(frames, prompt).sum(), frames)
        frames = (frames + 0.01 * gradient.sign()).detach().clamp(0, 1)
    assert float(judge(frames, prompt)) > first + 0.5
