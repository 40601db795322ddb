"""Differentiable judges: frames and prompts to one score a clip."""

from rewards.base import FrameReward, Reward, load_reward
from rewards.errors import RewardError

__all__ = ["FrameReward", "Reward", "RewardError", "load_reward"]
