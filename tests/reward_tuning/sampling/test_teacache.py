"""TeaCache: its decisions worked by hand, what a skipped step adds, and what it leaves behind."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from reward_tuning.errors import TuningError
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.sampling.teacache import (
    TeaCacheHooks,
    coefficients_of,
    relative_change,
    rescaled,
)
from reward_tuning.schema.cache_kinds import TeaCache
from tests.goldens import write_checkpoint
from tests.reward_tuning import double_sampler
from tests.reward_tuning.cheap_rollouts import exact_states, walked
from tests.reward_tuning.double_sampler import PROMPTS, SIGMAS

sampler = double_sampler.sampler
IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0)


class Signal(nn.Module):
    """A norm whose output is the tokens alone, as a parameter's device says where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, hidden: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
        return hidden, text, temb, temb


class Block(nn.Module):
    """Adds 10 to the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = Signal()

    def forward(self, hidden: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        return hidden + 10.0, text


class Toy(nn.Module):
    """Two blocks, and a final norm that multiplies by 3."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(1, 1)
        self.transformer_blocks = nn.ModuleList([Block(), Block()])
        self.norm_out = Triple()

    def forward(self, hidden: Tensor) -> Tensor:
        text = temb = hidden
        for block in self.transformer_blocks:
            hidden, text = block(hidden, text, temb)
        found: Tensor = self.norm_out(hidden, temb=temb)
        return found


class Triple(nn.Module):
    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        return hidden * 3.0


def run(
    tokens: list[float], coefficients: tuple[float, ...], threshold: float, **which: bool
) -> tuple[list[float], int]:
    """Outputs of the toy for tokens of one step after the other."""
    toy, found = Toy(), []
    with TeaCacheHooks(toy, coefficients, threshold, len(tokens)) as cache:
        for token in tokens:
            with cache.call(**which):
                found.append(float(toy(torch.full((1, 2, 1), token))[0, 0, 0]))
    return found, cache.full_calls


def test_the_decisions_are_those_worked_by_hand() -> None:
    """A step in full gives (x + 20) * 3; a skipped one x plus the last residual, 2 x + 60.

    Rescaled by 2 d + 0.01, with threshold 0.4:

    step  token  change d        sum             decision
    0     1.00                                   full (first), residual 62
    1     1.10   0.1             0.21            skip: 1.1 + 62
    2     1.21   0.1             0.42            full, residual 62.42, sum 0
    3     1.21   0               0.01            skip: 1.21 + 62.42
    4     1.694  0.4             0.82            full, residual 63.388
    5     1.694  0               0.01            skip: 1.694 + 63.388
    6     1.694  0               0.02            full (last)
    """
    tokens = [1.0, 1.1, 1.21, 1.21, 1.694, 1.694, 1.694]
    found, full = run(tokens, (0.0, 0.0, 0.0, 2.0, 0.01), 0.4)
    assert found == pytest.approx([63.0, 63.1, 63.63, 63.63, 65.082, 65.082, 65.082], abs=1e-4)
    # where a skipped step equals a full one by chance, the count tells them apart
    assert full == 4
    moved, _ = run([1.0, 1.1, 1.1], (0.0, 0.0, 0.0, 2.0, 0.01), 0.4)
    assert moved == pytest.approx([63.0, 63.1, 63.3], abs=1e-4)  # skipped, then full


def test_a_change_counts_from_the_step_before_not_from_the_last_full_one() -> None:
    """1.1 -> 1.21 is a change of 0.1; from 1.0 it would be 0.21, and the sum 0.31."""
    _, full = run([1.0, 1.1, 1.21, 1.21, 1.21], IDENTITY, 0.25)
    assert full == 2  # the sum is 0.1, 0.2, 0.2
    _, full = run([1.0, 1.1, 1.21, 1.331, 1.331], IDENTITY, 0.25)
    assert full == 3  # 0.1, 0.2, 0.3


def test_the_threshold_itself_is_computed() -> None:
    """A sum that reaches it: 0.25 exactly, from 1 to 1.25."""
    assert run([1.0, 1.25, 1.25], IDENTITY, 0.25)[1] == 3
    assert run([1.0, 1.25, 1.25], IDENTITY, 0.2500001)[1] == 2


def test_a_threshold_of_zero_computes_each_step_whatever_the_polynomial_says() -> None:
    assert run([1.0, 1.1, 1.2, 1.3], (0.0, 0.0, 0.0, 0.0, -1.0), 0.0)[1] == 4
    assert run([1.0] * 4, IDENTITY, 1e9, full=True)[1] == 4


def test_the_published_polynomials() -> None:
    """At a change of 0.1, worked by hand from the published figures."""
    seven, twelve = (36, 18, 48), (48, 48, 48)
    at = 0.000107862322 - 0.00419362456 + 0.0306725828 + 0.033161686 + 0.02374758
    assert rescaled(coefficients_of(seven), 0.1) == pytest.approx(at, rel=1e-9)
    at = -0.001047857366 + 0.00833844143 - 0.0078477557 + 0.068798618 + 0.0136149
    assert rescaled(coefficients_of(twelve), 0.1) == pytest.approx(at, rel=1e-9)


