"""Differentiable judges: frames or noisy latents, and prompts, to one score a clip."""

from rewards.core.base import FrameReward, Reward, VideoReward
from rewards.errors import RewardError
from rewards.kinds.clip import ClipReward, Relative
from rewards.kinds.latent import LatentClip, LatentReward, load_latent_reward
from rewards.loading import load_reward

__all__ = [
    "ClipReward",
    "FrameReward",
    "LatentClip",
    "LatentReward",
    "Relative",
    "Reward",
    "RewardError",
    "VideoReward",
    "load_latent_reward",
    "load_reward",
]
