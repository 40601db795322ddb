"""Flow-matching objective of EasyAnimateV5.1's base training.

x_sigma = (1 - sigma) x + sigma eps, and the model predicts the velocity eps - x (Lipman et al.,
arXiv:2210.02747; Esser et al., arXiv:2403.03206).
"""

from __future__ import annotations

import torch
from torch import Tensor

from base_model.generator import Condition, Generator
from base_model.sampling.sigmas import shift_time

TEXT_DROPOUT = 0.1
"""Share of samples with the empty prompt, for guidance; the published value."""


def draw_sigmas(count: int, generator: torch.Generator, *, mu: float) -> Tensor:
    """Draw noise levels in (0, 1), (count,): uniform in time, shifted, stratified over the batch.

    Tone, colour and place follow the prompt at high noise. A logit-normal density draws sigma > 0.9
    for 1.4 % of the samples, and the embedded generator then ignored its prompts after 1,000 steps
    of 32; the sampler's own shift, mu = 1, draws it for 23 %.

    Args:
        count: Number of samples.
        generator: Random generator.
        mu: Shift of `base_model.sampling.sigmas.shift_time`; 0 is uniform.
    """
    strata = torch.arange(count, dtype=torch.float32)
    time = (strata + torch.rand(count, generator=generator)) / count
    time = time[torch.randperm(count, generator=generator)]
    return shift_time(time.clamp(1e-3, 1.0), mu).clamp(max=0.999)


def flow_matching_loss(
    model: Generator,
    latents: Tensor,
    condition: Condition,
    generator: torch.Generator,
    *,
    mu: float,
) -> tuple[Tensor, dict[str, float]]:
    """Return the mean squared error of the velocity.

    Args:
        model: Generator whose transformer is trained.
        latents: Clean scaled latents, (b, 16, t, h/8, w/8) fp32.
        condition: Text states (b, l, d) and the channels of the kind, after dropout.
        generator: Random generator of sigmas and noise.
        mu: See `draw_sigmas`.

    Returns:
        The scalar loss, and the mean errors at low (< 0.5) and high sigmas.
    """
    sigma = draw_sigmas(len(latents), generator, mu=mu)
    noise = torch.randn(latents.shape, generator=generator)
    s = sigma[:, None, None, None, None]
    velocity = model.velocity((1.0 - s) * latents + s * noise, sigma, condition)
    errors = (velocity - (noise - latents)).square().mean(dim=(1, 2, 3, 4))
    low = errors.detach()[sigma < 0.5].mean().item()
    high = errors.detach()[sigma >= 0.5].mean().item()
    return errors.mean(), {"error_low": low, "error_high": high}
