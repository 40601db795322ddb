"""Which guards watch which training."""

from __future__ import annotations

from reward_tuning.runs.guards.clipping import Clipping
from reward_tuning.runs.guards.guard import Guard
from reward_tuning.runs.guards.idle import Idle
from reward_tuning.runs.guards.non_finite import NonFinite
from reward_tuning.runs.guards.vanishing import Vanishing
from reward_tuning.schema.loop_section import LoopSection


def finetune_guards(train: LoopSection) -> list[Guard]:
    """Guards of a fine-tuning, in the order of their warnings."""
    return [NonFinite(train.max_bad_steps), Idle()]


def reward_guards(train: LoopSection) -> list[Guard]:
    """Guards of a reward tuning: its gradient comes through a chain that may vanish or explode."""
    return [
        NonFinite(train.max_bad_steps),
        Vanishing(),
        Clipping(train.max_grad_norm),
        Idle(),
    ]
