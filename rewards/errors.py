"""What a person can mend about a judge or its input."""


class RewardError(ValueError):
    """A mistake in a judge's checkpoint or input; the text says what to do next."""
