"""Draws of a step: the judged part of a clip by each policy, and the replayed clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import (
    Batch,
    Policy,
    decoded_frames,
    draw_batch,
    draw_replay,
    frames_of,
)
from reward_tuning.tuning.sigma_tables import training_sigmas
from tests.reward_tuning.recipes_for_tests import write_recipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_latents_frames() -> None:
    assert [list(frames_of(latent)) for latent in range(3)] == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_all_and_first() -> None:
    assert decoded_frames("all", 99, 9, seeded()) == tuple(range(9))
    assert decoded_frames("first", 1, 9, seeded()) == (0,)
    assert decoded_frames("first", 2, 49, seeded()) == (0, 1, 2, 3, 4)


def test_a_window_starts_anywhere_alike() -> None:
    draw = seeded()
    found = Counter(decoded_frames("random-window", 2, 17, draw)[0] for _ in range(1000))
    assert set(found) == {0, 1, 5, 9}  # four places of two latents among five
    assert all(190 <= count <= 310 for count in found.values())
    assert decoded_frames("random-window", 5, 17, draw) == tuple(range(17))


def test_strata_have_one_latent_each() -> None:
    draw = seeded()
    seen: set[int] = set()
    for _ in range(300):
        frames = decoded_frames("stratified", 3, 49, draw)  # 13 latents: 4, 4 and 5
        latents = [latent for latent in range(13) if set(frames_of(latent)) <= set(frames)]
        assert [latent // 4 if latent < 12 else 2 for latent in latents] == [0, 1, 2]
        assert len(frames) == sum(len(frames_of(latent)) for latent in latents)
        seen |= set(latents)
    assert seen == set(range(13))


@given(
    policy=st.sampled_from(get_args(Policy)),
    k=st.integers(0, 20),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_frames_are_increasing_and_of_whole_latents(
    policy: Policy, k: int, data: st.DataObject, seed: int
) -> None:
    latents = data.draw(st.integers(1, k + 1))
    frames = decoded_frames(policy, latents, 4 * k + 1, seeded(seed))
    assert list(frames) == sorted(set(frames))
    assert 0 <= frames[0] <= frames[-1] <= 4 * k
    whole = {f for n in range(k + 1) if frames_of(n)[0] in frames for f in frames_of(n)}
    assert set(frames) == whole
    if policy != "all":
        assert sum(frames_of(n)[0] in frames for n in range(k + 1)) == latents


@pytest.mark.parametrize("policy", ["first", "random-window", "stratified"])
def test_more_latents_than_there_are(policy: Policy) -> None:
    with pytest.raises(TuningError, match="9 frames has 3 latents"):
        decoded_frames(policy, 4, 9, seeded())


# --- replay


def test_batches_and_processes_make_one_draw() -> None:
    whole = draw_replay(7, 3, 8, slice(0, 8), 5)
    parts = [draw_replay(7, 3, 8, slice(i, i + 2), 5) for i in range(0, 8, 2)]
    assert sum((part.clips for part in parts), ()) == whole.clips
    assert sum((part.noise_seeds for part in parts), ()) == whole.noise_seeds
    assert torch.equal(torch.cat([part.sigmas for part in parts]), whole.sigmas)


def test_every_clip_comes_before_any_comes_again() -> None:
    drawn = [i for turn in range(5) for i in draw_replay(7, turn, 4, slice(0, 4), 10).clips]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    seeds = [s for turn in range(5) for s in draw_replay(7, turn, 4, slice(0, 4), 10).noise_seeds]
    assert len(set(seeds)) == 20
    assert draw_replay(8, 0, 4, slice(0, 4), 10).noise_seeds != tuple(seeds[:4])


def test_noise_levels_are_those_of_the_training() -> None:
    """One in each equal part of the shifted time: e s / (e s + 1 - s) undone, u = k/8 ... k/8."""
    sigmas = draw_replay(7, 0, 8, slice(0, 8), 5).sigmas.double()
    time = sigmas / (sigmas + torch.e * (1 - sigmas))
    assert sorted((time * 8).floor().int().tolist()) == list(range(8))
    assert not torch.equal(sigmas, draw_replay(7, 1, 8, slice(0, 8), 5).sigmas.double())


def test_ranks_share_the_draws_of_one_larger_batch(tmp_path: Path) -> None:
    settings = ["train.gradient_accumulation=2", "train.batch_size=4"]
    whole = load_recipe(write_recipe(tmp_path / "recipe"), settings)
    halves = load_recipe(tmp_path / "recipe" / "recipe.yaml", ["train.batch_size=2", settings[0]])
    stream = PromptStream([Prompt(str(i), str(i)) for i in range(9)], seed=1)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    state = TrainingState(optimiser=optimiser, ema=None, guards=(), step=3, position=24)
    sigmas = training_sigmas(whole)

    def drawn(recipe: Recipe, rank: int, ranks: int, number: int) -> Batch:
        accelerator: Any = SimpleNamespace(num_processes=ranks, process_index=rank)
        return draw_batch(recipe, stream, sigmas, state, accelerator, number)

    for number in range(2):
        one = drawn(whole, 0, 1, number)
        parts = [drawn(halves, rank, 2, number) for rank in range(2)]
        assert [*parts[0].noise_seeds, *parts[1].noise_seeds] == list(one.noise_seeds)
        assert [*parts[0].prompts, *parts[1].prompts] == list(one.prompts)
        assert parts[0].plan == parts[1].plan == one.plan
        assert {part.common_seed for part in parts} == {one.common_seed} == {one.noise_seeds[0]}
        assert parts[1].common_seed != parts[1].noise_seeds[0]
