"""Options that take several values after one name: `--strengths 0 0.5 1`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from reward_tuning.cli.option_sections import HelpWithOthers

_NUMBER = re.compile(r"-(\d|\.\d)")


class ListOptions(HelpWithOthers):
    """A verb whose repeatable options also take several values after one name.

    `--steps 8 25` is `--steps 8 --steps 25`. The values end at the next option or at `--`, so
    arguments without a name come before such an option, or after `--`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the name of such an option before each of its values, and parse."""
        lists = {
            name
            for parameter in self.params
            if getattr(parameter, "multiple", False)
            for name in parameter.opts
        }
        return super().parse_args(ctx, list(spread_lists(args, lists)))


def spread_lists(arguments: Sequence[str], lists: set[str]) -> Iterator[str]:
    """Yield the arguments with the name of a list option before each of its values.

    Args:
        arguments: As on the command line.
        lists: Names of the options that take several values.
    """
    name = ""  # of the list option whose values follow
    first = False  # its name was just given
    for place, text in enumerate(arguments):
        if text == "--":
            yield from arguments[place:]
            return
        if text.startswith("-") and text != "-" and not _NUMBER.match(text):
            name, first = (text, True) if text in lists else ("", False)
            yield text
            continue
        if name and not first:
            yield name
        first = False
        yield text
