"""The base class of all sections of a recipe, and the two kinds of whole numbers they hold.

It is below every room because the gradient room declares the keys of its methods, and the schema
room those of everything else.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Frozen and strict: no unknown keys, no NaN or infinity, no text where a number belongs.

    A misspelt key is refused, never ignored, so that no slip trains something else in silence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
