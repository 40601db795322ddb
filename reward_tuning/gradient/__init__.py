"""Tensors in, gradient out: plans, methods, rollout and adjoint sweep. Knows no recipe."""
