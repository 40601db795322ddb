"""Reward tuning: one training step, its draws, evaluation and the run around them."""
