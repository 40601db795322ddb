"""Taylor prediction of the transformer's output, beside diffusers' TaylorSeer and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.sampling.taylor import TaylorCache, prediction_weights
from reward_tuning.schema.cache_kinds import Taylor
from tests.reward_tuning import double_sampler
from tests.reward_tuning.cheap_rollouts import exact_states, walked
from tests.reward_tuning.double_sampler import PROMPTS

sampler = double_sampler.sampler
ONE_FULL = CheapSteps(Taylor(interval=9, warm_up=1, order=0))  # of four steps 0 and 2


class Field(nn.Module):
    """A velocity that is a polynomial of the noise level, and remembers where it was called."""

    def __init__(self, *coefficients: float) -> None:
        super().__init__()
        self.coefficients = coefficients
        self.called: list[float] = []

    def forward(self, hidden_states: Tensor, timestep: Tensor) -> tuple[Tensor]:
        sigma = float(timestep[0]) / 1000
        self.called.append(round(sigma, 3))
        value = sum(c * sigma**k for k, c in enumerate(self.coefficients))
        return (torch.full_like(hidden_states, value),)


def outputs(field: Field, plan: Taylor, sigmas: list[float], **which: bool) -> list[float]:
    found = []
    with TaylorCache(field, plan, len(sigmas)) as cache:
        for sigma in sigmas:
            with cache.call(**which):
                v = field(torch.zeros(1, 1, 1, 1, 1), torch.tensor([1000 * sigma]))[0]
            found.append(float(v))
    assert cache.full_calls == len(field.called)
    return found


LEVELS = [1.0, 0.9, 0.7, 0.6, 0.55, 0.3, 0.1, 0.05]


@pytest.mark.parametrize(
    ("interval", "warm_up", "full"),
    [
        (2, 4, [0, 1, 2, 3, 4, 6]),
        (2, 3, [0, 1, 2, 4, 6]),
        (3, 1, [0, 1, 3, 6]),  # a line needs two points
        (1, 1, list(range(8))),
    ],
)
def test_the_plan(interval: int, warm_up: int, full: list[int]) -> None:
    field = Field(1.0)
    outputs(field, Taylor(interval=interval, warm_up=warm_up), LEVELS)
    assert field.called == [LEVELS[i] for i in full]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_a_polynomial_of_the_order_is_predicted_exactly(order: int) -> None:
    """In the noise level, though its steps are uneven; the next power is not."""
    plan = Taylor(interval=3, warm_up=5, order=order)  # step 5 is the first that is predicted
    found = outputs(Field(*[0.5, -2.0, 3.0, 1.0][: order + 1]), plan, LEVELS)
    exact = [
        sum(c * s**k for k, c in enumerate([0.5, -2.0, 3.0, 1.0][: order + 1])) for s in LEVELS
    ]
    assert found == pytest.approx(exact, abs=1e-5)
    more = [0.0] * (order + 1) + [1.0]
    found = outputs(Field(*more), plan, LEVELS)
    assert found[5] != pytest.approx(LEVELS[5] ** (order + 1), abs=1e-3)


def test_a_step_in_full_on_request() -> None:
    field = Field(1.0)
    outputs(field, Taylor(interval=9, warm_up=1), LEVELS, full=True)
    assert field.called == LEVELS


def test_the_weights_of_two_nodes() -> None:
    """On the line through (1, a) and (0.8, b) the value at 0.7 is 1.5 b - 0.5 a."""
    assert prediction_weights([1.0, 0.8], 0.7) == pytest.approx([-0.5, 1.5])


def test_it_is_taylorseer_lite_of_diffusers_where_the_levels_are_even(sampler: ClipSampler) -> None:
    """Its differences count steps; with even noise levels both are the same series."""
    diffusers = pytest.importorskip("diffusers.hooks.taylorseer_cache", reason="diffusers too old")
    from diffusers.hooks import HookRegistry

    transformer: Any = sampler.generator.transformer
    sigmas = torch.linspace(1.0, 0.1, 10, dtype=torch.float64)

    def sampled(around: Any) -> Tensor:
        condition = sampler.condition([prompt.text for prompt in PROMPTS])
        start = sampler.noise([7, 8])
        if around is None:
            return euler_sample(sampler.generator, condition, start, sigmas, Guidance(3.0))
        return euler_sample(
            sampler.generator, condition, start, sigmas, Guidance(3.0), around_step=around
        )

    with TaylorCache(transformer, Taylor(), 9) as cache:
        ours = sampled(cache.call)
    assert cache.full_calls == 6  # of 9: 0, 1, 2, 3, 5, 7
    config = diffusers.TaylorSeerCacheConfig(
        cache_interval=2,
        disable_cache_before_step=4,
        max_order=1,
        taylor_factors_dtype=torch.float32,
        use_lite_mode=True,
    )
    diffusers.apply_taylorseer_cache(transformer, config)
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    from diffusers.models.cache_utils import CacheMixin

    try:
        with CacheMixin.cache_context(transformer, "both"):
            theirs = sampled(None)
    finally:
        registry.remove_hook(diffusers._TAYLORSEER_CACHE_HOOK, recurse=True)
        for module in transformer.modules():
            vars(module).pop("_diffusers_hook", None)
            vars(module).pop("forward", None)
    plain = sampled(None)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert float((ours - plain).abs().max()) > 1e-3


# --- in a rollout


@pytest.mark.parametrize("negative", ["joint", "none"])
def test_an_interval_of_one_is_the_plain_rollout(sampler: ClipSampler, negative: str) -> None:
    states, full = walked(sampler, CheapSteps(Taylor(interval=1)), (), negative)
    assert full == 4
    same = exact_states(sampler, negative)
    assert all(torch.equal(a, b) for a, b in zip(states, same, strict=True))


def test_nothing_is_left_of_it(sampler: ClipSampler) -> None:
    """No method on the model, also after an error, and each rollout begins anew."""
    transformer: Any = sampler.generator.transformer
    one = exact_states(sampler)
    first, _ = walked(sampler, ONE_FULL, ())
    second, full = walked(sampler, ONE_FULL, ())
    assert full == 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    cache = TaylorCache(transformer, Taylor(), 4)
    with pytest.raises(ZeroDivisionError), cache, cache.call():
        raise ZeroDivisionError
    assert "forward" not in vars(transformer)
    assert all(torch.equal(a, b) for a, b in zip(exact_states(sampler), one, strict=True))


def test_steps_that_the_sweep_needs_are_computed_and_predicted_from(sampler: ClipSampler) -> None:
    """Order 0: step 1 would repeat step 0, and the last step repeats the one before it."""
    states, full = walked(sampler, ONE_FULL, (1,))
    assert full == 3
    sigmas = double_sampler.SIGMAS
    v = [(states[i + 1] - states[i]) / (sigmas[i + 1] - sigmas[i]) for i in range(4)]
    torch.testing.assert_close(v[3], v[2])
    assert float((v[1] - v[0]).abs().max()) > 1e-3


def test_a_change_of_the_batch_is_computed(sampler: ClipSampler) -> None:
    """At the ends of an interval of guidance, where one branch becomes two or two one."""
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    batches: list[int] = []
    transformer: Any = sampler.generator.transformer
    forward = transformer.forward

    def seen(*args: Any, **named: Any) -> Any:
        batches.append(len(args[0]))
        return forward(*args, **named)

    transformer.forward = seen
    try:
        with TaylorCache(transformer, Taylor(interval=99, warm_up=1, order=0), 8) as cache:
            euler_sample(
                sampler.generator,
                condition,
                sampler.noise([7, 8]),
                sigma_table(8).double(),
                Guidance(3.0, interval=(0.3, 0.9)),
                around_step=cache.call,
            )
    finally:
        del transformer.forward
    assert batches == [2, 4, 4, 2]  # the third is the last but one
