"""Rules that watch a training's steps: each warns, or ends the run."""
