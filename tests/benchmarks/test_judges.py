"""The measuring of judges, on judges whose numbers are known."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from base_model.tiny.oracle import judge as oracle
from base_model.tiny.scenes import ATTRIBUTES
from benchmarks.judges import FULL_SIZE, SavedBytes, agreement, cost, shipped_judge, table


def seeing(frames: Tensor, prompts: Sequence[str]) -> Tensor:
    return torch.stack(list(oracle(frames, prompts).right.values())).sum(dim=0)


def test_agreement_of_the_oracle_of_its_opposite_and_of_a_blind_judge() -> None:
    assert agreement(seeing, 3) == dict.fromkeys(ATTRIBUTES, 1.0)
    assert agreement(lambda x, p: -seeing(x, p), 3) == dict.fromkeys(ATTRIBUTES, 0.0)
    assert agreement(lambda x, p: torch.zeros(len(x)), 3) == dict.fromkeys(ATTRIBUTES, 0.5)


def test_a_judge_of_single_frames_is_blind_to_motion_alone() -> None:
    score, _ = shipped_judge("hps", torch.device("cpu"))
    found = agreement(score, 8)
    assert found["colour"] == 1.0
    assert found["motion"] <= 0.8


def test_saved_bytes_count_each_storage_once_and_no_weights() -> None:
    layer = nn.Linear(32, 32, bias=False)
    x = torch.rand(8, 32, requires_grad=True)
    with (saved := SavedBytes([layer])):
        y = layer(x).exp()  # a linear layer of frozen weights keeps x, exp its own result
        (y * y).sum()  # and y is already kept
    assert saved.total == 2 * 8 * 32 * 4


def test_costs_are_a_frame() -> None:
    layer = nn.Linear(3 * 8 * 8, 100)

    def score(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        return layer(frames.flatten(2)).exp().mean(dim=(1, 2))

    found = cost(score, [layer], torch.rand(1, 4, 3, 8, 8), repeats=2)
    assert found.weights == pytest.approx((3 * 8 * 8 + 1) * 100 * 4 / 1e6)
    assert found.megabytes == pytest.approx((3 * 8 * 8 + 100) * 4 / 1e6)
    assert 0 <= found.seconds < 1
    row = {"judge": "mine", "seconds": 1.0, "megabytes": 2.0, "weights": 3.0}
    assert table([row, row | {"agreement": {"colour": 0.25}}]).splitlines() == [
        "judge  s/frame  MB/frame  weights MB  colour  shape  background  size  motion",
        "mine   1.0000   2.00      3.0",
        "mine   1.0000   2.00      3.0         0.25",
    ]


def test_full_sizes_are_those_of_the_published_records() -> None:
    from rewards.core.published import PUBLISHED, published

    for kind, architecture in FULL_SIZE.items():
        records = [one for one in PUBLISHED if one.kind == kind]
        towers = {one.architecture or published(one.tower or "").architecture for one in records}  # type: ignore[union-attr]
        assert architecture in towers
