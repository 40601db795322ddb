"""The keys of every training loop: optimiser, warm-up, checkpoints, rows, samples."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.schema.optimiser_sections import AdamW, OptimiserChoice
from reward_tuning.section import NotNegative, Positive, Section

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class LoopSection(Section):
    """The optimiser and the loop."""

    steps: Positive = Field(description="Optimiser steps")
    batch_size: Positive = Field(description="Clips in a batch, on each device")
    gradient_accumulation: Positive = Field(
        default=1, description="Batches in an optimiser step, on each device"
    )
    learning_rate: float = Field(
        default=1e-4, gt=0.0, description="Learning rate after the warm-up"
    )
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant",
        description="Learning rate after the warm-up: constant, or decaying to 0 at the end of "
        "`steps`, linearly or along half a cosine",
    )
    warmup_steps: NotNegative = Field(default=0, description="Steps of linear warm-up from 0")
    optimiser: OptimiserChoice = Field(
        default=AdamW(),
        description="The optimiser: its kind alone (`optimiser: adamw-8bit`), or a section",
    )
    weight_decay: float = Field(default=0.0, ge=0.0, description="Decoupled weight decay")
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = Field(
        default=(0.9, 0.999), description="AdamW's decay rates of its two moments"
    )
    adam_eps: float = Field(default=1e-10, gt=0.0, description="AdamW's eps")
    max_grad_norm: float | None = Field(
        default=1.0,
        gt=0.0,
        description="Clip the norm of the whole gradient to this value; null = no clipping",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Decay of the exported moving average of the trained weights; null = off",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute each transformer block in the backward pass to save memory",
    )
    checkpoint_every: Positive = Field(default=50, description="Steps between two checkpoints")
    keep_checkpoints: Positive = Field(
        default=3, description="Checkpoints to keep; older ones are deleted"
    )
    max_bad_steps: Positive = Field(
        default=5, description="Stop after this many steps in a row with NaN or infinity"
    )
    log_every: Positive = Field(default=1, description="Steps between two rows of metrics.jsonl")
    sample_every: NotNegative | None = Field(
        default=0,
        description="Steps between two sets of sample clips; 0 or null = only before and after",
    )
