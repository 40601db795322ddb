"""Noise levels, guidance and the Euler sampler."""
