"""Direct-Align: noise the end with known noise, one call, take the rest off (arXiv 2509.06942)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, Renoised, chain_weights


def direct_align(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    stride: float = 0.022,
    sigma_range: tuple[float, float] = (0.75, 0.96),
    discount: bool = False,
) -> Plan:
    """Plan of Direct-Align (SRPO): one model call anywhere on the path, its noise known.

    The rollout's end is noised to s, uniform in `sigma_range`, with the clip's own initial noise;
    one velocity takes it to s' = max(s - stride, 0); what noise is left is known and taken off. So
    every noise level can be trained at the cost of one call, and only a share of the picture that
    the judge sees is the model's answer at s.

    The defaults are the authors' with HPS; with PickScore they take 0.67 to 0.96 and a stride of
    0.03. Their "discount" is no factor of the loss: it is the k of their semantic-relative reward,
    which grows with the noise from 0.1 to 0.25 (a judge's `relative.k` here, one value).

    Args:
        generator: CPU generator; one draw.
        sigmas: `(N + 1,)`, falling from 1 to 0; of the rollout.
        stride: s - s', in (0, 1].
        sigma_range: of s; the authors leave out the very beginning, where structure breaks.
        discount: multiply the loss by 3 s' / (1 + 2 s'), so that looks at little noise count less.
            Not of the paper. Needs low > stride.

    Raises:
        TuningError: a stride or a range out of bounds.
    """
    low, high = sigma_range
    if not 0.0 < low <= high < 1.0:
        raise TuningError(
            f"method.sigma_range is {list(sigma_range)}; needed is 0 < low <= high < 1"
        )
    if not 0.0 < stride <= 1.0:
        raise TuningError(f"method.stride is {stride}; allowed is above 0 and up to 1")
    if discount and stride >= low:
        raise TuningError(
            f"method.stride is {stride} and sigma_range begins at {low}: the discount would take "
            "all from a look that ends at 0; begin above the stride, or set discount to false"
        )
    weights = chain_weights(sigmas)
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    sigma = low + (high - low) * place
    to = max(sigma - stride, 0.0)
    share = 3.0 * to / (1.0 + 2.0 * to) if discount else 1.0
    look = Renoised(sigma, to, own_noise=True, share=share)
    return Plan(len(weights), len(weights), "end", (), weights, renoised=(look,))
