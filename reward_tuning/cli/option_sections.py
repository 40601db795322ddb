"""Options of a verb in typed sections: each option is declared once, as a field of a dataclass.

Typer reads a flat signature, one parameter for each option. A verb with forty options would repeat
them in its signature, in its call and in the object that carries them. A section declares name,
type, range, default and help text of an option in one field; the verb takes whole sections.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_args, get_type_hints

from typer.core import TyperCommand
from typer.models import ArgumentInfo


class HelpWithOthers(TyperCommand):
    """A verb whose `--help` is in its last panel of options, and in no box of its own."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option, in the panel of the last option if all of them have one."""
        found = super().get_help_option(ctx)
        options = [one for one in self.params if one.param_type_name == "option"]
        panels = [getattr(one, "rich_help_panel", None) for one in options]
        if found is not None and panels and all(panels):
            found.rich_help_panel = panels[-1]
        return found


def takes_sections(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb whose parameters are sections the flat signature that Typer reads.

    Args:
        verb: Function of keyword parameters, each annotated with a dataclass whose fields are
            `Annotated[type, typer.Option(...)]`. A section's `PANEL` names the help panel of its
            options.

    Returns:
        A function of the same name and docstring that takes every field as a keyword.
    """
    sections = get_type_hints(verb)
    sections.pop("return", None)
    flat = [option for section in sections.values() for option in _options(section)]
    names = [option.name for option in flat]
    assert len(set(names)) == len(names), f"{verb.__name__}: an option is in two sections"
    signature = inspect.Signature(flat)

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        verb(
            **{
                name: section(**{field.name: given[field.name] for field in fields(section)})
                for name, section in sections.items()
            }
        )

    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in flat}
    return command


def _options(section: type[Any]) -> list[inspect.Parameter]:
    panel = getattr(section, "PANEL", None)
    hints = get_type_hints(section, include_extras=True)
    found = []
    for field in fields(section):
        kind, option = get_args(hints[field.name])
        option = copy.copy(option)
        if not isinstance(option, ArgumentInfo):  # or their panel of that name came twice
            option.rich_help_panel = panel
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=Annotated[kind, option],
            )
        )
    return found
