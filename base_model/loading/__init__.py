"""Checkpoints of every layout to modules: configs, key names, deltas, parts."""
