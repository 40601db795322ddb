"""The flow-matching objective of EasyAnimateV5.1's base training.

x_sigma = (1 - sigma) x + sigma eps, and the model predicts the velocity eps - x (Lipman et
al., 2210.02747; Esser et al., 2403.03206). Training sigmas are unshifted; sampling uses the
mu = 1 table of `base_model.sigmas`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from base_model.generator import Condition, Generator

TEXT_DROPOUT = 0.1
"""Share of samples trained on the empty prompt, for guidance; the published value."""


def draw_sigmas(count: int, generator: torch.Generator, *, logit_std: float) -> Tensor:
    """Noise levels in (0, 1), (count,): logistic of a normal, stratified over the batch.

    Args:
        count: Samples.
        generator: Of the draw.
        logit_std: Spread of the logit-normal density; 1 is Esser et al.'s default.
    """
    strata = torch.arange(count, dtype=torch.float32)
    uniform = (strata + torch.rand(count, generator=generator)) / count
    normal = torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))
    shuffled = normal[torch.randperm(count, generator=generator)]
    return torch.sigmoid(logit_std * shuffled)


def flow_matching_loss(
    model: Generator, latents: Tensor, text: Tensor, generator: torch.Generator, *, logit_std: float
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of the velocity.

    Args:
        model: The generator; its transformer is trained.
        latents: Clean scaled latents, (b, 16, t, h/8, w/8) fp32.
        text: Text states, (b, l, d); dropped prompts are the caller's.
        generator: Draws sigmas and noise.
        logit_std: See `draw_sigmas`.

    Returns:
        The scalar loss, and the mean error of low (< 0.5) and high sigmas.
    """
    sigma = draw_sigmas(len(latents), generator, logit_std=logit_std)
    noise = torch.randn(latents.shape, generator=generator)
    s = sigma[:, None, None, None, None]
    velocity = model.velocity((1.0 - s) * latents + s * noise, sigma, Condition(text))
    errors = (velocity - (noise - latents)).square().mean(dim=(1, 2, 3, 4))
    low = errors.detach()[sigma < 0.5].mean().item()
    high = errors.detach()[sigma >= 0.5].mean().item()
    return errors.mean(), {"error_low": low, "error_high": high}
