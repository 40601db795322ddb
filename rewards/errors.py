"""Errors that a user can correct: a judge's files, options or input, or its server."""


class RewardError(ValueError):
    """A mistake in a judge's file, options or input; the message says what to do next."""


class JudgeUnavailable(RewardError):  # noqa: N818 - a state of the outside, not a mistake in here
    """A judge outside this process gave no usable answer; every answer before is kept.

    The same call can be made again later: it asks only for what was not answered.
    """
