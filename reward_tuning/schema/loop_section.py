"""The keys that every training loop has: optimiser, warm-up, checkpoints, rows, samples."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.schema.optimiser_sections import AdamW, OptimiserChoice
from reward_tuning.schema.values import NotNegative, Positive, Section

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class LoopSection(Section):
    """The optimiser and the loop."""

    steps: Positive = Field(description="Optimiser steps")
    batch_size: Positive = Field(description="Clips of a batch, on one device")
    gradient_accumulation: Positive = Field(default=1, description="Batches an optimiser step")
    learning_rate: float = Field(default=1e-4, gt=0.0, description="Of AdamW, after the warm-up")
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant",
        description="The learning rate after the warm-up: constant, or decaying to 0 at the end "
        "of `steps`, along half a cosine or linearly",
    )
    warmup_steps: NotNegative = Field(default=0, description="Steps of linear warm-up from 0")
    optimiser: OptimiserChoice = Field(
        default=AdamW(),
        description="adamw, or adamw-8bit, which keeps the two moments in 8 bits a number "
        "(bitsandbytes); a name, or {kind: name}",
    )
    weight_decay: float = Field(default=0.0, ge=0.0, description="AdamW's decoupled weight decay")
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = Field(
        default=(0.9, 0.999), description="AdamW's decay rates of the two moments"
    )
    adam_eps: float = Field(default=1e-10, gt=0.0, description="AdamW's eps")
    max_grad_norm: float | None = Field(
        default=1.0,
        gt=0.0,
        description="Clip the norm of the whole gradient to this; null = no clipping",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Moving average of what is trained, exported; null = off",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute each transformer block in the backward pass to save memory",
    )
    checkpoint_every: Positive = Field(default=50, description="Steps between two checkpoints")
    keep_checkpoints: Positive = Field(
        default=3, description="Older checkpoints than so many are deleted"
    )
    max_bad_steps: Positive = Field(
        default=5, description="Stop after so many steps in a row with NaN or infinity"
    )
    log_every: Positive = Field(default=1, description="Steps between two lines of metrics.jsonl")
    sample_every: NotNegative | None = Field(
        default=0,
        description="Steps between two sets of sample clips; 0 or null = before and after only",
    )
