"""Ranking losses on pairs, with ties and with uncertain scores."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TIES = 5.0
"""Size of a lead that counts: theta of VideoAlign (arXiv:2501.13918)."""


def ranking_loss(lead: Tensor, better: Tensor, ties: float = TIES) -> Tensor:
    """Return the loss of Bradley-Terry with ties (Rao and Kupper 1967): mean of -log p(label).

    p(a over b) = sigmoid(lead - log ties), p(b over a) is the same for -lead, and the rest is the
    probability of a tie: (ties**2 - 1) times the product of the two.

    Args:
        lead: Raw score of a minus that of b, any shape.
        better: Labels of the same shape: 1 if a is better, -1 if b is, 0 for a tie, NaN for pairs
            without a label, which do not count.
        ties: Theta, above 1; at 1 there are no ties.

    Returns:
        Scalar; 0 if no pair has a label.
    """
    margin = math.log(ties)
    wins, loses = F.logsigmoid(lead - margin), F.logsigmoid(-lead - margin)
    tie = math.log(ties**2 - 1) + wins + loses
    said = torch.where(better > 0, wins, torch.where(better < 0, loses, tie))
    known = ~better.isnan()
    return -said[known].sum() / known.sum().clamp(min=1)


def uncertain_ranking_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Return the mean of -log p(better over worse) for scores with a standard deviation.

    The scores are normal with mean mu and deviation sigma, and p is the mean of the sigmoid of
    their difference (HPSv3, arXiv:2508.03789). The integral has no closed form; MacKay's
    approximation, sigmoid(mu / sqrt(1 + pi s^2 / 8)), has an error in p below 0.02.

    Args:
        better: `(n, 2)`: mu and sigma, of which only the square counts.
        worse: `(n, 2)`, the same.
    """
    lead = better[:, 0] - worse[:, 0]
    spread = better[:, 1].square() + worse[:, 1].square()
    return -F.logsigmoid(lead / (1 + math.pi / 8 * spread).sqrt()).mean()
