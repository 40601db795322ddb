"""Checkpoint conversion between the original and the diffusers layout."""
