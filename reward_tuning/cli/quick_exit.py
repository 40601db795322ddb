"""Leave the process without the interpreter's shutdown.

With the heavy libraries imported, the shutdown searches 800,000 objects for cycles and frees them
one by one: 2 of the 8 s of processor time of `generate`. The operating system frees the memory of a
process at once.
"""

import os
import sys


class QuickExit:
    """Function for `atexit` that ends the process.

    Python calls it when all threads have ended, after the functions that were registered later,
    such as those of trackers. Functions that were registered earlier are skipped, so it is
    registered before anything else.

    Attributes:
        code: Exit code; None leaves the process to the interpreter, as after a traceback.
    """

    def __init__(self) -> None:
        self.code: int | None = None

    def __call__(self) -> None:
        """Write what the streams still hold, and end the process if the code is known."""
        if self.code is not None and _flushed():
            os._exit(self.code)


def _flushed() -> bool:
    """Flush the streams; return whether they could be, else the interpreter reports it."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as in a process without a console
                stream.flush()
    except (OSError, ValueError):
        return False
    return True
