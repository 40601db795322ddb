"""Errors that a user can correct: a judge's files, options or input."""


class RewardError(ValueError):
    """A mistake in a judge's file, options or input; the message says what to do next."""
