"""Mixed precision on the meta device against `torch.autocast` on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from base_model.generator import Condition, Generator
from benchmarks.small_shape import SMALL
from reward_tuning.estimate.autocast import autocast_calls
from reward_tuning.estimate.random_parts import random_generator
from reward_tuning.estimate.step_parts import Parts, watched
from reward_tuning.schema.loading import load_recipe

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.convolution}


class Products(TorchDispatchMode):
    """Counts products by their dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, torch.dtype]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, and count it."""
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in PRODUCTS:
            self.found[str(func._overloadpacket), out.dtype] += 1
        return out


def run(device: str, dtype: str | None, *, checkpoints: bool) -> tuple[Products, Generator]:
    recipe = load_recipe("easyanimate-v5.1-7b-hps", ["generator.dtype=float32"], check_files=False)
    generator = random_generator(recipe.generator, SMALL, torch.device(device))
    generator.transformer.requires_grad_(True)
    if checkpoints:
        generator.transformer.enable_gradient_checkpointing()
    parts, products = Parts(), Products()
    watched(generator, [], parts)
    latents = torch.zeros(generator.latent_shape(1, 5, 32, 32), device=device)
    condition = Condition(torch.zeros(1, *SMALL.text, device=device))
    on_cpu = device == "cpu" and dtype is not None
    real = torch.autocast("cpu", torch.bfloat16) if on_cpu else nullcontext()
    with autocast_calls(parts, generator, None if device == "cpu" else dtype):
        with products, real:
            velocity = generator.velocity(latents, torch.tensor([0.5], device=device), condition)
        with products:
            velocity.square().sum().backward()
    return products, generator


@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_products_have_the_dtypes_of_autocast(checkpoints: bool) -> None:
    real, generator = run("cpu", "bfloat16", checkpoints=checkpoints)
    seen, on_meta = run("meta", "bfloat16", checkpoints=checkpoints)
    assert seen.found == real.found
    assert seen.found["aten.addmm", torch.bfloat16] > 20
    for of in (generator, on_meta):
        grads = [one.grad for one in of.transformer.parameters() if one.grad is not None]
        assert {grad.dtype for grad in grads} == {torch.float32}


def test_without_it_nothing_is_cast() -> None:
    seen, _ = run("meta", None, checkpoints=False)
    assert {dtype for _, dtype in seen.found} == {torch.float32}


def test_the_velocity_is_restored() -> None:
    recipe = load_recipe("easyanimate-v5.1-7b-hps", check_files=False)
    generator = random_generator(recipe.generator, SMALL, torch.device("meta"))
    before = generator.velocity
    with autocast_calls(Parts(), generator, "bfloat16"):
        assert generator.velocity != before
    assert generator.velocity == before
    assert isinstance(torch.zeros(1), Tensor)
