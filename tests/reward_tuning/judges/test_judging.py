"""Losses of a batch of latents: decoded frames against separate calls, terms, and bad frames."""

import pytest
import torch

from base_model.generator import Generator, load_generator
from base_model.sampling.guidance import Guidance
from reward_tuning.errors import TuningError
from reward_tuning.judges.clip_terms import ClipTerms, likeness, steady_motion
from reward_tuning.judges.judge import FramedJudge, LatentJudge
from reward_tuning.judges.judging import features_seen_by, on_frames, on_latents
from reward_tuning.sampling.sampler import ClipSampler
from rewards import FrameReward, load_latent_reward, load_reward

PROMPTS = ["a red circle", "a blue star"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny", text_encoder=False)


@pytest.fixture
def sampler(generator: Generator) -> ClipSampler:
    return ClipSampler(generator, {}, "", Guidance(1.0), (5, 64, 64))


@pytest.fixture
def latents() -> torch.Tensor:
    return 0.5 * torch.randn(2, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def judges() -> list[FramedJudge]:
    clip = load_reward("clip", "tiny/clip.safetensors")
    return [
        FramedJudge(clip, "first", (1, 3), weight=2.0),
        FramedJudge(load_reward("flicker"), "flicker", (0, 1, 2, 3, 4), mean=-0.1, std=0.5),
    ]


def test_losses_are_those_of_separate_calls(
    sampler: ClipSampler, generator: Generator, latents: torch.Tensor
) -> None:
    leaf = latents.requires_grad_()
    first, flicker = judges()
    terms = ClipTerms(motion=0.3, repulsion=0.2, clips_per_prompt=2)
    found = on_frames(sampler, [first, flicker], leaf, PROMPTS, seeds=[1, 2], terms=terms)
    assert found is not None
    assert list(found) == ["first", "flicker", "motion_term", "likeness"]
    frames = generator.decode(leaf)
    scores = first.reward(frames[:, [1, 3]], PROMPTS)
    calm = flicker.reward(frames, PROMPTS)
    assert isinstance(first.reward, FrameReward)
    features = first.reward.clip_features(frames[:, [1, 3]])
    expected = {
        "first": (-2.0 * scores.mean(), scores),
        "flicker": (-(calm + 0.1).mean() / 0.5, calm),
        "motion_term": (-0.3 * steady_motion(frames).mean(), steady_motion(frames)),
        "likeness": (0.2 * likeness(features, 2).mean(), likeness(features, 2)),
    }
    for label, (loss, values) in expected.items():
        torch.testing.assert_close(found[label][0], loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[label][1], values.detach(), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(sum(loss for loss, _ in found.values()), leaf)
    (wanted,) = torch.autograd.grad(sum(loss for loss, _ in expected.values()), leaf)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-4


def test_frames_that_are_not_finite_give_no_verdict(
    sampler: ClipSampler, latents: torch.Tensor
) -> None:
    latents[0, 0, 0, 0, 0] = float("nan")
    assert on_frames(sampler, judges(), latents, PROMPTS, seeds=[1, 2]) is None


def test_a_judge_without_an_image_tower_has_no_features(latents: torch.Tensor) -> None:
    with pytest.raises(TuningError, match="the first judge, flicker, has no image features"):
        features_seen_by(judges()[1], torch.rand(1, 5, 3, 16, 16), 0)


def test_latents_are_scored_as_they_are(latents: torch.Tensor) -> None:
    reward = load_latent_reward("tiny/latent-clip.safetensors")
    judge = LatentJudge(reward, "latent", weight=2.0, std=0.5)
    ((label, (loss, scores)),) = on_latents([judge], latents, 0.4, PROMPTS).items()
    expected = reward(latents, 0.4, PROMPTS)
    assert label == "latent"
    torch.testing.assert_close(scores, expected.detach())
    torch.testing.assert_close(loss, -4.0 * expected.mean())
