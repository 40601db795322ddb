"""Weighted sums of adapters: their products, the grid, and what decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.evidence.mixing import (
    Mix,
    base_of_mix,
    best_side,
    checked_weights,
    grid_of_mixes,
    mixed,
    require_untrained,
    write_mixes,
)
from reward_tuning.files.safetensors_header import safetensors_metadata
from reward_tuning.lora.adapter import LoraWeights

PATH = "transformer_blocks.0.attn1.to_q"


def adapter(seed: int, rank: int = 2, alpha: float = 4.0) -> LoraWeights:
    draw = torch.Generator().manual_seed(seed)
    state = {PATH: (torch.randn(rank, 6, generator=draw), torch.randn(5, rank, generator=draw))}
    return LoraWeights(rank, alpha, state)


def product(weights: LoraWeights) -> torch.Tensor:
    down, up = weights.state[PATH]
    return weights.strength * up @ down


def test_mix_is_the_weighted_sum_of_the_products() -> None:
    one, two = adapter(1), adapter(2, rank=3, alpha=1.0)
    total, cost = mixed([one, two], Mix((0.7, -0.2)), None)
    expected = 0.7 * product(one) - 0.2 * product(two)
    assert torch.allclose(product(total), expected, atol=1e-6)
    assert (total.rank, cost) == (5, "")


def test_adapter_of_weight_zero_takes_no_rank() -> None:
    total, _ = mixed([adapter(1), adapter(2)], Mix((0.0, 1.0)), None)
    assert total.rank == 2
    assert torch.allclose(product(total), product(adapter(2)), atol=1e-6)


def test_smaller_rank_is_the_best_approximation_and_says_its_error() -> None:
    both = [adapter(1), adapter(2)]
    small, cost = mixed(both, Mix((0.5, 0.5)), 1)
    exact = 0.5 * product(both[0]) + 0.5 * product(both[1])
    error = torch.linalg.matrix_norm(product(small) - exact)
    assert torch.allclose(error, torch.linalg.svdvals(exact)[1:].square().sum().sqrt(), atol=1e-5)
    assert f"{float(error / torch.linalg.matrix_norm(exact)) * 100:.0f}"[:1] in cost
    with pytest.raises(TuningError, match="the exact sum has rank 4"):
        mixed(both, Mix((0.5, 0.5)), 4)


def test_grid_sums_to_one_without_the_adapters_themselves() -> None:
    assert [one.weights for one in grid_of_mixes(2, 4)] == [(0.25, 0.75), (0.5, 0.5), (0.75, 0.25)]
    three = [one.weights for one in grid_of_mixes(3, 3)]
    assert len(set(three)) == 7  # 10 points of the triangle without its corners
    assert all(abs(sum(one) - 1) < 1e-12 for one in three)
    assert Mix((0.25, 0.75)).name == "mix-0.25-0.75"


@pytest.mark.parametrize(("adapters", "parts"), [(2, 1), (2, 100), (5, 6)])
def test_grid_that_is_too_coarse_or_too_fine(adapters: int, parts: int) -> None:
    with pytest.raises(TuningError, match="--grid"):
        grid_of_mixes(adapters, parts)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "1 numbers for 2"),
        ([1.0, float("nan")], "got nan"),
        ([1.0, 11.0], "-10 to 10"),
        ([0.0, 0.0], "all of them are 0"),
    ],
)
def test_weights_that_are_refused(weights: list[float], said: str) -> None:
    with pytest.raises(TuningError, match=said):
        checked_weights(weights, 2)


def test_files_hold_the_mix_and_name_it(tmp_path: Path) -> None:
    paths = write_mixes(
        [adapter(1), adapter(2)], [Mix((0.25, 0.75))], tmp_path / "mixes", None, "tiny"
    )
    assert [path.name for path in paths] == ["mix-0.25-0.75.safetensors"]
    assert safetensors_metadata(paths[0])["reward_tuning.mix"] == "0.25, 0.75"


def test_one_source_and_unknown_generator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="1 LoRA to mix"):
        base_of_mix([tmp_path], None)
    with pytest.raises(TuningError, match="--checkpoint tiny"):
        base_of_mix([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], None)


@pytest.mark.parametrize("primary", ["hps", None])
def test_grid_needs_a_judge_that_was_not_trained_on(primary: str | None) -> None:
    with pytest.raises(TuningError, match="--primary"):
        require_untrained(primary, ["hps"])
    require_untrained("clip", ["hps"])


def side(strength: float, steps: int, clip: float, hps: float) -> dict[str, object]:
    means = {"clip": clip, "hps": hps}
    return {"strength": strength, "steps": steps, "guidance_scale": 5.0, "means": means}


def test_best_side_is_by_the_measure_that_decides_with_the_main_sampling() -> None:
    sides = [
        side(0.0, 16, 9.0, 0.0),
        side(1.0, 16, 0.5, 9.0),
        side(1.0, 16, 0.7, 0.0),
        side(1.0, 8, 9.0, 0.0),
    ]
    assert best_side({"primary": "clip", "sides": sides}) == 2
    assert best_side({"primary": "hps", "sides": sides}) == 1
