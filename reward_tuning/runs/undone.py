"""A step that could not be made, and has changed nothing: the run ends, and resumes with it."""

from reward_tuning.errors import TuningError


class UndoneStep(TuningError):  # noqa: N818 - the run is sound; something outside it is not
    """A step could not be made for a reason outside the run.

    Every process raises it in the same step, before the state has changed, so the state before the
    step can be saved.
    """
