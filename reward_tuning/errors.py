"""What a person can mend about a recipe or a run."""


class TuningError(ValueError):
    """A mistake in a recipe, a prompt file or a run folder; the text says what to do next."""
