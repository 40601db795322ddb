"""The sides of an evaluation before they are sampled: which adapter, how strong, sampled how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reward_tuning.evidence.named_adapters import ReadAdapter
from reward_tuning.evidence.request import Setup


@dataclass(frozen=True)
class PlannedSide:
    """One side.

    Attributes:
        name: Name in tables, unique.
        steps: Euler steps.
        guidance_scale: Classifier-free guidance.
        adapter: The adapter; None for the base.
        strength: Factor of its effect; 0 for the base.
        against: Index of the base that was sampled alike; None for a base.
    """

    name: str
    steps: int
    guidance_scale: float
    adapter: ReadAdapter | None = None
    strength: float = 0.0
    against: int | None = None


def planned_sides(
    setup: Setup, adapters: Sequence[ReadAdapter], strengths: Sequence[float]
) -> list[PlannedSide]:
    """List the sides: with the main steps and guidance every strength, with the others full ones.

    With other numbers of steps and other guidance scales, one at a time, each adapter has strength
    1, or the largest of `strengths` if that is not among them: there the question is whether the
    gain holds.

    Args:
        setup: Its steps and guidance scales, the main ones first.
        adapters: The adapters.
        strengths: Strengths; 0 is the base, which is always there.
    """
    settings = [(setup.steps[0], setup.guidance[0])]
    settings += [(steps, setup.guidance[0]) for steps in setup.steps[1:]]
    settings += [(setup.steps[0], scale) for scale in setup.guidance[1:]]
    wanted = [one for one in dict.fromkeys(strengths) if one != 0] if adapters else []
    full = 1.0 if 1.0 in wanted else max(wanted, default=1.0)
    found: list[PlannedSide] = []
    for place, (steps, scale) in enumerate(settings):
        how = ""
        if place:
            how = f", {steps} steps" if steps != setup.steps[0] else f", guidance {scale:g}"
        base = len(found)
        found.append(PlannedSide(f"base{how}", steps, scale))
        for adapter in adapters:
            for strength in [full] if place and wanted else wanted:
                factor = "" if strength == 1.0 else f" x{strength:g}"
                name = f"{adapter.named.name}{factor}{how}"
                found.append(PlannedSide(name, steps, scale, adapter, strength, base))
    return found


def decisive_side(sides: Sequence[PlannedSide]) -> int | None:
    """Return the index of the one side that decides; None where several could.

    That is the only adapter at strength 1, or at its only strength, with the main sampling.
    """
    main = [i for i, side in enumerate(sides) if side.against == 0]
    full = [i for i in main if sides[i].strength == 1.0] or main
    return full[0] if len(full) == 1 else None
