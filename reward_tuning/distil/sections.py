"""The sections of a `reward-tuning distil` recipe: each key, its range, its meaning."""

from __future__ import annotations

from pydantic import Field

from reward_tuning.schema.judge_roles import HeldOutReward
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.values import Frames, Side, Text
from reward_tuning.section import NotNegative, Positive, Section


class TeacherSection(Section):
    """The guided sampler that the adapter learns from."""

    steps_per_phase: Positive = Field(
        default=6,
        description="Guided Euler steps by which the teacher crosses each phase: 6 on 4 student "
        "steps sample about as finely as 18 steps over the whole path",
    )
    guidance_scale: float = Field(
        default=6.0, ge=1.0, description="Classifier-free guidance of the teacher; 1 = none"
    )
    guidance_rescale: float = Field(
        default=0.0, ge=0.0, le=1.0, description="CFG rescale of the teacher; 0 = off"
    )


class StudentSection(Section):
    """How the distilled generator samples, and the clips that it is trained on."""

    steps: int = Field(
        default=4,
        ge=2,
        le=50,
        description="Euler steps of the distilled generator. Sample with exactly so many, and "
        "without guidance",
    )
    frames: Frames = Field(default=49, description="Frames of a clip, 4k + 1")
    height: Side = Field(default=256, description="Pixels, a multiple of 16")
    width: Side = Field(default=256, description="Pixels, a multiple of 16")
    negative_prompt: str = Field(
        default="", description="Text of the teacher's negative guidance branch"
    )


class DistilTrainSection(LoopSection):
    """The optimiser and the loop."""

    checkpoint_every: Positive = Field(default=100, description="Steps between two checkpoints")


class DistilEvaluationSection(Section):
    """The distilled generator against its base, on held-out prompts, with the same noise."""

    prompts: Positive = Field(
        default=32, description="Held-out prompts to evaluate on, from the first on"
    )
    steps: Positive = Field(default=25, description="Euler steps of the base, with guidance")
    few_steps: bool = Field(
        default=True,
        description="Also sample the base with as few steps as the student, with guidance and "
        "without, to see what the distillation adds",
    )
    batch_size: Positive | None = Field(
        default=None, description="Clips sampled at a time; null = train.batch_size"
    )
    held_out_rewards: list[HeldOutReward] = Field(
        default_factory=list, description="Judges that score the clips; none is trained on"
    )
    primary: Text | None = Field(
        default=None,
        description="The metric that decides, named beforehand; null = the first judge",
    )
    clips: NotNegative = Field(
        default=8, description="Clips of each side that are kept, of the first prompts"
    )
