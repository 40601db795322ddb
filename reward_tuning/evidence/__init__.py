"""Adapters, checkpoints and strengths compared with the base after a run, on cached clips."""
