"""Errors that a user can correct in a checkpoint or in a request to the generator."""


class GeneratorError(ValueError):
    """A fault in a checkpoint or a generation request; the message names the next step."""
