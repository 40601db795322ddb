"""Losses on pairs: which of two is better, or that they are equally good."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TIES = 5.0
"""How large a lead must be to count, as VideoAlign has it (theta of arXiv 2501.13918)."""


def ranking_loss(lead: Tensor, better: Tensor, ties: float = TIES) -> Tensor:
    """Bradley-Terry with ties (Rao and Kupper 1967): mean of -log p(what was said).

    p(a over b) = sigmoid(lead - log ties), p(b over a) likewise from -lead, and the rest is that of
    a tie: (ties**2 - 1) times the product of the two.

    Args:
        lead: raw score of a minus that of b, any shape.
        better: likewise, 1 where a is better, -1 where b is, 0 for a tie, NaN where nothing is
            said of the pair; of those nothing counts.
        ties: above 1; at 1 there are no ties.

    Returns:
        Scalar; 0 if nothing is said of any pair.
    """
    margin = math.log(ties)
    wins, loses = F.logsigmoid(lead - margin), F.logsigmoid(-lead - margin)
    tie = math.log(ties**2 - 1) + wins + loses
    said = torch.where(better > 0, wins, torch.where(better < 0, loses, tie))
    known = ~better.isnan()
    return -said[known].sum() / known.sum().clamp(min=1)


def uncertain_ranking_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Mean of -log p(better over worse) where each score is known up to its deviation.

    The scores are normal with mean mu and deviation sigma, and p is the mean of the sigmoid of
    their difference (HPSv3, arXiv 2508.03789). Its integral has no closed form; this is MacKay's,
    sigmoid(mu / sqrt(1 + pi s^2 / 8)), whose error in p is below 0.02.

    Args:
        better: `(n, 2)`: mu and sigma. Only the square of sigma counts.
        worse: likewise.
    """
    lead = better[:, 0] - worse[:, 0]
    spread = better[:, 1].square() + worse[:, 1].square()
    return -F.logsigmoid(lead / (1 + math.pi / 8 * spread).sqrt()).mean()
