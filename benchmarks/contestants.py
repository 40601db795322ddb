"""The two loops as things that can make a step: on the same recipe, weights, prompts and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from benchmarks.published_loop import SETTINGS, published_step
from reward_tuning.progress import silent
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.trainer import optimiser_step, start

RECIPE = "tiny-drtune-hps"
SAMPLING_STEPS = 25
LIKE_THE_SCRIPT = (f"sampling.steps={SAMPLING_STEPS}", "train.decoded=first")
"""Its sampler, and the frame that it judges: that of the first latent."""
COMMON = ("train.ema_decay=null",)


@dataclass(frozen=True)
class Arm:
    """One loop with one method.

    Attributes:
        name: In the report.
        published: Whether the restated loop carries it out, or our engine.
        overrides: Of the recipe, `key.sub=value`.
    """

    name: str
    published: bool
    overrides: tuple[str, ...]


def published_arm(strategy: str, active_steps: int) -> Arm:
    """A strategy of the published script in the restated loop."""
    name = "last" if strategy == "last" else f"{strategy}-{active_steps}"
    method = f"method={{kind: easyanimate, strategy: {strategy}, active_steps: {active_steps}}}"
    return Arm(f"published {name}", True, (method, *LIKE_THE_SCRIPT, *SETTINGS))


def same_gradient_arm(active_steps: int) -> Arm:
    """Our engine on the plan of `published_arm("tail", active_steps)`: the same mathematics."""
    published = published_arm("tail", active_steps)
    return Arm(f"ours tail-{active_steps}", False, published.overrides)


def recipe_arm(active_steps: int) -> Arm:
    """Our engine on the shipped recipe's method with K steps; all 25 may be chosen."""
    method = (
        f"method={{kind: drtune, active_steps: {active_steps}, early_stop: false, "
        "smallest_step: 0.0}"
    )
    return Arm(f"ours drtune-{active_steps}", False, (method, *LIKE_THE_SCRIPT))


def at_once(arm: Arm, steps: int) -> Arm:
    """The arm with so many active steps in one call of its sweep."""
    overrides = (*arm.overrides, f"train.steps_at_once={steps}")
    return replace(arm, name=f"{arm.name}, {steps} steps at once", overrides=overrides)


def graphs_kept(arm: Arm, steps: int) -> Arm:
    """The arm with the graphs of so many steps kept from the rollout."""
    overrides = (*arm.overrides, f"train.keep_graphs={steps}")
    return replace(arm, name=f"{arm.name}, graphs kept", overrides=overrides)


def checkpointed(arm: Arm) -> Arm:
    """The arm with each transformer block recomputed in the backward pass."""
    overrides = (*arm.overrides, "train.gradient_checkpointing=true")
    return replace(arm, name=f"{arm.name}, checkpointed", overrides=overrides)


class Contestant:
    """An arm with models, adapter and optimiser of its own.

    Args:
        arm: What to run.
        accelerator: Of one process.
        overrides: Further ones, the last word.
    """

    def __init__(self, arm: Arm, accelerator: Accelerator, overrides: Sequence[str] = ()) -> None:
        self.arm = arm
        self.accelerator = accelerator
        self.recipe: Recipe = load_recipe(RECIPE, [*COMMON, *arm.overrides, *overrides])
        every_prompt = 10**9
        self.parts: RunParts = load_parts(self.recipe, accelerator.device, every_prompt, silent)
        self.state: TrainingState = start(self.recipe, self.parts)

    def step(self) -> None:
        """One update of the adapter, over when the device has done it."""
        if self.arm.published:
            published_step(self.recipe, self.parts, self.state, self.accelerator)
        else:
            optimiser_step(self.recipe, self.parts, self.state, self.accelerator)
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)
