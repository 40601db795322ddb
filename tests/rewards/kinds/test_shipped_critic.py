"""The embedded critic as shipped: what it learned to tell, and that its score can be followed."""

import pytest
import torch

from base_model.tiny.captions import phrasings
from base_model.tiny.scenes import Scene
from reward_tuning.pretrain.critic_accuracy import critic_accuracy
from rewards import load_reward
from rewards.kinds.qwen_critic import QwenCritic
from tests.rewards.kinds.test_shipped import clip

SCENE = Scene("red", "star", "dark", "large", "left")


@pytest.fixture(scope="module")
def critic() -> QwenCritic:
    judge = load_reward("qwen_critic", "tiny/qwen-critic")
    assert isinstance(judge, QwenCritic)
    return judge


def test_right_answers_on_unseen_combinations(critic: QwenCritic) -> None:
    # Measured on 200 clips: colour 1.00, object 0.98, motion 0.98, artefact 0.96; chance is 0.5.
    accuracy = critic_accuracy(critic, 60, seed=1)
    for aspect, share in accuracy.items():
        assert share > (0.85 if aspect == "artefact" else 0.9), aspect


def test_climbing_the_colour_score_turns_the_answer(critic: QwenCritic) -> None:
    prompt = phrasings(Scene("blue", "star", "dark", "large", "left"), "en")[0]
    frames = clip(SCENE)
    first = critic.per_aspect(frames, [prompt])["colour"]
    assert float(first) < -1.0  # the star is red
    for _ in range(30):
        frames = frames.detach().requires_grad_()
        score = critic.per_aspect(frames, [prompt])["colour"]
        (gradient,) = torch.autograd.grad(score.sum(), frames)
        assert float(gradient.flatten(2).norm(dim=2).min()) > 0  # every frame counts
        frames = (frames + 0.02 * gradient.sign()).clamp(0, 1)
    assert float(critic.per_aspect(frames.detach(), [prompt])["colour"]) > 1.0
