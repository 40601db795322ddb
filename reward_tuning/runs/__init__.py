"""The frame of any training: loop, state, checkpoints, run folder, metrics, processes."""
