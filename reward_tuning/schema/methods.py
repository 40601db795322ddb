"""The method of a recipe: a section for each kind, from `reward_tuning.gradient.methods`."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from reward_tuning.gradient.methods import METHODS
from reward_tuning.gradient.methods.method import Method as AnyMethod

if TYPE_CHECKING:
    Method = AnyMethod
else:  # pydantic chooses the section by `kind`
    Method = Annotated[Union[tuple(METHODS.values())], Field(discriminator="kind")]  # noqa: UP007
