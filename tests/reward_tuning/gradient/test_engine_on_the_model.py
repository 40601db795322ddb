"""The engine on the real transformer: float64 equality, memory, the velocity anchor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from base_model.generator import Generator
from base_model.sampling.guidance import NegativeBranch
from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.kept import VelocityFn
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.plan import Plan, RewardInput, chain_weights
from reward_tuning.lora.adapter import scaled
from tests.goldens import load_golden
from tests.reward_tuning.golden_model import golden_generator, golden_velocity, with_golden_lora
from tests.reward_tuning.live_bytes import LiveBytes
from tests.reward_tuning.toy_flow import chain_gradients, relative_error

NOISE = load_golden("sampling_7b_style").tensors["in.noise"]
STEPS = 4


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    generator = with_golden_lora(golden_generator(tmp_path_factory.mktemp("golden"), torch.float64))
    generator.transformer.to(torch.float64)  # the adapter too
    return generator


class Flow(nn.Module):
    """The guided velocity as a module, so that the reference can swap its parameters."""

    def __init__(self, generator: Generator, velocity: VelocityFn) -> None:
        super().__init__()
        self.transformer = generator.transformer
        self.velocity = velocity

    def forward(self, x: Tensor, i: int) -> Tensor:
        return self.velocity(x, i)


def plan(
    active: tuple[int, ...], stop: int | None = None, nested: float = 1.0, rescale: float = 0.0
) -> Plan:
    reward_input: RewardInput = "end" if stop is None else "posterior_mean"
    weights = chain_weights(sigma_table(STEPS).double(), stop, reward_input)
    stop = STEPS if stop is None else stop
    return Plan(STEPS, stop, reward_input, active, weights, nested, rescale)


PLANS = {
    "draft_2": plan((2, 3)),
    "whole_chain": plan((0, 1, 2, 3), rescale=1.0),
    "drtune_early": plan((0, 2), stop=2, nested=0.0),
    "posterior_mean_damped": plan((0, 1), stop=2, nested=0.5),
}


def loss_fn(x: Tensor) -> Tensor:
    return (x.tanh() * torch.linspace(-1, 1, 8, dtype=x.dtype)).mean()


@pytest.mark.parametrize("negative", ["joint", "detached"])
@pytest.mark.parametrize("name", PLANS)
def test_equals_autograd_through_the_whole_chain(
    generator: Generator, name: str, negative: NegativeBranch
) -> None:
    sigmas = sigma_table(STEPS).double()
    velocity = golden_velocity(generator, sigmas, negative)
    generator.transformer.zero_grad()
    states = rollout(velocity, NOISE.double(), sigmas, PLANS[name].stop)
    _, g = reward_gradient(loss_fn, read_reward_input(velocity, states, PLANS[name]))
    adjoint_sweep(velocity, states, sigmas, PLANS[name], g)
    flow = Flow(generator, velocity)
    got = {n: p.grad for n, p in flow.named_parameters() if p.grad is not None}
    _, expected = chain_gradients(flow, NOISE.double(), sigmas, PLANS[name], loss_fn=loss_fn)
    assert len(expected) > 50
    assert relative_error(got, expected) <= 1e-10


@pytest.mark.parametrize("nested", [0.0, 1.0])
def test_peak_memory_does_not_grow_with_the_number_of_active_steps(
    generator: Generator, nested: float
) -> None:
    """Bytes held for backward at K = 25 against K = 1, parameters not counted."""
    sigmas = sigma_table(25).double()
    velocity = golden_velocity(generator, sigmas, "joint")
    states = rollout(velocity, NOISE.double(), sigmas, 25)
    _, g = reward_gradient(loss_fn, states[-1])
    peaks = {}
    for k in (1, 25):
        many = Plan(25, 25, "end", tuple(range(25 - k, 25)), chain_weights(sigmas), nested)
        generator.transformer.zero_grad()
        with LiveBytes(generator.transformer.parameters()) as memory:
            adjoint_sweep(velocity, states, sigmas, many, g)
        assert not memory.live  # the last graph is gone as well
        peaks[k] = memory.peak
    assert peaks[1] > 1e6
    assert peaks[25] <= 1.05 * peaks[1]


def test_the_memory_measure_sees_a_chain_that_grows(generator: Generator) -> None:
    sigmas = sigma_table(25).double()
    velocity = golden_velocity(generator, sigmas, "joint")
    peaks = {}
    for k in (1, 4):
        with LiveBytes(generator.transformer.parameters()) as memory:
            x = NOISE.double()
            for i in range(k):
                x = x + 0.04 * velocity(x, i)
        peaks[k] = memory.peak
    assert peaks[4] > 3 * peaks[1]


def test_velocity_anchor_to_the_base_uses_the_same_rerun(generator: Generator) -> None:
    """beta |v - v_base|^2 by the hook, against the same sum written out and differentiated."""
    sigmas = sigma_table(STEPS).double()
    velocity = golden_velocity(generator, sigmas, "detached")
    states = rollout(velocity, NOISE.double(), sigmas, STEPS)
    _, g = reward_gradient(loss_fn, states[-1])
    drtune = plan((0, 2), nested=0.0)
    beta = 0.01

    def base(x: Tensor, i: int) -> Tensor:
        with torch.no_grad(), scaled(generator.transformer, 0.0):
            return velocity(x, i)

    def anchor(i: int, x: Tensor, v: Tensor) -> Tensor:
        return beta * (v - base(x, i)).square().mean()

    generator.transformer.zero_grad()
    report = adjoint_sweep(velocity, states, sigmas, drtune, g, step_loss=anchor)
    named = dict(generator.transformer.named_parameters())
    got = {n: p.grad.clone() for n, p in named.items() if p.grad is not None}
    trainable = {n: p for n, p in named.items() if p.requires_grad}
    assert got.keys() == trainable.keys()

    total = torch.zeros((), dtype=torch.float64)
    anchors = 0.0
    for i in drtune.active:
        v = velocity(states[i], i)
        penalty = beta * (v - base(states[i], i)).square().mean()
        anchors += float(penalty.detach())
        total = total + (drtune.weights[i] * g * v).sum() + penalty
    gradients = torch.autograd.grad(total, list(trainable.values()))
    assert relative_error(got, dict(zip(trainable, gradients, strict=True))) <= 1e-10
    assert report.step_loss == pytest.approx(anchors, rel=1e-10)
    assert anchors > 0


@pytest.mark.parametrize("name", ["drtune_early", "whole_chain"])
def test_block_checkpointing_changes_memory_and_not_the_gradient(
    generator: Generator, name: str
) -> None:
    """Also with the base run between a step's forward and its recomputation."""
    sigmas = sigma_table(STEPS).double()
    velocity = golden_velocity(generator, sigmas, "detached")
    states = rollout(velocity, NOISE.double(), sigmas, PLANS[name].stop)
    _, g = reward_gradient(loss_fn, read_reward_input(velocity, states, PLANS[name]))

    def anchor(i: int, x: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad(), scaled(generator.transformer, 0.0):
            base = velocity(x, i)
        return 0.01 * (v - base).square().mean()

    gradients, peaks = [], []
    for checkpointed in (False, True):
        if checkpointed:
            generator.transformer.enable_gradient_checkpointing()
        generator.transformer.zero_grad()
        with LiveBytes(generator.transformer.parameters()) as memory:
            adjoint_sweep(velocity, states, sigmas, PLANS[name], g, step_loss=anchor)
        peaks.append(memory.peak)
        named = generator.transformer.named_parameters()
        gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})
    generator.transformer.disable_gradient_checkpointing()
    assert relative_error(gradients[1], gradients[0]) <= 1e-12
    assert peaks[1] < 0.6 * peaks[0]
