"""What several processes exchange in a step: the gradient and a few means, nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn


class Judged(Protocol):
    """What one batch came to, as far as processes exchange it."""

    @property
    def loss(self) -> float:
        """Mean loss of the batch."""

    @property
    def motion(self) -> float:
        """Mean motion of its clips."""

    @property
    def rewards(self) -> Mapping[str, float]:
        """Mean score by judge."""


def mean_gradient(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Average the gradients over the processes, in one message; alone, do nothing.

    The sweep makes several backward passes a step. DDP would exchange gradients in each of them;
    the adapter is small, so one exchange of all of them at the end is less and simpler.
    """
    if accelerator.num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # a skipped batch; the others' gradients still arrive
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def mean_of_all(values: list[float], accelerator: Accelerator) -> float:
    """Mean of one number a batch over batches and processes; every process has as many."""
    mean = torch.tensor(values, dtype=torch.float32).mean().to(accelerator.device)
    if accelerator.num_processes > 1:
        mean = accelerator.reduce(mean, "mean")
    return float(mean)


def mean_over_ranks(
    reports: Sequence[Judged], labels: list[str], accelerator: Accelerator
) -> dict[str, float]:
    """Means of loss, motion and rewards over batches and processes; NaN where one is not finite."""
    names = ["loss", "motion", *(f"reward/{label}" for label in labels)]
    rows = [
        [report.loss, report.motion, *(report.rewards.get(label, math.nan) for label in labels)]
        for report in reports
    ]
    means = torch.tensor(rows, dtype=torch.float32).mean(dim=0).to(accelerator.device)
    if accelerator.num_processes > 1:
        means = accelerator.reduce(means, "mean")
    return dict(zip(names, means.tolist(), strict=True))
