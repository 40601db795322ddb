"""Adapters compared with the base after a run, on cached clips, and mixed by what that shows."""
