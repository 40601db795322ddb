"""Everything that several processes exchange in a step: the gradient and a few means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn


class BatchMeans(Protocol):
    """The means of one batch, as far as processes exchange them."""

    @property
    def loss(self) -> float:
        """Mean loss."""

    @property
    def motion(self) -> float:
        """Mean motion of the clips."""

    @property
    def rewards(self) -> Mapping[str, float]:
        """Mean score of each judge."""


def mean_gradient(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Average the gradients over the processes, in one message; do nothing in a single process.

    The sweep makes several backward passes a step, and DDP would exchange gradients in each. The
    adapter is small, so one exchange at the end is both cheaper and simpler.
    """
    if accelerator.num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # this process skipped its batch, but takes part in the exchange
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def mean_of_all(values: list[float], accelerator: Accelerator) -> float:
    """Return the mean of one number per batch over batches and processes.

    Every process has the same number of batches, so the mean of their means is the mean of all.
    """
    mean = torch.tensor(values, dtype=torch.float32).mean().to(accelerator.device)
    if accelerator.num_processes > 1:
        mean = accelerator.reduce(mean, "mean")
    return float(mean)


def all_agree(mine: bool, accelerator: Accelerator) -> bool:
    """Return whether a statement is true on every process."""
    if accelerator.num_processes == 1:
        return mine
    said = accelerator.gather(torch.tensor([mine], dtype=torch.int32, device=accelerator.device))
    return bool(said.all())


def largest_of_all(value: float, accelerator: Accelerator) -> float:
    """Return the largest of one number per process; NaN where one is."""
    if accelerator.num_processes == 1:
        return value
    seen = accelerator.gather(torch.tensor([value], device=accelerator.device))
    return float(seen.max())


def mean_over_ranks(
    reports: Sequence[BatchMeans], labels: list[str], accelerator: Accelerator
) -> dict[str, float]:
    """Return the means of loss, motion and rewards over batches and processes.

    Args:
        reports: Means of this process's batches.
        labels: Names of the rewards.
        accelerator: Processes of the run.

    Returns:
        `loss`, `motion` and `reward/LABEL`. A reward that a batch does not have, because its loss
        was not finite, makes the mean NaN.
    """
    names = ["loss", "motion", *(f"reward/{label}" for label in labels)]
    rows = [
        [report.loss, report.motion, *(report.rewards.get(label, math.nan) for label in labels)]
        for report in reports
    ]
    means = torch.tensor(rows, dtype=torch.float32).mean(dim=0).to(accelerator.device)
    if accelerator.num_processes > 1:
        means = accelerator.reduce(means, "mean")
    return dict(zip(names, means.tolist(), strict=True))
