"""DRaFT-LV: the last step, and the end noised again n times (Clark et al., arXiv 2309.17400)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.draft_k import draft_k
from reward_tuning.gradient.plan import Plan, Renoised


def draft_lv(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    copies: int = 2,
    smallest_sigma: float = 0.05,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of DRaFT-LV: DRaFT-1, and n copies of its end, each noised and denoised by one call.

    The chain and the copies weigh alike, as in FlowBP's re-implementation (arXiv 2606.11075). The
    paper's gradient needs `rescale=0`, `smallest_step=0` and a `smallest_sigma` below the table's
    last sigma (0.0027 on V5.1's, so 0.001): then the copies are noised to where the last step
    began.

    Args:
        generator: unused; every method has this signature.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        copies: n; 2 in the paper. Each costs one more look of the judges and no rollout.
        smallest_sigma: the copies are noised to the last sigma of the table, or to this where that
            one is smaller. V5.1's last is 0.0027: all copies are nearly one, with next to no
            gradient; at 0.05 the weight of their velocity is 18 times as large.
        rescale: of the chain's own last step (see `Plan`); 0 is the paper.
        smallest_step: as in `draft_k`.

    Raises:
        TuningError: no copy, or a sigma out of range.
    """
    if copies < 1:
        raise TuningError(f"method.copies is {copies}; allowed is 1 or more")
    if not 0.0 < smallest_sigma <= 1.0:
        raise TuningError(
            f"method.smallest_sigma is {smallest_sigma}; allowed is above 0 and up to 1"
        )
    last = draft_k(generator, sigmas, active_steps=1, rescale=rescale, smallest_step=smallest_step)
    sigma = max(float(sigmas[-2]), smallest_sigma)
    return replace(last, renoised=(Renoised(sigma),) * copies)
