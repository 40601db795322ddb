import math
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.generator import Condition
from base_model.sampling.sigmas import sigma_table
from base_model.training.flow_matching import TEXT_DROPOUT, draw_sigmas, flow_matching_loss

LATENTS = torch.randn(32, 16, 3, 2, 2, generator=torch.Generator().manual_seed(5))
TEXT = torch.randn(32, 4, 6, generator=torch.Generator().manual_seed(6))


class Predictor:
    """Knows the clean latents: x_sigma = (1 - sigma) x + sigma eps gives eps - x exactly."""

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = torch.tensor(bias, requires_grad=True)
        self.seen: list[tuple[Tensor, Tensor, Condition]] = []

    def velocity(self, noisy: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        self.seen.append((noisy, sigma, condition))
        s = sigma[:, None, None, None, None]
        noise = (noisy - (1 - s) * LATENTS) / s
        return noise - LATENTS + self.bias


def loss_of(model: Any, seed: int = 0) -> tuple[Tensor, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    return flow_matching_loss(model, LATENTS, Condition(TEXT), generator, mu=1.0)


def test_a_perfect_predictor_has_no_loss() -> None:
    loss, numbers = loss_of(Predictor())
    assert loss.item() < 1e-8
    assert max(numbers.values()) < 1e-8


def test_the_loss_is_the_mean_square_of_the_error() -> None:
    model = Predictor(0.3)
    loss, numbers = loss_of(model)
    assert loss.item() == pytest.approx(0.09, rel=1e-4)
    assert numbers == pytest.approx({"error_low": 0.09, "error_high": 0.09}, rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, model.bias)
    assert gradient.item() == pytest.approx(0.6, rel=1e-4)


def test_a_predictor_of_nothing_has_the_variance_of_the_velocity() -> None:
    """eps - x with eps independent of x: mean square 1 + mean square of x, +- 3 %."""

    class Zero:
        def velocity(self, noisy: Tensor, _sigma: Tensor, _condition: Condition) -> Tensor:
            return torch.zeros_like(noisy)

    loss, _ = loss_of(Zero())
    # 6144 terms with a standard deviation of 2 sqrt 2 each: 0.036.
    assert loss.item() == pytest.approx(1 + LATENTS.square().mean().item(), abs=0.11)


def test_low_and_high_noise_levels_are_told_apart() -> None:
    class WrongWhenClean(Predictor):
        def velocity(self, noisy: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            wrong = (sigma < 0.5).float()[:, None, None, None, None]
            return super().velocity(noisy, sigma, condition) + wrong

    _, numbers = loss_of(WrongWhenClean())
    assert numbers["error_low"] == pytest.approx(1.0, rel=1e-4)
    assert numbers["error_high"] < 1e-8


def test_the_model_sees_text_and_fresh_noise_of_each_sample() -> None:
    model = Predictor()
    loss_of(model)
    loss_of(model, seed=0)
    loss_of(model, seed=1)
    (first, sigma, condition), (again, *_), (other, *_) = model.seen
    assert torch.equal(condition.text, TEXT)
    assert sigma.shape == (32,)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    s = sigma[:, None, None, None, None]
    noise = (first - (1 - s) * LATENTS) / s
    assert noise.mean().item() == pytest.approx(0.0, abs=0.05)
    assert noise.std().item() == pytest.approx(1.0, abs=0.05)
    between = torch.corrcoef(noise.flatten(1)) - torch.eye(32)
    assert between.abs().max().item() < 0.35  # 192 numbers each: deviation 0.07


@pytest.mark.parametrize("mu", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("count", [1, 7, 32])
def test_sigmas_lie_inside_zero_and_one(count: int, mu: float) -> None:
    for seed in range(50):
        sigma = draw_sigmas(count, torch.Generator().manual_seed(seed), mu=mu)
        assert sigma.shape == (count,)
        assert sigma.dtype == torch.float32
        assert 0 < sigma.min() <= sigma.max() < 1


def times(sigma: Tensor, mu: float) -> Tensor:
    """The inverse of sigma = e^mu / (e^mu + 1/t - 1)."""
    return sigma / (sigma + math.exp(mu) * (1 - sigma))


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_sigmas_are_stratified(mu: float) -> None:
    """Sorted, the i-th of n comes from a time between i/n and (i + 1)/n."""
    for seed in range(20):
        sigma = draw_sigmas(16, torch.Generator().manual_seed(seed), mu=mu)
        time = times(sigma, mu).sort().values
        strata = torch.arange(16) / 16
        assert (time > strata - 1e-3).all()
        assert (time < strata + 1 / 16 + 1e-3).all()
        assert not torch.equal(sigma, sigma.sort().values)  # shuffled over the batch


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_sigmas_have_the_density_of_the_shift(mu: float) -> None:
    """Uniform in time: a share q of the samples lies under e^mu / (e^mu + 1/q - 1)."""
    sigma = draw_sigmas(20000, torch.Generator().manual_seed(0), mu=mu)
    shares = [0.1, 0.25, 0.5, 0.75, 0.9]
    expected = [1 / (1 + (1 / q - 1) / math.exp(mu)) for q in shares]
    assert sigma.quantile(torch.tensor(shares)).tolist() == pytest.approx(expected, abs=1e-3)
    if mu == 1.0:  # where a prompt is decided; a logit-normal density gives it 1.4 %
        assert (sigma > 0.9).float().mean().item() == pytest.approx(0.232, abs=0.002)


def test_the_density_is_the_samplers() -> None:
    """As many training samples between two of a sampler's sigmas as between any other two."""
    table = sigma_table(11)[:-1].flip(0)
    sigma = draw_sigmas(20000, torch.Generator().manual_seed(1), mu=1.0)
    counts = torch.histogram(sigma, table).hist
    assert (counts / 20000).tolist() == pytest.approx([0.1] * 10, abs=2e-3)


def test_every_place_in_the_batch_gets_every_level() -> None:
    """Else a cached order of clips would tie a clip to a noise level."""
    first = torch.stack(
        [draw_sigmas(8, torch.Generator().manual_seed(i), mu=0.0)[0] for i in range(200)]
    )
    assert first.mean().item() == pytest.approx(0.5, abs=0.06)
    assert first.std().item() == pytest.approx(12**-0.5, abs=0.03)  # of the uniform density


def test_one_prompt_in_ten_is_dropped() -> None:
    assert TEXT_DROPOUT == 0.1  # the published value
