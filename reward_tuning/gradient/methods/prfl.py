"""PRFL: a judge of noisy latents, one step, no decoder (arXiv 2511.21541)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, chain_weights


def prfl(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    step_range: tuple[float, float] = (0.0, 1.0),
) -> Plan:
    """Plan of PRFL: the reward on (x_{s+1}, sigma_{s+1}), gradient through step s alone.

    s is drawn uniformly from a part of the steps 0 ... N - 2; nothing after it is run, and nothing
    is decoded. Needs rewards of kind `latent`.

    The authors roll out with UniPC and without guidance. A multistep solver gives v_s another
    weight, 1.5 to 2 times that of the Euler step taken here; Adam undoes a constant factor. Their
    rollout is `sampling.negative: none`.

    Args:
        generator: CPU generator; one draw.
        sigmas: `(N + 1,)`, falling from 1 to 0; N at least 2.
        step_range: part of the steps, 0 the first and 1 the last; the paper's gain in motion needs
            all of them.

    Raises:
        TuningError: a range out of bounds, or one step only.
    """
    steps = len(sigmas) - 1
    low, high = step_range
    if steps < 2:
        raise TuningError("sampling.steps is 1; prfl needs 2 or more, for it reads between two")
    if not 0.0 <= low < high <= 1.0:
        raise TuningError(
            f"method.step_range is {list(step_range)}; needed is 0 <= low < high <= 1"
        )
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    step = int((low + (high - low) * place) * (steps - 1))
    return Plan(
        steps=steps,
        stop=step + 1,
        reward_input="state",
        active=(step,),
        weights=chain_weights(sigmas, step + 1, "state"),
    )
