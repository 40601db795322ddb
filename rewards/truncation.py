"""A warning, once a judge, that it reads only the beginning of a prompt."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence


class TruncationWarning:
    """Warns the first time that a prompt is longer than a judge can read.

    Args:
        judge: its kind, for the message.
        limit: tokens that it reads.
        count: text -> tokens that it would have uncut.
    """

    def __init__(self, judge: str, limit: int, count: Callable[[str], int]) -> None:
        self._judge, self._limit, self._count = judge, limit, count
        self._warned = False

    def look_at(self, prompts: Sequence[str]) -> None:
        """Warn if one of these prompts is too long and no warning was given before."""
        if self._warned:
            return
        longest = max(prompts, key=self._count)
        count = self._count(longest)
        if count > self._limit:
            self._warned = True
            warnings.warn(
                f"{self._judge} reads {self._limit} tokens of a prompt; {longest[:60]!r}... has "
                f"{count}, and what comes after is not judged. Give the judge a shorter text with "
                "reward_prompt, or put what matters first. Further prompts are cut in silence.",
                stacklevel=2,
            )
