"""Distillation of the sampler: an adapter that needs few steps and no guidance."""
