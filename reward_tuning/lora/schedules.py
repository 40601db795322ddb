"""The strength of a LoRA as a function of the noise level: the base early, the LoRA late.

Early steps lay out the clip, late ones draw it; a reward-tuned model loses diversity and layout
first. Annealed Importance Guidance (Jena et al., arXiv 2409.06493) therefore mixes the outputs of
base and tuned model, gamma(t) = (1 - t)^p of the tuned one at noise level t, with p = 2. Here gamma
scales the LoRA itself, which is the same to first order in the LoRA and needs no second model call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from base_model.core.family import FAMILY
from reward_tuning.errors import TuningError, short_repr
from reward_tuning.lora.adapter import scaled

Schedule = Callable[[float], float]
"""Noise level sigma in [0, 1] to the factor of the LoRA's strength; 1 is pure noise."""

ANNEALED_POWER = 2.0
"""The published power of the annealing."""
FORMS = "constant, annealed, annealed:POWER, below:SIGMA"


def schedule_of(given: str | Schedule | None) -> Schedule | None:
    """Return a schedule.

    Args:
        given: `constant` (or None); `annealed` or `annealed:P`, the factor (1 - sigma)^P, P = 2;
            `below:S`, the base alone above the noise level S and the full strength from S on; or a
            function of sigma.

    Returns:
        The function; None for a constant strength.

    Raises:
        TuningError: Another text, a power not above 0, a level not between 0 and 1.
    """
    if given is None or callable(given):
        return given
    name, colon, number = given.partition(":")
    value = _number(number) if colon else ANNEALED_POWER
    if name == "constant" and not colon:
        return None
    if name == "annealed" and 0 < value < math.inf:
        return lambda sigma: (1.0 - sigma) ** value
    if name == "below" and colon and 0 < value < 1:
        return lambda sigma: float(sigma <= value)
    raise TuningError(
        f"the LoRA schedule is {short_repr(given)}; allowed: {FORMS}, with a power above 0 (2 is "
        "the published one) and a noise level between 0 and 1"
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def factor_at(schedule: Schedule, sigma: float) -> float:
    """Return the factor of a schedule, checked: users write functions, too.

    Raises:
        TuningError: It is not a finite number.
    """
    factor = float(schedule(sigma))
    if not math.isfinite(factor):
        raise TuningError(
            f"the LoRA schedule gives {factor} at noise level {sigma:g}; it must give finite "
            "numbers on [0, 1]"
        )
    return factor


def noise_level(args: Sequence[Any], named: Mapping[str, Any]) -> float:
    """Return the noise level sigma of a call of the transformer.

    Args:
        args: Positional arguments: latents, timestep.
        named: Keyword arguments.

    Raises:
        TuningError: The samples of the batch have different noise levels.
    """
    timestep = named["timestep"] if "timestep" in named else args[1]
    levels = torch.as_tensor(timestep).detach().float().flatten()
    if bool((levels != levels[0]).any()):
        raise TuningError(
            f"a LoRA schedule needs one noise level in a batch; got timesteps {levels.tolist()}"
        )
    # half precision rounds 1000 sigma, which may exceed 1000
    return min(max(float(levels[0]) / FAMILY.timesteps, 0.0), 1.0)


@contextmanager
def scheduled(transformer: nn.Module, schedule: Schedule | None, strength: float) -> Iterator[None]:
    """Scale an attached adapter by strength * schedule(sigma) in each call within the context.

    A factor of 0 is the base, bit for bit (`scaled`).

    Args:
        transformer: Model with an adapter (`attach_weights`).
        schedule: Function of the noise level; None for a constant strength.
        strength: Strength where the schedule is 1.

    Raises:
        TuningError: Strength or schedule are not finite.
    """
    if schedule is None:
        with scaled(transformer, strength):
            yield
        return
    with ExitStack() as now:

        def before(module: nn.Module, args: tuple[Any, ...], named: dict[str, Tensor]) -> None:
            now.close()
            factor = factor_at(schedule, noise_level(args, named))
            now.enter_context(scaled(module, strength * factor))

        handle = transformer.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