def test_an_unknown_shape_is_told_what_to_do() -> None:
    with pytest.raises(TuningError, match=r"5 layers and 7 heads.*_fit.*or use first"):
        coefficients_of((5, 5, 7))


# --- on the golden model


def cached(threshold: float) -> CheapSteps:
    return CheapSteps(TeaCache(threshold=threshold, coefficients=IDENTITY))


@pytest.mark.parametrize("negative", ["detached", "joint", "none"])
def test_a_threshold_of_zero_is_the_plain_rollout(sampler: ClipSampler, negative: str) -> None:
    """To the bit, for two prompts, with an adapter, with and without the negative branch."""
    states, full = walked(sampler, cached(0.0), (), negative)
    # a cheap step runs both branches in one call, and so does the plain rollout of `joint`
    same = exact_states(sampler, "none" if negative == "none" else "joint")
    assert full == 4
    assert all(torch.equal(a, b) for a, b in zip(states, same, strict=True))


@pytest.mark.parametrize("negative", ["joint", "none"])
def test_a_skipped_step_adds_the_residual_of_the_last_full_one(
    sampler: ClipSampler, negative: str
) -> None:
    """From the plain rollout's tokens and final norm, read by hooks, to the projection."""
    transformer: Any = sampler.generator.transformer
    tokens: list[Tensor] = []
    normed: list[Tensor] = []
    outputs: list[Tensor] = []
    hooks = [
        transformer.transformer_blocks[0].register_forward_hook(
            lambda module, args, out: tokens.append(args[0])
        ),
        transformer.norm_out.register_forward_hook(lambda module, args, out: normed.append(out)),
        transformer.register_forward_hook(lambda module, args, out: outputs.append(out[0])),
    ]
    exact_states(sampler, negative)
    skipped = tokens[1] + (normed[0] - tokens[0])
    parts = transformer.proj_out(normed[1]), transformer.proj_out(skipped)
    plain = outputs[1]
    outputs.clear()
    states, full = walked(sampler, cached(1e9), (), negative)
    for hook in hooks:
        hook.remove()
    assert full == 2  # the first and the last of four
    # the projection of each token is only put in its place: the errors are the same numbers
    gap = (outputs[1] - plain).flatten().sort().values
    expected = (parts[1] - parts[0]).detach().flatten().sort().values
    torch.testing.assert_close(gap, expected, atol=1e-10, rtol=0)
    assert float(gap.abs().max()) > 1e-4
    assert len(states) == 5


def test_steps_that_the_sweep_needs_are_computed(sampler: ClipSampler) -> None:
    _, full = walked(sampler, cached(1e9), (2,))
    assert full == 3


def test_nothing_is_left_of_it(sampler: ClipSampler) -> None:
    """No method on the model, also after an error, and each rollout begins anew."""
    transformer: Any = sampler.generator.transformer
    modules = [transformer, *transformer.transformer_blocks, transformer.norm_out]
    one = exact_states(sampler)
    first, _ = walked(sampler, cached(1e9), ())
    second, full = walked(sampler, cached(1e9), ())
    assert full == 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    cache = TeaCacheHooks(transformer, IDENTITY, 1e9, 4)
    with pytest.raises(ZeroDivisionError), cache, cache.call():
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in modules)
    assert all(torch.equal(a, b) for a, b in zip(exact_states(sampler), one, strict=True))


def test_a_change_of_the_batch_is_computed(sampler: ClipSampler) -> None:
    """At the ends of an interval of guidance one branch becomes two, and two one."""
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    guidance = Guidance(3.0, interval=(0.1, 0.9))
    transformer: Any = sampler.generator.transformer
    batches: list[int] = []
    hook = transformer.register_forward_hook(lambda module, args, out: batches.append(len(out[0])))
    with TeaCacheHooks(transformer, IDENTITY, 1e9, 4) as cache:
        euler_sample(
            sampler.generator,
            condition,
            sampler.noise([7, 8]),
            SIGMAS,
            guidance,
            around_step=cache.call,
        )
    hook.remove()
    changes = sum(a != b for a, b in pairwise(batches))
    assert changes > 0
    last = int(batches[-1] == batches[-2])  # always computed, unless it is a change anyway
    assert cache.full_calls == 1 + changes + last


def test_the_bits_on_streamed_blocks(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    found = []
    for memory in ("resident", "block-offload"):
        generator = load_generator(folder, memory=memory, text_encoder=False)  # type: ignore[arg-type]
        draw = torch.Generator().manual_seed(1)
        states = {text: torch.randn(6, 48, generator=draw) for text in ("a", "bad")}
        one = ClipSampler(generator, states, "bad", Guidance(3.0), (5, 16, 16))
        condition = one.condition(["a"])
        with TeaCacheHooks(generator.transformer, IDENTITY, 1e9, 4) as cache:
            found.append(
                euler_sample(
                    generator,
                    condition,
                    one.noise([1]),
                    SIGMAS.float(),
                    one.guidance,
                    around_step=cache.call,
                )
            )
        assert cache.full_calls == 2
    assert torch.equal(*found)


def test_relative_change() -> None:
    """|(1, -2) - (2, -2)| = 1 over |2| + |2|."""
    assert relative_change(torch.tensor([2.0, -2.0]), torch.tensor([1.0, -2.0])) == 0.25
