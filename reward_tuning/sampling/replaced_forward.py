"""Forward passes that a cache puts in place of a module's own, and takes away again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ReplacedForwards:
    """What stood in `module.forward` before: an own one, or that of the class.

    Args:
        modules: Modules whose `forward` is replaced after this.
    """

    def __init__(self, modules: Iterable[Any]) -> None:
        self._own = [(module, vars(module).get("forward")) for module in modules]

    def restore(self) -> None:
        """Leave every module as it was."""
        for module, own in self._own:
            if own is None:
                del module.forward
            else:
                module.forward = own
