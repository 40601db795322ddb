"""Levels and noise of matched clips: stratified, repeatable, shared by a prompt's clips."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from base_model.sampling.sigmas import shift_time
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.matching_draws import Levels, draw_levels, stratified_levels
from tests.reward_tuning.recipes_for_tests import recipe_data


def drawn(
    rank: int = 0, of: int = 1, number: int = 0, update: int = 0, step: int = 1, **method: Any
) -> Levels:
    recipe = Recipe.model_validate(
        recipe_data(
            method={"kind": "awm", "draws": 3, **method},
            train__batch_size=4,
            train__clips_per_prompt=2,
            train__gradient_accumulation=2 // of,
        )
    )
    ranks: Any = SimpleNamespace(process_index=rank, num_processes=of)
    return draw_levels(recipe, step, ranks, number, update)


def test_each_clips_levels_lie_one_in_each_part_and_all_together_in_every_stratum() -> None:
    levels = stratified_levels(torch.Generator().manual_seed(0), 8, 3)
    edges = shift_time(torch.linspace(0, 1, 25), 1.0)
    for draw, row in enumerate(levels):
        places = [int((edges <= level).sum()) - 1 for level in row]
        assert sorted(places) == list(range(8 * draw, 8 * draw + 8))
        assert places != sorted(places)


def test_levels_of_a_range_have_the_density_of_the_training_within_it() -> None:
    draw = torch.Generator().manual_seed(0)
    levels = stratified_levels(draw, 1000, 2, (0.85, 0.95))
    assert 0.85 <= float(levels.min()) < float(levels.max()) <= 0.95
    whole = shift_time(torch.linspace(1e-3, 1, 200_001), 1.0)
    within = whole[(whole > 0.85) & (whole < 0.95)]
    for quantile in (0.25, 0.5, 0.75):
        expected = float(within.quantile(quantile))
        assert float(levels.quantile(quantile)) == pytest.approx(expected, abs=1e-3)
    assert float(levels[0].max()) < float(levels[1].min())


def test_clips_of_a_prompt_share_noise_and_levels() -> None:
    levels = drawn()
    assert levels.sigmas.shape == (3, 4)
    assert torch.equal(levels.sigmas[:, ::2], levels.sigmas[:, 1::2])
    assert len({seed for row in levels.noise_seeds for seed in row}) == 6
    for row in levels.noise_seeds:
        assert row[0] == row[1] != row[2] == row[3]


def test_clips_may_have_their_own() -> None:
    levels = drawn(shared_noise=False)
    assert len(levels.sigmas.unique()) == 12
    assert len({seed for row in levels.noise_seeds for seed in row}) == 12


@pytest.mark.parametrize("shared", [True, False])
def test_two_processes_draw_what_two_batches_draw(shared: bool) -> None:
    for part in range(2):
        one, other = drawn(number=part, shared_noise=shared), drawn(part, 2, shared_noise=shared)
        assert torch.equal(one.sigmas, other.sigmas)
        assert one.noise_seeds == other.noise_seeds
    assert not torch.equal(drawn().sigmas, drawn(number=1).sigmas)


def test_updates_and_steps_have_draws_of_their_own() -> None:
    every = [drawn(), drawn(update=1), drawn(step=2), drawn(number=1)]
    assert torch.equal(every[0].sigmas, drawn().sigmas)
    assert len({float(of.sigmas[0, 0]) for of in every}) == 4
    assert len({of.noise_seeds for of in every}) == 4
