"""A small float64 flow and its plain-autograd reference, for the tests of the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reward_tuning.gradient.plan import Plan

SHAPE = (2, 3, 4)  # two clips of twelve numbers


def mu_one_table(steps: int) -> Tensor:
    """V5.1's table by its formula, float64: e / (e + 1/t - 1) on t = 1 ... 0.001, then 0."""
    t = torch.linspace(1.0, 0.001, steps, dtype=torch.float64)
    e = math.e
    return torch.cat([e / (e + 1 / t - 1), torch.zeros(1, dtype=torch.float64)])


class ToyFlow(nn.Module):
    """A strongly non-linear velocity with two guidance branches."""

    def __init__(
        self,
        steps: int,
        *,
        guidance_scale: float = 3.0,
        negative: Literal["detached", "joint"] = "joint",
        seed: int = 0,
    ) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        size = math.prod(SHAPE[1:])
        self.inner = nn.Parameter(torch.randn(16, size, generator=draw, dtype=torch.float64) * 0.4)
        self.outer = nn.Parameter(torch.randn(size, 16, generator=draw, dtype=torch.float64) * 0.4)
        self.sigmas = mu_one_table(steps)
        self.prompts = torch.randn(2, 16, generator=draw, dtype=torch.float64)
        self.guidance_scale = guidance_scale
        self.negative = negative

    def branch(self, x: Tensor, i: int, prompt: Tensor) -> Tensor:
        h = torch.sin(x.flatten(1) @ self.inner.T + prompt + 2 * self.sigmas[i])
        return (h @ self.outer.T).view_as(x) + 0.3 * x**2

    def forward(self, x: Tensor, i: int) -> Tensor:
        if self.negative == "joint":
            negative = self.branch(x, i, self.prompts[1])
        else:
            with torch.no_grad():
                negative = self.branch(x, i, self.prompts[1])
        return negative + self.guidance_scale * (self.branch(x, i, self.prompts[0]) - negative)

    def noise(self) -> Tensor:
        draw = torch.Generator().manual_seed(7)
        return torch.randn(SHAPE, generator=draw, dtype=torch.float64)


def toy_loss(x: Tensor) -> Tensor:
    """A scalar with a curved gradient, so that reading it at a wrong place shows."""
    target = torch.linspace(-1, 1, math.prod(SHAPE[1:]), dtype=torch.float64).view(SHAPE[1:])
    return (torch.tanh(x) * target + 0.1 * (x - target) ** 2).mean()


def chain_gradients(
    flow: nn.Module,
    noise: Tensor,
    sigmas: Tensor,
    plan: Plan,
    *,
    step_loss_weight: float = 0.0,
    loss_fn: Callable[[Tensor], Tensor] = toy_loss,
    trainable: Mapping[str, Tensor] | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """The plan by plain autograd: one graph over the whole chain, one backward.

    Where the engine multiplies adjoints, this detaches: parameters at inactive steps, and the share
    1 - nested of each velocity's input.
    """
    trainable = trainable or {n: p for n, p in flow.named_parameters() if p.requires_grad}
    constant = {n: p.detach() for n, p in trainable.items()}
    total = torch.zeros((), dtype=noise.dtype)

    def velocity(x: Tensor, i: int) -> Tensor:
        nonlocal total
        open_here = plan.through is None or i in plan.through
        seen = plan.nested * x + (1 - plan.nested) * x.detach() if open_here else x.detach()
        if i in plan.active:
            v = functional_call(flow, dict(trainable), (seen, i))
            if step_loss_weight:
                total = total + step_loss_weight * (v**2).mean()
            return v
        return functional_call(flow, constant, (seen, i))

    x = noise
    for i in range(plan.stop):
        x = x + float(sigmas[i + 1] - sigmas[i]) * velocity(x, i)
    if plan.reward_input == "posterior_mean":
        x = x - float(sigmas[plan.stop]) * velocity(x, plan.stop)
    loss = loss_fn(x)
    total = total + plan.gradient_scale * loss
    gradients = torch.autograd.grad(total, list(trainable.values()))
    return float(loss.detach()), dict(zip(trainable, gradients, strict=True))


def relative_error(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Norm of the difference of all tensors together, over the norm of the expected ones."""
    assert got.keys() == expected.keys()
    difference = torch.stack([(got[k] - expected[k]).norm() for k in expected]).norm()
    return float(difference / torch.stack([t.norm() for t in expected.values()]).norm())
