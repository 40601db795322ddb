"""The restated loop: the published script's golden gradients, and what else it does each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.generator import Generator
from base_model.sampling.sigmas import sigma_table
from benchmarks.published_loop import (
    SETTINGS,
    published_frames,
    published_gradient,
    published_latents,
    published_step,
)
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.progress import silent
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import draw_batch
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.step import reward_step
from reward_tuning.tuning.trainer import optimiser_step, start
from tests.goldens import load_golden, relative
from tests.reward_tuning.golden_model import (
    CASES,
    GRADIENTS,
    adapter_gradients,
    expected_gradients,
    golden_generator,
    golden_reward,
    golden_velocity,
    with_golden_lora,
)
from tests.reward_tuning.live_bytes import LiveBytes
from tests.reward_tuning.tiny_run import tiny_recipe, write_world
from tests.reward_tuning.toy_flow import relative_error

NOISE = load_golden("sampling_7b_style").tensors["in.noise"]
SIGMAS = sigma_table(6)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return with_golden_lora(golden_generator(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("case", CASES)
def test_its_gradient_is_the_published_scripts(generator: Generator, case: str) -> None:
    active, nested, decoded = CASES[case]
    generator.transformer.zero_grad()
    latents = published_latents(
        golden_velocity(generator, SIGMAS, "joint"),
        NOISE,
        SIGMAS,
        active,
        stop_input_gradient=nested == 0.0,
    )
    assert relative(latents, GRADIENTS["out.latents_with_lora"]) <= 1e-5
    reward = golden_reward(published_frames(generator, latents, decoded))
    name = "out.reward_3_latents" if case == "tail3_all_frames" else "out.reward_1_latent"
    assert reward.item() == pytest.approx(float(GRADIENTS[name]), rel=1e-5)
    reward.backward()
    got, expected = adapter_gradients(generator), expected_gradients(case)
    assert relative_error(got, expected) <= 1e-5
    for key, tensor in expected.items():
        assert relative(got[key], tensor) <= 1e-4, key


def test_it_holds_the_graphs_of_all_active_steps_at_once(generator: Generator) -> None:
    velocity = golden_velocity(generator, SIGMAS, "joint")
    peaks = {}
    for k in (1, 4):
        with LiveBytes(generator.transformer.parameters()) as memory:
            published_latents(velocity, NOISE, SIGMAS, range(6 - k, 6))
        peaks[k] = memory.peak
    assert peaks[4] > 3 * peaks[1]


def test_it_runs_every_step_with_gradient_mode_on() -> None:
    scale = torch.ones((), requires_grad=True)
    with_graph = []

    def velocity(x: Tensor, i: int) -> Tensor:
        v = scale * x
        with_graph.append(v.requires_grad)
        return v

    latents = published_latents(velocity, torch.ones(1), SIGMAS, {5})
    assert with_graph == [True] * 6
    (gradient,) = torch.autograd.grad(latents, scale)
    states = torch.cumprod(1 + SIGMAS.diff(), dim=0)  # v = x, so each step multiplies by 1 + d
    assert float(gradient) == pytest.approx(float(SIGMAS[6] - SIGMAS[5]) * float(states[4]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


def begun(world: Path, method: str, *overrides: str) -> tuple[Recipe, RunParts]:
    """A tiny run with an adapter that does something."""
    recipe = tiny_recipe(
        world, world / "run", f"method={{kind: easyanimate, {method}}}", *SETTINGS, *overrides
    )
    parts = load_parts(recipe, torch.device("cpu"), 100, silent)
    draw = torch.Generator().manual_seed(0)
    for parameter in parts.parameters:
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw)
    return recipe, parts


def gradients(parts: RunParts) -> dict[str, Tensor]:
    found = {}
    for i, parameter in enumerate(parts.parameters):
        assert parameter.grad is not None
        found[str(i)] = parameter.grad
        parameter.grad = None
    return found


@pytest.mark.parametrize(
    "method",
    [
        "strategy: last, active_steps: 1",
        "strategy: tail, active_steps: 3",
        "strategy: uniform, active_steps: 2",
        "strategy: tail, active_steps: 2, stop_input_gradient: true",
    ],
)
def test_one_batch_is_what_the_engine_makes_of_the_same_plan(world: Path, method: str) -> None:
    """Decoder, judge and a batch of two included."""
    recipe, parts = begun(world, method)
    state, accelerator = start(recipe, parts), Accelerator()
    batch = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, 0)
    (judge,) = parts.judges
    assert isinstance(judge, FramedJudge)
    loss = published_gradient(parts.sampler, judge, batch, parts.sigmas)
    published = gradients(parts)
    report = reward_step(
        parts.sampler,
        parts.judges,
        batch,
        parts.sigmas,
        parameters=parts.parameters,
    )
    ours = gradients(parts)
    assert loss == pytest.approx(1.0 + report.loss, rel=1e-5)
    assert relative_error(ours, published) <= 2e-5
    assert len(batch.prompts) == 2


def test_a_step_clips_updates_and_moves_on_as_the_trainer_does(world: Path) -> None:
    """Same batch, clipping and optimiser settings: the same adapter after two steps of each."""
    after = []
    for published in (True, False):
        recipe, parts = begun(world, "strategy: tail, active_steps: 2", "train.learning_rate=0.01")
        assert recipe.train.max_grad_norm == 0.3
        tight = recipe.train.model_copy(update={"max_grad_norm": 1e-3, "adam_eps": 1e-2})
        recipe = recipe.model_copy(update={"train": tight})
        state, accelerator = start(recipe, parts), Accelerator()
        rows: list[dict[str, Any]] = []
        for _ in range(2):
            step = published_step if published else optimiser_step
            rows.append(dict(step(recipe, parts, state, accelerator)))
        assert (state.step, state.position) == (2, 4)
        assert all(row["grad_norm"] > 1e-3 for row in rows)  # so that clipping shows
        after.append((rows, [parameter.detach().clone() for parameter in parts.parameters]))
    (published_rows, published), (rows, ours) = after
    for mine, theirs in zip(rows, published_rows, strict=True):
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    for mine, theirs in zip(ours, published, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)
