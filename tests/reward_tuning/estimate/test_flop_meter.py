"""The meter against torch's own counter."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from base_model.generator import Condition
from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate.flop_meter import FlopMeter
from reward_tuning.estimate.random_parts import random_generator
from reward_tuning.schema.loading import load_recipe


def test_the_meter_agrees_with_torchs_counter() -> None:
    """Forward and backward of the transformer, but for the fused kernel's second score matrix."""
    recipe = load_recipe(
        "easyanimate-v5.1-7b-hps", [*SMALL_CLIP, "generator.dtype=float32"], check_files=False
    )
    generator = random_generator(recipe.generator, SMALL, torch.device("meta"))
    x = torch.empty(generator.latent_shape(1, 1, 32, 32), device="meta", requires_grad=True)
    condition = Condition(torch.empty(1, *SMALL.text, device="meta"))
    with FlopMeter() as ours:
        generator.velocity(x, 0.5, condition).sum().backward()
    with FlopCounterMode(display=False) as theirs:
        generator.velocity(x, 0.5, condition).sum().backward()
    assert ours.total == theirs.get_total_flops() > 0
    assert {what[2] for what in ours.flops} == {"forward", "backward"}


def test_values_that_a_meta_tensor_lacks_are_answered_and_written_down() -> None:
    x = torch.empty(3, device="meta")
    with FlopMeter() as meter:
        assert float(x.sum()) == 0.0
        assert bool(x.isfinite().all())
        assert x.cpu().tolist() == [0.0, 0.0, 0.0]
    assert sum(meter.reads.values()) == 3


def test_an_operator_made_of_others_is_counted_by_its_products() -> None:
    a, b = torch.empty(2, 5, 7, device="meta"), torch.empty(7, 3, device="meta")
    with FlopMeter() as meter:
        torch.matmul(a, b)
    assert meter.total == 2 * 2 * 5 * 7 * 3
