"""The state of a training, and the checkpoint that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reward_tuning.lora.adapter import LoraSpec, attach
from reward_tuning.runs.checkpoints import complete_checkpoints, read_checkpoint
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.guards import reward_guards
from reward_tuning.runs.resumable import comparable, versions
from reward_tuning.runs.training_state import (
    Ema,
    Left,
    Trained,
    TrainingState,
    initial_state,
    roll_back,
    save_state,
    trained_adapter,
)
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.tiny_transformer import tiny_transformer


def recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(write_recipe(folder), [f"output={folder / 'run'}", *overrides])


def one_weight() -> Trained:
    weight = nn.Parameter(torch.ones(3))
    return Trained([weight], lambda: {"w": weight.detach()}, lambda state: None)


def test_the_moving_average_is_exported_where_it_is_on(tmp_path: Path) -> None:
    trained = one_weight()
    plain = initial_state(recipe(tmp_path).train, trained, [])
    averaged = initial_state(recipe(tmp_path, "train.ema_decay=0.5").train, trained, [])
    with torch.no_grad():
        trained.parameters[0].fill_(2.0)
    assert plain.exported(trained)["w"].tolist() == [2.0] * 3
    assert averaged.exported(trained)["w"].tolist() == [1.0] * 3


def test_a_checkpoint_keeps_everything_of_the_state(tmp_path: Path) -> None:
    of = recipe(tmp_path, "train.ema_decay=0.5", "train.keep_checkpoints=1")
    trained, folder = one_weight(), RunFolder(of.output)
    state = initial_state(of.train, trained, reward_guards(of.train))
    trained.parameters[0].grad = torch.ones(3)
    state.optimiser.step()
    state.step, state.position, state.idle_steps = 4, 12, 1
    state.bad_steps, state.bad_in_a_row = 2, 1
    state.reward_window = (0.1 + 0.2, 3)
    for _ in range(2):
        save_state(state, of.train, trained, of, {"hps": "sha256:1"}, folder)
        state.step += 1
    (path,) = complete_checkpoints(folder.checkpoints)
    kept = read_checkpoint(path)
    assert kept.reward_window == (0.1 + 0.2, 3)
    assert (kept.step, kept.position, kept.idle_steps) == (5, 12, 1)
    assert (kept.bad_steps, kept.bad_in_a_row, kept.ema_updates) == (2, 1, 0)
    assert torch.equal(kept.adapter["w"], trained.state()["w"])
    assert kept.ema is not None
    assert kept.ema["w"].tolist() == [1.0] * 3
    moments = kept.optimiser["state"][0]
    assert torch.allclose(moments["exp_avg"], torch.full((3,), 0.1))
    assert (kept.recipe, kept.versions) == (comparable(of), versions())
    assert kept.fingerprints == {"hps": "sha256:1"}


def test_a_rollback_takes_other_weights_and_forgets_the_rest(tmp_path: Path) -> None:
    train = recipe(tmp_path, "train.ema_decay=0.5").train
    weight = nn.Parameter(torch.ones(3))

    def load(tensors: Mapping[str, Tensor]) -> None:
        weight.data.copy_(tensors["w"])

    trained = Trained([weight], lambda: {"w": weight.detach()}, load)
    state = initial_state(train, trained, [])
    state.step, state.position = 4, 8
    weight.grad = torch.ones(3)
    state.optimiser.step()
    assert state.ema is not None
    state.ema.update(trained.state())
    roll_back(state, train, trained, {"w": torch.full((3,), 7.0)})
    assert weight.tolist() == [7.0] * 3
    assert state.exported(trained)["w"].tolist() == [7.0] * 3
    assert (state.ema.updates, state.step, state.position) == (0, 4, 8)
    assert state.optimiser.state_dict()["state"] == {}
    assert state.optimiser.param_groups[0]["params"][0] is weight


def test_an_adapter_is_trained_by_its_own_names() -> None:
    model = tiny_transformer()
    parameters = attach(model, LoraSpec(2, 2.0, "attention"), seed=1)
    trained = trained_adapter(model, parameters)
    assert trained.parameters is parameters
    changed = {name: torch.full_like(t, 0.5) for name, t in trained.state().items()}
    assert len(changed) == len(parameters)
    trained.load(changed)
    assert all(torch.equal(p, torch.full_like(p, 0.5)) for p in parameters)


def test_the_moving_average_has_its_closed_form() -> None:
    start = {"w": torch.tensor([8.0])}
    ema = Ema(start, 0.5)
    start["w"].zero_()  # the average has a copy
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
    expected = 8.0
    for n, value in enumerate(values):
        ema.update({"w": torch.tensor([value])})
        decay = min(0.5, (1 + n) / (10 + n))  # 0.1, 0.18, ..., 0.5 from n = 8 on
        expected = decay * expected + (1 - decay) * value
    assert ema.updates == 12
    assert ema.state["w"].item() == pytest.approx(expected, rel=1e-6)


def test_the_zero_start_of_the_moving_average_does_not_linger() -> None:
    """At a decay of 0.995 a plain average of 80 equal updates still has 67 % of its start."""
    ema = Ema({"w": torch.tensor([0.0])}, 0.995)
    for _ in range(80):
        ema.update({"w": torch.tensor([1.0])})
    assert ema.state["w"].item() > 0.99


def test_the_moving_average_continues_from_a_saved_one() -> None:
    whole, parts = (Ema({"w": torch.tensor([0.3])}, 0.9) for _ in range(2))
    updates = torch.randn(9, 1, generator=torch.Generator().manual_seed(0))
    for value in updates[:4]:
        whole.update({"w": value})
        parts.update({"w": value})
    resumed = Ema({"w": torch.tensor([0.3])}, 0.9)
    resumed.load({name: t.clone() for name, t in parts.state.items()}, parts.updates)
    for value in updates[4:]:
        whole.update({"w": value})
        resumed.update({"w": value})
    assert torch.equal(whole.state["w"], resumed.state["w"])


@pytest.mark.parametrize(
    ("left", "logged", "judged"),
    [
        (None, 4, 4),
        (Left({"step": 4}, samples=True), 3, 3),
        (Left({"step": 4}, samples=False, written=True), 4, 3),
    ],
)
def test_what_is_left_of_a_step_is_not_logged_or_judged(
    left: Left | None, logged: int, judged: int
) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    state = TrainingState(optimiser=optimiser, ema=None, step=4, left=left)
    assert (state.logged, state.judged) == (logged, judged)
