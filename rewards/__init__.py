"""Differentiable judges: frames and prompts to one score a clip."""

from rewards.base import FrameReward, Reward, load_reward
from rewards.clip import Relative
from rewards.errors import RewardError

__all__ = ["FrameReward", "Relative", "Reward", "RewardError", "load_reward"]
