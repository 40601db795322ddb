"""The optimisers that a recipe may choose: one section for each kind, with its own keys.

Keys that every optimiser shares (`learning_rate`, `weight_decay`) and those of both kinds of AdamW
(`betas`, `adam_eps`) are keys of `train`. A kind without keys of its own may be written as its name
alone, `optimiser: adamw`, and is always dumped so.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, WrapSerializer

from reward_tuning.section import Section


class AdamW(Section):
    """AdamW with float32 moments."""

    kind: Literal["adamw"] = "adamw"


class AdamW8bit(Section):
    """AdamW that keeps its two moments in 8 bits a number (bitsandbytes)."""

    kind: Literal["adamw-8bit"] = "adamw-8bit"


OptimiserSection = AdamW | AdamW8bit


def _from_name(value: Any) -> Any:
    if isinstance(value, dict | Section):
        return value
    if isinstance(value, str):
        return {"kind": value}
    kinds = ", ".join(section().kind for section in get_args(OptimiserSection))
    raise ValueError(f"allowed: {kinds}, or a section with one of them as its `kind`")


def _to_name(section: Section, dump: Callable[[Section], dict[str, Any]]) -> Any:
    """Write the name alone where it says everything: recipes and checkpoints stay comparable."""
    found = dump(section)
    return found["kind"] if set(found) == {"kind"} else found


OptimiserChoice = Annotated[
    OptimiserSection,
    Field(discriminator="kind"),
    BeforeValidator(_from_name),
    WrapSerializer(_to_name),
]
