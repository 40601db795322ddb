"""Clips from noise: the sampler, cheaper steps, and memory that decoding needs."""
