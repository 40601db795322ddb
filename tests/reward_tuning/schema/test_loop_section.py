"""The keys that both kinds of training share: ranges and defaults."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reward_tuning.finetune.sections import FinetuneTrainSection
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.sections import TrainSection

GIVEN = {"steps": 10, "batch_size": 2}


@pytest.mark.parametrize("section", [TrainSection, FinetuneTrainSection])
def test_both_trainings_have_the_keys(section: type[LoopSection]) -> None:
    assert issubclass(section, LoopSection)
    assert section(**GIVEN).max_bad_steps == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"lr_schedule": "polynomial"},
        {"warmup_steps": -1},
        {"betas": (0.9, 1.0)},
        {"betas": (0.9,)},
        {"adam_eps": 0.0},
        {"max_grad_norm": 0.0},
        {"ema_decay": 1.0},
        {"checkpoint_every": 0},
        {"keep_checkpoints": 0},
        {"max_bad_steps": 0},
        {"log_every": 0},
        {"sample_every": -1},
        {"gradient_accumulation": True},  # a switch is no number
        {"learning_rte": 1e-3},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoopSection(**{**GIVEN, **wrong})


def test_lists_and_nulls_of_yaml() -> None:
    section = LoopSection(
        **GIVEN, betas=[0.8, 0.95], max_grad_norm=None, ema_decay=None, sample_every=None
    )
    assert section.betas == (0.8, 0.95)
    assert (section.max_grad_norm, section.ema_decay, section.sample_every) == (None, None, None)
