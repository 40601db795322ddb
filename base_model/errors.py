"""What a person can mend about a checkpoint or a request to the generator."""


class GeneratorError(ValueError):
    """A mistake in a checkpoint or a generation request; the text says what to do next."""
