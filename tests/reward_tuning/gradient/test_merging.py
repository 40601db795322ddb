"""Several judges, one gradient: the sum, and PCGrad clip by clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.merging import LossesFn, conflict_free_gradient, summed_gradient


def losses_with(*gradients: Tensor) -> LossesFn:
    return lambda x: [(x * gradient).sum() for gradient in gradients]


def test_conflict_is_taken_out_clip_by_clip() -> None:
    # Clip 0: the two disagree; clip 1: they agree. Worked out by hand.
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[-1.0, 1.0], [1.0, 1.0]])
    x = torch.ones(2, 2)
    loss, merged = conflict_free_gradient(losses_with(a, b), x)
    # a - (-1/2) b = (0.5, 0.5) and b - (-1) a = (0, 1): neither runs against the other's origin
    assert torch.allclose(merged, torch.tensor([[0.5, 1.5], [2.0, 1.0]]))
    assert float((merged[0] * a[0]).sum()) > 0 < float((merged[0] * b[0]).sum())
    total, plain = summed_gradient(losses_with(a, b), x)
    assert float(loss) == float(total) == float((a + b).sum())
    assert torch.equal(plain, a + b)
    assert float((plain[0] * a[0]).sum()) == 0.0  # the sum would give the first judge nothing


def test_three_judges_and_one_without_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    own = [torch.randn(3, 4, 2, generator=draw, dtype=torch.float64) for _ in range(2)]
    own.append(torch.zeros_like(own[0]))  # its target is reached
    _, merged = conflict_free_gradient(losses_with(*own), torch.ones_like(own[0]))
    _, pair = conflict_free_gradient(losses_with(*own[:2]), torch.ones_like(own[0]))
    assert torch.allclose(merged, pair)
    assert bool(merged.isfinite().all())


def test_one_judge_is_left_alone() -> None:
    a = torch.tensor([[1.0, -2.0]])
    _, merged = conflict_free_gradient(losses_with(a), torch.zeros(1, 2))
    assert torch.equal(merged, a)


def test_a_judge_without_a_graph_is_refused() -> None:
    with pytest.raises(TuningError, match="carries no gradient"):
        conflict_free_gradient(lambda x: [x.sum(), x.detach().sum()], torch.ones(1, 2))
