"""Parts of a fine-tuning that train at any size, of every kind of checkpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from benchmarks.small_shape import SMALL
from reward_tuning.estimate.finetune_parts import random_finetune_parts
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.trainer import finetune_step
from reward_tuning.runs.training_state import initial_state

BATCH = ClipBatch(0, (3, 5), (0, 0), 5, 32, 32)
CPU = torch.device("cpu")


@pytest.mark.parametrize("channels", [16, 33, 38, 48])
def test_a_step_with_values(channels: int) -> None:
    recipe = load_any_recipe(
        "finetune/stage-4-13312-i2v",
        ["train.autocast=null", "train.gradient_accumulation=1", "train.ema_decay=null"],
        check_files=False,
    )
    assert isinstance(recipe, FinetuneRecipe)
    section = recipe.generator.model_copy(update={"channels": channels})
    recipe = recipe.model_copy(update={"generator": section})
    parts = random_finetune_parts(recipe, SMALL, CPU, BATCH, None)
    assert parts.generator.kind.channels == channels
    state = initial_state(recipe.train, parts.trained, [])
    row = finetune_step(recipe, parts, state, Accelerator(cpu=True))
    assert row["grad_norm"] > 0
    assert row["batches"] == [[2, 5, 32, 32]]


def test_copies_of_a_batch_and_a_held_out_clip() -> None:
    recipe = load_any_recipe(
        "finetune/easyanimate-v5.1-7b-lora", ["generator.dtype=float32"], check_files=False
    )
    assert isinstance(recipe, FinetuneRecipe)
    one = ClipBatch(0, (0,), (0,), 1, 32, 32)
    parts = random_finetune_parts(recipe, SMALL, CPU, replace(BATCH, copies=2), one)
    assert len(parts.encoder(parts.order(7)).latents) == 4
    assert parts.held_out is not None
    assert parts.held_out_encoder is not None
    assert parts.held_out_encoder(parts.held_out(0)).latents.shape[2] == 1
    trained = sum(one.numel() for one in parts.trained.parameters)
    assert trained < sum(one.numel() for one in parts.generator.transformer.parameters())
