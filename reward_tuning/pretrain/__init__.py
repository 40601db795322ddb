"""Trains what the package carries: the embedded judges, and drives the generator's training."""
