"""The losses on pairs against their probabilities written out, and against a sampled mean."""

import math

import pytest
import torch

from reward_tuning.pretrain.ranking import TIES, ranking_loss, uncertain_ranking_loss

NAN = float("nan")


def probabilities(a: float, b: float) -> tuple[float, float, float]:
    """Rao and Kupper 1967: a wins, a tie, b wins."""
    x, y = math.exp(a), math.exp(b)
    first, second = x / (x + TIES * y), y / (y + TIES * x)
    return first, (TIES**2 - 1) * x * y / ((x + TIES * y) * (y + TIES * x)), second


def test_wins_ties_and_losses_are_those_of_rao_and_kupper() -> None:
    a, b = torch.tensor([0.3, 2.0, -1.0]), torch.tensor([0.9, -1.5, 0.25])
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        parts = probabilities(one, other)
        assert sum(parts) == pytest.approx(1.0)
        lead = torch.tensor([one - other], dtype=torch.float64)
        for said, p in zip((1.0, 0.0, -1.0), parts, strict=True):
            assert float(ranking_loss(lead, torch.tensor([said]))) == pytest.approx(-math.log(p))


def test_what_is_not_said_of_a_pair_does_not_count() -> None:
    lead = torch.tensor([[0.5, 3.0], [-1.0, 2.0]], requires_grad=True)
    loss = ranking_loss(lead, torch.tensor([[1.0, NAN], [NAN, 0.0]]))
    expected = -math.log(probabilities(0.5, 0.0)[0]) - math.log(probabilities(2.0, 0.0)[1])
    assert float(loss.detach()) == pytest.approx(expected / 2)
    (gradient,) = torch.autograd.grad(loss, lead)
    assert (gradient == 0).tolist() == [[False, True], [True, False]]
    nothing = ranking_loss(lead, torch.full((2, 2), NAN))
    assert float(nothing.detach()) == 0.0


def test_uncertain_scores_rank_as_their_samples_do() -> None:
    better = torch.tensor([[1.0, 0.5], [0.0, 2.0], [3.0, 1.0], [-1.0, -1.5]])
    worse = torch.tensor([[0.0, 1.0], [0.5, 1.0], [-1.0, 0.1], [1.0, 0.5]])
    noise = torch.randn(2, 200_000, 1, generator=torch.Generator().manual_seed(0))
    draws = [row[:, 0] + row[:, 1] * eps for row, eps in zip((better, worse), noise, strict=True)]
    sampled = (draws[0] - draws[1]).sigmoid().mean(dim=0)
    for i, p in enumerate(sampled.tolist()):
        loss = float(uncertain_ranking_loss(better[i : i + 1], worse[i : i + 1]))
        assert math.exp(-loss) == pytest.approx(p, abs=0.02)
    certain = uncertain_ranking_loss(better * torch.tensor([1.0, 0.0]), worse * 0)
    expected = -torch.nn.functional.logsigmoid(better[:, 0]).mean()
    torch.testing.assert_close(certain, expected)
